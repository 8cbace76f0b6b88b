//! Handshakes that are not the textbook's: repeated, forged, crossed, cut short.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::{Grpc, Http},
    expect::{Handshake, Owner, Side},
    forge::{ACK, Forge, Frames, RST, SYN, SYN_ACK, Segment},
    netns::{Pair, joined},
    scene::{Scenario, Scene, skip},
    sys,
    traffic::{self, Connection, SERVER, Server, connect, dial, exchange, finish, reset_at_close},
    wait::{pause, wall},
};
use rustix::net::{SendFlags, sendto};

use crate::watched;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("the handshake's duration is the other end's delay", 60, delayed),
    Scenario::new("a SYN-ACK repeated because the completing ACK was lost: one begin a side", 60, lost_ack),
    Scenario::new("a peer that answers only the second SYN-ACK: one begin, no duration", 60, second_syn_ack),
    Scenario::new("a SYN repeated because the first was lost: one begin a side", 60, lost_syn),
    Scenario::new("SYN cookies: one begin a side, IPv4 and IPv6", 60, cookies),
    Scenario::new("a hundred half-open SYNs: no record", 60, half_open),
    Scenario::new("forged SYN-ACKs alone: no record", 60, forged_alone),
    Scenario::new("forged SYN-ACKs before the right one: one begin, timed to the right one", 60, forged_then_right),
    Scenario::new("a SYN that crosses a SYN, with a hand-made peer: outgoing", 60, crossed_by_hand),
    Scenario::new("a SYN that crosses a SYN, between two kernels: outgoing on both sides", 60, crossed),
    Scenario::new("a socket connected to itself: one side, outgoing", 60, self_connected),
    Scenario::new("Fast Open: one begin a side", 60, fast_open),
    Scenario::new("Fast Open whose ACK never comes: no begin, although it was accepted", 60, fast_open_half),
];

const DELAY: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(10);
/// A sequence number to begin with.
const FIRST: u32 = 1_000_000;

fn listener(
    net: &Pair,
    prepare: impl FnOnce(&rustix::fd::OwnedFd) -> Result<()> + Send,
) -> Result<(TcpListener, SocketAddrV4)> {
    let listener = net.server.run(SERVER, || traffic::listen((net.server_v4, 0).into(), None, prepare))?;
    let SocketAddr::V4(address) = listener.local_addr()? else { anyhow::bail!("an IPv4 listener") };
    Ok((listener, address))
}

/// A first SYN from the client that is nobody.
fn forged_syn(net: &Pair, port: u16, to: SocketAddrV4) -> Segment {
    let source = SocketAddrV4::new(net.nobody_here, port);
    Segment { source, destination: to, sequence: FIRST, acknowledgement: 0, flags: SYN, payload: 0 }
}

/// Plays the client of one connection to `to`: answers SYN-ACK number `answer`, after `delay`.
fn forged_client(net: &Pair, to: SocketAddrV4, answer: usize, delay: Duration) -> Result<Connection> {
    let forge = Forge::new(&net.client)?;
    let syn = forged_syn(net, 40001, to);
    let before = wall();
    forge.send(&syn)?;
    let mut syn_ack = None;
    for _ in 0..answer {
        syn_ack = Some(forge.receive(net.nobody_here, PATIENCE, |s| s.flags & SYN_ACK == SYN_ACK)?);
    }
    let syn_ack = syn_ack.context("it answers one at least")?;
    pause(delay);
    forge.send(&syn_ack.answer(FIRST + 1, syn_ack.sequence + 1, ACK))?;
    let after = wall();
    forge.send(&syn_ack.answer(FIRST + 1, syn_ack.sequence + 1, RST | ACK))?;
    Ok(Connection { client: syn.source.into(), server: to.into(), thread: String::new(), before, after })
}

/// A real client's call to the server that is nobody, which the scenario's own thread then plays.
fn call_nobody(net: &Pair, port: u16) -> Result<std::thread::JoinHandle<Result<(Connection, TcpStream)>>> {
    let to = SocketAddr::from((net.nobody_there, port));
    net.client.spawn("caller", move || {
        let socket = traffic::socket(to, None)?;
        reset_at_close(&socket)?;
        connect(socket, to)
    })
}

