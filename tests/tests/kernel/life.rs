//! Whole lives: begins and ends of both sides, with everything that a record says.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child::Child,
    collector::Protocol::Grpc,
    expect::{End, Executable, Handshake, Owner, Side},
    flowtel::Balance,
    forge::Frames,
    netns::{Pair, joined},
    scene::{Scenario, Scene, skip},
    traffic::{self, Connection, SERVER, Server, burst, connect, dial, reset_at_close},
    wait::{patient, pause, wall},
};
use rustix::net::{self, sockopt};

use crate::{lived, over};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("a life closed by the client: every byte told on both sides, IPv4 and IPv6", 60, by_client),
    Scenario::new("a life closed by the server", 60, by_server),
    Scenario::new("a life closed by close() on one side, and much later on the other", 60, long_after),
    Scenario::new("a life closed by one half, then by the other", 60, by_halves),
    Scenario::new("a life closed by both at once", 60, at_once),
    Scenario::new("a reset by either side is one's own on the one and the peer's on the other", 60, resets),
    Scenario::new("bytes that nobody read: a reset, by close() and by kill -9", 60, unread),
    Scenario::new("a connection that is never accepted is reset with its listener", 60, never_accepted),
    Scenario::new("a peer that falls silent: timed out, by TCP_USER_TIMEOUT and as an orphan", 60, silent),
    Scenario::new(
        "a peer that falls silent with FINs out: timed out, with and without data before them",
        60,
        last_silence,
    ),
    Scenario::new("SYNs that cross: begin and end by FIN on both sides", 60, crossed),
    Scenario::new("owners: another process accepts, one accepts without an address, one is gone at once", 60, owners),
    Scenario::new(
        "five thousand connections from eight threads: begin and end of each side told once",
        120,
        five_thousand,
    ),
];

const TAKER: &str = "taker";
const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of a connection.
pub(crate) struct Talk {
    pub connection: Connection,
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Talk {
    /// Connects, and has one thread accept.
    pub fn begin(net: &Pair, to: impl Into<IpAddr>) -> Result<Self> {
        Self::with(net, to, |_| Ok(()))
    }

    pub fn with(
        net: &Pair,
        to: impl Into<IpAddr>,
        prepare: impl FnOnce(&rustix::fd::OwnedFd) -> Result<()> + Send,
    ) -> Result<Self> {
        let address = SocketAddr::new(to.into(), 0);
        let listener = net.server.run(SERVER, || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let taker = listener.try_clone()?;
        let taken = net.server.spawn(TAKER, move || Ok((taker.accept()?.0, wall())))?;
        let (mut connection, client) = net.client.run("client", || {
            let socket = traffic::socket(to, None)?;
            prepare(&socket)?;
            connect(socket, to)
        })?;
        let (server, taken) = joined(taken.join())?;
        connection.after = connection.after.max(taken);
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { connection, client, server })
    }

    pub fn sides(&self) -> [Side; 2] {
        let acceptor = Owner::here(TAKER, "acceptor");
        let incoming = Side::incoming(&self.connection).accepted(acceptor, Owner::here(SERVER, "listener"));
        [Side::outgoing(&self.connection), incoming]
    }

    pub fn up(&self, n: usize) -> Result<()> {
        send(&self.client, &self.server, n)
    }

    pub fn down(&self, n: usize) -> Result<()> {
        send(&self.server, &self.client, n)
    }
}

/// Sends so many bytes from one to the other, and waits until they are acknowledged.
fn send(mut from: &TcpStream, mut to: &TcpStream, n: usize) -> Result<()> {
    thread::scope(|scope| {
        let writer = scope.spawn(move || from.write_all(&vec![b'x'; n]));
        to.read_exact(&mut vec![0; n]).context("reading")?;
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?.context("writing")
    })?;
    acknowledged(from)
}

/// Waits until everything that was sent is acknowledged.
pub(crate) fn acknowledged(from: &TcpStream) -> Result<()> {
    flowtel_tests::wait::until("acknowledgements", PATIENCE, || {
        Ok((flowtel_tests::sys::tcp_info(from)?.tcpi_unacked == 0).then_some(()))
    })
}

pub(crate) fn end_of(mut stream: &TcpStream) -> Result<()> {
    ensure!(stream.read(&mut [0])? == 0, "bytes after the end");
    Ok(())
}

/// Each side with its end.
pub(crate) fn with_ends(sides: [Side; 2], ends: [End; 2]) -> impl Iterator<Item = Side> {
    sides.into_iter().zip(ends).map(|(side, end)| side.ended(end))
}

fn both_fin(sides: [Side; 2], bytes: [i64; 2], between: (u64, u64)) -> impl Iterator<Item = Side> {
    with_ends(sides, [End::fin(bytes, between), End::fin(bytes, between)])
}

fn told(scene: &Scene, happen: impl FnOnce(&Pair, &mut Vec<Side>) -> Result<()>) -> Result<()> {
    lived(scene, Grpc, |net| {
        let mut sides = Vec::new();
        happen(net, &mut sides)?;
        Ok((sides, Vec::new()))
    })
    .map(drop)
}

// === ends

fn by_client(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        for to in [IpAddr::from(net.server_v4), net.server_v6.into()] {
            let talk = Talk::begin(net, to)?;
            talk.up(100_000)?;
            talk.down(250_000)?;
            let (of, before) = (talk.sides(), wall());
            drop(talk.client);
            end_of(&talk.server)?;
            drop(talk.server);
            sides.extend(both_fin(of, [100_000, 250_000], (before, over(net)?)));
        }
        Ok(())
    })
}

