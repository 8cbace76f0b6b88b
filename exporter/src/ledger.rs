//! What every stage took in, passed on and lost, each under a name. Balances follow from it, exact whenever the
//! pipeline is idle:
//!
//! - kernel events, by kind: seen = read + ring full; read + carried over from the last run (attempts that were open then,
//!   where the programs stayed) = joined + each named loss;
//! - packets of a replay: read = joined + unused + names + others + unreadable;
//! - records: made + carried over from the last run = delivered + queued + rejected + filtered + sampled + folded + each
//!   named loss. A record that stands for n alike stands for n made, of which n - 1 are folded and one goes on its way.
//!
//! Between the two stand the flow stage's events: told = made + not selected.
//!
//! What is lost is told in the stream too ([`LOSSES`]): lost = told by gap records + not told yet.
//!
//! Counters only go up. Each has one writing stage; readers see them relaxed, so a snapshot taken while events are in
//! flight may be off by what is in flight, never more.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

mod audit;
mod losses;
mod summary;

pub use audit::Audit;
pub use losses::{LOSSES, Loss};
pub use summary::Summary;

/// A count that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Events from the kernel.
    pub kernel: KernelEvents,
    /// Packets of captures (`flowtel replay`).
    pub replay: Replay,
    /// Flows forgotten while they were open, because more than `flow.max_flows` were: their end is told, but without what
    /// their begin knew.
    pub flows_forgotten: Counter,
    /// Questions about the owners of flows.
    pub owner: Owner,
    /// DNS answers and the names in them.
    pub dns: Dns,
    /// Events of flows, on their way to become records.
    pub events: Events,
    /// Records on their way to the receiver.
    pub records: Records,
    /// The queue's disk.
    pub queue: QueueDisk,
    /// What the audit of open flows found.
    pub audit: Audit,
    /// What the stream itself was told of losses.
    pub gaps: Gaps,
}

/// Gap records: records that tell of losses. Each is counted among [`Records`] too.
#[derive(Debug, Default)]
pub struct Gaps {
    /// Gap records made.
    pub made: Counter,
    /// Losses that they tell of.
    pub told: Counter,
}

/// Events by kind.
#[derive(Debug, Default)]
pub struct KernelEvents {
    /// A process asked for a connection.
    pub connect: Kind,
    /// A SYN left again.
    pub syn_again: Kind,
    /// A socket that had asked for a connection before asks for one.
    pub used_again: Kind,
    /// A network namespace was met.
    pub netns: Kind,
    /// A handshake was completed.
    pub established: Kind,
    /// A process bound a port.
    pub bind: Kind,
    /// A socket listens.
    pub listen: Kind,
    /// A listening socket is closed.
    pub unlisten: Kind,
    /// A process took a connection, or asked who its peer is where the kernel can't tell one from the other.
    pub accept: Kind,
    /// A segment with FIN that the socket's states don't show.
    pub fin: Kind,
    /// A segment with RST.
    pub reset: Kind,
    /// A process dropped a socket that was not established.
    pub release: Kind,
    /// A socket was closed.
    pub close: Kind,
    /// A SYN at a closed port was answered with a reset.
    pub refused: Kind,
    /// What an open flow had counted so far.
    pub update: Kind,
    /// A client said something of TLS: a segment of its ClientHello.
    pub hello: Kind,
    /// A name server answered.
    pub dns: Kind,
    /// A process started a program.
    pub exec: Kind,
    /// A process was made.
    pub fork: Kind,
    /// A connection was open at the start. (Not the kernel side's: the list of sockets shows it.)
    pub found: Kind,
    /// One of those was no longer there. (Likewise.)
    pub gone: Kind,
    /// Ring records that no kind accounts for (a kernel object of another version): never in a sound build.
    pub unknown: Counter,
}