fn first_syn(forge: &Forge, net: &Pair) -> Result<Segment> {
    forge.receive(net.nobody_there, PATIENCE, |s| s.flags & SYN_ACK == SYN)
}

fn delayed(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let (_listener, address) = listener(net, |_| Ok(()))?;
        let incoming = forged_client(net, address, 1, DELAY)?;

        let forge = Forge::new(&net.server)?;
        let caller = call_nobody(net, 7001)?;
        let syn = first_syn(&forge, net)?;
        pause(DELAY);
        forge.send(&syn.answer(FIRST, syn.sequence + 1, SYN_ACK))?;
        let (outgoing, _stream) = joined(caller.join())?;

        let duration = Handshake::Between(DELAY.as_secs_f64(), 5.0 * DELAY.as_secs_f64());
        Ok([Side::incoming(&incoming).bound_by(SERVER), Side::outgoing(&outgoing)]
            .map(|s| s.local(Some(false)).handshake(duration))
            .into())
    })
    .map(drop)
}

fn lost_ack(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let (listener, address) = listener(net, |_| Ok(()))?;
        drop_first(net, "tcp flags & (syn | ack | psh | fin | rst) == ack")?;
        // Nothing may be sent: data would complete the handshake too.
        let (mut connection, stream) = net.client.run("client", || {
            let to = address.into();
            connect(traffic::socket(to, None)?, to)
        })?;
        let sure = connection.after;
        let (accepted, _) = listener.accept()?;
        connection.after = wall();
        ensure!(connection.after - connection.before > 500_000_000, "the ACK was not lost");
        drop((stream, accepted));
        let mut outgoing = Side::outgoing(&connection).local(None);
        outgoing.between.1 = sure;
        let incoming = Side::incoming(&connection).local(None).handshake(Handshake::Absent);
        let incoming = incoming.accepted(Owner::here("scenario", "acceptor"), Owner::here(SERVER, "listener"));
        Ok(vec![outgoing, incoming])
    })
    .map(drop)
}

fn second_syn_ack(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let (_listener, address) = listener(net, |_| Ok(()))?;
        let connection = forged_client(net, address, 2, Duration::ZERO)?;
        Ok(vec![Side::incoming(&connection).bound_by(SERVER).local(Some(false)).handshake(Handshake::Absent)])
    })
    .map(drop)
}

fn lost_syn(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        drop_first(net, "tcp flags & (syn | ack) == syn")?;
        let connection = net.client.run("client", || dial(server.address))?;
        let second = Handshake::Between(0.5, (connection.after - connection.before) as f64 / 1e9);
        Ok(vec![Side::outgoing(&connection).handshake(second), Side::incoming(&connection)])
    })
    .map(drop)
}

/// Has the server's host lose the first packet of this kind.
fn drop_first(net: &Pair, packets: &str) -> Result<()> {
    net.server.nft(&format!(
        "add table ip lossy
        add chain ip lossy in {{ type filter hook input priority 0 ; }}
        add rule ip lossy in {packets} limit rate 1/day burst 1 packets drop"
    ))
}

fn cookies(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        net.server.sysctl("net.ipv4.tcp_syncookies", "2")?;
        let mut sides = Vec::new();
        for address in [IpAddr::from(net.server_v4), net.server_v6.into()] {
            let server = Server::start(&net.server, (address, 0))?;
            let connection = net.client.run("client", || dial(server.address))?;
            // The kernel kept no time: what it says of the duration is made up, and must not be told.
            sides.extend([Side::outgoing(&connection), Side::incoming(&connection).handshake(Handshake::Absent)]);
        }
        Ok(sides)
    })
    .map(drop)
}

