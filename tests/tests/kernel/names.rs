//! Names that this host saw resolve, and containers: what stands beside a flow.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    cgroup,
    child::Child,
    collector::Protocol::{Grpc, Http},
    expect::{End, Owner, Side},
    netns::{Namespace, Pair, WIRE},
    scene::{Scenario, Scene, skip},
    traffic::{self, Connection, SERVER, Server, dial},
    wait::{patient, pause, wall},
};

use crate::{lived, over};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("names from answers, to connected and unconnected resolvers, IPv4 and IPv6", 60, answered),
    Scenario::new("answers that are forged, or that nobody asked for, name nothing", 60, forged),
    Scenario::new("names by a resolver on loopback whose port is translated, as Docker has it", 60, translated),
    Scenario::new("names asked for over TCP are not known, and such connections counted", 60, over_tcp),
    Scenario::new("a client in a container's cgroup has the container's id", 60, contained),
];

pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
pub const PTR: u16 = 12;
const AAAA: u16 = 28;
const PATIENCE: Duration = Duration::from_secs(5);

/// A name server and a resolver's socket.
pub(crate) struct Resolver {
    pub(crate) client: UdpSocket,
    pub(crate) server: UdpSocket,
    pub(crate) to: SocketAddr,
    pub(crate) connected: bool,
}

impl Resolver {
    pub(crate) fn new(net: &Pair, server: UdpSocket, to: SocketAddr, connected: bool) -> Result<Self> {
        let client = udp(&net.client, if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?)?;
        if connected {
            client.connect(to)?;
        }
        Ok(Self { client, server, to, connected })
    }

    /// Sends a query, and returns it as the server got it, with where it came from.
    pub(crate) fn ask(&self, id: u16, name: &str, kind: u16) -> Result<(Vec<u8>, SocketAddr)> {
        let query = message(id, 0x0100, (name, kind), &[]);
        if self.connected {
            self.client.send(&query)?;
        } else {
            self.client.send_to(&query, self.to)?;
        }
        let mut buffer = [0; 512];
        let (n, from) = self.server.recv_from(&mut buffer).context("the query")?;
        ensure!(buffer[..n] == query, "another query");
        Ok((query, from))
    }

