//! Attempts that come to nothing: why, how often, and told by whom.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use flowtel_tests::{
    collector::Protocol::{Grpc, Http},
    expect::{End, Failure, Owner, Side},
    forge::{Forge, SYN, Segment},
    machine,
    netns::{Pair, WIRE},
    scene::{Scenario, Scene, skip},
    traffic::{self, Server, connect},
    wait::wall,
};
use rustix::{
    fd::OwnedFd,
    net::{self, sockopt},
};

use crate::{handshakes::half_fast_open, life::with_ends, lived, over};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "refused: both sides by IPv4, the asking one by IPv6; the socket connects elsewhere then",
        60,
        refused,
    ),
    Scenario::new("failures: timed out, unreachable, without a way, given up", 60, failures),
    Scenario::new("a SYN whose TCP_USER_TIMEOUT is short: timed out", 60, short_timeout),
    Scenario::new("nobody answers for an address of the own network: unreachable, however late", 60, nobody_at_home),
    Scenario::new("a bound socket that fails thrice and connects twice: a record and an id each", 60, used_again),
    Scenario::new("Fast Open whose ACK never comes: an attempt that timed out", 60, fast_open_half),
    Scenario::new("a scan of five hundred closed ports is one record on the scanned side", 60, scan),
];

/// Attempts to connect from a port, which must fail so.
pub fn fail(from: SocketAddr, to: SocketAddr, timeout: u32, kind: ErrorKind) -> Result<(OwnedFd, u64)> {
    let socket = traffic::socket(to, None)?;
    net::bind(&socket, &from)?;
    if timeout > 0 {
        sockopt::set_tcp_user_timeout(&socket, timeout)?;
    }
    let (before, _) = fail_on(&socket, to, kind)?;
    Ok((socket, before))
}

/// Attempts to connect a socket, which must fail so. Returns when.
fn fail_on(socket: &OwnedFd, to: SocketAddr, kind: ErrorKind) -> Result<(u64, u64)> {
    let before = wall();
    let error: std::io::Error = net::connect(socket, &to).err().context("a hopeless attempt succeeded")?.into();
    ensure!(error.kind() == kind, "{to}: {error} instead of {kind}");
    Ok((before, wall()))
}

pub const HOPEFUL: &str = "hopeful";

/// The cause that a record must name, where only the socket itself knows it: nothing, where the kernel does not show that.
pub fn known(error: &'static str) -> &'static str {
    if machine::tells_types() { error } else { "_OTHER" }
}

/// The asking side's failure.
pub fn outgoing(from: SocketAddr, to: SocketAddr, error: &'static str, attempts: i64, between: (u64, u64)) -> Failure {
    Failure {
        outgoing: true,
        source: (Some(from.ip()), Some(from.port())),
        destination: (Some(to.ip()), Some(to.port())),
        local: Some(false),
        owner: Some(Owner::here(HOPEFUL, "connector")),
        error,
        attempts: attempts..=attempts,
        fold: None,
        between,
    }
}

pub fn closed_port(net: &Pair, at: impl Into<IpAddr>) -> Result<SocketAddr> {
    let address = SocketAddr::new(at.into(), 0);
    net.server.run("closed", || Ok(TcpListener::bind(address)?.local_addr()?))
}

fn refused(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let (four, six) = (closed_port(net, net.server_v4)?, closed_port(net, net.server_v6)?);
        let kind = ErrorKind::ConnectionRefused;
        let from = SocketAddr::from((net.client_v4, 7301));
        let (before, between, connection, closing) = net.client.run(HOPEFUL, || {
            let (socket, before) = fail(from, four, 0, kind)?;
            let between = (before, wall());
            // The same socket again.
            let closing = wall();
            Ok((before, between, traffic::dial_on(socket, server.address)?, closing))
        })?;
        ensure!(before == between.0);
        let mine = outgoing(from, four, "refused", 1, between);
        let theirs = Failure { outgoing: false, owner: None, ..mine.clone() };
        let from = SocketAddr::from((net.client_v6, 7302));
        let between = net.client.run(HOPEFUL, || Ok((fail(from, six, 0, kind)?.1, wall())))?;
        let failures = vec![mine, theirs, outgoing(from, six, "refused", 1, between)];
        let end = End::fin([1, 1], (closing, over(net)?));
        let sides = Side::both(&connection).map(|side| side.ended(end.clone()));
        Ok((sides.into(), failures))
    })
    .map(drop)
}