fn by_server(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        for to in [IpAddr::from(net.server_v4), net.server_v6.into()] {
            let talk = Talk::begin(net, to)?;
            talk.up(250_000)?;
            talk.down(100_000)?;
            let (of, before) = (talk.sides(), wall());
            drop(talk.server);
            end_of(&talk.client)?;
            drop(talk.client);
            sides.extend(both_fin(of, [250_000, 100_000], (before, over(net)?)));
        }
        Ok(())
    })
}

/// The socket that is closed first is gone before the peer's FIN comes: no byte that it received was that FIN.
fn long_after(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        for (to, by_client) in [(IpAddr::from(net.server_v4), true), (net.server_v6.into(), false)] {
            let talk = Talk::begin(net, to)?;
            talk.up(3000)?;
            talk.down(5000)?;
            let (of, before) = (talk.sides(), wall());
            let (first, last, namespace) = if by_client {
                (talk.client, talk.server, &net.client)
            } else {
                (talk.server, talk.client, &net.server)
            };
            drop(first);
            end_of(&last)?;
            flowtel_tests::wait::until("the end of the first", PATIENCE, || {
                Ok(namespace.run("looker", crate::open_sockets)?.is_empty().then_some(()))
            })?;
            drop(last);
            sides.extend(both_fin(of, [3000, 5000], (before, over(net)?)));
        }
        Ok(())
    })
}

fn by_halves(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        let talk = Talk::begin(net, net.server_v4)?;
        talk.up(1000)?;
        talk.client.shutdown(Shutdown::Write)?;
        end_of(&talk.server)?;
        talk.down(250_000)?;
        let (of, before) = (talk.sides(), wall());
        drop(talk.server);
        end_of(&talk.client)?;
        drop(talk.client);
        sides.extend(both_fin(of, [1000, 250_000], (before, over(net)?)));
        Ok(())
    })
}

fn at_once(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        let talk = Talk::begin(net, net.server_v4)?;
        talk.up(10)?;
        talk.down(20)?;
        // Both FINs are lost, so that each side has sent its own before it gets the other's.
        let (here, there) = (net.client.hardware_address()?, net.server.hardware_address()?);
        let nowhere = "02:00:00:00:00:77";
        net.client.neighbour(net.server_v4.into(), nowhere)?;
        net.server.neighbour(net.client_v4.into(), nowhere)?;
        let (of, before) = (talk.sides(), wall());
        talk.client.shutdown(Shutdown::Write)?;
        talk.server.shutdown(Shutdown::Write)?;
        net.client.neighbour(net.server_v4.into(), &there)?;
        net.server.neighbour(net.client_v4.into(), &here)?;
        end_of(&talk.client)?;
        end_of(&talk.server)?;
        drop((talk.client, talk.server));
        let end = End::fin([10, 20], (before, over(net)?)).retransmits(0..=3);
        sides.extend(with_ends(of, [end.clone(), end]));
        Ok(())
    })
}

