//! How a command that records ends: what still waits, what became of everything, and what the shell is told.

use std::time::Duration;

use anyhow::anyhow;

use crate::{
    config::{self, Log, QueueKind, Target},
    exit::Failure,
    ledger::{Ledger, Summary},
    queue::Queue,
};

/// Says at the stop what waits, for whom and how long. With the queue on disk, what isn't delivered by then is there for the
/// next start.
pub(super) fn say_what_waits(queue: &Queue, settings: &config::Queue, target: &Target, grace: Duration) {
    let records = queue.waiting().records;
    if records == 0 {
        return;
    }
    let grace = humantime::format_duration(grace);
    if settings.kind == QueueKind::Disk {
        tracing::info!(
            "stopping: {records} records wait for {target}, {grace} more; the queue on disk keeps what is left then for the \
             next start"
        );
    } else {
        tracing::info!("stopping: {records} records wait for {target}, {grace} more");
    }
}

/// The last lines: one, or with `log.balance` the whole balance before it.
pub(super) fn text(ledger: &Ledger, log: &Log) -> String {
    if log.balance { format!("{ledger}\n{}", Summary(ledger)) } else { Summary(ledger).to_string() }
}

/// An error where records were lost on the way to the receiver. `unread`: the reader of standard output went away, and what
/// nobody wanted to read any more is no loss.
pub(super) fn outcome(ledger: &Ledger, unread: bool) -> Result<(), Failure> {
    let lost = lost(ledger, unread);
    if lost == 0 {
        return Ok(());
    }
    let made = ledger.records.made.get() + ledger.records.carried_over.get();
    Err(anyhow!("{lost} of {made} records were not delivered").into())
}

/// Records that were lost, without those that nobody wanted to read any more.
pub(super) fn lost(ledger: &Ledger, unread: bool) -> u64 {
    let unwanted = if unread { ledger.records.write_failed.get() } else { 0 };
    ledger.records_lost().saturating_sub(unwanted)
}