fn failures(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        use ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        net.client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
        net.client.ip(&format!("route add unreachable {}/32", net.beyond[0]))?;
        net.server.nft(
            "add table ip no
            add chain ip no in { type filter hook input priority 0 ; }
            add rule ip no in tcp dport 7399 reject with icmp type host-unreachable",
        )?;
        let from = |port| SocketAddr::from((net.client_v4, port));
        let silent = SocketAddr::from((net.nobody_there, 7400));
        let rejected = SocketAddr::from((net.server_v4, 7399));
        let none = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let mut told = Vec::new();
        let forge = Forge::new(&net.server)?;
        net.client.run(HOPEFUL, || {
            let attempts = [
                (from(7311), silent, 0, TimedOut, "timed_out", 0),
                (from(7313), rejected, 0, HostUnreachable, known("unreachable"), 0),
                (none(0), (net.beyond[0], 80).into(), 0, HostUnreachable, known("unreachable"), 0),
                (none(0), (net.beyond[1], 80).into(), 0, NetworkUnreachable, known("unreachable"), 0),
            ];
            for (from, to, timeout, kind, error, attempts) in attempts {
                let (socket, before) = fail(from, to, timeout, kind)?;
                drop(socket);
                // How often it is tried differs from kernel to kernel.
                let attempts = if matches!(from.port(), 7311 | 7313) { syns(&forge, to)? } else { attempts };
                let failure = outgoing(from, to, error, attempts, (before, wall()));
                let source = if from.port() == 0 { (None, None) } else { failure.source };
                told.push(Failure { source, ..failure });
            }
            let before = wall();
            let socket = traffic::socket(silent, None)?;
            net::bind(&socket, &from(7314))?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            ensure!(net::connect(&socket, &silent) == Err(rustix::io::Errno::INPROGRESS));
            drop(socket);
            told.push(outgoing(from(7314), silent, "aborted", 1, (before, wall())));
            Ok(())
        })?;
        Ok((Vec::new(), told))
    })
    .map(drop)
}

fn short_timeout(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let (from, to) = ((net.client_v4, 7312).into(), (net.nobody_there, 7400).into());
        let forge = Forge::new(&net.server)?;
        let between = net.client.run(HOPEFUL, || {
            let (socket, before) = fail(from, to, 500, ErrorKind::TimedOut)?;
            drop(socket);
            Ok((before, wall()))
        })?;
        // How often it is tried differs from kernel to kernel.
        Ok((Vec::new(), vec![outgoing(from, to, "timed_out", syns(&forge, to)?, between)]))
    })
    .map(drop)
}

fn nobody_at_home(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        // Given up after three questions: 1.95 s. Meanwhile the first SYN waits, and a second one is made on some kernels.
        net.client.sysctl(&format!("net.ipv4.neigh.{WIRE}.retrans_time_ms"), "650")?;
        let (from, to) = ((net.client_v4, 7316).into(), (net.spare[0], 80).into());
        let between = net.client.run(HOPEFUL, || {
            let (socket, before) = fail(from, to, 0, ErrorKind::HostUnreachable)?;
            drop(socket);
            Ok((before, wall()))
        })?;
        let failure = Failure { attempts: 1..=2, ..outgoing(from, to, known("unreachable"), 1, between) };
        Ok((Vec::new(), vec![failure]))
    })
    .map(drop)
}

