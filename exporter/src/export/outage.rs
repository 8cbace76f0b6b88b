//! Whether the receiver takes records: verdicts go in; when to try again, how many at once, and few log lines come out.

use std::time::Duration;

use tokio::time::Instant;

use super::{backoff::Backoff, verdict::Reason};
use crate::queue::Queue;

/// The least time between two log lines of a kind.
const QUIET: Duration = Duration::from_secs(10);

/// What is known of the receiver.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: String,
    backoff: Backoff,
    outage: Option<Outage>,
    lines: Seldom,
    /// The receiver has judged a request before.
    answered: bool,
}

/// The time from the first request that is to be retried to the next answer that isn't.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// Probes that failed, the request that began it included.
    failures: u32,
    /// When the next probe goes out.
    next: Instant,
    /// The receiver asked for silence till then.
    not_before: Instant,
    announced: bool,
}

/// Lets something pass once in [`QUIET`], and counts what it held back.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Option<Instant>,
    held: u64,
}

// === impl Link

impl Link {
    pub(super) fn new(endpoint: &str, backoff: Backoff) -> Self {
        Self { endpoint: endpoint.into(), backoff, outage: None, lines: Seldom::default(), answered: false }
    }

    pub(super) fn is_down(&self) -> bool {
        self.outage.is_some()
    }

    /// When the next request may go out; `None` means now.
    pub(super) fn next(&self) -> Option<Instant> {
        self.outage.as_ref().map(|outage| outage.next)
    }

    /// The receiver judged a request: it is there.
    pub(super) fn up(&mut self, queue: &Queue) {
        let first = !std::mem::replace(&mut self.answered, true);
        let outage = self.outage.take();
        if first && outage.as_ref().is_none_or(|outage| !outage.announced) {
            tracing::info!(endpoint = self.endpoint, "the receiver answers: records are delivered");
        }
        let Some(outage) = outage else { return };
        if outage.announced {
            tracing::info!(
                endpoint = self.endpoint,
                down_for = %seconds(outage.since.elapsed()),
                records_waiting = queue.waiting().records,
                "the receiver is back"
            );
        }
    }

    /// A request is to be retried. `probe` tells whether it was sent to find out, or was in flight when the outage began.
    pub(super) fn down(&mut self, probe: bool, after: Option<Duration>, reason: &Reason, queue: &Queue) {
        let now = Instant::now();
        let outage =
            self.outage.get_or_insert(Outage { since: now, failures: 0, next: now, not_before: now, announced: false });
        // Requests that failed together are one failure.
        if probe || outage.failures == 0 {
            outage.failures = outage.failures.saturating_add(1);
            outage.next = now + self.backoff.wait(outage.failures, None);
        }
        outage.not_before = outage.not_before.max(now + self.backoff.silence(after));
        outage.next = outage.next.max(outage.not_before);
        if !outage.announced && self.lines.pass().is_some() {
            outage.announced = true;
            tracing::warn!(
                endpoint = self.endpoint,
                %reason,
                "the receiver takes no records; they wait in the queue, up to {}; retrying",
                bytesize::ByteSize(queue.max_bytes()).display().iec()
            );
        }
    }

    /// flowtel is about to stop: the next probe goes out as soon as the receiver allows, and waits begin small again.
    pub(super) fn hurry(&mut self) {
        if let Some(outage) = &mut self.outage {
            outage.next = outage.not_before;
            outage.failures = 1;
        }
    }
}

// === impl Seldom

impl Seldom {
    /// How many were held back since the last one that passed; `None` when this one is held back too.
    pub(super) fn pass(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.held += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.held))
    }
}

fn seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_many_lines_one_in_ten_seconds_passes_and_knows_how_many_did_not() {
        let mut lines = Seldom::default();
        assert_eq!(lines.pass(), Some(0));
        assert!((0..7).all(|_| lines.pass().is_none()));
        tokio::time::advance(QUIET).await;
        assert_eq!(lines.pass(), Some(7));
        assert_eq!(lines.pass(), None);
    }
}
