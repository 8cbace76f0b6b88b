//! Connections that are older than flowtel: each told once as open, with its owner, and later its end.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    cgroup::Cgroup,
    child::Child,
    collector::{
        Collector,
        Protocol::{Grpc, Http},
    },
    expect::{About, End, Owner, Side, exactly_all},
    flowtel::{Flowtel, Launch},
    machine,
    netns::{Pair, joined},
    record::Record,
    scene::{Scenario, Scene, skip},
    traffic::{self, Connection, Server, connect, reset_at_close},
    wait::{pause, until, wall},
    watching::Watching,
};
use rustix::{
    net::{self, sockopt},
    process::Signal,
};

use crate::{
    life::{Talk, end_of, reset, with_ends},
    open_sockets, over,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("older connections, closed by either side, IPv4 and IPv6: open and ended to the byte", 60, closed),
    Scenario::new("an older connection in flowtel's own network namespace", 60, own_namespace),
    Scenario::new("older connections half closed at the start, or later", 60, halves),
    Scenario::new("older connections that one side has left, at the start or later, while the other stays", 60, left),
    Scenario::new("older connections reset by either side, with bytes that nobody read, or by kill -9", 60, resets),
    Scenario::new("older connections whose peer falls silent: timed out; the other side is reset", 90, silent),
    Scenario::new("a listener older than flowtel owns what it accepts without an address", 60, listener),
    Scenario::new(
        "older connections of a flowtel before: begin by the one, open and end by the other, one id",
        60,
        again,
    ),
    Scenario::new(
        "older connections of a flowtel that was killed: begin by the one, open and end by the other, one id",
        60,
        killed,
    ),
    Scenario::new("eight threads connect while flowtel starts: each connection begins or is older", 90, storm),
    Scenario::new("without capture.snapshot nothing is told of older connections", 60, off),
    Scenario::new("below a cgroup nothing is told of older connections of other cgroups", 60, below),
    Scenario::new("without CAP_SYS_ADMIN older connections of flowtel's own network namespace alone", 60, no_admin),
    Scenario::new("two thousand older connections: told once, ended once", 420, many),
];

/// How long a snapshot may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// When flowtel was started, and when it had found what was there.
type Start = (u64, u64);

/// Starts flowtel, and waits until it has found what was there.
fn start(scene: &Scene, launch: Launch) -> Result<(Watching, Start)> {
    let before = wall();
    let watching = Watching::with(scene, Grpc, launch)?;
    let after = found(&watching.flowtel)?;
    Ok((watching, (before, after)))
}

/// Waits until flowtel has found what was there, and returns the time then.
pub(crate) fn found(flowtel: &Flowtel) -> Result<u64> {
    until("the snapshot", PATIENCE, || Ok(flowtel.says(" open connection").then_some(())))
        .with_context(|| flowtel.stderr())?;
    Ok(wall())
}

/// The name of this process's first thread: that is whom /proc shows.
fn holder() -> Result<String> {
    Child::thread()
}

/// Makes a situation with `before`, starts flowtel, and checks that exactly the sides were told that `after` returns.
fn told<T>(
    scene: &Scene,
    before: impl FnOnce(&Pair) -> Result<T>,
    after: impl FnOnce(&Pair, T, Start) -> Result<Vec<Side>>,
) -> Result<()> {
    let net = Pair::new(scene)?;
    let situation = before(&net)?;
    let (watching, started) = start(scene, Launch::everything()?)?;
    let sides = after(&net, situation, started)?;
    over(&net)?;
    settled(&watching.collector, &sides)?;
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &[])
}

/// Gives flowtel the time to look whether what it was told of is over.
fn settled(collector: &Collector, sides: &[Side]) -> Result<()> {
    let ends = sides.iter().filter(|side| side.end.is_some());
    let ends: Vec<_> = ends.map(|side| (side.source, side.destination)).collect();
    let about = |r: &Record| ends.iter().any(|(a, b)| r.source() == Some(*a) && r.destination() == Some(*b));
    // What is still missing after that is found by the comparison.
    ended(collector, ends.len(), about, Duration::from_secs(20)).map(drop)
}

/// Waits until so many ends of the like were told, or for so long. Returns whether they were.
fn ended(collector: &Collector, n: usize, about: impl Fn(&Record) -> bool, limit: Duration) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < limit {
        let records = collector.records()?;
        if records.iter().filter(|r| r.event_name.ends_with(".end") && about(r)).count() >= n {
            return Ok(true);
        }
        // All are decoded each time.
        pause(Duration::from_millis(50) + Duration::from_micros(records.len() as u64 * 100));
    }
    Ok(false)
}

