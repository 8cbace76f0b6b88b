//! Which counts of the ledger are losses, and in what words the stream is told of each. Whoever adds a count of something
//! that is lost adds a line here: the gap records follow from it.
//!
//! What costs a record an attribute only, for want of room in a cache (names, executables), is a limit of that cache and
//! no loss; what the kernel saw and flowtel did not get is one, whatever it would have told.

use super::{Kind, Ledger};

/// A way to lose something.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Where on the way: a room of the program, or the kernel. Stands in records.
    pub stage: &'static str,
    /// Why. Stands in records.
    pub reason: &'static str,
    /// What happened to what, for people.
    pub words: &'static str,
    count: fn(&Ledger) -> u64,
}

/// All of them, in the order of the data's way.
pub const LOSSES: [Loss; 16] = [
    Loss { stage: "kernel", reason: "flows_ring_full", words: "events lost", count: Ledger::flows_ring_full },
    Loss { stage: "kernel", reason: "callbacks_taken", words: "ends not reported", count: |l| l.audit.unseen.get() },
    Loss { stage: "kernel", reason: "owners_ring_full", words: "events lost", count: owners_ring },
    Loss { stage: "kernel", reason: "execs_ring_full", words: "events lost", count: execs_ring },
    Loss {
        stage: "kernel",
        reason: "answers_ring_full",
        words: "answers lost",
        count: |l| l.kernel.dns.ring_full.get(),
    },
    Loss {
        stage: "kernel",
        reason: "hellos_ring_full",
        words: "hellos lost",
        count: |l| l.kernel.hello.ring_full.get(),
    },
    Loss {
        stage: "kernel",
        reason: "queries_pushed_out",
        words: "unanswered questions forgotten",
        count: |l| l.kernel.dns.limited.get(),
    },
    Loss { stage: "kernel", reason: "rate_limited", words: "events left out", count: limited },
    Loss {
        stage: "capture",
        reason: "unknown_kind",
        words: "events not understood",
        count: |l| l.kernel.unknown.get(),
    },
    Loss { stage: "flow", reason: "attempts_full", words: "attempts forgotten", count: attempts },
    Loss { stage: "flow", reason: "flows_full", words: "flows forgotten", count: |l| l.flows_forgotten.get() },
    Loss { stage: "queue", reason: "queue_full", words: "records lost", count: |l| l.records.queue_full.get() },
    Loss { stage: "queue", reason: "corrupt", words: "records lost", count: |l| l.records.corrupt.get() },
    Loss { stage: "export", reason: "rejected", words: "records rejected", count: |l| l.records.rejected.get() },
    Loss { stage: "export", reason: "write_failed", words: "records lost", count: |l| l.records.write_failed.get() },
    Loss { stage: "export", reason: "undelivered", words: "records lost", count: |l| l.records.undelivered.get() },
];

impl Loss {
    /// How many there were so far.
    pub fn count(&self, ledger: &Ledger) -> u64 {
        (self.count)(ledger)
    }

    /// How many ends of flows that were lost so the audit has found since.
    pub fn recovered(&self, ledger: &Ledger) -> u64 {
        match self.reason {
            "flows_ring_full" => ledger.audit.recovered.get(),
            "callbacks_taken" => ledger.audit.unseen.get(),
            _ => 0,
        }
    }
}

fn sum<const N: usize>(kinds: [&Kind; N], count: impl Fn(&Kind) -> u64) -> u64 {
    kinds.into_iter().map(count).sum()
}

impl Ledger {
    /// Events for which the ring of flows had no room.
    pub fn flows_ring_full(&self) -> u64 {
        let k = &self.kernel;
        let begins = [&k.established, &k.syn_again, &k.used_again, &k.netns];
        let others = [&k.close, &k.fin, &k.reset, &k.refused, &k.update];
        begins.into_iter().chain(others).map(|kind| kind.ring_full.get()).sum()
    }
}

fn owners_ring(ledger: &Ledger) -> u64 {
    let k = &ledger.kernel;
    sum([&k.connect, &k.accept, &k.bind, &k.listen, &k.unlisten, &k.release], |kind| kind.ring_full.get())
}

fn execs_ring(ledger: &Ledger) -> u64 {
    let k = &ledger.kernel;
    sum([&k.exec, &k.fork], |kind| kind.ring_full.get())
}

fn limited(ledger: &Ledger) -> u64 {
    // Those of name servers have a line of their own.
    let all: u64 = ledger.kernel.kinds().iter().map(|(_, kind)| kind.limited.get()).sum();
    all.saturating_sub(ledger.kernel.dns.limited.get())
}

fn attempts(ledger: &Ledger) -> u64 {
    ledger.kernel.kinds().iter().map(|(_, kind)| kind.evicted.get()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_of_every_kind_of_event_and_record_is_counted_once() {
        let ledger = Ledger::default();
        let mut number = 0_u64;
        // Numbers of 50 bits as if drawn: what is counted twice, or not at all, changes the sum.
        let mut next = || {
            number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
            number.wrapping_mul(number | 1) >> 14
        };
        let kinds = ledger.kernel.kinds();
        // What user space found by itself went through no ring.
        let rings = kinds.iter().filter(|(name, _)| !["found", "gone"].contains(name)).map(|(_, kind)| &kind.ring_full);
        let of_kinds = rings.chain(kinds.iter().flat_map(|(_, kind)| [&kind.limited, &kind.evicted]));
        let r = &ledger.records;
        let of_records = [&r.queue_full, &r.corrupt, &r.rejected, &r.write_failed, &r.undelivered];
        let all: u64 = of_kinds
            .chain(of_records)
            .chain([&ledger.flows_forgotten, &ledger.kernel.unknown, &ledger.audit.unseen])
            .map(|counter| {
                counter.set(next());
                counter.get()
            })
            .sum();
        assert_eq!(LOSSES.iter().map(|loss| loss.count(&ledger)).sum::<u64>(), all);
        let named = |i: usize| (LOSSES[i].stage, LOSSES[i].reason);
        assert!((0..LOSSES.len()).all(|i| (0..i).all(|j| named(i) != named(j))));
    }

    #[test]
    fn every_record_that_is_not_delivered_has_a_name() {
        // `waiting` knows each fate of a record; what is neither good nor folded is a loss.
        let ledger = Ledger::default();
        let r = &ledger.records;
        for counter in [&r.queue_full, &r.corrupt, &r.rejected, &r.write_failed, &r.undelivered] {
            counter.add(1);
            r.made.add(1);
        }
        assert_eq!(r.waiting(), 0);
        assert_eq!(ledger.lost(), (5, 5));
        assert!(ledger.to_string().contains("losses: 5 counted = 0 told in 0 gap records + 5 untold"), "{ledger}");
    }
}