    /// Asks and answers.
    pub(crate) fn resolve(&self, id: u16, name: &str, kind: u16, answers: &[(&str, Data<'_>)]) -> Result<()> {
        let (_, from) = self.ask(id, name, kind)?;
        self.server.send_to(&message(id, 0x8180, (name, kind), answers), from)?;
        self.client.recv(&mut [0; 512]).context("the answer").map(drop)
    }
}

/// What an answer says of a name.
#[derive(Clone, Copy)]
pub(crate) enum Data<'a> {
    Address(IpAddr),
    Name(&'a str),
    /// A name of the address that was asked about.
    Pointer(&'a str),
}

pub(crate) fn udp(namespace: &Namespace, at: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.run("udp", || Ok(UdpSocket::bind(at)?))?;
    socket.set_read_timeout(Some(patient(PATIENCE)))?;
    Ok(socket)
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) fn message(id: u16, flags: u16, (name, kind): (&str, u16), answers: &[(&str, Data<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [id, flags, 1, answers.len() as u16, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(wire(name));
    bytes.extend([kind, 1].map(u16::to_be_bytes).concat());
    for (name, data) in answers {
        let (kind, data) = match data {
            Data::Address(IpAddr::V4(v4)) => (A, v4.octets().to_vec()),
            Data::Address(IpAddr::V6(v6)) => (AAAA, v6.octets().to_vec()),
            Data::Name(name) => (CNAME, wire(name)),
            Data::Pointer(name) => (PTR, wire(name)),
        };
        bytes.extend(wire(name));
        bytes.extend([kind, 1].map(u16::to_be_bytes).concat());
        bytes.extend(60u32.to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Gives the server another address.
pub(crate) fn also(net: &Pair, address: Ipv4Addr) -> Result<()> {
    net.server.ip(&format!("addr add {address}/24 dev {WIRE}"))?;
    net.client.neighbour(address.into(), &net.server.hardware_address()?)
}

/// Connects, and expects these names of the destination on the records of the side that asked for them.
fn dialled(net: &Pair, to: SocketAddr, names: &[&str]) -> Result<[Side; 2]> {
    let connection = net.client.run("client", || dial(to))?;
    let end = End::fin([1, 1], (connection.before, over(net)?));
    Ok(Side::both(&connection).map(|side| {
        let side = side.ended(end.clone());
        // What was asked in the client's namespace says nothing in the server's.
        if names.is_empty() || !side.outgoing { side } else { side.named(names) }
    }))
}

fn over_tcp(scene: &Scene) -> Result<()> {
    let balance = lived(scene, Grpc, |net| {
        let mut sides = Vec::new();
        for port in [53, 853, 53] {
            let server = Server::start(&net.server, (net.server_v4, port))?;
            sides.extend(dialled(net, server.address, &[])?);
        }
        Ok((sides, Vec::new()))
    })?;
    let counted = balance.name_servers.map(|account| (account.total, account.part("over TCP")));
    ensure!(counted == Some((3, 2)), "connections to name servers: {counted:?}");
    Ok(())
}

fn answered(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let [second, third] = net.spare;
        also(net, second)?;
        also(net, third)?;
        let server = Server::start(&net.server, (Ipv4Addr::UNSPECIFIED, 0))?;
        let six = Server::start(&net.server, (net.server_v6, 0))?;
        let four_to = SocketAddr::from((net.server_v4, 53));
        let six_to = SocketAddr::from((net.server_v6, 53));
        let mut sides = Vec::new();

        let connected = Resolver::new(net, udp(&net.server, four_to)?, four_to, true)?;
        let (asked, real) = ("www.flowtel.example", "web.flowtel.example");
        let chain = [(asked, Data::Name(real)), (real, Data::Address(net.server_v4.into()))];
        connected.resolve(7, asked, A, &chain)?;
        sides.extend(dialled(net, server.at(net.server_v4), &[asked, real])?);

        let unconnected = Resolver { connected: false, ..Resolver::new(net, connected.server, four_to, false)? };
        let name = "musl.flowtel.example";
        unconnected.resolve(8, name, A, &[(name, Data::Address(second.into()))])?;
        sides.extend(dialled(net, server.at(second), &[name])?);
        for (id, name) in [(9, "first.flowtel.example"), (10, "second.flowtel.example")] {
            unconnected.resolve(id, name, A, &[(name, Data::Address(third.into()))])?;
        }
        sides.extend(dialled(net, server.at(third), &["second.flowtel.example", "first.flowtel.example"])?);

        let over_six = Resolver::new(net, udp(&net.server, six_to)?, six_to, true)?;
        let name = "six.flowtel.example";
        over_six.resolve(11, name, AAAA, &[(name, Data::Address(net.server_v6.into()))])?;
        sides.extend(dialled(net, six.address, &[name])?);
        Ok((sides, Vec::new()))
    })
    .map(drop)
}

fn forged(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let other = net.spare[0];
        also(net, other)?;
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let to = SocketAddr::from((net.server_v4, 53));
        let resolver = Resolver::new(net, udp(&net.server, to)?, to, false)?;
        let liar = udp(&net.server, (other, 53).into())?;
        let name = "bank.flowtel.example";
        let lie = |id, name| message(id, 0x8180, (name, A), &[(name, Data::Address(net.server_v4.into()))]);
        let taken = |socket: &UdpSocket| socket.recv(&mut [0; 512]).context("the forgery").map(drop);

        let (_, from) = resolver.ask(21, name, A)?;
        resolver.server.send_to(&lie(22, name), from)?;
        taken(&resolver.client)?;
        let (_, from) = resolver.ask(23, name, A)?;
        liar.send_to(&lie(23, name), from)?;
        taken(&resolver.client)?;
        let (_, from) = resolver.ask(24, name, A)?;
        resolver.server.send_to(&lie(24, "shop.flowtel.example"), from)?;
        taken(&resolver.client)?;
        let silent = udp(&net.client, (net.client_v4, 0).into())?;
        resolver.server.send_to(&lie(25, name), silent.local_addr()?)?;
        taken(&silent)?;
        Ok((dialled(net, server.address, &[])?.into(), Vec::new()))
    })
    .map(drop)
}

fn translated(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let asked = SocketAddr::from(([127, 0, 0, 11], 53));
        let real = SocketAddr::from(([127, 0, 0, 11], 35_053));
        net.client.nft(
            "add table ip nat
            add chain ip nat out { type nat hook output priority -100 ; }
            add chain ip nat post { type nat hook postrouting priority 100 ; }
            add rule ip nat out ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:35053
            add rule ip nat post ip saddr 127.0.0.11 udp sport 35053 snat to 127.0.0.11:53",
        )?;
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let nameserver = udp(&net.client, real)?;
        let name = "docker.flowtel.example";
        let mut resolver = Resolver::new(net, nameserver, asked, false)?;
        let mut sides = Vec::new();
        for connected in [false, true] {
            resolver = Resolver::new(net, resolver.server, asked, connected)?;
            resolver.resolve(31, name, A, &[(name, Data::Address(net.server_v4.into()))])?;
            sides.extend(dialled(net, server.address, &[name])?);
        }
        Ok((sides, Vec::new()))
    })
    .map(drop)
}

// === containers

const CGROUPS: &str = "flowtel-test-";

/// A cgroup that a container would have; it goes with this.
pub struct Container {
    outer: PathBuf,
    pub inner: PathBuf,
    pub id: String,
}

impl Container {
    pub fn new() -> Result<Self> {
        let root = cgroup::root().ok_or_else(|| skip("no cgroup v2 file system"))?;
        let outer = root.join(format!("{CGROUPS}{}", std::process::id()));
        let id = format!("{:064x}", std::process::id());
        let inner = outer.join(format!("docker-{id}.scope"));
        fs::create_dir_all(&inner).map_err(|e| skip(format!("cgroups can't be made here: {e}")))?;
        Ok(Self { outer, inner, id })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for directory in [&self.inner, &self.outer] {
            // Whoever was in it is gone by now; if not, the next run removes it.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Removes cgroups that test processes left behind which are no more.
pub fn sweep() {
    let entries = cgroup::root().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(CGROUPS) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(inner.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn contained(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let container = Container::new()?;
        let address = (net.server_v4, 0).into();
        let listener = net.server.run(SERVER, || traffic::listen(address, None, |_| Ok(())))?;
        let (to, before) = (listener.local_addr()?, wall());
        let mut child = Child::start(scene, &net.client, &format!("wait {to}"), None)?;
        fs::write(container.inner.join("cgroup.procs"), child.id().to_string())
            .map_err(|e| skip(format!("processes can't be moved to a cgroup here: {e}")))?;
        child.go()?;
        let (server, client) = net.server.run("taker", || Ok(listener.accept()?))?;
        ensure!(child.line()? == client.to_string());
        ensure!(child.ended()?.success(), "the client failed");
        drop(server);
        let connection = Connection { client, server: to, thread: Child::thread()?, before, after: wall() };
        let end = End::fin([0, 0], (before, over(net)?));
        let executable = flowtel_tests::expect::Executable::May(std::env::current_exe()?);
        let owner = Owner { container: Some(container.id.clone()), executable, ..child.owner("connector")? };
        let outgoing = Side::outgoing(&connection).owned(Some(owner));
        let incoming =
            Side::incoming(&connection).accepted(Owner::here("taker", "acceptor"), Owner::here(SERVER, "listener"));
        // The cgroup's path is read when a record is written: a moment later than its event.
        pause(Duration::from_millis(300));
        Ok(([outgoing, incoming].map(|side| side.ended(end.clone())).into(), Vec::new()))
    })
    .map(drop)
}
