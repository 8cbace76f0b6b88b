//! Why attempts fail and connections end, as their application is told: by answers of every kind, by its own calls, by others'.

use std::{
    io::{ErrorKind, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    cgroup,
    collector::Protocol::{Grpc, Http},
    expect::{End, Failure, Handshake, Side},
    machine,
    netns::{Pair, WIRE},
    rival::Rival,
    scene::{Scenario, Scene, skip},
    sockmap::SockMap,
    sys,
    traffic::{self, Server, connect, exchange},
    wait::{pause, until, wall},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd as _, OwnedFd},
    io::Errno,
    net::{self, SendFlags, sendto, sockopt},
};

use crate::{
    failed::{HOPEFUL, known, outgoing},
    life::{Talk, with_ends},
    lived, open_sockets, over, watched,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("answers to a SYN: refused, unreachable or timed out, as the application is told", 120, answers),
    Scenario::new("an attempt given up by shutdown(), connect(AF_UNSPEC), ss -K and close(): aborted", 60, given_up),
    Scenario::new("no route: unreachable; no free port: not said to be", 60, no_route),
    Scenario::new("an interface that goes down while the SYN is out: what the application is told", 60, interface_down),
    Scenario::new("connect() that another program refuses: denied, where flowtel's runs after it", 60, denied),
    Scenario::new("Fast Open that was never written: aborted at its close", 60, never_written),
    Scenario::new("MPTCP: refused, timed out and given up as TCP is", 60, multipath),
    Scenario::new("TCP_DEFER_ACCEPT: the client's silence is no handshake", 60, deferred),
    Scenario::new("TCP_REPAIR: a begin without a handshake, an end without a cause", 60, repaired),
    Scenario::new("a FIN that waits behind a closed window until a timer gives up: timed out", 60, closed_window),
    Scenario::new("a FIN that was acknowledged by a peer that falls silent then: timed out", 60, half_silent),
    Scenario::new("a socket in a SOCKMAP: no bytes, on its side alone", 60, in_sockmap),
];

const PATIENCE: Duration = Duration::from_secs(10);

/// A socket that is bound, so that its records say from where.
fn bound(from: SocketAddr, protocol: Option<net::Protocol>) -> Result<OwnedFd> {
    let socket = traffic::socket(from, protocol)?;
    net::bind(&socket, &from)?;
    Ok(socket)
}

/// Has a socket connect without waiting for it.
fn begin(socket: &OwnedFd, to: SocketAddr) -> Result<()> {
    rustix::io::ioctl_fionbio(socket, true)?;
    let is = net::connect(socket, &to);
    ensure!(is == Err(Errno::INPROGRESS), "{to}: {is:?}");
    Ok(())
}

/// What a hopeless attempt is told, with or without waiting.
fn told(socket: &OwnedFd, to: SocketAddr, waits: bool) -> Result<Errno> {
    if waits {
        return net::connect(socket, &to).err().context("a hopeless attempt succeeded");
    }
    begin(socket, to)?;
    poll(&mut [PollFd::new(socket, PollFlags::OUT)], None)?;
    sockopt::socket_error(socket)?.err().context("no error was told")
}

