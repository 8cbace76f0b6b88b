//! What must be recorded: sides of connections and failed attempts, with all that their records must say. Plain data, made
//! from connections that a test made; the [checks](super) read it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use super::CLOCK_SLACK;
use crate::{
    machine,
    record::{End as Place, Record},
    traffic::{ANSWERER, Connection, SERVER},
};

/// An accept() that comes this much later than the handshake may find the begin told without it.
const OWNER_WAIT: u64 = 50_000_000;

/// Which records belong to the scenario: others may be the whole host's.
#[derive(Debug, Clone)]
pub enum About {
    /// Those with one of these addresses at an end.
    Addresses(Vec<IpAddr>),
    /// Those with one of these endpoints at an end. A port alone would not do: other scenarios' servers, in namespaces of
    /// their own, may have been given the same one.
    Endpoints(Vec<SocketAddr>),
}

/// A side of a connection that must have a record of its begin, and perhaps one of its end.
#[derive(Debug, Clone)]
pub struct Side {
    /// Whether this side initiated it.
    pub outgoing: bool,
    /// The initiator.
    pub source: SocketAddr,
    /// The responder.
    pub destination: SocketAddr,
    /// Whether the record must say that both ends are here; `None` where it may or may not.
    pub local: Option<bool>,
    /// The handshake's duration.
    pub handshake: Handshake,
    /// The process that owns it.
    pub owner: Option<Owner>,
    /// The process that the begin may name instead: whoever listens, where accept() came late.
    pub instead: Option<Owner>,
    /// The process that the begin must name, or nobody, where that is not the owner.
    pub begun: Option<Option<Owner>>,
    /// When it began, at the earliest and at the latest, by the wall clock.
    pub between: (u64, u64),
    /// It was there when flowtel started, which was in this time: told as open, and no begin.
    pub older: Option<(u64, u64)>,
    /// Names of the two addresses.
    pub names: Names,
    /// Its end; `None` where none may be told.
    pub end: Option<End>,
}

/// Names that a record must say.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The source's, and the state.
    pub source: Option<(Vec<String>, String)>,
    /// The destination's, likewise.
    pub destination: Option<(Vec<String>, String)>,
}

/// How a flow must have ended.
#[derive(Debug, Clone)]
pub struct End {
    /// Why; nothing where nothing may be told.
    pub reason: &'static str,
    /// Bytes of the source and of the destination.
    pub bytes: [RangeInclusive<i64>; 2],
    /// Whether they must be there.
    pub counted: bool,
    /// Segments of the source and of the destination.
    pub packets: [RangeInclusive<i64>; 2],
    /// What this side sent again.
    pub retransmits: RangeInclusive<i64>,
    /// Whether there must be a round trip time.
    pub rtt: bool,
    /// When, at the earliest and at the latest.
    pub between: (u64, u64),
}

/// An attempt that must have a record of its failure.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whether this side attempted it.
    pub outgoing: bool,
    /// The initiator, as far as it must be told.
    pub source: Place,
    /// The responder.
    pub destination: Place,
    /// As for a side.
    pub local: Option<bool>,
    /// The process that asked for it.
    pub owner: Option<Owner>,
    /// Why it failed.
    pub error: &'static str,
    /// SYNs.
    pub attempts: RangeInclusive<i64>,
    /// How many of the like, and at how many ports, this stands for.
    pub fold: Option<(i64, i64)>,
    /// When, at the earliest and at the latest.
    pub between: (u64, u64),
}

/// What a record must say of the handshake's duration.
#[derive(Debug, Clone, Copy)]
pub enum Handshake {
    /// So many seconds.
    Between(f64, f64),
    /// Nothing.
    Absent,
    /// Nothing, or no more than so many seconds.
    AtMost(f64),
}

/// A process that owns a side of a connection.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its id, where that can be known here.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
    /// Its thread's name.
    pub thread: String,
    /// How it came by it.
    pub role: &'static str,
    /// How that is known.
    pub source: &'static str,
    /// What it runs.
    pub executable: Executable,
    /// The id of the container that it runs in; `None`: it runs where this process does.
    pub container: Option<String>,
}

/// What a record must say of what a process runs.
#[derive(Debug, Clone)]
pub enum Executable {
    /// This.
    Is(PathBuf),
    /// This, or nothing: the process may have been gone too soon.
    May(PathBuf),
}

// === impl About

impl About {
    /// Whether a record is about it.
    pub fn concerns(&self, record: &Record) -> bool {
        let ends = ["source", "destination"].map(|end| record.end(end));
        // A record that does not even say where to is everybody's business.
        ends[1].0.is_none()
            || ends.iter().any(|(address, port)| match self {
                Self::Addresses(addresses) => address.is_some_and(|address| addresses.contains(&address)),
                Self::Endpoints(endpoints) => {
                    endpoints.iter().any(|e| Some(e.ip()) == *address && Some(e.port()) == *port)
                }
            })
    }
}

// === impl Owner