/// The fate of one kind of kernel event.
#[derive(Debug, Default)]
pub struct Kind {
    /// Left unsettled by the flowtel before, which had read them.
    pub carried_over: Counter,
    /// Met by the programs (the kernel's own count, summed over CPUs).
    pub seen: Counter,
    /// Lost because the ring had no room (the kernel's own count).
    pub ring_full: Counter,
    /// Left out by the kernel side's rate limit (its own count).
    pub limited: Counter,
    /// Taken out of the ring.
    pub read: Counter,
    /// Became part of a flow, or was a flow's begin.
    pub joined: Counter,
    /// Belonged to a connection of flowtel's own.
    pub own: Counter,
    /// Told nothing new: a repeated or forged segment, a call on a socket that is not followed, an attempt that another
    /// one replaced.
    pub unused: Counter,
    /// Forgotten because a table was full.
    pub evicted: Counter,
}

/// Questions about the owners of flows. They lose no record: a record is told without what is not found.
#[derive(Debug, Default)]
pub struct Owner {
    /// Which executable a process runs.
    pub executables: Lookups,
    /// Which container, pod and unit a cgroup belongs to.
    pub places: Lookups,
}

/// What became of questions. Each is counted once: asked = looked up + told + cached + gone + reused + unreadable.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Answered, by asking the system.
    pub looked_up: Counter,
    /// Answered by what the kernel told when the process started its program.
    pub told: Counter,
    /// Answered from what was known; at most a check that it still holds.
    pub cached: Counter,
    /// Without an answer: process or cgroup was no longer there, or the process has no executable (a kernel thread).
    pub gone: Counter,
    /// Without an answer: the process id belongs to a process that is younger than the event, or may be.
    pub reused: Counter,
    /// Without an answer: no right to read it, no descriptor left, or not reached yet by the search without rights.
    pub unreadable: Counter,
}

/// The fate of DNS answers and of the names in them. Two balances: read = parsed + without address + truncated +
/// malformed + unasked; stored = held + expired + evicted + over quota. A name is counted once for each address that it stands
/// for and each container (cgroup) that asked for it.
#[derive(Debug, Default)]
pub struct Dns {
    /// Answers taken out of the ring.
    pub read: Counter,
    /// Answers that did not repeat the question: forged, or broken.
    pub unasked: Counter,
    /// Answers that gave names to at least one address.
    pub parsed: Counter,
    /// Answers in order that say no address: the name isn't there, or something else was asked for.
    pub without_address: Counter,
    /// Answers longer than what was captured, where nothing could be learned from what was.
    pub truncated: Counter,
    /// Answers that are no proper DNS responses, or have a name too long to store.
    pub malformed: Counter,
    /// Names stored.
    pub stored: Counter,
    /// Names seen again while they were held.
    pub renewed: Counter,
    /// Names forgotten because their grace time was over.
    pub expired: Counter,
    /// Names forgotten for others because `dns.max_addresses` or `dns.max_bytes` was reached.
    pub evicted: Counter,
    /// Names forgotten for newer ones because a container had its share, an address its names, or an address its
    /// containers.
    pub over_quota: Counter,
    /// Lines of the hosts file that could not be used, added up over all readings.
    pub hosts_ignored: Counter,
    /// Connections that this host asked for to port 53: what is asked over them is not seen.
    pub over_tcp: Counter,
    /// Likewise to port 853: DNS over TLS.
    pub over_tls: Counter,
}

/// The fate of captured packets, and of what they show. Three balances: read = joined + unused + names + others +
/// unreadable; attempts = begun + failed + half open + unfinished + attempts forgotten; begun + unseen = ended + open +
/// replaced + forgotten.
#[derive(Debug, Default)]
pub struct Replay {
    /// Packets read.
    pub read: Counter,
    /// TCP segments that are part of an attempt or a flow.
    pub joined: Counter,
    /// TCP segments that are part of nothing: forged, of a flow that is over, or resets without one.
    pub unused: Counter,
    /// Datagrams to or from name servers.
    pub names: Counter,
    /// Packets of other kinds, and fragments that do not start theirs.
    pub others: Counter,
    /// Packets of a link type that is not known, cut short, or not in order.
    pub unreadable: Counter,
    /// Attempts: SYNs, each counted once however often it came.
    pub attempts: Counter,
    /// Attempts whose handshake was completed: flows that began.
    pub begun: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Attempts that were answered, and never went on.
    pub half_open: Counter,
    /// Attempts too young to have failed when the capture ended, and those whose answer was not captured.
    pub unfinished: Counter,
    /// Attempts forgotten because more than `flow.max_attempts` were open.
    pub attempts_forgotten: Counter,
    /// Flows whose begin is not in the capture.
    pub unseen: Counter,
    /// Flows that ended.
    pub ended: Counter,
    /// Flows that were open at the capture's end.
    pub open: Counter,
    /// Flows whose end was not captured: their ports were used again.
    pub replaced: Counter,
    /// Flows forgotten because more than `flow.max_flows` were open.
    pub forgotten: Counter,
}