fn answers(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        net.client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
        const V4: [(u16, &str, Errno, &str); 7] = [
            (7500, "reject with icmp type port-unreachable", Errno::CONNREFUSED, "refused"),
            (7501, "reject with icmp type host-unreachable", Errno::HOSTUNREACH, "unreachable"),
            (7502, "reject with icmp type net-unreachable", Errno::NETUNREACH, "unreachable"),
            (7503, "reject with icmp type admin-prohibited", Errno::HOSTUNREACH, "unreachable"),
            (7504, "reject with icmp type prot-unreachable", Errno::NOPROTOOPT, "unreachable"),
            (7505, "reject with tcp reset", Errno::CONNREFUSED, "refused"),
            (7506, "drop", Errno::TIMEDOUT, "timed_out"),
        ];
        const V6: [(u16, &str, Errno, &str); 6] = [
            (7500, "reject with icmpv6 type port-unreachable", Errno::CONNREFUSED, "refused"),
            (7501, "reject with icmpv6 type addr-unreachable", Errno::HOSTUNREACH, "unreachable"),
            (7502, "reject with icmpv6 type no-route", Errno::NETUNREACH, "unreachable"),
            (7503, "reject with icmpv6 type admin-prohibited", Errno::ACCESS, "unreachable"),
            (7505, "reject with tcp reset", Errno::CONNREFUSED, "refused"),
            (7506, "drop", Errno::TIMEDOUT, "timed_out"),
        ];
        let mut failures = Vec::new();
        for (family, from, to, rules) in [
            ("ip", IpAddr::from(net.client_v4), IpAddr::from(net.server_v4), &V4[..]),
            ("ip6", net.client_v6.into(), net.server_v6.into(), &V6[..]),
        ] {
            let mut lines = format!(
                "add table {family} answers
                add chain {family} answers in {{ type filter hook input priority 0 ; }}\n"
            );
            for (port, rule, ..) in rules {
                lines += &format!("add rule {family} answers in tcp dport {port} {rule}\n");
            }
            net.server.nft(&lines)?;
            for (port, rule, errno, error) in rules {
                for waits in [true, false] {
                    let from = SocketAddr::new(from, port + if waits { 100 } else { 200 });
                    let to = SocketAddr::new(to, *port);
                    let between = net.client.run(HOPEFUL, || {
                        let before = wall();
                        let is = told(&bound(from, None)?, to, waits)?;
                        ensure!(is == *errno, "{rule}: {is} instead of {errno}");
                        Ok((before, wall()))
                    })?;
                    // What answers a SYN in no time finds its socket locked: the next one is answered again.
                    let error = if rule.contains("icmp") { known(error) } else { error };
                    let most = if *error == *"timed_out" { 6 } else { 2 };
                    failures.push(Failure { attempts: 1..=most, ..outgoing(from, to, error, 1, between) });
                }
            }
        }
        Ok((Vec::new(), failures))
    })
    .map(drop)
}

fn given_up(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let mut failures = Vec::new();
        for (i, how) in ["shutdown", "unspec", "kill", "close"].into_iter().enumerate() {
            let from = SocketAddr::from((net.client_v4, 7610 + i as u16));
            let to = SocketAddr::from((net.nobody_there, 7620 + i as u16));
            let before = wall();
            let socket = net.client.run(HOPEFUL, || {
                let socket = bound(from, None)?;
                begin(&socket, to)?;
                Ok(socket)
            })?;
            pause(Duration::from_millis(50));
            match how {
                // What it answers differs from kernel to kernel.
                "shutdown" => drop(net::shutdown(&socket, net::Shutdown::Both)),
                "unspec" => net::connect_unspec(&socket)?,
                "kill" => net.client.exec(&format!("ss -K -t dst {} dport = {}", to.ip(), to.port()))?,
                _ => {}
            }
            let between = (before, wall() + if how == "close" { 50_000_000 } else { 0 });
            pause(Duration::from_millis(20));
            drop(socket);
            let error = if how == "close" { "aborted" } else { known("aborted") };
            failures.push(outgoing(from, to, error, 1, between));
        }
        Ok((Vec::new(), failures))
    })
    .map(drop)
}

fn no_route(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let [first, second] = net.beyond;
        // Each attempt is by another address of these networks, and belongs to this scenario by it.
        net.client.ip(&format!("route add unreachable {first}/32"))?;
        let mut failures = Vec::new();
        let mut attempt = |to: SocketAddr, errno: Errno, shown: SocketAddr| {
            let between = net.client.run(HOPEFUL, || {
                let before = wall();
                let is = net::connect(traffic::socket(to, None)?, &to).err().context("there is no way")?;
                ensure!(is == errno, "{to}: {is} instead of {errno}");
                Ok((before, wall()))
            })?;
            let none = SocketAddr::from(([0, 0, 0, 0], 0));
            failures.push(Failure { source: (None, None), ..outgoing(none, shown, known("unreachable"), 0, between) });
            anyhow::Ok(())
        };
        let port = |ip: IpAddr, port| SocketAddr::new(ip, port);
        attempt(port(first.into(), 81), Errno::HOSTUNREACH, port(first.into(), 81))?;
        attempt(port(second.into(), 81), Errno::NETUNREACH, port(second.into(), 81))?;
        attempt(port(first.to_ipv6_mapped().into(), 82), Errno::HOSTUNREACH, port(first.into(), 82))?;
        for (i, (kind, errno)) in [("blackhole", Errno::INVAL), ("prohibit", Errno::ACCESS)].into_iter().enumerate() {
            net.client.ip(&format!("route replace {kind} {first}/32"))?;
            let to = port(first.into(), 83 + i as u16);
            attempt(to, errno, to)?;
        }
        let six = IpAddr::from(net.server_v6);
        for (i, (kind, errno)) in
            [("unreachable", Errno::HOSTUNREACH), ("blackhole", Errno::INVAL), ("prohibit", Errno::ACCESS)]
                .into_iter()
                .enumerate()
        {
            net.client.ip(&format!("-6 route replace {kind} {six}/128"))?;
            let to = port(six, 80 + i as u16);
            attempt(to, errno, to)?;
        }
        // The only port is taken by an attempt that waits.
        let silent = SocketAddr::from((net.nobody_there, 7630));
        net.client.sysctl("net.ipv4.ip_local_port_range", "7631 7631")?;
        let before = wall();
        let taken = net.client.run(HOPEFUL, || {
            let socket = traffic::socket(silent, None)?;
            begin(&socket, silent)?;
            Ok(socket)
        })?;
        let between = net.client.run(HOPEFUL, || {
            let before = wall();
            let is = net::connect(traffic::socket(silent, None)?, &silent);
            ensure!(is == Err(Errno::ADDRNOTAVAIL), "no free port: {is:?}");
            Ok((before, wall()))
        })?;
        drop(taken);
        failures.push(outgoing((net.client_v4, 7631).into(), silent, "aborted", 1, (before, wall())));
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        failures.push(Failure { source: (None, None), ..outgoing(none, silent, "_OTHER", 0, between) });
        Ok((Vec::new(), failures))
    })
    .map(drop)
}

