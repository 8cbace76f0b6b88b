//! What every stage took in, passed on and lost, each under a name. Two balances follow from it, exact whenever the
//! pipeline is idle:
//!
//! - kernel events, by kind: seen = read + ring full; read = joined + each named loss;
//! - records: made = delivered + queued + rejected + each named loss.
//!
//! Counters only go up. Each has one writing stage; readers see them relaxed, so a snapshot taken while events are in
//! flight may be off by what is in flight, never more.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A count that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Events from the kernel.
    pub kernel: KernelEvents,
    /// Records on their way to the receiver.
    pub records: Records,
}

/// Events by kind.
#[derive(Debug, Default)]
pub struct KernelEvents {
    /// A process asked for a connection.
    pub connect: Kind,
    /// A SYN was answered.
    pub syn_ack: Kind,
    /// A handshake was completed.
    pub established: Kind,
    /// Ring records that no kind accounts for (a kernel object of another version): never in a sound build.
    pub unknown: Counter,
}

/// The fate of one kind of kernel event.
#[derive(Debug, Default)]
pub struct Kind {
    /// Met by the programs (the kernel's own count, summed over CPUs).
    pub seen: Counter,
    /// Lost because the ring had no room (the kernel's own count).
    pub ring_full: Counter,
    /// Taken out of the ring.
    pub read: Counter,
    /// Became part of a flow, or was a flow's begin.
    pub joined: Counter,
    /// Belonged to a connection of flowtel's own.
    pub own: Counter,
    /// Led to no flow: an attempt given up, a forged or repeated SYN-ACK, an attempt that another one replaced.
    pub unused: Counter,
    /// Forgotten because more attempts were open than `flow.max_attempts`.
    pub evicted: Counter,
}

/// The fate of records.
#[derive(Debug, Default)]
pub struct Records {
    /// Encoded into a batch.
    pub made: Counter,
    /// Accepted by the receiver, or written to standard output.
    pub delivered: Counter,
    /// Refused by the receiver for good. After an answer to the whole request (HTTP 400) it may have kept some.
    pub rejected: Counter,
    /// Dropped because the queue was full.
    pub queue_full: Counter,
    /// Still waiting when the grace time of a stop was over.
    pub undelivered: Counter,
    /// Standard output was closed or refused the bytes.
    pub write_failed: Counter,
}

// === impl Counter

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // A locked instruction that adds nothing costs as much as any.
        if n > 0 {
            self.0.fetch_add(n, Relaxed);
        }
    }

    /// Sets the count to one that another place keeps (the kernel's).
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

// === impl Kind

impl Kind {
    /// Events read whose fate is not settled yet: attempts that are still open.
    pub fn open(&self) -> i128 {
        i128::from(self.read.get())
            - [&self.joined, &self.own, &self.unused, &self.evicted].iter().map(|c| i128::from(c.get())).sum::<i128>()
    }
}

// === impl Records

impl Records {
    /// Records made whose fate is not settled yet: in the open batch, in the queue or in flight.
    pub fn waiting(&self) -> i128 {
        i128::from(self.made.get())
            - [&self.delivered, &self.rejected, &self.queue_full, &self.undelivered, &self.write_failed]
                .iter()
                .map(|c| i128::from(c.get()))
                .sum::<i128>()
    }
}

// === impl Ledger

impl fmt::Display for Ledger {
    /// Both balances, a line each; losses only where there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kernel events:")?;
        let kinds = [
            ("connect", &self.kernel.connect),
            ("syn-ack", &self.kernel.syn_ack),
            ("established", &self.kernel.established),
        ];
        for (i, (name, kind)) in kinds.into_iter().enumerate() {
            write!(
                f,
                "{} {name} {} seen = {} joined",
                if i == 0 { "" } else { ";" },
                kind.seen.get(),
                kind.joined.get()
            )?;
            terms(
                f,
                &[
                    ("own", kind.own.get().into()),
                    ("unused", kind.unused.get().into()),
                    ("evicted", kind.evicted.get().into()),
                    ("ring full", kind.ring_full.get().into()),
                    ("open", kind.open()),
                    (
                        "unread",
                        i128::from(kind.seen.get()) - i128::from(kind.ring_full.get()) - i128::from(kind.read.get()),
                    ),
                ],
            )?;
        }
        if self.kernel.unknown.get() > 0 {
            write!(f, "; unknown {}", self.kernel.unknown.get())?;
        }
        let r = &self.records;
        write!(f, "\nrecords: {} made = {} delivered", r.made.get(), r.delivered.get())?;
        terms(
            f,
            &[
                ("rejected", r.rejected.get().into()),
                ("dropped (queue full)", r.queue_full.get().into()),
                ("undelivered at stop", r.undelivered.get().into()),
                ("not written", r.write_failed.get().into()),
                ("waiting", r.waiting()),
            ],
        )
    }
}

fn terms(f: &mut fmt::Formatter<'_>, terms: &[(&str, i128)]) -> fmt::Result {
    for (name, n) in terms.iter().filter(|(_, n)| *n != 0) {
        write!(f, " + {n} {name}")?;
    }
    Ok(())
}
