//! A load that lasts: two namespaces and a rate come in; so many connections a second, and in the end their number, come
//! out. Both ends are processes in a cgroup of their own: a flowtel that watches that cgroup tells of these connections and
//! no others, whatever else goes on on the host.

use std::{
    io::{BufRead as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cgroup::Cgroup,
    child::Child,
    flowtel::Launch,
    netns::{Pair, joined},
    scene::Scene,
    traffic,
    wait::pause,
};

/// Threads at each end. Each client has a server's port for itself: so there are as many tuples as four times the ports.
const THREADS: u32 = 4;

/// Clients and servers.
pub struct Load {
    clients: Child,
    /// They serve until they are dropped.
    _servers: Child,
    cgroup: Cgroup,
}

// === impl Load

impl Load {
    /// Both ends, ready for `per_second` connections, none made yet.
    ///
    /// # Errors
    /// Skips the scenario where there are no cgroups; or an end does not start.
    pub fn prepare(scene: &Scene, net: &Pair, per_second: u32) -> Result<Self> {
        // As many ports as there are. What is in TIME_WAIT may be used again when its clock has gone on.
        net.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        net.client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        let cgroup = Cgroup::new()?;
        let mut servers = Child::start(scene, &net.server, &format!("serve {} {THREADS}", net.server_v4), None)?;
        cgroup.take(servers.id())?;
        servers.go()?;
        let at = servers.line()?;
        let clients = Child::start(scene, &net.client, &format!("load {per_second} {at}"), None)?;
        cgroup.take(clients.id())?;
        Ok(Self { clients, _servers: servers, cgroup })
    }

    /// Has flowtel watch this load and nothing else.
    #[must_use]
    pub fn watched_by(&self, launch: Launch) -> Launch {
        launch.within(&self.cgroup)
    }

    /// Begins.
    ///
    /// # Errors
    /// The clients are gone.
    pub fn start(&mut self) -> Result<()> {
        self.clients.go()
    }

    /// Ends, when the last connection has ended on both sides. Returns how many there were.
    ///
    /// # Errors
    /// One failed.
    pub fn stop(&mut self) -> Result<u64> {
        self.clients.close_input();
        let said = self.clients.line().context("the load has ended before: see above")?;
        let made = said.parse().with_context(|| said.clone())?;
        ensure!(self.clients.ended()?.success(), "the load failed");
        Ok(made)
    }
}

// === in the children

/// `serve IP N`: listens at N ports, says where, and serves until its input ends.
///
/// # Errors
/// An address is taken.
pub(crate) fn serve(words: &str) -> Result<()> {
    let (ip, n) = words.split_once(' ').context("an address and a number")?;
    let (ip, n): (IpAddr, u32) = (ip.parse()?, n.parse()?);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let mut addresses = Vec::new();
    for _ in 0..n {
        let listener = traffic::listen((ip, 0).into(), None, |_| Ok(()))?;
        addresses.push(listener.local_addr()?.to_string());
        thread::Builder::new().name(traffic::ANSWERER.into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A client that breaks off is the client's affair.
                let _ = traffic::echo(stream);
            }
        })?;
    }
    writeln!(std::io::stdout(), "{}", addresses.join(" "))?;
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// `load PER_SECOND ADDRESS...`: from a first line on its input until its end, connections from a thread for each address;
/// says how many.
///
/// # Errors
/// One connection fails.
pub(crate) fn load(words: &str) -> Result<()> {
    let (rate, addresses) = words.split_once(' ').context("a rate and addresses")?;
    let addresses: Vec<SocketAddr> = addresses.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let step = Duration::from_secs_f64(addresses.len() as f64 / rate.parse::<f64>()?);
    let mut lines = std::io::stdin().lock().lines();
    lines.next().context("nobody said go")??;
    let stop = AtomicBool::new(false);
    let (stop, start) = (&stop, Instant::now());
    let made = thread::scope(|scope| {
        let clients: Vec<_> = addresses
            .iter()
            .map(|to| {
                scope.spawn(move || {
                    let mut made = 0;
                    while !stop.load(Relaxed) {
                        let due = step * made;
                        if let Some(early) = due.checked_sub(start.elapsed()) {
                            pause(early);
                        }
                        traffic::dial(*to)?;
                        made += 1;
                    }
                    Ok::<_, anyhow::Error>(made)
                })
            })
            .collect();
        lines.for_each(drop);
        stop.store(true, Relaxed);
        clients.into_iter().map(|client| joined(client.join())).sum::<Result<u32>>()
    })?;
    writeln!(std::io::stdout(), "{made}")?;
    Ok(())
}
