//! The ledger's counts in, [`Gap`]s out: what the reader of the stream is told of losses. It runs on the capture thread,
//! about once a second, and costs nothing while a record is made.
//!
//! - Of each way to lose something (a line of [`LOSSES`]) at most one gap record is made in [`QUIET`]. It tells all that was
//!   lost since the one before, and since when: the last time that nothing more had been lost.
//! - While the queue has no room none is made, for it would push out what it tells of, or be pushed out: the next one
//!   tells of it. Should one be lost all the same, its successor's total shows what it had told.
//! - A gap record that is lost is a lost record, which is told by a gap record. So that this does not go on for ever, a
//!   loss of no more than gap records themselves is told later each time, up to once in [`LONGEST`].
//! - Ends that were lost and that the audit found are told by the next record of their kind, or by one that tells of nothing else.
//! - At the end all that is left is told. What is lost after that, while the queue is emptied, is in the closing balance.
//!
//! It must never make a record about a loss twice, or leave one untold for good while the program runs.

use std::{sync::Arc, time::Duration};

use crate::{
    capture::{KernelTime, WallTime},
    flow::{BootId, Stamp},
    ledger::{LOSSES, Ledger, Loss},
};

/// The least time between two gap records of a kind.
pub const QUIET: Duration = Duration::from_secs(10);
/// The longest that a loss waits to be told, where it may be a gap record's own.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// Something is known to be missing from the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// When it is told.
    pub at: Stamp,
    /// Id of the record that tells it: from the boot, this instance's start, the kind of loss and its number.
    pub uid: u128,
    /// Where on the way it was lost.
    pub stage: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What happened to what, for people.
    pub words: &'static str,
    /// How much: events of the kernel, or records.
    pub events: u64,
    /// How much was lost so since flowtel started, this included.
    pub total: u64,
    /// How many ends of flows, lost so before, have come back since the last record of this kind.
    pub recovered: u64,
    /// The last time at which for certain nothing more had been lost.
    pub since: WallTime,
}

/// A look at the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// When the counts began to be read.
    pub from: WallTime,
    /// When they had been read: by the kernel's clock.
    pub time: KernelTime,
    /// And by the wall clock.
    pub wall: WallTime,
    /// The queue has room for a record.
    pub room: bool,
    /// Nothing comes after this.
    pub last: bool,
}

/// The stage.
#[derive(Debug)]
pub struct Gaps {
    ledger: Arc<Ledger>,
    boot: BootId,
    start: KernelTime,
    /// Gap records made.
    made: u64,
    kinds: [Known; LOSSES.len()],
}

/// What is known of one kind of loss.
#[derive(Debug, Clone, Copy)]
struct Known {
    seen: u64,
    told: u64,
    recovered: u64,
    since: WallTime,
    last: Option<Told>,
    /// How long a loss waits that may be a gap record's own.
    wait: Duration,
    /// When it last grew, and what the count was before, from the log line that says so to the one that says it is over.
    growing: Option<(KernelTime, u64)>,
}

/// When a gap record was made, and how many had been made before it.
#[derive(Debug, Clone, Copy)]
struct Told {
    at: KernelTime,
    before: u64,
}

// === impl Gaps

impl Gaps {
    /// A stage that knows of no loss, of an instance that started then, before it watched for anything.
    pub fn new(boot: BootId, start: KernelTime, wall: WallTime, ledger: Arc<Ledger>) -> Self {
        let known = Known { seen: 0, told: 0, recovered: 0, since: wall, last: None, wait: QUIET, growing: None };
        Self { ledger, boot, start, made: 0, kinds: [known; LOSSES.len()] }
    }

    /// Looks at the ledger and gives out what is to be told now.
    pub fn look(&mut self, look: Look, mut out: impl FnMut(Gap)) {
        let Look { from, time: now, wall, room, last } = look;
        for (index, loss) in LOSSES.iter().enumerate() {
            let Some(known) = self.kinds.get_mut(index) else { continue };
            let total = loss.count(&self.ledger);
            known.log(loss, total, now);
            known.seen = total;
            let events = total.saturating_sub(known.told);
            let recovered = loss.recovered(&self.ledger);
            let back = recovered.saturating_sub(known.recovered);
            if events == 0 {
                known.since = from;
                if back == 0 {
                    continue;
                }
            }
            let own = events > 0 && known.last.is_some_and(|told| events <= self.made - told.before);
            let wait = if own { known.wait } else { QUIET };
            let due = known.last.is_none_or(|told| u128::from(now.since(told.at)) >= wait.as_nanos());
            if !(last || due && room) {
                continue;
            }
            let at = Stamp { time: now, wall, observed: wall };
            let uid = uid(&self.boot, self.start, loss, self.made);
            let Loss { stage, reason, words, .. } = *loss;
            let gap = Gap { at, uid, stage, reason, words, events, total, recovered: back, since: known.since };
            known.wait = if own { (2 * known.wait).min(LONGEST) } else { QUIET };
            known.told = total;
            known.recovered = recovered;
            known.since = from;
            known.last = Some(Told { at: now, before: self.made });
            self.made += 1;
            self.ledger.gaps.made.add(1);
            self.ledger.gaps.told.add(events);
            out(gap);
        }
    }
}

// === impl Known

impl Known {
    /// A line when losses begin, and one when there were none for a while.
    fn log(&mut self, loss: &Loss, total: u64, now: KernelTime) {
        let Loss { stage, reason, words, .. } = loss;
        match self.growing {
            None if total > self.seen => {
                tracing::warn!(stage, reason, count = total - self.seen, "{words}: a gap record tells how many");
                self.growing = Some((now, self.seen));
            }
            Some((_, before)) if total > self.seen => self.growing = Some((now, before)),
            Some((last, before)) if u128::from(now.since(last)) >= QUIET.as_nanos() => {
                tracing::info!(stage, reason, count = total - before, "no more {words}");
                self.growing = None;
            }
            _ => {}
        }
    }
}

fn uid(boot: &BootId, start: KernelTime, loss: &Loss, sequence: u64) -> u128 {
    let mut bytes = b"gap".to_vec();
    bytes.extend(start.0.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(loss.stage.as_bytes());
    bytes.push(0);
    bytes.extend(loss.reason.as_bytes());
    boot.hash(&bytes)
}

#[cfg(test)]
mod tests;