/// A bound socket, again and again: no way, no way, refused, connected, connected. Why a call failed that is followed by
/// another one on the same socket the socket no longer shows.
fn used_again(scene: &Scene) -> Result<()> {
    use ErrorKind::{ConnectionRefused, HostUnreachable};
    lived(scene, Http, |net| {
        net.client.ip(&format!("route add unreachable {}/32", net.beyond[0]))?;
        let to = closed_port(net, net.server_v4)?;
        let beyond = SocketAddr::from((net.beyond[0], 80));
        let from = SocketAddr::from((net.client_v4, 7315));
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let (socket, mut told) = net.client.run(HOPEFUL, || {
            let socket = traffic::socket(to, None)?;
            net::bind(&socket, &from)?;
            let mut told = Vec::new();
            for _ in 0..2 {
                let between = fail_on(&socket, beyond, HostUnreachable)?;
                told.push(Failure { source: (None, None), ..outgoing(none, beyond, "_OTHER", 0, between) });
            }
            let mine = outgoing(from, to, "refused", 1, fail_on(&socket, to, ConnectionRefused)?);
            let theirs = Failure { outgoing: false, owner: None, ..mine.clone() };
            told.extend([mine, theirs]);
            Ok((socket, told))
        })?;
        let server = Server::start(&net.server, to)?;
        let (connections, stream) = net.client.run(HOPEFUL, || {
            let (mut first, stream) = connect(socket, server.address)?;
            traffic::exchange(&stream)?;
            first.after = wall();
            let before = wall();
            net::connect_unspec(&stream)?;
            let (second, stream) = connect(stream.into(), server.address)?;
            traffic::exchange(&stream)?;
            Ok(([(first, before), (second, wall())], stream))
        })?;
        drop(stream);
        let after = over(net)?;
        let mut sides = Vec::new();
        for ((connection, closing), reasons) in
            connections.iter().zip([["reset.local", "reset.remote"], ["fin", "fin"]])
        {
            let ends = reasons.map(|reason| End::fin([1, 1], (*closing, after)).reason(reason));
            sides.extend(with_ends(Side::both(connection), ends));
        }
        told.sort_by_key(|failure| failure.between);
        Ok((sides, told))
    })
    .map(drop)
}

fn fast_open_half(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let before = wall();
        let (accepted, [from, to]) = half_fast_open(net)?;
        // Until the kernel gives it up.
        let between = (before, over(net)?);
        drop(accepted);
        let error = known("timed_out");
        let failure = Failure { outgoing: false, owner: None, ..outgoing(from, to, error, 1, between) };
        Ok((Vec::new(), vec![failure]))
    })
    .map(drop)
}

/// How many SYNs came there.
fn syns(forge: &Forge, to: SocketAddr) -> Result<i64> {
    let IpAddr::V4(ip) = to.ip() else { bail!("an IPv4 address") };
    let mut n = 0;
    let wanted = |segment: &Segment| segment.flags == SYN && SocketAddr::from(segment.destination) == to;
    while forge.receive(ip, Duration::from_millis(100), wanted).is_ok() {
        n += 1;
    }
    ensure!(n > 0, "no SYN came to {to}");
    Ok(n)
}

const SCANNED: u16 = 500;

fn scan(scene: &Scene) -> Result<()> {
    if flowtel_tests::wait::is_slow() {
        return Err(skip("this machine is too slow: the scan must be over within the second of one record"));
    }
    lived(scene, Http, |net| {
        let before = wall();
        let to = |i: u16| SocketAddr::from((net.server_v4, 8000 + i));
        let from = |i: u16| SocketAddr::from((net.client_v4, 12_000 + i));
        net.client.run(HOPEFUL, || {
            (0..SCANNED).try_for_each(|i| fail(from(i), to(i), 0, ErrorKind::ConnectionRefused).map(drop))
        })?;
        let between = (before, wall());
        let mut told: Vec<_> = (0..SCANNED).map(|i| outgoing(from(i), to(i), "refused", 1, between)).collect();
        let n = i64::from(SCANNED);
        told.push(Failure {
            outgoing: false,
            owner: None,
            source: (Some(net.client_v4.into()), None),
            destination: (Some(net.server_v4.into()), None),
            fold: Some((n, n)),
            ..outgoing(from(0), to(0), "refused", n, between)
        });
        for failure in &mut told {
            failure.attempts = if failure.fold.is_some() { n..=n } else { 1..=1 };
        }
        Ok((Vec::new(), told))
    })
    .map(drop)
}