fn interface_down(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        net.client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
        let (from, to) = ((net.client_v4, 7640).into(), (net.nobody_there, 7641).into());
        let before = wall();
        let socket = net.client.run(HOPEFUL, || {
            let socket = bound(from, None)?;
            begin(&socket, to)?;
            Ok(socket)
        })?;
        net.client.ip(&format!("link set {WIRE} down"))?;
        poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None)?;
        // Older kernels don't tell of the interface; and without a socket's error there is its timer, which knows of none.
        let error = match sockopt::socket_error(&socket)? {
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH) if machine::tells_types() => "unreachable",
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::TIMEDOUT) => "timed_out",
            other => anyhow::bail!("no way any more: {other:?}"),
        };
        let failure = Failure { attempts: 1..=3, ..outgoing(from, to, error, 1, (before, wall())) };
        Ok((Vec::new(), vec![failure]))
    })
    .map(drop)
}

fn denied(scene: &Scene) -> Result<()> {
    const PORTS: [u16; 2] = [7650, 7651];
    let root = cgroup::root().context("a cgroup v2 file system")?;
    let before = Rival::refuses(&root, PORTS[0])?;
    lived(scene, Grpc, |net| {
        let after = Rival::refuses(&root, PORTS[1])?;
        let mut failures = Vec::new();
        let mut kept = Vec::new();
        // Where the socket is kept, what came of it nobody waits for.
        let seen = if machine::is_at_least((5, 18)) { "denied" } else { "_OTHER" };
        for (port, keeps, error) in
            [(PORTS[0], false, seen), (PORTS[0], seen == "denied", seen), (PORTS[1], false, "_OTHER")]
        {
            let to = SocketAddr::from((net.server_v4, port));
            let between = net.client.run(HOPEFUL, || {
                let before = wall();
                let socket = traffic::socket(to, None)?;
                let is = net::connect(&socket, &to).err().context("it is refused")?;
                ensure!(is == Errno::PERM, "{is} instead of EPERM");
                if keeps {
                    kept.push(socket);
                }
                Ok((before, wall()))
            })?;
            let none = SocketAddr::from(([0, 0, 0, 0], 0));
            failures.push(Failure { source: (None, None), ..outgoing(none, to, error, 0, between) });
        }
        pause(Duration::from_millis(1200));
        drop(after);
        Ok((Vec::new(), failures))
    })?;
    drop(before);
    Ok(())
}

const TCP_FASTOPEN: i32 = 23;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