/// The fate of what the flow stage tells: told = records made + unselected.
#[derive(Debug, Default)]
pub struct Events {
    /// Told by the flow stage.
    pub told: Counter,
    /// Not among `capture.events`.
    pub unselected: Counter,
}

/// The fate of records.
#[derive(Debug, Default)]
pub struct Records {
    /// Events that were asked for, and gaps: encoded into a batch, folded into the count of one that was, or left out by a
    /// rule or the sample.
    pub made: Counter,
    /// Left out by `capture.filter`.
    pub filtered: Counter,
    /// Left out by `capture.sample`.
    pub sampled: Counter,
    /// Told by the count of another record: more came than the queue takes.
    pub folded: Counter,
    /// Found in the queue's directory, left there by an earlier run: with those that turned out to be damaged.
    pub carried_over: Counter,
    /// Accepted by the receiver, or written to standard output.
    pub delivered: Counter,
    /// Refused by the receiver for good. After an answer to the whole request (HTTP 400) it may have kept some.
    pub rejected: Counter,
    /// Dropped because the queue was full.
    pub queue_full: Counter,
    /// Still waiting when the grace time of a stop was over, and not on a disk.
    pub undelivered: Counter,
    /// On the disk when flowtel stopped: the next run delivers them, and counts them as carried over.
    pub queued: Counter,
    /// Damaged on the queue's disk, or torn by a crash before the disk had them. Batches of which not even the count of
    /// records is left are in [`QueueDisk::corrupt_batches`] alone.
    pub corrupt: Counter,
    /// Standard output was closed or refused the bytes.
    pub write_failed: Counter,
}

/// What befell the queue's disk.
#[derive(Debug, Default)]
pub struct QueueDisk {
    /// Batches that were lost because their bytes were damaged, torn or not readable, whether or not it is known how many
    /// records they had.
    pub corrupt_batches: Counter,
    /// Times that the disk refused to take something. No loss by itself: batches wait in memory meanwhile.
    pub disk_failures: Counter,
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