/// Both sides of a connection that was open when flowtel started.
pub(crate) fn open(talk: &Talk, started: Start) -> Result<[Side; 2]> {
    let holder = holder()?;
    Ok(talk.sides().map(|side| side.open(&holder, started)))
}

fn fin(sides: [Side; 2], bytes: [i64; 2], between: (u64, u64)) -> impl Iterator<Item = Side> {
    // A busy machine may repeat a segment; the bytes are exact all the same.
    let end = End::fin(bytes, between).retransmits(0..=5);
    with_ends(sides, [end.clone(), end])
}

fn both_families(net: &Pair) -> [IpAddr; 2] {
    [net.server_v4.into(), net.server_v6.into()]
}

fn closed(scene: &Scene) -> Result<()> {
    let before = |net: &Pair| {
        let mut talks = Vec::new();
        for to in both_families(net) {
            for by_client in [true, false] {
                let talk = Talk::begin(net, to)?;
                talk.up(100_000)?;
                talk.down(70_000)?;
                talks.push((talk, by_client));
            }
        }
        Ok(talks)
    };
    told(scene, before, |_, talks, started| {
        let mut sides = Vec::new();
        for (talk, by_client) in talks {
            talk.up(1000)?;
            talk.down(250_000)?;
            let (of, before) = (open(&talk, started)?, wall());
            let (one, other) = if by_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
            drop(one);
            end_of(&other)?;
            drop(other);
            sides.extend(fin(of, [101_000, 320_000], (before, a_moment_later())));
        }
        Ok(sides)
    })
}

/// The time when what just happened is over: others of the scenario are still open.
fn a_moment_later() -> u64 {
    pause(Duration::from_millis(100));
    wall()
}

fn own_namespace(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let listener = traffic::listen((net.loopback, 0).into(), None, |_| Ok(()))?;
    let to = listener.local_addr()?;
    let (connection, mut client) = connect_from(net.loopback, to)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(&[b'x'; 10])?;
    server.read_exact(&mut [0; 10])?;
    let (watching, started) = start(scene, Launch::everything()?)?;
    server.write_all(&[b'x'; 20])?;
    client.read_exact(&mut [0; 20])?;
    let before = wall();
    drop(server);
    end_of(&client)?;
    drop(client);
    pause(Duration::from_millis(100));
    let end = End::fin([10, 20], (before, wall()));
    let holder = holder()?;
    let sides = Side::both(&connection).map(|side| side.open(&holder, started).ended(end.clone()));
    settled(&watching.collector, &sides)?;
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Endpoints(vec![to]), &sides, &[])
}

/// Connects from an address that has no name.
fn connect_from(address: impl Into<IpAddr>, to: SocketAddr) -> Result<(Connection, TcpStream)> {
    let socket = traffic::socket(to, None)?;
    net::bind(&socket, &SocketAddr::new(address.into(), 0))?;
    connect(socket, to)
}

fn halves(scene: &Scene) -> Result<()> {
    let before = |net: &Pair| {
        let mut talks = Vec::new();
        for (by_client, at_start) in [(true, true), (false, true), (true, false), (false, false)] {
            let talk = Talk::begin(net, net.server_v4)?;
            talk.up(300)?;
            talk.down(400)?;
            if at_start {
                half(&talk, by_client)?;
            }
            talks.push((talk, by_client, at_start));
        }
        Ok(talks)
    };
    told(scene, before, |_, talks, started| {
        let mut sides = Vec::new();
        for (talk, by_client, at_start) in talks {
            let of = open(&talk, started)?;
            if !at_start {
                half(&talk, by_client)?;
            }
            // Half a close is none.
            pause(Duration::from_millis(300));
            let bytes = if by_client {
                talk.down(5000)?;
                [300, 5400]
            } else {
                talk.up(5000)?;
                [5300, 400]
            };
            let before = wall();
            let (one, other) = if by_client { (talk.server, talk.client) } else { (talk.client, talk.server) };
            drop(one);
            end_of(&other)?;
            drop(other);
            sides.extend(fin(of, bytes, (before, a_moment_later())));
        }
        Ok(sides)
    })
}

fn half(talk: &Talk, by_client: bool) -> Result<()> {
    let (one, other) = if by_client { (&talk.client, &talk.server) } else { (&talk.server, &talk.client) };
    one.shutdown(Shutdown::Write)?;
    end_of(other)?;
    // Until it is acknowledged.
    pause(Duration::from_millis(60));
    Ok(())
}

