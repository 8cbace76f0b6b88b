//! Batches out of the queue, requests to the receiver, verdicts into the ledger. Up to `concurrency` requests are in
//! flight, the oldest batch first; while the receiver is down a single one is, the probe, after a wait.
//!
//! One task owns all of the state, so there is no moment at which two workers disagree about the receiver. Each request
//! runs as a task of its own and brings its lease back; a lease that gets lost on the way gives its batch back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    backoff::Backoff,
    build::Otlp,
    outage::{Link, Seldom},
    split,
    state::State,
    verdict::{Reason, Verdict},
};
use crate::{
    ledger::Ledger,
    queue::{Lease, Queue},
};

/// How long a batch that was refused with a status of `export.hold` waits for the next try: a person has to mend something.
const HELD: Duration = Duration::from_secs(60);

/// The requests to one receiver.
pub(super) struct Pool {
    otlp: Arc<Otlp>,
    concurrency: usize,
    queue: Queue,
    ledger: Arc<Ledger>,
    link: Link,
    state: Arc<State>,
    rejections: Seldom,
    partials: Seldom,
    flights: JoinSet<Landed>,
    /// Statuses of refusals that are no end (`export.hold`).
    hold: Vec<u16>,
}

/// A request that came to its end.
struct Landed {
    lease: Lease,
    verdict: Verdict,
    /// It went out while the receiver was down.
    probe: bool,
}

// === impl Pool

impl Pool {
    pub(super) fn new(
        otlp: Arc<Otlp>,
        concurrency: usize,
        retry: Backoff,
        queue: Queue,
        ledger: Arc<Ledger>,
        state: Arc<State>,
    ) -> Self {
        Self {
            link: Link::new(otlp.endpoint(), retry),
            state,
            otlp,
            concurrency,
            queue,
            ledger,
            rejections: Seldom::default(),
            partials: Seldom::default(),
            flights: JoinSet::new(),
            hold: Vec::new(),
        }
    }

    /// Keeps batches that are refused with one of these statuses.
    pub(super) fn holding(self, hold: Vec<u16>) -> Self {
        Self { hold, ..self }
    }

    /// Delivers until the queue is closed and empty, or until `retired` says so and what is in flight has landed.
    pub(super) async fn run(mut self, mut retired: watch::Receiver<bool>) {
        let mut closing = false;
        let mut retiring = false;
        loop {
            if retiring && self.flights.is_empty() {
                return;
            }
            let room = if self.link.is_down() { 1 } else { self.concurrency };
            let next = self.link.next();
            tokio::select! {
                // What has landed decides what may go out.
                biased;
                Some(landed) = self.flights.join_next() => self.land(landed),
                // Should nobody hold the other end any more, nobody will ask either.
                Ok(_) = retired.wait_for(|retired| *retired), if !retiring => retiring = true,
                () = self.queue.closed(), if !closing => {
                    closing = true;
                    self.link.hurry();
                }
                lease = async {
                    if let Some(next) = next {
                        tokio::time::sleep_until(next).await;
                    }
                    self.queue.lease().await
                }, if !retiring && self.flights.len() < room => match lease {
                    Some(lease) => self.launch(lease),
                    None => return,
                },
            }
        }
    }

    fn launch(&mut self, lease: Lease) {
        let (otlp, probe) = (self.otlp.clone(), self.link.is_down());
        self.flights.spawn(async move {
            let verdict = otlp.send(lease.batch().bytes.clone()).await;
            Landed { lease, verdict, probe }
        });
    }

    fn land(&mut self, landed: Result<Landed, JoinError>) {
        let Landed { lease, verdict, probe } = match landed {
            Ok(landed) => landed,
            Err(error) => {
                // The task panicked, and its lease gave the batch back. Trying it at full speed would burn a core.
                tracing::error!(%error, "a request ended abnormally; its batch is tried again");
                self.down(true, None, &Reason::new("a request ended abnormally", None));
                return;
            }
        };
        match verdict {
            Verdict::Retry { after, reason } => {
                lease.give_back();
                self.down(probe, after, &reason);
                return;
            }
            Verdict::Rejected { reason } if reason.status.is_some_and(|status| self.hold.contains(&status)) => {
                lease.give_back();
                self.down(probe, Some(HELD), &reason);
                return;
            }
            Verdict::Delivered => self.ledger.records.delivered.add(lease.done().into()),
            Verdict::Partial { rejected, message } => self.partial(lease, rejected, &message),
            Verdict::Rejected { reason } => self.rejected(lease, &reason),
            Verdict::TooLarge { reason } => match split(lease.batch()) {
                Some(halves) => lease.replace(halves),
                None => self.rejected(lease, &reason),
            },
        }
        self.link.up(&self.queue);
        self.state.up();
    }

    fn down(&mut self, probe: bool, after: Option<Duration>, reason: &Reason) {
        self.state.down(reason);
        self.link.down(probe, after, reason, &self.queue);
    }

    fn partial(&mut self, lease: Lease, rejected: u64, message: &str) {
        let records = u64::from(lease.done());
        // A receiver can't refuse more than it was sent, whatever it says.
        let rejected = rejected.min(records);
        self.ledger.records.rejected.add(rejected);
        self.ledger.records.delivered.add(records - rejected);
        if let Some(held) = self.partials.pass() {
            tracing::warn!(
                endpoint = self.otlp.endpoint(),
                rejected,
                of = records,
                message,
                more_such_answers = held,
                "the receiver has something to say about a batch it took; what it rejected is not sent again"
            );
        }
    }

    fn rejected(&mut self, lease: Lease, reason: &Reason) {
        let records = u64::from(lease.done());
        self.ledger.records.rejected.add(records);
        self.state.refused(reason);
        if let Some(held) = self.rejections.pass() {
            tracing::error!(
                endpoint = self.otlp.endpoint(),
                records,
                %reason,
                more_such_answers = held,
                "the receiver rejected a batch for good, though it may have kept some of it; it is not sent again"
            );
        }
    }
}
