//! As many connections as a process can hold: a namespace, an address and a number come in; so many connections stay open
//! until they are dropped at once. Both ends are processes of their own.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    child::Child,
    netns::{Pair, joined},
    scene::Scene,
    traffic,
};

/// Each has a server's port for itself, and so as many connections as there are ports.
const THREADS: usize = 20;
/// The most that one may have then.
const PORTS: usize = 60_000;

/// Connections that stay open.
pub struct Hoard {
    clients: Child,
    _servers: Child,
    /// How many were made.
    pub made: usize,
    /// How many of them are there.
    pub held: usize,
    /// How long it took, in words.
    pub took: String,
}

// === impl Hoard

impl Hoard {
    /// Opens `n` connections to `to`, an address of the server's namespace: at once `room` of them, or as many as a process may
    /// have here.
    ///
    /// # Errors
    /// One could not be opened.
    pub fn open(scene: &Scene, net: &Pair, to: IpAddr, n: usize, room: usize) -> Result<Self> {
        net.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        let mut servers = Child::start(scene, &net.server, &format!("keep {to}"), None)?;
        let at = servers.line()?;
        let mut clients = Child::start(scene, &net.client, &format!("hoard {n} {room} {at}"), None)?;
        let said = clients.line()?;
        let [made, held, took] = said.split(' ').collect::<Vec<_>>()[..] else { bail!("the hoard says {said:?}") };
        Ok(Self { made: made.parse()?, held: held.parse()?, took: took.into(), clients, _servers: servers })
    }

    /// Closes all, and waits until the process that had them is gone.
    ///
    /// # Errors
    /// It does not go.
    pub fn close(mut self) -> Result<()> {
        self.clients.close_input();
        ensure!(self.clients.ended()?.success(), "the hoard failed");
        Ok(())
    }
}

// === in the children

/// Gives this process as many descriptors as it may have, and returns how many.
fn many_descriptors() -> Result<u64> {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")?.trim().parse()?;
    let all = |most| setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) });
    if all(most).is_ok() {
        return Ok(most);
    }
    // More than it was given takes CAP_SYS_RESOURCE, which not every root has.
    let given = getrlimit(Resource::Nofile).maximum.unwrap_or(most);
    all(given).context("raising the limit of open files")?;
    Ok(given)
}

/// `keep IP`: listens, says where, and keeps what comes until its input ends, the newest first.
///
/// # Errors
/// An address is taken.
pub(crate) fn keep(ip: &str) -> Result<()> {
    let most = usize::try_from(many_descriptors()?)?.saturating_sub(100) / THREADS;
    let ip: IpAddr = ip.parse()?;
    let mut addresses = Vec::new();
    for _ in 0..THREADS {
        let listener = traffic::listen((ip, 0).into(), None, |_| Ok(()))?;
        addresses.push(listener.local_addr()?.to_string());
        thread::Builder::new().name(traffic::ANSWERER.into()).spawn(move || {
            // What was reset is dropped when there is no room for more; an end is all that ever comes over one.
            let mut kept = VecDeque::new();
            while let Ok(stream) = rustix::net::accept(&listener) {
                kept.push_back(stream);
                if kept.len() > most {
                    kept.pop_front();
                }
            }
        })?;
    }
    writeln!(std::io::stdout(), "{}", addresses.join(" "))?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// `hoard N ROOM ADDRESS...`: opens so many connections, at once `ROOM` of them or as many as it may have: before more are
/// opened those are closed, without a trace. Says how many it made and has, and how long it took, and keeps the last until
/// its input ends.
///
/// # Errors
/// One connection fails.
pub(crate) fn hoard(words: &str) -> Result<()> {
    let [n, room, addresses] = words.splitn(3, ' ').collect::<Vec<_>>()[..] else { bail!("two numbers and addresses") };
    let addresses: Vec<SocketAddr> = addresses.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let n = n.parse::<usize>()?;
    // Some descriptors are for the rest.
    let most = usize::try_from(many_descriptors()?)?.saturating_sub(100).min(addresses.len() * PORTS);
    let most = most.min(room.parse()?).max(1);
    let start = Instant::now();
    let (mut made, mut kept) = (0, Vec::new());
    while made < n {
        kept.clear();
        // What does not fill a wave comes first: the last one is as large as can be.
        let rest = (n - made) % most;
        kept = wave(&addresses, if rest > 0 { rest } else { most })?;
        made += kept.len();
    }
    writeln!(std::io::stdout(), "{made} {} {:.1?}", kept.len(), start.elapsed())?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// `n` connections, from a thread for each address.
fn wave(addresses: &[SocketAddr], n: usize) -> Result<Vec<OwnedFd>> {
    let each = n.div_ceil(addresses.len());
    let parts = addresses.iter().enumerate().map(|(i, to)| (n.min((i + 1) * each).saturating_sub(i * each), to));
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .map(|(n, to)| {
                scope.spawn(move || {
                    let connect = |_| {
                        let socket = traffic::socket(*to, None)?;
                        // In TIME_WAIT its port would be missing.
                        traffic::reset_at_close(&socket)?;
                        rustix::net::connect(&socket, to)?;
                        Ok::<_, anyhow::Error>(socket)
                    };
                    (0..n).map(connect).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(joined(thread.join())?);
        }
        Ok(all)
    })
}
