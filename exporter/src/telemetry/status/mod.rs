//! What `flowtel status` shows: a running [`Instance`] comes in, a [`Status`] goes over a local socket ([`socket`]; [`ask`] asks) as JSON,
//! and comes out as lines for people ([`text`]). Who looks on ([`attach`]) gets records as they are queued (`stream`, as
//! [`frame`]s).

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{
    instance::Instance,
    metrics::{unsigned, word},
    process,
};
use crate::{
    escape::Escaped,
    owner::Helper,
    rights::{State, calls},
};

pub mod ask;
pub mod attach;
pub mod frame;
pub mod request;
pub mod socket;
mod stream;
pub mod text;

/// How a flowtel is doing. All numbers are read one after the other: while events are in flight, a balance may be off by
/// those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id, as it sees it.
    pub pid: u32,
    /// When it was ready: RFC 3339.
    pub started: String,
    /// Seconds since.
    pub uptime_seconds: f64,
    /// The capture thread.
    pub capture: Capture,
    /// Kernel events by kind: seen = the sum of the parts.
    pub kernel_events: Vec<Account>,
    /// Records: made = the sum of the parts.
    pub records: Account,
    /// Events and records that are lost so far, of all stages: what gap records report.
    #[serde(default)]
    pub lost: u64,
    /// What waits.
    pub queue: Queue,
    /// The receiver.
    pub export: Export,
    /// Tables and caches.
    pub caches: Caches,
    /// The audit of open flows.
    pub audit: Audit,
    /// What it takes of the machine.
    pub process: Process,
    /// The rights that are left.
    pub rights: Rights,
    /// Changed configurations.
    pub configuration: Configuration,
}

/// The capture thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Whether it goes on.
    pub alive: bool,
    /// How often it has read the rings.
    pub rounds: u64,
    /// Seconds since it did so last.
    pub silence_seconds: Option<f64>,
}

/// A number and what it is the sum of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Of what.
    pub name: String,
    /// The number.
    pub total: u64,
    /// Its parts, those that are 0 too.
    pub parts: Vec<Part>,
}

/// A part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Batches, those in flight included.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The budget.
    pub max_bytes: u64,
    /// Batches that wait for an answer.
    pub in_flight: u64,
}

/// The receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Where records go.
    pub endpoint: String,
    /// `up`, `down` or `unknown`.
    pub state: String,
    /// Seconds since it is.
    pub for_seconds: Option<f64>,
    /// How often it went down.
    pub outages: u64,
    /// What the last failure was, without control characters.
    pub last_error: Option<String>,
    /// Seconds since that.
    pub last_error_seconds: Option<f64>,
}

/// Tables and caches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Caches {
    /// Flows that have begun and not ended.
    pub open_flows: u64,
    /// Attempts that are not established.
    pub open_attempts: u64,
    /// Addresses with names.
    pub addresses: u64,
    /// Bytes of names.
    pub names_bytes: u64,
    /// Questions about owners and names.
    pub lookups: Vec<Account>,
}

/// The audit of open flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Ends go unreported, because another program takes flowtel's callbacks away.
    pub deaf: bool,
    /// Looks, and what they said.
    pub looks: Account,
    /// Flows that were over without a word, and why nobody had reported it.
    pub ends: Account,
    /// Accepted connections whose callbacks another program has taken away.
    pub callbacks_taken: u64,
    /// Sockets that were asked for them again.
    pub asked_again: u64,
}

/// What it takes of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// CPU time.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub file_descriptors: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// The rights that are left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rights {
    /// flowtel's own.
    pub main: Option<State>,
    /// The helper's process id, and its rights, while it is there.
    pub helper: Option<(u32, State)>,
    /// How many system calls were refused.
    pub refused_calls: u64,
}

/// Changed configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// How many were applied.
    pub reloads: u64,
    /// How many were refused.
    pub refused: u64,
    /// Seconds since the last.
    pub last_seconds: Option<f64>,
    /// Why the last was refused, if it was; without control characters.
    pub last_refused: Option<String>,
    /// Keys of the last that hold only after a restart.
    pub restart_for: Vec<String>,
}

// === impl Status

