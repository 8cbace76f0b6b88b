//! Kernel events in, [`FlowEvent`]s out: which connections began, which way round, and since when.
//!
//! - [`Flows`] joins events by socket cookie and decides;
//! - `attempts`: connections that were asked for and are not established yet, bounded;
//! - `settle`: begins that wait a moment, until their other end on this host can have been seen;
//! - [`id`], [`community_id`]: a flow's two identities.
//!
//! It never blocks and looks nothing up. Each begin is told once; every wait has a limit; what led to nothing is counted.

mod attempts;
pub mod community_id;
pub mod id;
mod settle;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub use community_id::CommunityId;
use flowtel_common::event::{self, COMM_LEN, Event};
pub use id::{BootId, FlowId};

use self::{
    attempts::{Attempt, Attempts},
    settle::Settling,
};
use crate::{
    capture::{KernelEvent, KernelTime, WallTime},
    config,
    ledger::Ledger,
};

/// Something that a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEvent {
    /// A TCP flow began: its handshake is complete.
    Begin(Begin),
}

/// A TCP flow began, as one of its two sides saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// This side of the flow.
    pub id: FlowId,
    /// The same on both sides and both hosts.
    pub community_id: CommunityId,
    /// When it began, by the kernel's clock: outgoing, when the peer's answer arrived; incoming, when the handshake was
    /// complete.
    pub time: KernelTime,
    /// The same by the wall clock.
    pub wall: WallTime,
    /// When user space read that it began.
    pub observed: WallTime,
    /// Who initiated the connection.
    pub source: SocketAddr,
    /// Who was asked.
    pub destination: SocketAddr,
    /// Whether this side initiated it.
    pub direction: Direction,
    /// Both ends are on this host: the other side's begin exists too.
    pub local: bool,
    /// Outgoing: from the call of connect() to the peer's answer. Incoming: from the answer to the peer's completing
    /// segment. `None` where it is not known for certain; never zero.
    pub handshake: Option<Duration>,
    /// The process that asked for the connection, where this side did.
    pub connector: Option<Connector>,
}

/// Which side initiated a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This side.
    Outgoing,
    /// The peer.
    Incoming,
}

/// The process that asked for a connection, as it was at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connector {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The thread's name, up to the first zero.
    pub comm: [u8; COMM_LEN],
}

/// The flow stage.
#[derive(Debug)]
pub struct Flows {
    attempts: Attempts,
    settling: Settling,
    boot: BootId,
    own: Option<u32>,
    ledger: Arc<Ledger>,
}

// === impl Flows

impl Flows {
    /// A fresh stage. `boot` goes into every id. `own` is flowtel's process id as the kernel sees it, where its own
    /// connections are to be left out.
    pub fn new(config: &config::Flow, boot: BootId, own: Option<u32>, ledger: Arc<Ledger>) -> Self {
        Self {
            attempts: Attempts::new(config.max_attempts as usize, config.attempt_age.0),
            settling: Settling::default(),
            boot,
            own,
            ledger,
        }
    }

    /// Takes one event. Events come in the order of kernel time, but some may be missing or late.
    pub fn on(&mut self, event: &KernelEvent) {
        match &event.event {
            Event::Connect(connect) => {
                let attempt = Attempt {
                    asked: event.time,
                    answered: None,
                    answers: 0,
                    connector: (!is_kernel_worker(connect)).then_some(Connector {
                        pid: connect.tgid,
                        uid: connect.uid,
                        comm: connect.comm,
                    }),
                };
                let replaced = self.attempts.open(connect.cookie, attempt, &self.ledger.kernel);
                self.unused(replaced);
            }
            Event::SynAck(syn_ack) => {
                if !self.attempts.answer(syn_ack.cookie, event.time) {
                    self.ledger.kernel.syn_ack.unused.add(1);
                }
            }
            Event::Established(established) => self.begin(event, established),
        }
    }

    /// Gives out what has settled by `now`, in the order in which it was established, and forgets attempts that are too
    /// old.
    pub fn settle(&mut self, now: KernelTime, out: impl FnMut(FlowEvent)) {
        while let Some(attempt) = self.attempts.expire(now) {
            self.unused(Some(attempt));
        }
        self.settling.release(Some(now), &self.ledger.kernel, out);
    }