/// The ends of a connection that one side resets: [outgoing, incoming].
pub(crate) fn reset(bytes: [i64; 2], by_client: bool, between: (u64, u64)) -> [End; 2] {
    let end = |own| End::fin(bytes, between).reason(if own { "reset.local" } else { "reset.remote" });
    [end(by_client), end(!by_client)]
}

fn resets(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        for by_client in [true, false] {
            for to in [IpAddr::from(net.server_v4), net.server_v6.into()] {
                let talk = Talk::begin(net, to)?;
                talk.up(3000)?;
                talk.down(500)?;
                let (of, before) = (talk.sides(), wall());
                let (one, other) = if by_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
                reset_at_close(&one)?;
                drop(one);
                ensure!((&other).read(&mut [0]).is_err(), "no reset came");
                drop(other);
                sides.extend(with_ends(of, reset([3000, 500], by_client, (before, over(net)?))));
            }
        }
        Ok(())
    })
}

fn unread(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        let talk = Talk::begin(net, net.server_v4)?;
        (&talk.client).write_all(&[b'x'; 700])?;
        acknowledged(&talk.client)?;
        let (of, before) = (talk.sides(), wall());
        drop(talk.server);
        ensure!((&talk.client).read(&mut [0]).is_err(), "no reset came");
        drop(talk.client);
        sides.extend(with_ends(of, reset([700, 0], false, (before, over(net)?))));

        let address = (net.server_v4, 0).into();
        let listener = net.server.run(SERVER, || traffic::listen(address, None, |_| Ok(())))?;
        let (to, before) = (listener.local_addr()?, wall());
        let mut child = Child::start(scene, &net.client, &format!("stay {to}"), None)?;
        let (server, client) = net.server.run(TAKER, || Ok(listener.accept()?))?;
        let connection = Connection { client, server: to, thread: Child::thread()?, before, after: wall() };
        ensure!(child.line()? == client.to_string());
        (&server).write_all(&[b'x'; 900])?;
        acknowledged(&server)?;
        let outgoing = Side::outgoing(&connection).owned(Some(child.owner("connector")?));
        let incoming =
            Side::incoming(&connection).accepted(Owner::here(TAKER, "acceptor"), Owner::here(SERVER, "listener"));
        // Until the process was looked at.
        pause(Duration::from_millis(150));
        let before = wall();
        child.kill()?;
        ensure!((&server).read(&mut [0]).is_err(), "no reset came");
        drop(server);
        sides.extend(with_ends([outgoing, incoming], reset([0, 900], true, (before, over(net)?))));
        Ok(())
    })
}

fn never_accepted(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        let address = (net.server_v4, 0).into();
        let listener = net.server.run("idle", || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let (mut connection, mut stream) = net.client.run("client", || connect(traffic::socket(to, None)?, to))?;
        stream.write_all(b"hello")?;
        acknowledged(&stream)?;
        connection.after = wall();
        let before = wall();
        drop(listener);
        ensure!(stream.read(&mut [0]).is_err(), "no reset came");
        drop(stream);
        let of = [Side::outgoing(&connection), Side::incoming(&connection).bound_by("idle")];
        sides.extend(with_ends(of, reset([5, 0], false, (before, over(net)?))));
        Ok(())
    })
}

