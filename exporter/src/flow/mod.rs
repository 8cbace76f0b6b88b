//! Kernel events in, [`FlowEvent`]s out: which connections began, ended and failed, which way round, and why.
//!
//! - [`Flows`] joins events by socket cookie and decides;
//! - `attempts`: connections that were asked for and are not established yet, bounded;
//! - `open`: flows between their begin and their end, bounded;
//! - `aged`: the table of both, which knows the oldest, and whose cost does not grow with it;
//! - `audited`: open flows as the audit asks for them, and the ends that it finds;
//! - `older`: flows that are older than flowtel;
//! - `listeners`: who listens on which socket, for flows that nobody was seen to accept;
//! - `early`: calls of accept() before their flow begins;
//! - `shares`: the table of both, which is bounded for each cgroup;
//! - `settle`: what waits a moment before it is told, until the rest of its story can have been seen;
//! - `refusals`: refused attempts from outside, folded when they are many;
//! - `hellos`: what clients say first over TLS, put together and given to its flow;
//! - `updates`: what has passed so far over a flow that is open;
//! - `waits`: attempts that are over unless something of them comes soon;
//! - [`reason`]: why a flow ended, or an attempt failed: pure functions; [`cause`]: its words;
//! - [`flags`]: the same from packets alone, for captures;
//! - `find`: an open flow by its id, for people who ask;
//! - [`id`], [`community_id`]: a flow's two identities.
//!
//! It never blocks, and looks nothing up but by a question that it is given (`Flows::ask_lives`). Everything is told once; every wait has a limit; what led to nothing is counted.

mod aged;
mod attempts;
mod audited;
pub mod cause;
pub mod community_id;
mod early;
mod find;
pub mod flags;
mod flows;
mod hellos;
pub mod id;
mod listeners;
mod notes;
mod older;
mod open;
mod own;
pub mod reason;
mod refusals;
mod settle;
mod shares;
mod updates;
mod waits;

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use attempts::Attempt;
pub use cause::{Cause, EndReason, Evidence, FailReason};
pub use community_id::CommunityId;
pub use flows::Flows;
use flowtel_common::event::COMM_LEN;
pub use id::{BootId, FlowId};

use crate::{
    capture::{KernelTime, NetnsId, WallTime, pcap::Tunnel},
    tls::Hello,
};

/// Something that a record tells: what happened, when, to which flow.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowEvent {
    /// When.
    pub at: Stamp,
    /// Which flow, as this side of it sees it.
    pub flow: Flow,
    /// What.
    pub what: What,
}

/// When something happened, and when it was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// By the kernel's clock.
    pub time: KernelTime,
    /// By the wall clock.
    pub wall: WallTime,
    /// When user space read of it.
    pub observed: WallTime,
}

/// A flow, or an attempt at one, as one of its two sides sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// This side of the flow. `None` where many were folded into one.
    pub id: Option<FlowId>,
    /// The same on both sides and both hosts. `None` where a port is not known.
    pub community_id: Option<CommunityId>,
    /// Who initiated the connection. Port 0 and an unspecified address stand for "not known".
    pub source: SocketAddr,
    /// Who was asked. Port 0 stands for "several".
    pub destination: SocketAddr,
    /// Whether this side initiated it; `None` where nobody saw.
    pub direction: Option<Direction>,
    /// Both ends are on this host: the other side's records exist too.
    pub local: bool,
    /// The network namespace that this side is in.
    pub netns: NetnsId,
    /// The interface that this side's socket is bound to, as it is with link-local addresses; 0: none.
    pub interface: u32,
    /// The process that owns this side.
    pub owner: Option<Owner>,
    /// What carried its packets, in a capture. Always `None` of what the kernel tells.
    pub tunnel: Option<Tunnel>,
}

/// What happened to a flow.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Its handshake is complete.
    Begin {
        /// Outgoing: from SYN to SYN-ACK. Incoming: from SYN-ACK to the completing segment. `None` where it is not known
        /// for certain; never zero.
        handshake: Option<Duration>,
    },
    /// It was there when flowtel started; its begin was not seen.
    Open,
    /// It is open, and this is what has passed so far.
    Update {
        /// Since its begin; `None` where that was not seen.
        duration: Option<Duration>,
        /// What passed.
        traffic: Traffic,
    },
    /// Its client said this first, over TLS.
    ClientHello {
        /// What.
        hello: Box<Hello>,
    },
    /// It is over.
    End {
        /// Why; `None` where nothing says so.
        cause: Option<Cause<EndReason>>,
        /// Since its begin; `None` where that was not seen.
        duration: Option<Duration>,
        /// What passed.
        traffic: Traffic,
    },
    /// It is over; how and when it ended nobody saw.
    Vanished,
    /// It never began.
    Failed {
        /// Why.
        cause: Cause<FailReason>,
        /// SYNs sent, or seen; 0 where none was.
        attempts: u32,
        /// This stands for so many attempts alike.
        fold: Option<Fold>,
    },
}

