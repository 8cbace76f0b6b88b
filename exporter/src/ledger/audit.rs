//! What the audit of open flows counts: whether flows that count as open are among the kernel's sockets.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Counter, Ledger};

/// The audit's counts. Looks: there + missing + unsure.
#[derive(Debug, Default)]
pub struct Audit {
    /// Looks that found the flow's socket.
    pub there: Counter,
    /// Looks that did not: a census followed.
    pub missing: Counter,
    /// Looks that say nothing: no way into the flow's network namespace, or the kernel didn't answer.
    pub unsure: Counter,
    /// Censuses: all flows of a namespace compared with its whole list.
    pub censuses: Counter,
    /// Censuses that were given up, because the list did not come whole.
    pub censuses_broken: Counter,
    /// Flows that were over, and whose end nobody had reported. Each has got its end record: over = recovered + unseen.
    pub over: Counter,
    /// Flows that seemed so, and whose end came before that was believed.
    pub reported: Counter,
    /// Of those that were over, ends that were lost with other events: a gap had told.
    pub recovered: Counter,
    /// Of those that were over, ends that the programs never reported: another program took the callback away.
    pub unseen: Counter,
    /// Ends that were reported after all, after the audit's: not recorded again.
    pub late: Counter,
    /// Accepted connections whose callbacks another program has taken away as they began (the kernel's own count).
    pub callbacks_taken: Counter,
    /// Sockets that were asked for their states again, because another program had overwritten the flags (likewise).
    pub asked_again: Counter,
    /// Whether ends go unseen.
    deaf: AtomicBool,
}

// === impl Audit

impl Audit {
    /// Looks by what they said.
    pub fn looks(&self) -> [(&'static str, u64); 3] {
        [("there", self.there.get()), ("missing", self.missing.get()), ("unsure", self.unsure.get())]
    }

    /// Notes whether ends go unseen.
    pub fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Relaxed);
    }

    /// Whether ends go unseen.
    pub fn is_deaf(&self) -> bool {
        self.deaf.load(Relaxed)
    }
}

// === impl Ledger

impl Ledger {
    /// Counts a flow that is over and whose end nobody reported. As many as events were lost may have been among those.
    pub fn ended_unreported(&self) {
        let lost = self.kernel.close.ring_full.get() + self.kernel.unknown.get();
        let counter = if self.audit.recovered.get() < lost { &self.audit.recovered } else { &self.audit.unseen };
        counter.add(1);
    }
}