fn silent(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        net.client.sysctl("net.ipv4.tcp_orphan_retries", "1")?;
        let user = Talk::with(net, net.server_v4, |socket| Ok(sockopt::set_tcp_user_timeout(socket, 1000)?))?;
        let orphan = Talk::begin(net, net.server_v4)?;
        user.up(50)?;
        orphan.up(60)?;
        deafen(net)?;
        let (of_user, of_orphan, before) = (user.sides(), orphan.sides(), wall());
        (&user.client).write_all(b"are you there?")?;
        drop(orphan.client);
        ensure!((&user.client).read(&mut [0]).is_err(), "no time-out");
        drop(user.client);
        flowtel_tests::wait::until("the orphan's end", PATIENCE, || {
            Ok(net.client.run("looker", crate::open_sockets)?.is_empty().then_some(()))
        })?;
        for server in [user.server, orphan.server] {
            reset_at_close(&server)?;
            drop(server);
        }
        let between = (before, over(net)?);
        for (of, bytes) in [(of_user, 50), (of_orphan, 60)] {
            let end = End::fin([bytes, 0], between);
            sides.extend(with_ends(of, [end.clone().reason("timeout").retransmits(1..=10), end.reason("reset.local")]));
        }
        Ok(())
    })
}

/// From now on nothing that the client sends comes to the server.
fn deafen(net: &Pair) -> Result<()> {
    net.server.nft(&format!(
        "add table ip deaf
        add chain ip deaf in {{ type filter hook input priority 0 ; }}
        add rule ip deaf in ip saddr {} drop",
        net.client_v4
    ))
}

/// The own FIN is never acknowledged: of LAST_ACK, where only data before it or the FIN itself is sent again, and of CLOSING.
fn last_silence(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        for namespace in [&net.client, &net.server] {
            namespace.sysctl("net.ipv4.tcp_orphan_retries", "1")?;
        }
        let [data, bare, both] = [50, 60, 70].map(|n| {
            let talk = Talk::begin(net, net.server_v4)?;
            talk.up(n)?;
            anyhow::Ok(talk)
        });
        let (data, bare, both) = (data?, bare?, both?);
        for talk in [&data, &bare] {
            talk.server.shutdown(Shutdown::Write)?;
            end_of(&talk.client)?;
            // The client may delay its ACK; a server that is deaf by then sends its FIN again.
            acknowledged(&talk.server)?;
        }
        deafen(net)?;
        let of = [data.sides(), bare.sides(), both.sides()];
        let before = wall();
        (&data.client).write_all(b"are you there?")?;
        for talk in [&data, &bare] {
            reset_at_close(&talk.server)?;
        }
        // The server's FIN comes while the client's is out.
        drop((data.client, bare.client, both.client, both.server));
        flowtel_tests::wait::until("the clients' end", PATIENCE, || {
            Ok(net.client.run("looker", crate::open_sockets)?.is_empty().then_some(()))
        })?;
        drop((data.server, bare.server));
        let between = (before, over(net)?);
        for (of, (bytes, there)) in of.into_iter().zip([(50, "reset.local"), (60, "reset.local"), (70, "timeout")]) {
            let end = End::fin([bytes, 0], between);
            let again = if there == "timeout" { 1..=10 } else { 0..=0 };
            let ends = [end.clone().reason("timeout").retransmits(1..=10), end.reason(there).retransmits(again)];
            sides.extend(with_ends(of, ends));
        }
        Ok(())
    })
}

fn crossed(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        let (here, there) = (net.client.hardware_address()?, net.server.hardware_address()?);
        let nowhere = "02:00:00:00:00:77";
        net.client.neighbour(net.server_v4.into(), nowhere)?;
        net.server.neighbour(net.client_v4.into(), nowhere)?;
        let (client_frames, server_frames) = (Frames::new(&net.client)?, Frames::new(&net.server)?);
        let (one, other) = (SocketAddrV4::new(net.client_v4, 7206), SocketAddrV4::new(net.server_v4, 7207));
        let call = |from: SocketAddrV4, to: SocketAddrV4| {
            move || {
                let socket = traffic::socket(to.into(), None)?;
                net::bind(&socket, &from)?;
                connect(socket, to.into())
            }
        };
        let first = net.client.spawn("one side", call(one, other))?;
        let second = net.server.spawn("other side", call(other, one))?;
        let (to_server, to_client) = (server_frames.syn(other, PATIENCE)?, client_frames.syn(one, PATIENCE)?);
        client_frames.send(&to_server, &there)?;
        server_frames.send(&to_client, &here)?;
        net.client.neighbour(net.server_v4.into(), &there)?;
        net.server.neighbour(net.client_v4.into(), &here)?;
        let (first, one) = joined(first.join())?;
        let (second, other) = joined(second.join())?;

        send(&one, &other, 300)?;
        send(&other, &one, 4000)?;
        let before = wall();
        drop(one);
        end_of(&other)?;
        drop(other);
        let between = (before, over(net)?);
        // SYNs were sent again until the way was open.
        for (connection, bytes) in [(first, [300, 4000]), (second, [4000, 300])] {
            let end = End::fin(bytes, between).retransmits(0..=5);
            sides.push(Side::outgoing(&connection).handshake(Handshake::Absent).ended(end));
        }
        Ok(())
    })
}

