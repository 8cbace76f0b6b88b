//! One connection to itself over 127.0.0.1, before anything else is recorded: it proves the whole path from kernel to
//! user space, and its `Connect` event tells flowtel's process id as the kernel sees it (in a container /proc/self tells
//! another), by which flowtel's own connections are known.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use flowtel_common::event::{self, Event};

use super::{Clock, Error, KernelEvent, KernelTime, Rings, Stop, cgroup::Cgroup};
use crate::ledger::KernelEvents;

/// How long the events are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where this process seems to be outside of the watched cgroup: then none should come.
const PATIENCE_OUTSIDE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(5);

/// What came of the self-test.
#[derive(Debug)]
pub enum Outcome {
    /// The connection came back from the kernel.
    Proved(SelfTest),
    /// flowtel is outside of the watched cgroup, so it could not be tried.
    Outside {
        /// Which cgroup.
        cgroup: PathBuf,
    },
}

/// What the self-test found.
#[derive(Debug)]
pub struct SelfTest {
    /// flowtel's process id in the initial pid namespace.
    pub tgid: u32,
    /// From connect() until the last of its events was read.
    pub took: Duration,
}

/// Makes the connection and waits for its events: `Connect` and both ends' `Established`. All events that were read go to
/// `events`, the test's own and others, also where it fails: they are the first to be processed.
///
/// The programs see connections of the watched cgroup only. From outside of it nothing can be proved, and there is nothing of
/// its own to leave out.
///
/// # Errors
/// No loopback connection can be made, or its events don't arrive.
pub fn run(
    rings: &mut Rings,
    cgroup: &Cgroup,
    ledger: &KernelEvents,
    events: &mut Vec<KernelEvent>,
) -> Result<Outcome, Error> {
    let inside = cgroup.holds_this_process();
    match connect(rings, if inside { PATIENCE } else { PATIENCE_OUTSIDE }, ledger, events) {
        Ok(found) => Ok(Outcome::Proved(found)),
        Err(Error::SelfTest { .. }) if !inside => Ok(Outcome::Outside { cgroup: cgroup.path.clone() }),
        Err(e) => Err(e),
    }
}

fn connect(
    rings: &mut Rings,
    patience: Duration,
    ledger: &KernelEvents,
    events: &mut Vec<KernelEvent>,
) -> Result<SelfTest, Error> {
    let system = |what| move |source| Error::System { what, source };
    // Rings that stayed when another flowtel ended may be full.
    read(rings, ledger, events);
    let before = events.len();
    let start = KernelTime::now();
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(system("opening a port on 127.0.0.1 for the self-test"))?;
    let server = listener.local_addr().map_err(system("asking for the self-test's port"))?;
    let client = TcpStream::connect_timeout(&server, PATIENCE).map_err(system("connecting to the self-test's port"))?;
    let client_address = client.local_addr().map_err(system("asking for the self-test's address"))?;
    let _accepted = listener.accept().map_err(system("accepting the self-test's connection"))?;

    let stop = Stop::new().map_err(system("making an event descriptor"))?;
    let wait = rings.wait(&stop)?;
    loop {
        read(rings, ledger, events);
        let fresh = events.get(before..).unwrap_or_default();
        if let Some(tgid) = complete(fresh, client_address, server) {
            let took = Duration::from_nanos(KernelTime::now().since(start));
            return Ok(SelfTest { tgid, took });
        }
        if u128::from(KernelTime::now().since(start)) > patience.as_nanos() {
            return Err(Error::SelfTest { waited_ms: patience.as_millis() as u64 });
        }
        wait.wait(TICK);
    }
}

fn read(rings: &mut Rings, ledger: &KernelEvents, events: &mut Vec<KernelEvent>) {
    rings.read();
    rings.hand_out(&Clock::measure(), ledger, |event| events.push(*event));
}

/// The process id of the connecting side, once both ends are established.
fn complete(events: &[KernelEvent], client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let end = |how: u32, local: SocketAddr, remote: SocketAddr| {
        events.iter().find_map(|e| match &e.event {
            Event::Established(e)
                if e.how == how
                    && e.local_port == local.port()
                    && e.remote_port == remote.port()
                    && event::ip(e.local) == local.ip() =>
            {
                Some(e.cookie)
            }
            _ => None,
        })
    };
    let cookie = end(event::ACTIVE, client, server)?;
    end(event::PASSIVE, server, client)?;
    events.iter().find_map(|e| match &e.event {
        Event::Connect(e) if e.caller.cookie == cookie => Some(e.caller.tgid),
        _ => None,
    })
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proved(test) => {
                write!(f, "a connection over 127.0.0.1 came back from the kernel in {:.1?}", test.took)
            }
            Self::Outside { cgroup } => write!(
                f,
                "not tried: flowtel runs outside of the watched cgroup {}, where its own connections are not seen; start it \
                 inside for a proof",
                cgroup.display()
            ),
        }
    }
}