impl Owner {
    /// A thread of this process.
    pub fn here(thread: &str, role: &'static str) -> Self {
        let executable = std::env::current_exe().unwrap_or_default();
        let known = machine::has_kernel_pids();
        Self {
            pid: known.then(std::process::id),
            uid: rustix::process::getuid().as_raw(),
            thread: thread.into(),
            role,
            source: match role {
                "connector" => "connect",
                "acceptor" => "accept",
                other => other,
            },
            executable: if known { Executable::Is(executable) } else { Executable::May(executable) },
            container: None,
        }
    }

    /// Found when flowtel started.
    #[must_use]
    pub fn found(self) -> Self {
        Self { source: "snapshot", ..self }
    }

    /// Another process.
    #[must_use]
    pub fn process(self, pid: u32) -> Self {
        Self { pid: self.pid.map(|_| pid), ..self }
    }
}

// === impl End

impl End {
    /// In order, after so many bytes of the source and of the destination.
    pub fn fin(bytes: [i64; 2], between: (u64, u64)) -> Self {
        Self {
            reason: "fin",
            bytes: bytes.map(|n| n..=n),
            counted: true,
            packets: [1..=10 + (bytes[0] + bytes[1]) / 200, 1..=10 + (bytes[0] + bytes[1]) / 200],
            retransmits: 0..=0,
            rtt: true,
            between,
        }
    }

    /// For another reason.
    #[must_use]
    pub fn reason(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// With so many segments sent again.
    #[must_use]
    pub fn retransmits(self, retransmits: RangeInclusive<i64>) -> Self {
        // Each may be answered, and the peer may send again as often.
        let more = 2 * retransmits.end();
        let packets = self.packets.map(|range| *range.start()..=range.end() + more);
        Self { retransmits, packets, ..self }
    }
}

// === impl Side

impl Side {
    /// The initiator's side of a connection within this host.
    pub fn outgoing(connection: &Connection) -> Self {
        Self {
            outgoing: true,
            source: connection.client,
            destination: connection.server,
            local: Some(true),
            handshake: Handshake::Between(1e-9, connection.seconds()),
            owner: Some(Owner::here(&connection.thread, "connector")),
            instead: None,
            begun: None,
            between: (connection.before, connection.after),
            older: None,
            names: Names::default(),
            end: None,
        }
    }

    /// The responder's, accepted by one of a server's threads.
    pub fn incoming(connection: &Connection) -> Self {
        let side = Self { outgoing: false, ..Self::outgoing(connection) };
        side.accepted(Owner::here(ANSWERER, "acceptor"), Owner::here(SERVER, "listener"))
    }

    /// Both.
    pub fn both(connection: &Connection) -> [Self; 2] {
        [Self::outgoing(connection), Self::incoming(connection)]
    }

    /// Both of each.
    pub fn all<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> Vec<Self> {
        connections.into_iter().flat_map(Self::both).collect()
    }

    /// With this handshake.
    #[must_use]
    pub fn handshake(self, handshake: Handshake) -> Self {
        Self { handshake, ..self }
    }

    /// With this mark of both ends being here.
    #[must_use]
    pub fn local(self, local: Option<bool>) -> Self {
        Self { local, ..self }
    }

    /// Accepted by this one; where that may have been late, the begin may have the one who bound the port.
    #[must_use]
    pub fn accepted(self, acceptor: Owner, listener: Owner) -> Self {
        let late = self.between.1.saturating_sub(self.between.0) > OWNER_WAIT;
        Self { owner: Some(acceptor), instead: late.then_some(listener), ..self }
    }

    /// Taken by the listener's socket, and accepted by a process long after the begin was told: where the kernel tells
    /// accept() from other calls the end names that process, else the listener's still. `listener` is what the begin says.
    #[must_use]
    pub fn accepted_late(self, acceptor: Owner, listener: Option<Owner>) -> Self {
        let owner = if machine::tells_calls() { Some(acceptor) } else { listener.clone() };
        Self { begun: Some(listener), ..self.owned(owner) }
    }

    /// With this owner and no other.
    #[must_use]
    pub fn owned(self, owner: Option<Owner>) -> Self {
        Self { owner, instead: None, ..self }
    }

    /// Never accepted, or without an address: owned by the thread that listens.
    #[must_use]
    pub fn bound_by(self, thread: &str) -> Self {
        self.owned(Some(Owner::here(thread, "listener")))
    }

    /// With these names of the destination, from an answer.
    #[must_use]
    pub fn named(mut self, names: &[&str]) -> Self {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.names.destination = Some((names, "fresh".into()));
        self
    }

    /// There when flowtel started, in this time, and in the hands of a process whose first thread has this name.
    #[must_use]
    pub fn open(self, thread: &str, between: (u64, u64)) -> Self {
        let role = if self.outgoing { "connector" } else { "acceptor" };
        Self { older: Some(between), ..self.owned(Some(Owner::here(thread, role).found())) }
    }

    /// And it ended so.
    #[must_use]
    pub fn ended(self, end: End) -> Self {
        Self { end: Some(end), ..self }
    }
}

impl Connection {
    /// Longer than its handshake took.
    fn seconds(&self) -> f64 {
        (self.after.saturating_sub(self.before) + CLOCK_SLACK) as f64 / 1e9
    }
}