fn half_open(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let (listener, address) = listener(net, |_| Ok(()))?;
        let forge = Forge::new(&net.client)?;
        for port in 40_000..40_100 {
            forge.send(&forged_syn(net, port, address))?;
        }
        for _ in 0..100 {
            forge.receive(net.nobody_here, PATIENCE, |s| s.flags & SYN_ACK == SYN_ACK)?;
        }
        listener.set_nonblocking(true)?;
        ensure!(listener.accept().is_err(), "a half-open connection was accepted");
        Ok(Vec::new())
    })
    .map(drop)
}

/// Three SYN-ACKs that acknowledge what was never sent.
fn send_forgeries(forge: &Forge, syn: &Segment) -> Result<()> {
    for wrong in [syn.sequence.wrapping_add(1001), syn.sequence, 0] {
        forge.send(&syn.answer(FIRST, wrong, SYN_ACK))?;
    }
    Ok(())
}

fn forged_alone(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let forge = Forge::new(&net.server)?;
        let to = SocketAddr::from((net.nobody_there, 7003));
        let caller =
            net.client.spawn("caller", move || Ok(TcpStream::connect_timeout(&to, Duration::from_millis(500))?))?;
        send_forgeries(&forge, &first_syn(&forge, net)?)?;
        ensure!(joined(caller.join()).is_err(), "a forged SYN-ACK was taken for a right one");
        Ok(Vec::new())
    })
    .map(drop)
}

fn forged_then_right(scene: &Scene) -> Result<()> {
    let late = Duration::from_millis(300);
    watched(scene, Grpc, |net| {
        let forge = Forge::new(&net.server)?;
        let caller = call_nobody(net, 7004)?;
        let syn = first_syn(&forge, net)?;
        send_forgeries(&forge, &syn)?;
        pause(late);
        forge.send(&syn.answer(FIRST, syn.sequence + 1, SYN_ACK))?;
        let (connection, _stream) = joined(caller.join())?;
        let duration = Handshake::Between(late.as_secs_f64(), (connection.after - connection.before) as f64 / 1e9);
        Ok(vec![Side::outgoing(&connection).local(Some(false)).handshake(duration)])
    })
    .map(drop)
}

fn crossed_by_hand(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let forge = Forge::new(&net.server)?;
        let caller = call_nobody(net, 7005)?;
        let syn = first_syn(&forge, net)?;
        forge.send(&syn.answer(FIRST, 0, SYN))?;
        forge.receive(net.nobody_there, PATIENCE, |s| s.flags & SYN_ACK == SYN_ACK)?;
        forge.send(&syn.answer(FIRST, syn.sequence + 1, SYN_ACK))?;
        // Linux 5.10 waits for this one.
        forge.send(&syn.answer(FIRST + 1, syn.sequence + 1, ACK))?;
        let (connection, _stream) = joined(caller.join())?;
        Ok(vec![Side::outgoing(&connection).local(Some(false)).handshake(Handshake::Absent)])
    })
    .map(drop)
}

fn crossed(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let (here, there) = (net.client.hardware_address()?, net.server.hardware_address()?);
        let nowhere = "02:00:00:00:00:77";
        net.client.neighbour(net.server_v4.into(), nowhere)?;
        net.server.neighbour(net.client_v4.into(), nowhere)?;
        let (client_frames, server_frames) = (Frames::new(&net.client)?, Frames::new(&net.server)?);

        let (one, other) = (SocketAddrV4::new(net.client_v4, 7006), SocketAddrV4::new(net.server_v4, 7007));
        let call = |from: SocketAddrV4, to: SocketAddrV4| {
            move || {
                let socket = traffic::socket(to.into(), None)?;
                rustix::net::bind(&socket, &from)?;
                reset_at_close(&socket)?;
                connect(socket, to.into())
            }
        };
        let first = net.client.spawn("one side", call(one, other))?;
        let second = net.server.spawn("other side", call(other, one))?;
        // Both SYNs are on the wire, and neither has arrived; then both arrive.
        let (to_server, to_client) = (server_frames.syn(other, PATIENCE)?, client_frames.syn(one, PATIENCE)?);
        client_frames.send(&to_server, &there)?;
        server_frames.send(&to_client, &here)?;
        net.client.neighbour(net.server_v4.into(), &there)?;
        net.server.neighbour(net.client_v4.into(), &here)?;

        let (first, _stream) = joined(first.join())?;
        let (second, _stream) = joined(second.join())?;
        Ok([first, second].map(|c| Side::outgoing(&c).handshake(Handshake::Absent)).into())
    })
    .map(drop)
}