/// A closed socket whose FIN is acknowledged is over, as the kernel's own change of state says; that the peer stays, and a
/// remainder of the socket waits for it, changes nothing.
fn left(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let [gone, stays] = [Talk::begin(&net, net.server_v4)?, Talk::begin(&net, net.server_v4)?];
    for talk in [&gone, &stays] {
        talk.up(300)?;
        talk.down(400)?;
    }
    half(&gone, true)?;
    let [_, incoming] = gone.sides();
    drop(gone.client);
    let (watching, started) = start(scene, Launch::everything()?)?;
    let end = |before| End::fin([300, 400], (before, a_moment_later())).retransmits(0..=5);
    let [outgoing, other] = open(&stays, started)?;
    let before = wall();
    drop(stays.client);
    end_of(&stays.server)?;
    let mut sides = vec![outgoing.ended(end(before))];
    // Not only when it is the silent ones' turn.
    let soon = ended(&watching.collector, 1, |_| true, Duration::from_secs(6))?;
    ensure!(soon, "the end of what was closed is not told while its peer stays");
    for (side, server) in [(incoming.open(&holder()?, started), gone.server), (other, stays.server)] {
        let before = wall();
        drop(server);
        sides.push(side.ended(end(before)));
    }
    over(&net)?;
    settled(&watching.collector, &sides)?;
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &[])
}

fn resets(scene: &Scene) -> Result<()> {
    let before = |net: &Pair| {
        let mut talks = Vec::new();
        for by_client in [true, false] {
            for to in both_families(net) {
                let talk = Talk::begin(net, to)?;
                talk.up(3000)?;
                talks.push((talk, by_client));
            }
        }
        let unread = Talk::begin(net, net.server_v4)?;
        unread.up(50)?;
        // A client of its own, to be killed.
        let listener = net.server.run("server", || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let before = wall();
        let mut child = Child::start(scene, &net.client, &format!("stay {to}"), None)?;
        let client: SocketAddr = child.line()?.parse()?;
        let (server, _) = listener.accept()?;
        let connection = Connection { client, server: to, thread: Child::thread()?, before, after: wall() };
        Ok((talks, unread, child, connection, server))
    };
    told(scene, before, |_, (talks, unread, mut child, connection, server), started| {
        let mut sides = Vec::new();
        for (talk, by_client) in talks {
            talk.down(500)?;
            let (of, before) = (open(&talk, started)?, wall());
            let (one, other) = if by_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
            reset_at_close(&one)?;
            drop(one);
            ensure!((&other).read(&mut [0]).is_err(), "no reset came");
            drop(other);
            sides.extend(with_ends(
                of,
                reset([3000, 500], by_client, (before, a_moment_later())).map(|end| end.retransmits(0..=5)),
            ));
        }
        let (of, before) = (open(&unread, started)?, wall());
        (&unread.client).write_all(&[b'x'; 650])?;
        crate::life::acknowledged(&unread.client)?;
        drop(unread.server);
        ensure!((&unread.client).read(&mut [0]).is_err(), "no reset came");
        drop(unread.client);
        sides.extend(with_ends(of, reset([700, 0], false, (before, a_moment_later()))));

        let before = wall();
        let owner = child.owner("connector")?.found();
        child.kill()?;
        end_of(&server)?;
        drop(server);
        let [outgoing, incoming] = Side::both(&connection).map(|side| side.open(&connection.thread, started));
        sides.extend(fin([outgoing.owned(Some(owner)), incoming], [0, 0], (before, a_moment_later())));
        Ok(sides)
    })
}

fn silent(scene: &Scene) -> Result<()> {
    let before = |net: &Pair| {
        net.client.sysctl("net.ipv4.tcp_orphan_retries", "1")?;
        let user = Talk::with(net, net.server_v4, |socket| Ok(sockopt::set_tcp_user_timeout(socket, 1000)?))?;
        let orphan = Talk::begin(net, net.server_v4)?;
        user.up(50)?;
        orphan.up(60)?;
        Ok((user, orphan))
    };
    told(scene, before, |net, (user, orphan), started| {
        net.server.nft(&format!(
            "add table ip deaf
            add chain ip deaf in {{ type filter hook input priority 0 ; }}
            add rule ip deaf in ip saddr {} drop",
            net.client_v4
        ))?;
        let (of_user, of_orphan, before) = (open(&user, started)?, open(&orphan, started)?, wall());
        (&user.client).write_all(b"are you there?")?;
        drop(orphan.client);
        ensure!((&user.client).read(&mut [0]).is_err(), "no time-out");
        drop(user.client);
        until("the orphan's end", PATIENCE, || Ok(net.client.run("looker", open_sockets)?.is_empty().then_some(())))?;
        for server in [user.server, orphan.server] {
            reset_at_close(&server)?;
            drop(server);
        }
        // That a socket is gone without a word is seen when it is its turn.
        let between = (before, over(net)? + 15_000_000_000);
        let mut sides = Vec::new();
        for (of, bytes) in [(of_user, 50), (of_orphan, 60)] {
            let end = End::fin([bytes, 0], between);
            let timeout = end.clone().reason("timeout").retransmits(0..=10);
            sides.extend(with_ends(of, [timeout, end.reason("reset.local")]));
        }
        Ok(sides)
    })
}

fn listener(scene: &Scene) -> Result<()> {
    let before = |net: &Pair| net.server.run("binder", || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())));
    told(scene, before, |net, listener, _| {
        let to = listener.local_addr()?;
        let taken = net.server.spawn("taker", move || Ok(traffic::echo(TcpStream::from(net::accept(&listener)?))?))?;
        let connection = net.client.run("client", || traffic::dial(to))?;
        joined(taken.join())?;
        let end = End::fin([1, 1], (connection.before, over(net)?));
        let [outgoing, incoming] = Side::both(&connection);
        Ok([outgoing, incoming.owned(Some(Owner::here(&holder()?, "listener").found()))]
            .map(|side| side.ended(end.clone()))
            .into())
    })
}

