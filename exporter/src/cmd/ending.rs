//! How a command that records ends: what still waits, what became of everything, and what the shell is told.

use std::time::Duration;

use anyhow::anyhow;

use crate::{
    config::{self, Log, QueueKind, Target},
    exit::Failure,
    ledger::{Ledger, Summary},
    queue::Queue,
};

/// Says at the stop what waits, for whom and how long. With the queue on disk nothing is at stake: what isn't delivered is
/// there for the next start.
pub(super) fn say_what_waits(queue: &Queue, settings: &config::Queue, target: &Target, grace: Duration) {
    let records = queue.waiting().records;
    if records == 0 {
        return;
    }
    let grace = humantime::format_duration(grace);
    if settings.kind == QueueKind::Disk {
        tracing::info!(
            "stopping: {records} records wait for {target}; they are on the disk, and the next start delivers them"
        );
    } else {
        tracing::info!("stopping: {records} records wait for {target}, {grace} more");
    }
}

/// The last lines: one, or with `log.balance` the whole balance before it.
pub(super) fn text(ledger: &Ledger, log: &Log) -> String {
    if log.balance { format!("{ledger}\n{}", Summary(ledger)) } else { Summary(ledger).to_string() }
}

/// An error where records were lost on the way to the receiver. What nobody wanted to read any more is no loss.
pub(super) fn outcome(ledger: &Ledger) -> Result<(), Failure> {
    let lost = ledger.records_lost() - ledger.records.write_failed.get();
    if lost == 0 {
        return Ok(());
    }
    let made = ledger.records.made.get() + ledger.records.carried_over.get();
    Err(anyhow!("{lost} of {made} records were not delivered").into())
}