fn never_written(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        for side in [&net.client, &net.server] {
            side.sysctl("net.ipv4.tcp_fastopen", "3")?;
        }
        let server = Server::with(&net.server, (net.server_v4, 0), None, |socket| {
            sys::set_option(socket, libc::IPPROTO_TCP, TCP_FASTOPEN, &16i32.to_ne_bytes())
                .map_err(|e| skip(format!("this kernel has no TCP Fast Open: {e}")))
        })?;
        let to = server.address;
        let (mut connection, stream) = net.client.run("first", || {
            let before = wall();
            let socket = traffic::socket(to, None)?;
            sendto(&socket, b"x", MSG_FASTOPEN, &to).context("sending by Fast Open")?;
            let stream = TcpStream::from(socket);
            let mut byte = [0];
            std::io::Read::read_exact(&mut (&stream), &mut byte)?;
            let client = stream.local_addr()?;
            let connection = traffic::Connection { client, server: to, thread: "first".into(), before, after: wall() };
            Ok((connection, stream))
        })?;
        connection.after = wall();
        let closing = wall();
        traffic::finish(stream)?;
        let most = Handshake::AtMost((connection.after - connection.before) as f64 / 1e9);
        let between = net.client.run(HOPEFUL, || {
            let socket = traffic::socket(to, None)?;
            sys::set_option(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &1i32.to_ne_bytes())?;
            net::connect(&socket, &to).context("it has a cookie, and waits for the first write")?;
            pause(Duration::from_millis(100));
            let before = wall();
            drop(socket);
            Ok((before, wall()))
        })?;
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        let failure = Failure { source: (None, None), ..outgoing(none, to, "aborted", 0, between) };
        let end = End::fin([1, 1], (closing, over(net)?));
        let sides = [Side::outgoing(&connection), Side::incoming(&connection).handshake(most)];
        Ok((sides.map(|side| side.ended(end.clone())).into(), vec![failure]))
    })
    .map(drop)
}

fn multipath(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let mptcp = net::ipproto::MPTCP;
        net.client.run("looker", || {
            traffic::socket((net.client_v4, 0).into(), Some(mptcp))
                .map(drop)
                .map_err(|e| skip(format!("no MPTCP: {e}")))
        })?;
        net.client.sysctl("net.ipv4.tcp_syn_retries", "1")?;
        let closed = net.server.run("closed", || Ok(TcpListener::bind((net.server_v4, 0))?.local_addr()?))?;
        let silent = SocketAddr::from((net.nobody_there, 7660));
        let from = |port| SocketAddr::from((net.client_v4, port));
        let mut failures = Vec::new();
        for (port, to, errno, error) in
            [(7661, closed, Errno::CONNREFUSED, "refused"), (7662, silent, Errno::TIMEDOUT, "timed_out")]
        {
            let between = net.client.run(HOPEFUL, || {
                let before = wall();
                let is = told(&bound(from(port), Some(mptcp))?, to, true)?;
                ensure!(is == errno, "{is} instead of {errno}");
                Ok((before, wall()))
            })?;
            let failure = Failure { attempts: 1..=6, ..outgoing(from(port), to, error, 1, between) };
            if error == "refused" {
                failures.push(Failure { outgoing: false, owner: None, attempts: 1..=1, ..failure.clone() });
            }
            failures.push(failure);
        }
        let between = net.client.run(HOPEFUL, || {
            let before = wall();
            let socket = bound(from(7663), Some(mptcp))?;
            begin(&socket, silent)?;
            drop(socket);
            Ok((before, wall() + 50_000_000))
        })?;
        // What is closed is the MPTCP socket, which has another cookie: only the subflow's own error tells.
        failures.push(outgoing(from(7663), silent, known("aborted"), 1, between));
        Ok((Vec::new(), failures))
    })
    .map(drop)
}

const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_REPAIR: i32 = 19;

fn deferred(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let mut sides = Vec::new();
        for timestamps in ["1", "0"] {
            net.server.sysctl("net.ipv4.tcp_timestamps", timestamps)?;
            let server = Server::with(&net.server, (net.server_v4, 0), None, |socket| {
                Ok(sys::set_option(socket, libc::IPPROTO_TCP, TCP_DEFER_ACCEPT, &5i32.to_ne_bytes())?)
            })?;
            let (mut connection, stream) =
                net.client.run("client", || connect(traffic::socket(server.address, None)?, server.address))?;
            let established = connection.after;
            pause(Duration::from_micros(300_100));
            exchange(&stream)?;
            connection.after = wall();
            traffic::finish(stream)?;
            let mut outgoing = Side::outgoing(&connection).local(None);
            outgoing.between.1 = established;
            sides.extend([outgoing, Side::incoming(&connection).local(None).handshake(Handshake::Absent)]);
        }
        Ok(sides)
    })
    .map(drop)
}

fn repaired(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let to = SocketAddr::from((net.nobody_there, 7670));
        let (connection, closing) = net.client.run("restorer", || {
            let socket = traffic::socket(to, None)?;
            sys::set_option(&socket, libc::IPPROTO_TCP, TCP_REPAIR, &1i32.to_ne_bytes())
                .map_err(|e| skip(format!("no TCP_REPAIR here: {e}")))?;
            let (connection, stream) = connect(socket, to)?;
            let closing = wall();
            drop(stream);
            Ok((connection, closing))
        })?;
        // Nothing was sent: neither FIN nor reset.
        let reason = if machine::tells_types() { "" } else { "timeout" };
        let end = End { rtt: false, packets: [0..=0, 0..=0], ..End::fin([0, 0], (closing, over(net)?)) }.reason(reason);
        let side = Side::outgoing(&connection).local(Some(false)).handshake(Handshake::Absent);
        Ok((vec![side.ended(end)], Vec::new()))
    })
    .map(drop)
}