/// What passed over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes that the source sent and the destination acknowledged.
    pub source_bytes: u64,
    /// The other way round.
    pub destination_bytes: u64,
    /// Segments of the source.
    pub source_segments: u32,
    /// Segments of the destination.
    pub destination_segments: u32,
    /// Segments that the local side sent again.
    pub retransmits: u32,
    /// Smoothed round trip time of the local side; `None` where there is none.
    pub rtt: Option<Duration>,
    /// The bytes are all that passed. Otherwise others than TCP may have moved some (SOCKMAP), and the numbers mean nothing.
    pub counted: bool,
    /// What of it passed since it was told last; `None` where that is not known, and of ends where there are no updates
    /// (`flow.update`).
    pub delta: Option<Delta>,
}

/// What passed over a connection since that was told last. Below zero only where too much was told before (a capture whose
/// packets are not in order).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta {
    /// As [`Traffic::source_bytes`].
    pub source_bytes: i64,
    /// As [`Traffic::destination_bytes`].
    pub destination_bytes: i64,
    /// As [`Traffic::source_segments`].
    pub source_segments: i32,
    /// As [`Traffic::destination_segments`].
    pub destination_segments: i32,
    /// As [`Traffic::retransmits`].
    pub retransmits: i32,
}

/// What one side of a connection sent and the other one acknowledged: payload bytes, and segments.
#[derive(Debug, Clone, Copy)]
struct Sent {
    bytes: u64,
    segments: u32,
}

/// Many alike, told as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// How many.
    pub count: u64,
    /// From the first to the last.
    pub duration: Duration,
    /// Different destination ports among them; as many as were told apart.
    pub destination_ports: u32,
}

/// Which side initiated a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This side.
    Outgoing,
    /// The peer.
    Incoming,
}

/// The process that owns one side of a flow, as it was at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The thread's name, up to the first zero.
    pub comm: [u8; COMM_LEN],
    /// Its cgroup then: inode number of the cgroup v2 directory.
    pub cgroup: u64,
    /// When it made the call, by the kernel's clock.
    pub since: KernelTime,
    /// How it came by the connection.
    pub role: Role,
    /// How that is known.
    pub source: Source,
    /// The process that the flow's begin named, where that was another one.
    pub begin: Option<NonZeroU32>,
}

/// How a flow's owner is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was seen to call connect().
    Connect,
    /// It was seen to call accept().
    Accept,
    /// It was seen to call listen(), or bind(), on the socket that took the connection.
    Listener,
    /// It was found at the start: it holds the socket, or the one that took the connection.
    Snapshot,
}

/// How a process came by a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It asked for it.
    Connector,
    /// It accepted it.
    Acceptor,
    /// It listens on the socket that took it.
    Listener,
}

// === impl Flow

impl Flow {
    /// The flow on a socket, between these addresses as the socket sees them.
    fn new(boot: &BootId, cookie: u64, local: SocketAddr, remote: SocketAddr, direction: Option<Direction>) -> Self {
        let (source, destination) = match direction {
            Some(Direction::Incoming) => (remote, local),
            _ => (local, remote),
        };
        let known = source.port() != 0 && destination.port() != 0;
        Self {
            id: Some(FlowId::new(boot, cookie, local, remote)),
            community_id: known.then(|| CommunityId::tcp(source, destination)),
            source,
            destination,
            direction,
            local: source.ip().is_loopback() || (source.ip() == destination.ip() && known),
            netns: NetnsId::UNKNOWN,
            interface: 0,
            owner: None,
            tunnel: None,
        }
    }

    /// It begins, fails or ends at `since`, which is the first that is told of what this attempt asked for.
    fn came_of(&mut self, attempt: Option<&Attempt>, boot: &BootId, since: KernelTime) {
        if attempt.is_some_and(|attempt| attempt.used_again) {
            self.set_apart(boot, since);
        }
    }

    /// The socket may have had another flow between these addresses: the id is this one's alone, by its time.
    fn set_apart(&mut self, boot: &BootId, since: KernelTime) {
        self.id = self.id.map(|id| id.at(boot, since));
    }
}

// === impl Traffic

impl Traffic {
    /// As the local side counted it: of a connection that the peer initiated, the peer is the source.
    fn new(direction: Option<Direction>, own: Sent, peer: Sent, retransmits: u32, rtt: Duration) -> Self {
        let (source, destination) = if direction == Some(Direction::Incoming) { (peer, own) } else { (own, peer) };
        Self {
            source_bytes: source.bytes,
            destination_bytes: destination.bytes,
            source_segments: source.segments,
            destination_segments: destination.segments,
            retransmits,
            rtt: (!rtt.is_zero()).then_some(rtt),
            counted: true,
            delta: None,
        }
    }
}

// === impl Delta

impl Delta {
    /// What both say together.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        Self {
            source_bytes: self.source_bytes.saturating_add(other.source_bytes),
            destination_bytes: self.destination_bytes.saturating_add(other.destination_bytes),
            source_segments: self.source_segments.saturating_add(other.source_segments),
            destination_segments: self.destination_segments.saturating_add(other.destination_segments),
            retransmits: self.retransmits.saturating_add(other.retransmits),
        }
    }
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

// === impl Owner

impl Owner {
    /// The thread's name without its final zeros.
    pub fn name(&self) -> &[u8] {
        self.comm.split(|b| *b == 0).next().unwrap_or_default()
    }
}

// === impl Source

impl Source {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Listener => "listener",
            Self::Snapshot => "snapshot",
        }
    }
}

// === impl Role

impl Role {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Acceptor => "acceptor",
            Self::Listener => "listener",
        }
    }
}

#[cfg(test)]
mod tests;
