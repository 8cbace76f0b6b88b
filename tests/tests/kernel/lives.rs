//! Many connections, attempts that come to nothing, and sockets and ports that are used again.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use flowtel_tests::{
    collector::Protocol::{Grpc, Http},
    expect::{Handshake, Side},
    netns::{Pair, WIRE, joined},
    scene::{Scenario, Scene, skip},
    traffic::{self, Connection, SERVER, Server, burst, connect, dial_on, exchange, reset_at_close},
    wait::{pause, until, wall},
};
use rustix::net::{self, sockopt};

use crate::watched;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("the same ports again and again: a flow each time", 60, same_ports),
    Scenario::new(
        "a socket that failed to connect and then connects elsewhere: one begin, of the last call",
        60,
        second_try,
    ),
    Scenario::new("a socket disconnected and connected again: two flows", 60, |scene| twice_on_one_socket(scene, 0)),
    Scenario::new("a bound socket disconnected and connected again: the same addresses, two flows", 60, |scene| {
        twice_on_one_socket(scene, 7110)
    }),
    Scenario::new(
        "a thousand connections from eight threads, on the wire and on loopback: each told once",
        90,
        thousand,
    ),
    Scenario::new("attempts refused, timed out, unreachable or given up: no begin, all accounted for", 60, attempts),
    Scenario::new("a listener that accepts nothing: incoming begins all the same", 60, never_accepted),
    Scenario::new("Multipath TCP at both ends or at one: one begin a side", 60, multipath),
    Scenario::new(
        "a second subflow of Multipath TCP is a flow of its own, which no process asked for",
        60,
        second_subflow,
    ),
];

fn same_ports(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let from = SocketAddr::from((net.client_v4, 7100));
        let mut connections = Vec::new();
        for _ in 0..5 {
            connections.push(net.client.run("again", || {
                let socket = traffic::socket(server.address, None)?;
                sockopt::set_socket_reuseaddr(&socket, true)?;
                reset_at_close(&socket)?;
                net::bind(&socket, &from)?;
                let (mut connection, stream) = connect(socket, server.address)?;
                exchange(&stream)?;
                connection.after = wall();
                Ok(connection)
            })?);
        }
        Ok(Side::all(&connections))
    })
    .map(drop)
}

fn second_try(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let closed = closed_port(net)?;
        let connection = net.client.run("second try", || {
            let socket = traffic::socket(server.address, None)?;
            ensure!(net::connect(&socket, &closed).is_err(), "a closed port took a connection");
            dial_on(socket, server.address)
        })?;
        Ok(Side::all([&connection]))
    })
    .map(drop)
}

/// `port`: the client's own, 0 for one that the kernel chooses.
fn twice_on_one_socket(scene: &Scene, port: u16) -> Result<()> {
    watched(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let from = SocketAddr::from((net.client_v4, port));
        let connections = net.client.run("once more", || {
            let socket = traffic::socket(server.address, None)?;
            if port != 0 {
                net::bind(&socket, &from)?;
            }
            let (mut first, stream) = connect(socket, server.address)?;
            exchange(&stream)?;
            first.after = wall();
            net::connect_unspec(&stream)?;
            let second = dial_on(stream.into(), server.address)?;
            Ok([first, second])
        })?;
        Ok(Side::all(&connections))
    })
    .map(drop)
}

fn thousand(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let wire = Server::start(&net.server, (net.server_v4, 0))?;
        let inside = Server::start(&net.client, (net.loopback, 0))?;
        let (far, near) = std::thread::scope(|scope| {
            let far = scope.spawn(|| burst(&net.client, wire.address, 8, 125));
            let near = scope.spawn(|| burst(&net.client, inside.address, 8, 125));
            Ok::<_, anyhow::Error>((joined(far.join())?, joined(near.join())?))
        })?;
        ensure!(far.len() == 1000 && near.len() == 1000, "not all were made");
        let seconds = |c: &Connection| Handshake::AtMost((c.after - c.before) as f64 / 1e9);
        let incoming = |c: &Connection| Side::incoming(c).handshake(seconds(c));
        Ok(far.iter().chain(&near).flat_map(|c| [Side::outgoing(c), incoming(c)]).collect())
    })
    .map(drop)
}

/// A port of the server's where nobody listens.
fn closed_port(net: &Pair) -> Result<SocketAddr> {
    net.server.run("closed", || Ok(TcpListener::bind((net.server_v4, 0))?.local_addr()?))
}