/// Has a host lose all packets that come from a port.
fn lose_from(net: &Pair, port: u16) -> Result<()> {
    net.server.nft(&format!(
        "add table ip lost
        add chain ip lost in {{ type filter hook input priority 0 ; }}
        add rule ip lost in tcp sport {port} drop"
    ))
}

fn closed_window(scene: &Scene) -> Result<()> {
    lived(scene, Http, |net| {
        let talk = Talk::begin(net, net.server_v4)?;
        let sides = talk.sides();
        sockopt::set_tcp_user_timeout(&talk.server, 700)?;
        talk.server.set_nonblocking(true)?;
        let chunk = [7; 1 << 16];
        // Until the peer's window is closed, and more waits behind it.
        let mut last = wall();
        while wall() - last < 300_000_000 {
            match (&talk.server).write(&chunk) {
                Ok(_) => last = wall(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => pause(Duration::from_millis(10)),
                Err(e) => return Err(e.into()),
            }
        }
        until("all that was sent to be acknowledged", PATIENCE, || {
            Ok((sys::tcp_info(&talk.server)?.tcpi_unacked == 0).then_some(()))
        })?;
        let closing = wall();
        talk.client.shutdown(Shutdown::Write)?;
        pause(Duration::from_millis(50));
        lose_from(net, talk.connection.client.port())?;
        drop(talk.server);
        // Before the client's own reset: it has bytes that nobody read.
        until("the timer of the server's side", PATIENCE, || {
            let open = net.server.run("looker", open_sockets)?;
            Ok(open.is_empty().then_some(()))
        })?;
        drop(talk.client);
        let many = 1..=1 << 40;
        let end = |reason| End {
            bytes: [0..=0, many.clone()],
            packets: [many.clone(), many.clone()],
            retransmits: 0..=1 << 40,
            ..End::fin([0, 0], (closing, 0)).reason(reason)
        };
        let after = over(net)?;
        // Without BTF a FIN that waits looks like one that was acknowledged.
        let reason = if machine::tells_types() { "timeout" } else { "fin" };
        let ends = ["reset.local", reason].map(|reason| End { between: (closing, after), ..end(reason) });
        Ok((with_ends(sides, ends).collect(), Vec::new()))
    })
    .map(drop)
}

fn half_silent(scene: &Scene) -> Result<()> {
    lived(scene, Grpc, |net| {
        let talk = Talk::begin(net, net.server_v4)?;
        let socket = talk.server.as_fd();
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepintvl(socket, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(socket, 1)?;
        let closing = wall();
        // This side's FIN is acknowledged; the other side never closes, and then nothing comes from it any more.
        talk.server.shutdown(Shutdown::Write)?;
        pause(Duration::from_millis(100));
        lose_from(net, talk.connection.client.port())?;
        until("the keep-alive timer", PATIENCE, || {
            Ok(net.server.run("looker", open_sockets)?.is_empty().then_some(()))
        })?;
        let sides = talk.sides();
        // The client has got the FIN and the reset with which keep-alive gives up.
        drop(talk);
        let after = over(net)?;
        let ends = ["reset.remote", "timeout"].map(|reason| End::fin([0, 0], (closing, after)).reason(reason));
        Ok((with_ends(sides, ends).collect(), Vec::new()))
    })
    .map(drop)
}

fn in_sockmap(scene: &Scene) -> Result<()> {
    if !machine::tells_types() {
        return Err(skip("this kernel does not say whether a socket is in a SOCKMAP"));
    }
    lived(scene, Http, |net| {
        let map = SockMap::new()?;
        let mut sides = Vec::new();
        for by_client in [true, false] {
            let talk = Talk::begin(net, net.server_v4)?;
            let both = talk.sides();
            map.put(u32::from(by_client), &talk.server)?;
            let closing = wall();
            if by_client {
                drop(talk.client);
                pause(Duration::from_millis(20));
                drop(talk.server);
            } else {
                drop(talk.server);
                pause(Duration::from_millis(20));
                drop(talk.client);
            }
            let end = End::fin([0, 0], (closing, over(net)?));
            let ends = [end.clone(), End { counted: false, ..end }];
            sides.extend(with_ends(both, ends));
        }
        Ok((sides, Vec::new()))
    })
    .map(drop)
}