impl Status {
    /// As it is now.
    pub fn of(instance: &Instance) -> Self {
        let ledger = &instance.ledger;
        let kernel_events = ledger.kernel.kinds().map(|(name, kind)| {
            let rest = [("open", unsigned(kind.open())), ("unread", unsigned(kind.unread()))];
            Account::of(name, kind.seen.get() + kind.carried_over.get(), kind.fates().into_iter().chain(rest))
        });
        let (fates, made) = (ledger.records.fates(), ledger.records.made.get());
        // Of the same reading, for records are delivered meanwhile. What is settled was made before.
        let waiting = made.saturating_sub(fates.iter().map(|(_, n)| n).sum());
        let records = fates.into_iter().chain([("waiting", waiting)]);
        let owner = [("executables", &ledger.owner.executables), ("places", &ledger.owner.places)];
        let mut lookups = owner.map(|(name, asked)| Account::of(name, asked.asked(), asked.outcomes())).to_vec();
        lookups.push(Account::of("names", ledger.dns.read.get(), ledger.dns.answers()));
        let (queue, known, tables) = (instance.queue.waiting(), instance.export.known(), instance.pulse.tables());
        let last = instance.reloads.last();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: jiff::Timestamp::try_from(instance.started).map(|t| t.to_string()).unwrap_or_default(),
            uptime_seconds: instance.ready.elapsed().as_secs_f64(),
            capture: Capture {
                alive: instance.is_alive().is_ok(),
                rounds: instance.pulse.rounds(),
                silence_seconds: instance.pulse.silence().map(|time| time.as_secs_f64()),
            },
            kernel_events: kernel_events.into(),
            records: Account::of("records", made, records),
            lost: ledger.lost().0,
            queue: Queue {
                batches: queue.batches as u64,
                records: queue.records,
                bytes: queue.bytes,
                max_bytes: instance.queue.max_bytes(),
                in_flight: queue.leased as u64,
            },
            export: Export {
                endpoint: known.endpoint,
                state: known.link.as_str().into(),
                for_seconds: known.since.map(|at| at.elapsed().as_secs_f64()),
                outages: known.outages,
                last_error_seconds: known.last_error.as_ref().map(|(_, at)| at.elapsed().as_secs_f64()),
                last_error: known.last_error.map(|(text, _)| Escaped(&text).to_string()),
            },
            caches: Caches {
                open_flows: tables.flows,
                open_attempts: tables.attempts,
                addresses: tables.addresses,
                names_bytes: tables.names_bytes,
                lookups,
            },
            audit: {
                let audit = &ledger.audit;
                let looks = audit.looks();
                let (recovered, unseen) = (audit.recovered.get(), audit.unseen.get());
                Audit {
                    deaf: audit.is_deaf(),
                    looks: Account::of("looks", looks.iter().map(|(_, n)| n).sum(), looks),
                    ends: Account::of("ends", recovered + unseen, [("recovered", recovered), ("unseen", unseen)]),
                    callbacks_taken: audit.callbacks_taken.get(),
                    asked_again: audit.asked_again.get(),
                }
            },
            process: Process {
                memory_bytes: process::resident(),
                cpu_seconds: process::cpu_seconds(),
                file_descriptors: process::descriptors(),
                threads: process::threads(),
            },
            rights: Rights {
                main: State::own(),
                helper: instance.helper.as_ref().and_then(Helper::pid).and_then(|pid| Some((pid, State::of(pid)?))),
                refused_calls: calls::refused(),
            },
            configuration: Configuration {
                reloads: instance.reloads.applied(),
                refused: instance.reloads.refused(),
                last_seconds: last
                    .as_ref()
                    .map(|last| SystemTime::now().duration_since(last.at).unwrap_or_default().as_secs_f64()),
                last_refused: last.as_ref().and_then(|last| Some(Escaped(last.refused.as_ref()?).to_string())),
                restart_for: last.map(|last| last.restart_for).unwrap_or_default(),
            },
        }
    }
}

// === impl Account

impl Account {
    fn of(name: &'static str, total: u64, parts: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        let parts = parts.into_iter().map(|(name, count)| Part { name: word(name).into(), count });
        Self { name: word(name).into(), total, parts: parts.collect() }
    }
}