fn again(scene: &Scene) -> Result<()> {
    restarted(scene, false)
}

fn killed(scene: &Scene) -> Result<()> {
    restarted(scene, true)
}

fn restarted(scene: &Scene, kill: bool) -> Result<()> {
    let net = Pair::new(scene)?;
    let mut collector = Collector::start(scene)?;
    let about = About::Addresses(net.addresses());
    let mine = |records: Vec<Record>| records.into_iter().filter(|r| about.concerns(r)).collect::<Vec<_>>();
    let key = |r: &Record| (r.source(), r.destination(), r.text("flowtel.flow.direction").to_owned());

    let first = collector.receive_from(Launch::everything()?, Http).start(scene)?;
    let mut talks = Vec::new();
    for to in both_families(&net) {
        let talk = Talk::begin(&net, to)?;
        talk.up(100)?;
        talks.push(talk);
    }
    until("the begins", PATIENCE, || Ok((mine(collector.records()?).len() >= 4).then_some(())))?;
    if kill {
        first.signal(Signal::KILL)?;
        drop(first);
    } else {
        first.stop()?.balance()?;
    }
    let begun = mine(collector.records()?);
    ensure!(begun.len() == 4, "{} records of the begins", begun.len());
    let ids: BTreeMap<_, _> = begun.iter().map(|r| (key(r), r.text("flowtel.flow.id"))).collect();

    let before = wall();
    let second = collector.receive_from(Launch::everything()?, Grpc).start(scene)?;
    let started = (before, found(&second)?);
    let mut sides = Vec::new();
    for (i, talk) in talks.into_iter().enumerate() {
        talk.down(200)?;
        let (of, before) = (open(&talk, started)?, wall());
        let (one, other) = if i == 0 { (talk.client, talk.server) } else { (talk.server, talk.client) };
        drop(one);
        end_of(&other)?;
        drop(other);
        sides.extend(fin(of, [100, 200], (before, a_moment_later())));
    }
    settled(&collector, &sides)?;
    second.stop()?.balance()?;
    collector.stop()?;
    // In the order in which they came.
    let told = mine(collector.records()?).split_off(begun.len());
    exactly_all(&told, &about, &sides, &[])?;
    for record in told {
        let id = ids.get(&key(&record)).copied();
        ensure!(id == Some(record.text("flowtel.flow.id")), "another id: {record:#?}");
    }
    Ok(())
}

const THREADS: usize = 8;

