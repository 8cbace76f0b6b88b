//! The audit on the capture thread: what it finds goes to the flow stage; whether ends go unseen goes to the log, with the ids
//! of the programs that may be the reason.

use std::time::Duration;

use crate::{
    capture::{
        KernelTime, Neighbours,
        audit::{Audit, Deafness, Lookouts, Round, deafness::News},
        neighbours,
        snapshot::Pending,
    },
    flow::Flows,
    ledger::Ledger,
};

/// The audit, once its ways into the network namespaces are there.
pub struct Watch {
    pending: Option<Pending<Lookouts>>,
    audit: Option<Audit<Lookouts>>,
    every: Duration,
    deafness: Deafness,
    neighbours: Neighbours,
}

// === impl Watch

impl Watch {
    /// An audit with a sample `every` so long, from when `pending` is there. `neighbours` are the other programs.
    pub fn new(pending: Pending<Lookouts>, every: Duration, neighbours: Neighbours) -> Self {
        Self { pending: Some(pending), audit: None, every, deafness: Deafness::default(), neighbours }
    }

    /// The right to list other programs is given up.
    pub fn shut(&mut self) {
        self.neighbours.shut();
    }

    /// Whether the thread that finds the ways has ended.
    pub fn is_over(&mut self) -> bool {
        self.pending.as_mut().is_none_or(Pending::is_over)
    }

    /// Whether there is nothing to do before the next sample.
    pub fn is_quiet(&self) -> bool {
        self.audit.as_ref().is_none_or(Audit::is_quiet)
    }

    /// Does a round's share. Everything that was reported up to `cut` was processed.
    pub fn round(&mut self, cut: KernelTime, flows: &mut Flows, ledger: &Ledger) {
        let now = KernelTime::now();
        if let Some(lookouts) = self.pending.as_ref().and_then(Pending::poll) {
            self.pending = None;
            match lookouts {
                Ok(lookouts) => self.audit = Some(Audit::new(lookouts, self.every, now)),
                Err(e) => tracing::warn!("open flows are not audited (capture.audit): {e}"),
            }
        }
        let Some(audit) = &mut self.audit else { return };
        let lost = ledger.flows_ring_full() + ledger.kernel.unknown.get();
        audit.round(Round { now, cut, lost }, flows, &ledger.audit);
        match self.deafness.look(ledger.audit.unseen.get(), now, self.every) {
            Some(News::Deaf(missed)) => {
                ledger.audit.set_deaf(true);
                self.neighbours.again();
                tracing::warn!(
                    missed,
                    "ends of connections go unreported: another BPF program takes flowtel's callbacks away; {}",
                    self.suspects()
                );
            }
            Some(News::Over(missed)) => {
                ledger.audit.set_deaf(false);
                tracing::info!(missed, "ends of connections are reported again");
            }
            None => {}
        }
    }

    /// Who may be the reason, to a person.
    fn suspects(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = neighbours::list(&mut text, self.neighbours.suspects());
        match (&self.neighbours.refused, text.is_empty()) {
            (None, true) => {
                "no sock_ops program is attached beside flowtel's or above it: look below (bpftool cgroup tree)".into()
            }
            (None, false) => format!("suspects: {text}"),
            (Some(why), true) => {
                format!(
                    "no sock_ops program was there at the start; flowtel can't look now ({why}): bpftool cgroup tree shows it"
                )
            }
            (Some(why), false) => format!("suspects at the start (flowtel can't look now, {why}): {text}"),
        }
    }
}