    /// Adds one to a count that no other thread changes meanwhile (the capture thread's own, for each event): a load and a
    /// store, where [`Self::add`] is a locked instruction.
    #[inline]
    pub fn bump(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
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

// === impl KernelEvents

impl KernelEvents {
    /// Every kind with its name, in the order of a connection's life.
    pub fn kinds(&self) -> [(&'static str, &Kind); 21] {
        [
            ("connect", &self.connect),
            ("syn again", &self.syn_again),
            ("used again", &self.used_again),
            ("netns", &self.netns),
            ("established", &self.established),
            ("bind", &self.bind),
            ("listen", &self.listen),
            ("unlisten", &self.unlisten),
            ("accept", &self.accept),
            ("fin", &self.fin),
            ("reset", &self.reset),
            ("release", &self.release),
            ("close", &self.close),
            ("refused", &self.refused),
            ("update", &self.update),
            ("hello", &self.hello),
            ("dns", &self.dns),
            ("exec", &self.exec),
            ("fork", &self.fork),
            ("found", &self.found),
            ("gone", &self.gone),
        ]
    }
}

// === impl Kind

impl Kind {
    /// The fates of events by name, each counted once. What is seen, less these, is [`Self::open`] or [`Self::unread`].
    pub fn fates(&self) -> [(&'static str, u64); 6] {
        [
            ("joined", self.joined.get()),
            ("own", self.own.get()),
            ("unused", self.unused.get()),
            ("evicted", self.evicted.get()),
            ("ring full", self.ring_full.get()),
            ("rate limited", self.limited.get()),
        ]
    }

    /// Events read whose fate is not settled yet: attempts that are still open.
    pub fn open(&self) -> i128 {
        i128::from(self.read.get()) + i128::from(self.carried_over.get())
            - [&self.joined, &self.own, &self.unused, &self.evicted].iter().map(|c| i128::from(c.get())).sum::<i128>()
    }

    /// Events written that were not read: in the ring, or there when the programs went.
    pub fn unread(&self) -> i128 {
        i128::from(self.seen.get())
            - [&self.ring_full, &self.limited, &self.read].iter().map(|c| i128::from(c.get())).sum::<i128>()
    }
}

// === impl Lookups

impl Lookups {
    /// How many questions there were.
    pub fn asked(&self) -> u64 {
        self.outcomes().iter().map(|(_, n)| n).sum()
    }

    /// What became of them, by name, each counted once.
    pub fn outcomes(&self) -> [(&'static str, u64); 6] {
        [
            ("looked up", self.looked_up.get()),
            ("told", self.told.get()),
            ("cached", self.cached.get()),
            ("gone", self.gone.get()),
            ("reused", self.reused.get()),
            ("unreadable", self.unreadable.get()),
        ]
    }
}

// === impl Dns

impl Dns {
    /// What became of answers, by name, each counted once.
    pub fn answers(&self) -> [(&'static str, u64); 5] {
        [
            ("with names", self.parsed.get()),
            ("without address", self.without_address.get()),
            ("truncated", self.truncated.get()),
            ("malformed", self.malformed.get()),
            ("unasked", self.unasked.get()),
        ]
    }

    /// Names held now.
    pub fn held(&self) -> i128 {
        i128::from(self.stored.get())
            - [&self.expired, &self.evicted, &self.over_quota].iter().map(|c| i128::from(c.get())).sum::<i128>()
    }
}

// === impl Records

impl Records {
    /// The fates of records by name, each counted once.
    pub fn fates(&self) -> [(&'static str, u64); 10] {
        [
            ("delivered", self.delivered.get()),
            ("queued for the next run", self.queued.get()),
            ("filtered", self.filtered.get()),
            ("sampled out", self.sampled.get()),
            ("folded", self.folded.get()),
            ("rejected", self.rejected.get()),
            ("dropped (queue full)", self.queue_full.get()),
            ("corrupt in the queue", self.corrupt.get()),
            ("undelivered at stop", self.undelivered.get()),
            ("not written", self.write_failed.get()),
        ]
    }

    /// Records made or carried over whose fate is not settled yet: in the open batch, in the queue or in flight.
    pub fn waiting(&self) -> i128 {
        let all = i128::from(self.made.get()) + i128::from(self.carried_over.get());
        all - self.fates().iter().map(|(_, n)| i128::from(*n)).sum::<i128>()
    }
}

// === impl Ledger

impl Ledger {
    /// How much was lost, and of that how much no gap record has told yet.
    pub fn lost(&self) -> (u64, i128) {
        let lost = LOSSES.iter().map(|loss| loss.count(self)).sum();
        (lost, i128::from(lost) - i128::from(self.gaps.told.get()))
    }

    /// The balance of kernel events.
    fn kernel_events(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kernel events:")?;
        let mut separator = "";
        for (name, kind) in self.kernel.kinds() {
            // What never happened needs no line; an attempt and its proof are always shown.
            if kind.seen.get() == 0 && !matches!(name, "connect" | "established") {
                continue;
            }
            let [(_, joined), losses @ ..] = kind.fates();
            write!(f, "{separator} {name} {} seen", kind.seen.get())?;
            if kind.carried_over.get() > 0 {
                write!(f, " + {} carried over", kind.carried_over.get())?;
            }
            write!(f, " = {joined} joined")?;
            separator = ";";
            terms(f, &losses.map(|(name, n)| (name, n.into())))?;
            terms(f, &[("open", kind.open()), ("unread", kind.unread())])?;
        }
        if self.flows_forgotten.get() > 0 {
            write!(f, "; {} open flows forgotten (flow.max_flows)", self.flows_forgotten.get())?;
        }
        if self.kernel.unknown.get() > 0 {
            write!(f, "; unknown {}", self.kernel.unknown.get())?;
        }
        Ok(())
    }
}

impl fmt::Display for Ledger {
    /// Both balances, a line each, with the questions about owners between them, and what was told of losses before the
    /// last; losses only where there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.replay.read.get() > 0 {
            write!(f, "{}", self.replay)?;
        } else {
            self.kernel_events(f)?;
        }
        for (name, l) in [("executables", &self.owner.executables), ("places", &self.owner.places)] {
            if l.asked() > 0 {
                let [(_, looked_up), others @ ..] = l.outcomes();
                write!(f, "\n{name}: {} asked = {looked_up} looked up", l.asked())?;
                terms(f, &others.map(|(name, n)| (name, n.into())))?;
            }
        }
        if self.dns.read.get() > 0 {
            let [(_, parsed), others @ ..] = self.dns.answers();
            write!(f, "\nnames: {} answers = {parsed} with names", self.dns.read.get())?;
            terms(f, &others.map(|(name, n)| (name, n.into())))?;
        }
        let [tcp, tls] = [&self.dns.over_tcp, &self.dns.over_tls].map(Counter::get);
        if tcp + tls > 0 {
            write!(
                f,
                "\nname servers: {} connections = {tcp} over TCP + {tls} over TLS, whose answers are not read",
                tcp + tls
            )?;
        }
        let (e, r) = (&self.events, &self.records);
        let (lost, untold) = self.lost();
        let Gaps { made: gaps, told } = &self.gaps;
        if e.unselected.get() > 0 {
            write!(f, "\nflow events: {} told = {} made records", e.told.get(), r.made.get() - gaps.get())?;
            terms(f, &[("not selected", e.unselected.get().into())])?;
        }
        if lost > 0 {
            write!(f, "\nlosses: {lost} counted = {} told in {} gap records", told.get(), gaps.get())?;
            terms(f, &[("untold", untold)])?;
        }
        let [(_, delivered), fates @ ..] = r.fates();
        write!(f, "\nrecords: {} made", r.made.get())?;
        terms(f, &[("carried over", r.carried_over.get().into())])?;
        write!(f, " = {delivered} delivered")?;
        terms(f, &fates.map(|(name, n)| (name, n.into())))?;
        terms(f, &[("waiting", r.waiting())])?;
        if self.queue.corrupt_batches.get() > 0 {
            write!(f, "\nqueue: {} batches were corrupt", self.queue.corrupt_batches.get())?;
        }
        Ok(())
    }
}

impl fmt::Display for Replay {
    /// Its balances, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packets: {} read = {} joined", self.read.get(), self.joined.get())?;
        let fates = [
            ("unused", &self.unused),
            ("names", &self.names),
            ("others", &self.others),
            ("unreadable", &self.unreadable),
        ];
        terms(f, &fates.map(|(name, n)| (name, n.get().into())))?;
        write!(f, "\nattempts: {} seen = {} begun", self.attempts.get(), self.begun.get())?;
        let fates = [
            ("failed", &self.failed),
            ("half open", &self.half_open),
            ("unfinished", &self.unfinished),
            ("forgotten (flow.max_attempts)", &self.attempts_forgotten),
        ];
        terms(f, &fates.map(|(name, n)| (name, n.get().into())))?;
        write!(f, "\nflows: {} begun", self.begun.get())?;
        terms(f, &[("begun before the capture", self.unseen.get().into())])?;
        write!(f, " = {} ended", self.ended.get())?;
        let fates = [
            ("open at its end", &self.open),
            ("replaced", &self.replaced),
            ("forgotten (flow.max_flows)", &self.forgotten),
        ];
        terms(f, &fates.map(|(name, n)| (name, n.get().into())))
    }
}

fn terms(f: &mut fmt::Formatter<'_>, terms: &[(&str, i128)]) -> fmt::Result {
    for (name, n) in terms.iter().filter(|(_, n)| *n != 0) {
        write!(f, " + {n} {name}")?;
    }
    Ok(())
}