fn storm(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = server.address;
    let (started, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let mut threads = Vec::new();
    for i in 0..THREADS {
        let (started, stop) = (Arc::clone(&started), Arc::clone(&stop));
        threads.push(net.client.spawn(&format!("storm-{i}"), move || {
            let mut open: Vec<(Connection, TcpStream)> = Vec::new();
            while !stop.load(Relaxed) {
                // Some before, some while, some after, however long it takes to start.
                if open.len() < 150 || started.load(Relaxed) {
                    let (connection, stream) = connect(traffic::socket(to, None)?, to)?;
                    open.push((connection, stream));
                }
                pause(Duration::from_millis(5));
            }
            Ok(open)
        })?);
    }
    pause(Duration::from_millis(50));
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    found(&watching.flowtel)?;
    started.store(true, Relaxed);
    pause(Duration::from_millis(50));
    stop.store(true, Relaxed);
    let mut connections = Vec::new();
    for thread in threads {
        connections.extend(joined(thread.join())?);
    }
    let ends: Vec<_> = connections.iter().map(|(connection, _)| (connection.client, connection.server)).collect();
    // The server has four threads that each serve one connection at a time: not every one was accepted. They close.
    drop(connections);
    let told = |r: &Record| r.destination() == Some(to);
    ensure!(ended(&watching.collector, 2 * ends.len(), told, Duration::from_secs(40))?, "ends are missing");
    drop(server);
    let told = watching.finish()?;
    let about = About::Addresses(net.addresses());
    let mut lives: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in told.records.iter().filter(|r| about.concerns(r)) {
        let word = record.event_name.rsplit('.').next().unwrap_or_default().to_owned();
        let key = (record.source(), record.destination(), record.text("flowtel.flow.direction").to_owned());
        lives.entry(key).or_default().push((word, record.text("flowtel.flow.id").to_owned()));
    }
    ensure!(lives.len() == 2 * ends.len(), "{} sides instead of {}", lives.len(), 2 * ends.len());
    let (mut begun, mut open) = (0, 0);
    for (client, server) in ends {
        for way in ["outgoing", "incoming"] {
            let life = lives.get(&(Some(client), Some(server), way.to_owned())).cloned().unwrap_or_default();
            let count = |word: &str| life.iter().filter(|(w, _)| w == word).count();
            ensure!(count("begin") + count("open") == 1 && count("end") == 1, "{way} {client}: {life:?}");
            ensure!(life.len() == 2 && life.iter().all(|(_, id)| *id == life[0].1), "{way} {client}: {life:?}");
            begun += count("begin");
            open += count("open");
        }
    }
    ensure!(begun > 0 && open > 0, "{begun} begun and {open} open: the start was not in the middle");
    Ok(())
}

fn off(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let talk = Talk::begin(&net, net.server_v4)?;
    let watching = Watching::with(scene, Http, Launch::everything()?.set("capture.snapshot", "false"))?;
    talk.up(100)?;
    drop((talk.client, talk.server));
    over(&net)?;
    pause(Duration::from_millis(200));
    ensure!(!watching.flowtel.says(" open connection"), "a snapshot was taken");
    let told = watching.finish()?;
    exactly_all(&nobody_elses(told.records), &About::Addresses(net.addresses()), &[], &[])
}

fn below(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let cgroup = Cgroup::new()?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (_, _outside) = net.client.run("outside", || connect_from(net.client_v4, server.address))?;
    let mut inside = Child::start(scene, &net.client, &format!("join {}", server.address), None)?;
    cgroup.take(inside.id())?;
    inside.go()?;
    let local: SocketAddr = inside.line()?.parse()?;
    let (watching, _) = start(scene, Launch::everything()?.within(&cgroup))?;
    inside.kill()?;
    let about = About::Addresses(net.addresses());
    until("an open record and its end", PATIENCE, || {
        let records = watching.collector.records()?;
        Ok((records.iter().filter(|record| about.concerns(record)).count() > 1).then_some(()))
    })?;
    let told = watching.finish()?;
    let told: Vec<_> = told.records.iter().filter(|record| about.concerns(record)).collect();
    let names: Vec<_> = told.iter().map(|record| record.event_name.as_str()).collect();
    ensure!(names == ["flowtel.tcp.flow.open", "flowtel.tcp.flow.end"], "told: {names:?}");
    for record in told {
        ensure!(record.int("source.port") == Some(local.port().into()), "another connection: {record:?}");
    }
    Ok(())
}

/// Without ends whose begin was not told: another flowtel that watches this host has asked the sockets for their states,
/// and then each is told of their ends.
fn nobody_elses(mut records: Vec<Record>) -> Vec<Record> {
    records.retain(|r| !(r.event_name.ends_with(".end") && r.text("flowtel.flow.direction").is_empty()));
    records
}

fn no_admin(scene: &Scene) -> Result<()> {
    // By its path: a shell of busybox has one of its own, which can't do this.
    let Some(setpriv) = machine::path_of("setpriv") else {
        return Err(skip("needs setpriv (util-linux)"));
    };
    let setpriv = setpriv.display();
    let launch = Launch::everything()?;
    let script = scene.directory().join("flowtel");
    let program = launch.program().display().to_string();
    fs::write(&script, format!("#!/bin/sh\nexec {setpriv} --bounding-set=-sys_admin {program} \"$@\"\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;

    let net = Pair::new(scene)?;
    let talk = Talk::begin(&net, net.server_v4)?;
    let listener = traffic::listen((net.loopback, 0).into(), None, |_| Ok(()))?;
    let to = listener.local_addr()?;
    let (connection, client) = connect_from(net.loopback, to)?;
    let (server, _) = listener.accept()?;
    let (watching, started) = start(scene, Launch::of(script))?;
    ensure!(watching.flowtel.says("CAP_SYS_ADMIN is missing"), "{}", watching.flowtel.stderr());
    talk.up(100)?;
    let before = wall();
    drop((talk.client, talk.server));
    drop(client);
    end_of(&server)?;
    drop(server);
    over(&net)?;
    let end = End::fin([0, 0], (before, wall()));
    let holder = holder()?;
    let sides = Side::both(&connection).map(|side| side.open(&holder, started).ended(end.clone()));
    settled(&watching.collector, &sides)?;
    let told = watching.finish()?;
    // Of the other namespace's nothing.
    let mut about = net.addresses();
    about.retain(|address| *address != IpAddr::from(net.loopback));
    exactly_all(&nobody_elses(told.records.clone()), &About::Addresses(about), &[], &[])?;
    exactly_all(&told.records, &About::Endpoints(vec![to]), &sides, &[])
}

/// How many the scenario of many makes: 2,000, or 10,000 where slow ones are wanted.
fn number() -> usize {
    if std::env::var("FLOWTEL_TESTS").as_deref() == Ok("slow") { 10_000 } else { 2_000 }
}

fn many(scene: &Scene) -> Result<()> {
    // Both ends are this process's.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let n = most.map_or(number(), |most| number().min(most as usize / 2 - 100));
    let net = Pair::new(scene)?;
    let listener = net.server.run("server", || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
    let to = listener.local_addr()?;
    let taker = listener.try_clone()?;
    let taken = thread::spawn(move || (0..n).map(|_| Ok(taker.accept()?.0)).collect::<Result<Vec<_>>>());
    let clients = net
        .client
        .run("client", || (0..n).map(|_| connect(traffic::socket(to, None)?, to)).collect::<Result<Vec<_>>>())?;
    let servers = joined(taken.join())?;
    let clock = Instant::now();
    let optimized = Launch::optimized().filter(|_| number() > 2_000);
    let (watching, _) = start(scene, optimized.map_or_else(Launch::everything, Ok)?)?;
    let (took, memory) = (clock.elapsed(), resident(watching.flowtel.pid())?);
    drop(clients.iter().map(|(_, client)| client.shutdown(Shutdown::Both)).collect::<Vec<_>>());
    let ends: Vec<_> = clients.iter().map(|(connection, _)| connection.client).collect();
    drop((clients, servers, listener));
    over(&net)?;
    let told = |r: &Record| r.destination() == Some(to);
    let patience = Duration::from_secs(60) * u32::try_from(n / 2_000 + 1)?;
    ensure!(ended(&watching.collector, 2 * n, told, patience)?, "ends are missing");
    let told = watching.finish()?;
    let mut seen: BTreeMap<_, u32> = BTreeMap::new();
    for record in told.records.iter().filter(|r| r.destination() == Some(to)) {
        let key = (record.source(), record.text("flowtel.flow.direction").to_owned(), record.event_name.clone());
        *seen.entry(key).or_default() += 1;
    }
    for client in ends {
        for way in ["outgoing", "incoming"] {
            for event in ["flowtel.tcp.flow.open", "flowtel.tcp.flow.end"] {
                let times = seen.remove(&(Some(client), way.to_owned(), event.to_owned())).unwrap_or_default();
                ensure!(times == 1, "{event} {way} {client} was told {times} times");
            }
        }
    }
    ensure!(seen.is_empty(), "and others: {seen:?}");
    eprintln!("{n} older connections: found after {took:.1?}, {memory} KiB resident");
    Ok(())
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