// === owners

fn owners(scene: &Scene) -> Result<()> {
    told(scene, |net, sides| {
        // A process before the fork binds, another one accepts.
        let address: SocketAddr = (net.server_v4, 0).into();
        let listener = net.server.run("master", || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let worker = Child::start(scene, &net.server, "accept", Some(listener.try_clone()?.into()))?;
        // The first one waits until the worker is there.
        for _ in 0..2 {
            let connection = net.client.run("client", || dial(to))?;
            let of = Side::both(&connection);
            let [outgoing, incoming] = of;
            let incoming = incoming.accepted(worker.owner("acceptor")?, Owner::here("master", "listener"));
            let end = End::fin([1, 1], (connection.before, over(net)?));
            sides.extend([outgoing, incoming].map(|side| side.ended(end.clone())));
        }
        // Until the process was looked at.
        pause(Duration::from_millis(150));
        drop((worker, listener));

        // accept() without an address.
        let listener = net.server.run("binder", || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let without = listener.try_clone()?;
        let taken = net.server.spawn(TAKER, move || Ok(traffic::echo(TcpStream::from(net::accept(&without)?))?))?;
        let connection = net.client.run("client", || dial(to))?;
        joined(taken.join())?;
        let end = End::fin([1, 1], (connection.before, over(net)?));
        let [outgoing, incoming] = Side::both(&connection);
        sides.extend([outgoing, incoming.bound_by("binder")].map(|side| side.ended(end.clone())));

        // A client that is gone at once.
        let before = wall();
        let mut child = Child::start(scene, &net.client, &format!("connect {to}"), None)?;
        let client = child.line()?.parse()?;
        ensure!(child.ended()?.success(), "a client failed");
        let (server, _) = net.server.run(TAKER, || Ok(listener.accept()?))?;
        end_of(&server)?;
        drop(server);
        let connection = Connection { client, server: to, thread: Child::thread()?, before, after: wall() };
        let executable = Executable::May(std::env::current_exe()?);
        let owner = Owner { executable, ..child.owner("connector")? };
        let end = End::fin([0, 0], (before, over(net)?));
        let taker = Owner::here(TAKER, "acceptor");
        let incoming = Side::incoming(&connection).accepted(taker, Owner::here("binder", "listener"));
        let outgoing = Side::outgoing(&connection).owned(Some(owner));
        sides.extend([outgoing, incoming].map(|side| side.ended(end.clone())));
        Ok(())
    })
}

fn five_thousand(scene: &Scene) -> Result<()> {
    if flowtel_tests::wait::is_slow() {
        return Err(skip("this machine is too slow: the collector's answers come after flowtel's patience"));
    }
    let balance: Balance = lived(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let connections = burst(&net.client, server.address, 8, 625)?;
        let now = over(net)?;
        let sides = connections.iter().flat_map(|c| {
            let seconds = Handshake::AtMost((c.after - c.before) as f64 / 1e9);
            let end = End::fin([1, 1], (c.before, now)).retransmits(0..=5);
            [Side::outgoing(c), Side::incoming(c).handshake(seconds)].map(|side| side.ended(end.clone()))
        });
        Ok((sides.collect(), Vec::new()))
    })?;
    ensure!(balance.records.total >= 20_000, "records are missing: {}", balance.records);
    Ok(())
}