    /// Gives out everything that waits: nothing more will come.
    pub fn flush(&mut self, out: impl FnMut(FlowEvent)) {
        self.settling.release(None, &self.ledger.kernel, out);
    }

    /// How many attempts are open.
    pub fn open_attempts(&self) -> usize {
        self.attempts.len()
    }

    fn begin(&mut self, event: &KernelEvent, established: &event::Established) {
        // A later call on the same socket is not what this handshake answers.
        let attempt = match self.attempts.close(established.cookie) {
            Some(attempt) if attempt.asked > event.time => {
                self.unused(Some(attempt));
                None
            }
            other => other,
        };
        let direction = if established.how == event::ACTIVE || attempt.is_some() {
            Direction::Outgoing
        } else {
            Direction::Incoming
        };
        let local = SocketAddr::new(event::ip(established.local), established.local_port);
        let remote = SocketAddr::new(event::ip(established.remote), established.remote_port);
        let (source, destination) = match direction {
            Direction::Outgoing => (local, remote),
            Direction::Incoming => (remote, local),
        };
        let answered = attempt.and_then(|a| a.answered);
        let handshake = match (&attempt, direction) {
            (Some(attempt), _) => answered.map(|answered| answered.since(attempt.asked)),
            (None, Direction::Incoming) => incoming_handshake(established),
            (None, Direction::Outgoing) => None,
        };
        let time = answered.unwrap_or(event.time);
        let connector = attempt.and_then(|a| a.connector);
        let own = connector.is_some_and(|c| Some(c.pid) == self.own);
        if let Some(attempt) = &attempt {
            self.joined(attempt, own);
        }
        let begin = Begin {
            id: FlowId::new(&self.boot, established.cookie, local, remote),
            community_id: CommunityId::tcp(source, destination),
            time,
            // The event's own wall time, less the way back to the answer.
            wall: WallTime(event.wall.0.saturating_sub(event.time.since(time))),
            observed: event.read,
            source,
            destination,
            direction,
            local: false,
            handshake: handshake.filter(|n| *n > 0).map(Duration::from_nanos),
            connector,
        };
        self.settling.hold(begin, event.time, own);
    }

    /// Counts the events of an attempt that became a flow.
    fn joined(&self, attempt: &Attempt, own: bool) {
        let (connect, syn_ack) = (&self.ledger.kernel.connect, &self.ledger.kernel.syn_ack);
        let answers = u64::from(attempt.answers);
        if own {
            connect.own.add(1);
            syn_ack.own.add(answers);
        } else {
            // The last answer completed the handshake; any before it were repeated or forged.
            connect.joined.add(1);
            syn_ack.joined.add(answers.min(1));
            syn_ack.unused.add(answers.saturating_sub(1));
        }
    }

    /// Counts the events of an attempt that led to nothing.
    fn unused(&self, attempt: Option<Attempt>) {
        if let Some(attempt) = attempt {
            self.ledger.kernel.connect.unused.add(1);
            self.ledger.kernel.syn_ack.unused.add(attempt.answers.into());
        }
    }
}

/// Whether a worker of the kernel asked, as for the further subflows of Multipath TCP. BPF's interface doesn't tell kernel
/// threads from others; by all four signs together only root, in the root cgroup, could pass for one.
fn is_kernel_worker(connect: &event::Connect) -> bool {
    /// Inode number of cgroup v2's root directory.
    const ROOT_CGROUP: u64 = 1;
    connect.comm.starts_with(b"kworker/")
        && connect.uid == 0
        && connect.tgid == connect.tid
        && connect.cgroup == ROOT_CGROUP
}

/// From SYN-ACK to the completing ACK, nanoseconds, by the kernel's own first round trip sample. It is trusted only where
/// it was measured to be right: not after a retransmission, and not when it is a whole number of milliseconds, for then
/// it came from timestamps (with SYN cookies up to 64 ms wrong).
fn incoming_handshake(established: &event::Established) -> Option<u64> {
    let us = established.srtt_us;
    (us != 0 && established.retransmits == 0 && !us.is_multiple_of(1000)).then(|| u64::from(us) * 1000)
}

// === impl Direction

impl Direction {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
        }
    }
}

// === impl Connector

impl Connector {
    /// The thread's name without its final zeros.
    pub fn name(&self) -> &[u8] {
        self.comm.split(|b| *b == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