fn attempts(scene: &Scene) -> Result<()> {
    let balance = watched(scene, Http, |net| {
        let closed = closed_port(net)?;
        let silent = SocketAddr::from((net.nobody_there, 7101));
        let unreachable = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 80));
        let routeless = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 1), 80));
        net.client.ip("route add unreachable 198.51.100.0/24")?;
        net.client.run("hopeless", || {
            let attempt = |to: SocketAddr, timeout: u32| -> Result<std::io::Error> {
                let socket = traffic::socket(to, None)?;
                if timeout > 0 {
                    sockopt::set_tcp_user_timeout(&socket, timeout)?;
                }
                match net::connect(&socket, &to) {
                    Ok(()) => bail!("{to} took a connection"),
                    Err(e) => Ok(e.into()),
                }
            };
            ensure!(attempt(closed, 0)?.kind() == ErrorKind::ConnectionRefused);
            ensure!(attempt(silent, 500)?.kind() == ErrorKind::TimedOut);
            ensure!(attempt(unreachable, 0)?.kind() == ErrorKind::HostUnreachable);
            ensure!(attempt(routeless, 0)?.kind() == ErrorKind::NetworkUnreachable);
            // Given up: closed while the SYN is on its way.
            let socket = traffic::socket(silent, None)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            ensure!(net::connect(&socket, &silent) == Err(rustix::io::Errno::INPROGRESS));
            Ok(())
        })?;
        Ok(Vec::new())
    })?;
    let account = &balance.kernel["connect"];
    ensure!(account.part("unused") + account.part("open") >= 5, "attempts are not accounted for: {account}");
    Ok(())
}

fn never_accepted(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let address = (net.server_v4, 0).into();
        let listener = net.server.run("idle", || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let (mut connection, stream) = net.client.run("client", || connect(traffic::socket(to, None)?, to))?;
        // The server's side is established by a segment that may be on its way still.
        pause(Duration::from_millis(20));
        connection.after = wall();
        drop((stream, listener));
        Ok(vec![Side::outgoing(&connection), Side::incoming(&connection).bound_by("idle")])
    })
    .map(drop)
}

fn multipath(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        for side in [&net.client, &net.server] {
            side.sysctl("net.mptcp.enabled", "1")?;
        }
        let mut sides = Vec::new();
        let protocol = |multi: bool| multi.then_some(net::ipproto::MPTCP);
        for (server_multi, client_multi) in [(true, true), (true, false), (false, true)] {
            let address = (net.server_v4, 0);
            let server = Server::with(&net.server, address, protocol(server_multi), |_| Ok(()));
            let server = server.map_err(|e| skip(format!("this kernel has no Multipath TCP: {e:#}")))?;
            let connection = net.client.run("multipath", || {
                dial_on(traffic::socket(server.address, protocol(client_multi))?, server.address)
            })?;
            // accept() is then called on another socket than the subflow's.
            let incoming = Side::incoming(&connection);
            let incoming = if server_multi && client_multi { incoming.bound_by(SERVER) } else { incoming };
            sides.extend([Side::outgoing(&connection), incoming]);
        }
        Ok(sides)
    })
    .map(drop)
}

fn second_subflow(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let second = net.spare[1];
        for side in [&net.client, &net.server] {
            side.sysctl("net.mptcp.enabled", "1")?;
            side.ip("mptcp limits set subflow 2 add_addr_accepted 2")
                .map_err(|e| skip(format!("Multipath TCP can't be told to use two addresses: {e}")))?;
        }
        net.client.ip(&format!("addr add {second}/24 dev {WIRE}"))?;
        net.client.ip(&format!("mptcp endpoint add {second} dev {WIRE} subflow"))?;
        net.server.neighbour(second.into(), &net.client.hardware_address()?)?;

        let multi = Some(net::ipproto::MPTCP);
        let server = Server::with(&net.server, (net.server_v4, 0), multi, |_| Ok(()))?;
        let (sides, _stream) = net.client.run("multipath", || {
            let (mut first, stream) = connect(traffic::socket(server.address, multi)?, server.address)?;
            exchange(&stream)?;
            first.after = wall();
            let port = until("the second subflow", Duration::from_secs(5), || established(second))?;
            let subflow = Connection { client: (second, port).into(), after: wall(), ..first.clone() };
            let incoming = |connection| Side::incoming(connection).bound_by(SERVER);
            let second = [Side::outgoing(&subflow).owned(None), incoming(&subflow)];
            let mut sides = vec![Side::outgoing(&first), incoming(&first)];
            sides.extend(second.map(|side| side.handshake(Handshake::AtMost(1.0))));
            Ok((sides, stream))
        })?;
        Ok(sides)
    })
    .map(drop)
}

/// The port of the established IPv4 connection from this address, in the calling thread's namespace.
fn established(from: Ipv4Addr) -> Result<Option<u16>> {
    let address = format!("{:08X}:", u32::from_ne_bytes(from.octets()));
    for line in std::fs::read_to_string("/proc/thread-self/net/tcp")?.lines() {
        let mut words = line.split_whitespace().skip(1);
        if let (Some(local), Some("01")) = (words.next(), words.nth(1))
            && let Some(port) = local.strip_prefix(&address)
        {
            return Ok(Some(u16::from_str_radix(port, 16)?));
        }
    }
    Ok(None)
}