fn self_connected(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let connection = net.client.run("narcissus", || {
            let to = SocketAddr::from((net.loopback, 7008));
            let socket = traffic::socket(to, None)?;
            rustix::net::bind(&socket, &to)?;
            let (connection, stream) = connect(socket, to)?;
            exchange(&stream)?;
            Ok(connection)
        })?;
        Ok(vec![Side::outgoing(&connection).handshake(Handshake::Absent)])
    })
    .map(drop)
}

const TCP_FASTOPEN: i32 = 23;
const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
const TCPI_OPT_SYN_DATA: u8 = 32;

fn takes_fast_open(socket: &rustix::fd::OwnedFd) -> Result<()> {
    sys::set_option(socket, libc::IPPROTO_TCP, TCP_FASTOPEN, &16i32.to_ne_bytes())
        .map_err(|e| skip(format!("this kernel has no TCP Fast Open: {e}")))
}

fn fast_open(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        for side in [&net.client, &net.server] {
            side.sysctl("net.ipv4.tcp_fastopen", "3")?;
        }
        let server = Server::with(&net.server, (net.server_v4, 0), None, takes_fast_open)?;
        // The first fetches the cookie, the second's data goes with the SYN.
        let mut sides = Vec::new();
        for (round, with_syn) in [("without cookie", false), ("with cookie", true)] {
            let connection = net.client.run(round, || {
                let before = wall();
                let socket = traffic::socket(server.address, None)?;
                sendto(&socket, b"x", MSG_FASTOPEN, &server.address).context("sending by Fast Open")?;
                let stream = TcpStream::from(socket);
                let mut byte = [0];
                std::io::Read::read_exact(&mut (&stream), &mut byte)?;
                let after = wall();
                let client = stream.local_addr()?;
                let used = sys::tcp_info(&stream)?.tcpi_options & TCPI_OPT_SYN_DATA != 0;
                if used != with_syn {
                    return Err(skip(format!("this kernel did not do Fast Open as expected ({round}: {used})")));
                }
                finish(stream)?;
                Ok(Connection { client, server: server.address, thread: round.into(), before, after })
            })?;
            let most = Handshake::AtMost((connection.after - connection.before) as f64 / 1e9);
            sides.extend([Side::outgoing(&connection), Side::incoming(&connection).handshake(most)]);
        }
        Ok(sides)
    })
    .map(drop)
}

fn fast_open_half(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| half_fast_open(net).map(|_| Vec::new())).map(drop)
}

/// A connection that is accepted by Fast Open and never completed, with its two ends.
pub fn half_fast_open(net: &Pair) -> Result<(TcpStream, [SocketAddr; 2])> {
    // 0x200: no cookie is asked for, so that a forged SYN with data will do.
    net.server.sysctl("net.ipv4.tcp_fastopen", "515")?;
    net.server.sysctl("net.ipv4.tcp_synack_retries", "1")?;
    let (listener, address) = listener(net, takes_fast_open)?;
    let forge = Forge::new(&net.client)?;
    let syn = Segment { payload: 20, ..forged_syn(net, 40_002, address) };
    forge.send(&syn)?;
    // Accepted before the handshake is complete: the kernel reports it as established then already.
    let (accepted, _) = listener.accept()?;
    let syn_ack = |s: &Segment| s.flags & SYN_ACK == SYN_ACK;
    ensure!(forge.receive(net.nobody_here, PATIENCE, syn_ack)?.acknowledgement == FIRST + 21, "no Fast Open");
    forge.receive(net.nobody_here, PATIENCE, syn_ack).context("the SYN-ACK's repetition")?;
    Ok((accepted, [syn.source.into(), address.into()]))
}
