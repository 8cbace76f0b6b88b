//! Somebody wants to see every flow that is open: a channel comes in; the flows go out through it as bytes of records, some
//! each round, so that no round takes long. They pass the same rules, sample and privacy as records do, and are neither
//! counted nor queued.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Message, Pipeline, ask::Asker};
use crate::{
    capture::{Clock, KernelTime},
    flow::{Flow, FlowEvent, Stamp, What},
    record::Limits,
};

/// Flows in one round.
const MOST: usize = 128;

/// Some open flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFlows {
    /// They are older than flowtel: when they began is not known, and the time of their records means nothing.
    pub older: bool,
    /// An `ExportLogsServiceRequest`. The time of each record is when its flow began.
    pub request: Bytes,
}

/// Who wants to see them, and how far it got.
#[derive(Debug)]
pub(super) struct Onlooker {
    to: mpsc::Sender<OpenFlows>,
    rest: Rest,
}

/// What is still to be shown.
#[derive(Debug)]
enum Rest {
    /// Flows whose begin was seen, from this place on.
    Seen(u32),
    /// Older ones, by their cookies.
    Older(Vec<u64>),
}

// === impl Asker

impl Asker {
    /// Has all open flows sent, some at a time. The channel is closed behind the last one, or where the thread is gone.
    pub fn open_flows(&self, to: mpsc::Sender<OpenFlows>) {
        // Fails where the thread is gone, and then the channel is dropped.
        let _ = self.0.send(Message::Onlook(Onlooker { to, rest: Rest::Seen(0) }));
    }
}

// === impl Pipeline

impl Pipeline {
    /// Shows some of the open flows to everybody who has room for them. Who has seen all, or is gone, leaves the list.
    pub(super) fn show_open(&mut self, onlookers: &mut Vec<Onlooker>) {
        onlookers.retain_mut(|onlooker| self.show_some(onlooker));
    }

    /// Returns whether there are more.
    fn show_some(&mut self, onlooker: &mut Onlooker) -> bool {
        let permit = match onlooker.to.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Full(())) => return true,
            Err(mpsc::error::TrySendError::Closed(())) => return false,
        };
        let (older, flows, more) = match &mut onlooker.rest {
            Rest::Seen(from) => {
                let (flows, next) = self.flows.open_from(*from, MOST);
                *from = next;
                if next == 0 {
                    onlooker.rest = Rest::Older(self.flows.older_cookies());
                }
                (false, flows, true)
            }
            Rest::Older(cookies) => {
                let now = KernelTime::now();
                let some = cookies.split_off(cookies.len().saturating_sub(MOST));
                let flows = some.into_iter().filter_map(|cookie| Some((self.flows.older_flow(cookie)?, now)));
                (true, flows.collect(), !cookies.is_empty())
            }
        };
        if let Some(request) = self.records_of(flows) {
            permit.send(OpenFlows { older, request });
        }
        more
    }

    /// Records of flows, each with when it began.
    fn records_of(&mut self, flows: Vec<(Flow, KernelTime)>) -> Option<Bytes> {
        let clock = Clock::measure();
        let observed = clock.wall(KernelTime::now());
        let limits = Limits { records: u32::MAX, bytes: usize::MAX, age: Duration::ZERO };
        let mut encoder = self.encoder.beside(limits);
        for (flow, time) in flows {
            let at = Stamp { time, wall: clock.wall(time), observed };
            let event = FlowEvent { at, flow, what: What::Open };
            let enriched = self.enricher.enrich(&event);
            if self.select.shows(&enriched) {
                // It seals at no limit.
                let _ = encoder.write(&enriched);
            }
        }
        encoder.seal().map(|batch| batch.bytes)
    }
}
