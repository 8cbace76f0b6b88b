//! Peers and processes that mean harm, and more than there is room for: the rest is recorded all the same, memory stays
//! within bounds, and what is lost is told.
//!
//! Short here; `FLOWTEL_TESTS=slow` makes each as long and as hard as the project's goals say, with the optimized program
//! where there is one, and prints figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child::Child,
    collector::{
        Collector,
        Protocol::{Grpc, Http},
    },
    flowtel::{Flowtel, Launch},
    forge::{FLOOD, Forge, SYN, Segment, syn_flood},
    hoard::Hoard,
    machine,
    netns::{Pair, joined},
    record::{Record, Value},
    scene::{Scenario, Scene},
    traffic::{Connection, Server, burst, dial},
    wait::{pause, until},
    watching::{Told, Watching},
};
use rustix::process::Signal;

use crate::{
    names::{A, Data, Resolver, message, udp},
    over,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("hostile: a SYN flood: the real connections in it are told, and nothing else", 180, flood),
    Scenario::new(
        "hostile: a scan faster than the limit: few records, and a gap record for what was left out",
        60,
        scan,
    ),
    Scenario::new("hostile: rings that overflow: gap records tell how much", 60, ring_full),
    Scenario::new(
        "hostile: a queue that overflows: repeats are folded first, then a gap record tells what was lost",
        60,
        queue_full,
    ),
    Scenario::new("hostile: a receiver that refuses records: a gap record tells how many", 60, refusing),
    Scenario::new("hostile: getpeername and connect in a loop, by processes without rights, cost no flow", 180, loops),
    Scenario::new("hostile: a thousand forged answers name nothing", 60, forged),
    Scenario::new("hostile: names without end for one address: sixteen are told", 180, names),
    Scenario::new("hostile: processes that come and go: each connection has its own", 180, forks),
    Scenario::new("hostile: more connections of one process than the table holds: the others are told", 600, hoard),
];

/// What flowtel may grow by: its rings as they are filled for the first time, and tables that have a limit.
const GROWTH: u64 = 64 << 20;
/// Kinds of events in the ring of flows, and in the ring of owners.
const FLOWS: [&str; 8] = ["established", "close", "fin", "reset", "syn again", "used again", "refused", "netns"];
const OWNERS: [&str; 6] = ["connect", "accept", "bind", "listen", "unlisten", "release"];

fn slow() -> bool {
    std::env::var("FLOWTEL_TESTS").as_deref() == Ok("slow")
}

/// Telling everything, with rings of moderate size.
fn launch() -> Result<Launch> {
    let optimized = Launch::optimized().filter(|_| slow());
    let launch = optimized.map_or_else(Launch::everything, Ok)?;
    Ok(launch.set("capture.rings.flows", "8MiB").set("capture.rings.owners", "2MiB"))
}

/// flowtel's memory before something happens.
struct Memory(u64);

impl Memory {
    fn of(flowtel: &Flowtel) -> Result<Self> {
        Ok(Self(flowtel.resident()?))
    }

    fn has_bounds(&self, flowtel: &Flowtel) -> Result<()> {
        self.has_bounds_beside(flowtel, 0)
    }

    /// As [`Self::has_bounds`], with a ring of `more` bytes than the others have: it is mapped doubly, and counts so.
    fn has_bounds_beside(&self, flowtel: &Flowtel, more: u64) -> Result<()> {
        let now = flowtel.resident()?;
        eprintln!("resident: {} MiB before, {} MiB now", self.0 >> 20, now >> 20);
        ensure!(now <= self.0 + GROWTH + 2 * more, "flowtel grew from {} to {now} bytes", self.0);
        Ok(())
    }
}

/// Checks that begin and end of each connection are told once on each side, and that nothing else is told of that server.
fn each_once(records: &[Record], server: SocketAddr, connections: &[Connection]) -> Result<()> {
    type Key<'a> = (&'a str, &'a str, SocketAddr);
    let mut told: BTreeMap<Key<'_>, i64> = BTreeMap::new();
    for record in records.iter().filter(|r| r.destination() == Some(server) || r.source() == Some(server)) {
        let source = record.source().with_context(|| format!("no source: {record:#?}"))?;
        *told.entry((&record.event_name, record.text("flowtel.flow.direction"), source)).or_default() += 1;
    }
    for connection in connections {
        for event in ["flowtel.tcp.flow.begin", "flowtel.tcp.flow.end"] {
            for way in ["outgoing", "incoming"] {
                *told.entry((event, way, connection.client)).or_default() -= 1;
            }
        }
    }
    told.retain(|_, n| *n != 0);
    let some: Vec<_> = told.iter().take(10).collect();
    ensure!(told.is_empty(), "{} differences (more than wanted is positive): {some:?}", told.len());
    Ok(())
}

/// Checks that the gap records tell exactly what the balances have as lost on the way from the kernel.
fn gaps_are_right(told: &Told) -> Result<()> {
    let (gaps, balance) = (told.gaps()?, &told.balance);
    let all: Vec<_> = balance.kernel.keys().map(String::as_str).collect();
    let wanted = [
        ("kernel", "flows_ring_full", balance.lost(&FLOWS, "ring full")),
        ("kernel", "owners_ring_full", balance.lost(&OWNERS, "ring full")),
        ("kernel", "answers_ring_full", balance.lost(&["dns"], "ring full")),
        ("kernel", "rate_limited", balance.lost(&all, "rate limited")),
        ("flow", "attempts_full", balance.lost(&all, "evicted")),
        ("flow", "flows_full", balance.forgotten),
    ];
    for (stage, reason, lost) in wanted {
        let is = gaps.get(&(stage.to_owned(), reason.to_owned())).copied().unwrap_or_default();
        ensure!(is == lost, "{stage}, {reason}: {is} told, {lost} lost; all gaps: {gaps:?}");
    }
    Ok(())
}

fn flood(scene: &Scene) -> Result<()> {
    let (time, per_second, real) = if slow() { (10, 100_000, 500) } else { (2, 20_000, 50) };
    let net = Pair::new(scene)?;
    // What the server answers gets as far as the client's end of the wire, where nobody has these addresses.
    let [a, b] = FLOOD;
    net.server.ip(&format!("route add {a}.{b}.0.0/15 via {}", net.nobody_here))?;
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let first = net.client.run("first", || dial(server.address))?;
    let memory = Memory::of(&watching.flowtel)?;
    let SocketAddr::V4(to) = server.address else { unreachable!("an IPv4 server") };
    let cpu = watching.flowtel.cpu()?;
    let flooder = net.client.spawn("flood", move || syn_flood(to, per_second, Duration::from_secs(time)))?;
    let mut connections = vec![first];
    let (address, start) = (server.address, Instant::now());
    let step = Duration::from_secs(time) / real;
    for n in 0..real {
        connections.push(net.client.run("client", || dial(address))?);
        pause((step * n).saturating_sub(start.elapsed()));
    }
    let sent = joined(flooder.join())?;
    let took = start.elapsed();
    eprintln!(
        "{sent} SYNs and {real} connections in {took:.1?}; flowtel used {:.0?} of CPU",
        watching.flowtel.cpu()?.saturating_sub(cpu)
    );
    memory.has_bounds(&watching.flowtel)?;
    // With the listener goes what is half open.
    drop(server);
    over(&net)?;
    let told = watching.finish_with_losses()?;
    each_once(&told.records, address, &connections)?;
    let strange = told.records.iter().find(|r| {
        ["source", "destination"].iter().any(|end| r.text(&format!("{end}.address")).starts_with(&format!("{a}.{b}.")))
    });
    ensure!(strange.is_none(), "a record about the flood: {strange:#?}");
    gaps_are_right(&told)
}

/// Different ports of one host that are asked at, each once.
const SCANNED: u16 = 8000;

fn scan(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Http, launch()?)?;
    let forge = Forge::new(&net.client)?;
    let start = Instant::now();
    for port in 0..SCANNED {
        forge.send(&Segment {
            source: SocketAddrV4::new(net.client_v4, 33_000),
            destination: SocketAddrV4::new(net.server_v4, 1000 + port),
            sequence: 1,
            acknowledgement: 0,
            flags: SYN,
            payload: 0,
        })?;
    }
    let seconds = start.elapsed().as_secs() as usize;
    let told = watching.finish_with_losses()?;
    let about: Vec<_> =
        told.records.iter().filter(|r| r.text("destination.address") == net.server_v4.to_string()).collect();
    // Those of one second are one record; up to three are told one by one.
    ensure!(!about.is_empty() && about.len() <= 6 + 3 * seconds, "{} records for one scan: {about:#?}", about.len());
    let mut count = 0;
    for record in &about {
        ensure!(record.text("error.type") == "refused" && record.text("flowtel.flow.direction") == "incoming");
        count += record.int("flowtel.fold.count").unwrap_or(1);
    }
    let all = i128::from(SCANNED);
    let limited = told.balance.lost(&["refused"], "rate limited");
    // Others on this host may have been limited too.
    let right = i128::from(count) <= all && i128::from(count) + limited >= all;
    ensure!(right, "{count} told and {limited} left out of {all}");
    gaps_are_right(&told)
}

fn ring_full(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = launch()?.set("capture.rings.flows", "256KiB").set("capture.rings.owners", "64KiB");
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let first = burst(&net.client, server.address, 1, 3)?;
    // Nobody reads the rings now.
    watching.flowtel.signal(Signal::STOP)?;
    let many = burst(&net.client, server.address, 2, 1500);
    watching.flowtel.signal(Signal::CONT)?;
    let many = many?;
    until("the word that events were lost", Duration::from_secs(15), || {
        Ok((watching.flowtel.says("events lost: a gap record tells how many")
            && watching.flowtel.says("repeats are folded"))
        .then_some(()))
    })?;
    over(&net)?;
    let told = watching.finish_with_losses()?;
    for (kinds, name) in [(&FLOWS[..], "flows"), (&OWNERS[..], "owners")] {
        ensure!(told.balance.lost(kinds, "ring full") > 0, "the ring of {name} lost nothing");
    }
    gaps_are_right(&told)?;
    // None is told twice, whatever is missing.
    let mut seen = BTreeSet::new();
    for record in told.records.iter().filter(|r| r.destination() == Some(server.address)) {
        let key = (record.event_name.clone(), record.text("flowtel.flow.direction").to_owned(), record.source());
        ensure!(record.source().is_none() || seen.insert(key), "told twice: {record:#?}");
    }
    let begun =
        |c: &&Connection| seen.iter().any(|(event, _, from)| event.ends_with("begin") && *from == Some(c.client));
    ensure!(many.iter().filter(begun).count() >= 20, "what the ring had room for is not told");
    ensure!(first.iter().filter(begun).count() > 0, "what came before is not told");
    Ok(())
}

fn queue_full(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare(scene)?;
    let mut launch = collector.receive_from(launch()?, Grpc);
    for (key, value) in [
        ("queue.max_bytes", "128KiB"),
        ("export.batch.max_bytes", "64KiB"),
        ("export.batch.max_age", "50ms"),
        ("export.retry.initial", "50ms"),
        ("export.retry.max", "200ms"),
    ] {
        launch = launch.set(key, value);
    }
    let flowtel = launch.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let made = burst(&net.client, server.address, 2, 100)?.len();
    until("the word that repeats are folded", Duration::from_secs(15), || {
        Ok(flowtel.says("repeats are folded").then_some(()))
    })?;
    let repeats = burst(&net.client, server.address, 2, 500)?.len();
    // Strangers: none is like another, so each is told, until there is no room.
    let address = net.server_v4;
    net.client.run("stranger", move || {
        (0..400u16).try_for_each(|port| {
            ensure!(TcpStream::connect((address, 20_000 + port)).is_err(), "a closed port was open");
            Ok(())
        })
    })?;
    until("the word that records were lost", Duration::from_secs(15), || {
        Ok(flowtel.says("records lost: a gap record tells how many").then_some(()))
    })?;
    over(&net)?;
    collector.run()?;
    until("the gap record", Duration::from_secs(20), || {
        let records = collector.records()?;
        Ok(records.iter().any(|r| r.text("flowtel.gap.reason") == "queue_full").then_some(()))
    })?;
    let told = Watching { flowtel, collector }.finish_with_losses()?;
    let records = &told.balance.records;
    let (folded, dropped) = (records.part("folded"), records.part("dropped (queue full)"));
    // Four records each; on a slow machine there may be room again for a while.
    ensure!(folded >= i128::try_from(repeats)?, "hardly any was folded of {made} and {repeats}: {records}");
    ensure!(dropped > 0, "nothing was dropped: {records}");
    let gaps: Vec<_> = told.records.iter().filter(|r| r.text("flowtel.gap.reason") == "queue_full").collect();
    let total = gaps.iter().filter_map(|gap| gap.int("flowtel.gap.total")).max().context("no gap record")?;
    ensure!(i128::from(total) == dropped, "{total} told of {dropped} dropped: {gaps:#?}");
    let mut counts = 0;
    for record in told.records.iter().filter(|r| r.attributes.contains_key("flowtel.fold.count")) {
        if record.end("destination").1 != Some(server.address.port()) {
            continue;
        }
        let (count, source) = (record.int("flowtel.fold.count").unwrap_or(0), record.end("source"));
        let without = ["flowtel.flow.id", "flowtel.flow.community_id", "flowtel.tcp.handshake.duration"];
        let right = count >= 2
            && source == (Some(net.client_v4.into()), None)
            && without.iter().all(|key| !record.attributes.contains_key(*key))
            && record.body.contains(&format!(" {count} times"));
        ensure!(right, "a folded record is wrong: {record:#?}");
        if record.event_name.ends_with(".end") {
            // Each sent a byte and got it back.
            let bytes = ["flowtel.source.bytes", "flowtel.destination.bytes"].map(|key| record.int(key));
            ensure!(bytes == [Some(count); 2], "bytes are no sum: {record:#?}");
        }
        counts += i128::from(count) - 1;
    }
    ensure!(counts > 0 && counts <= folded, "{counts} told by counts, {folded} folded");
    Ok(())
}

/// Takes a connection's requests and answers each: 200 where its body speaks of a gap, else 400. Sends on the bodies that it
/// took.
fn receive(stream: TcpStream, taken: &Sender<Vec<u8>>) -> Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        let tells = body.windows(GAP.len()).any(|w| w == GAP);
        let status = if tells { "200 OK" } else { "400 Bad Request" };
        write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        if tells {
            taken.send(body)?;
        }
    }
}

/// What is only in a record of a gap.
const GAP: &[u8] = b"flowtel.gap.reason";

fn refusing(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (taken, bodies) = mpsc::channel();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let taken = taken.clone();
            std::thread::spawn(move || receive(stream, &taken));
        }
    });
    let launch = launch()?
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .set("export.batch.max_age", "50ms");
    let flowtel = launch.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    burst(&net.client, server.address, 1, 20)?;
    let body = bodies.recv_timeout(Duration::from_secs(20)).context("no gap record came")?;
    let contains = |words: &str| body.windows(words.len()).any(|w| w == words.as_bytes());
    ensure!(contains(" records rejected at export, rejected, since 20"), "the gap record tells something else");
    ensure!(flowtel.says("records rejected: a gap record tells how many"), "no line in the log");
    let balance = flowtel.stop()?.balance()?;
    let (records, losses) = (&balance.records, balance.losses.context("no losses")?);
    let right = losses.counted == records.part("rejected")
        && (1..=losses.counted).contains(&losses.told)
        && (1..=records.part("delivered")).contains(&losses.gaps);
    ensure!(right, "{losses:?}, {records}");
    Ok(())
}

fn loops(scene: &Scene) -> Result<()> {
    let (seconds, real, per_second) = if slow() { (30, 500, 2000) } else { (2, 50, 1000) };
    let time = Duration::from_secs(seconds);
    let net = Pair::new(scene)?;
    let launch = launch()?.set("capture.rings.flows", "32MiB").set("capture.rings.owners", "64KiB");
    let watching = Watching::with(scene, Grpc, launch)?;
    let annoyed = Server::start(&net.server, (net.server_v4, 0))?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let memory = Memory::of(&watching.flowtel)?;
    let mut pests = Vec::new();
    for words in [format!("ask {}", annoyed.address), format!("churn {} {per_second}", annoyed.address)] {
        let mut pest = Child::start(scene, &net.client, &words, None)?;
        pest.line()?;
        pests.push(pest);
    }
    let (mut connections, start, address) = (Vec::new(), Instant::now(), server.address);
    for n in 0..real {
        connections.push(net.client.run("client", || dial(address))?);
        pause((time / real * n).saturating_sub(start.elapsed()));
    }
    for pest in &mut pests {
        pest.kill()?;
    }
    memory.has_bounds_beside(&watching.flowtel, 24 << 20)?;
    let told = watching.finish_with_losses()?;
    let lost = told.balance.lost(&OWNERS, "ring full");
    let churned = told.records.iter().filter(|r| r.destination() == Some(annoyed.address)).count();
    eprintln!("{churned} records of the loop of connect and close; {lost} owner events lost");
    ensure!(told.balance.lost(&FLOWS, "ring full") == 0, "flows were lost: {:?}", told.balance);
    gaps_are_right(&told)?;
    each_once(&told.records, server.address, &connections)
}

fn forged(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Http, launch()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = SocketAddr::from((net.server_v4, 53));
    let resolver = Resolver::new(&net, udp(&net.server, to)?, to, false)?;
    let name = "bank.flowtel.example";
    // A question is open all the while: its number is what a forger has to guess.
    let (_, from) = resolver.ask(0x5555, name, A)?;
    for id in 0..1000u16 {
        let lie = message(id, 0x8180, (name, A), &[(name, Data::Address(net.server_v4.into()))]);
        resolver.server.send_to(&lie, from)?;
        resolver.client.recv(&mut [0; 512]).context("the forgery")?;
    }
    let connection = net.client.run("client", || dial(server.address))?;
    over(&net)?;
    let told = watching.finish_with_losses()?;
    each_once(&told.records, server.address, &[connection])?;
    let named = told
        .records
        .iter()
        .find(|r| r.destination() == Some(server.address) && r.attributes.keys().any(|key| key.contains(".dns.")));
    ensure!(named.is_none(), "a forged name: {named:#?}");
    Ok(())
}

fn names(scene: &Scene) -> Result<()> {
    let n = if slow() { 100_000u32 } else { 2000 };
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    // Two at once: each waits for its answer before it asks again.
    let resolvers = [SocketAddr::from((net.server_v4, 53)), SocketAddr::from((net.server_v6, 53))]
        .map(|to| Resolver::new(&net, udp(&net.server, to)?, to, true));
    let memory = Memory::of(&watching.flowtel)?;
    let (cpu, start) = (watching.flowtel.cpu()?, Instant::now());
    let answer = IpAddr::from(net.server_v4);
    thread::scope(|scope| {
        let asked = resolvers.into_iter().zip(0..).map(|(resolver, first)| {
            scope.spawn(move || -> Result<()> {
                let resolver = resolver?;
                for i in (first..n).step_by(2) {
                    let name = format!("n{i}.flowtel.example");
                    resolver.resolve(i as u16, &name, A, &[(&name, Data::Address(answer))])?;
                    // Ten thousand a second.
                    pause(Duration::from_micros(100 * u64::from(i)).saturating_sub(start.elapsed()));
                }
                Ok(())
            })
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().try_for_each(|asked| asked.join().map_err(|_| anyhow::anyhow!("an asker panicked"))?)
    })?;
    let took = start.elapsed();
    let cpu = watching.flowtel.cpu()?.saturating_sub(cpu);
    let (rate, share) = (f64::from(n) / took.as_secs_f64(), 100.0 * cpu.as_secs_f64() / took.as_secs_f64());
    eprintln!("{n} answers in {took:.1?}, {rate:.0} a second; flowtel used {share:.1} % of a core");
    memory.has_bounds(&watching.flowtel)?;
    let connection = net.client.run("client", || dial(server.address))?;
    over(&net)?;
    let told = watching.finish_with_losses()?;
    gaps_are_right(&told)?;
    each_once(&told.records, server.address, std::slice::from_ref(&connection))?;
    let asked = |r: &&Record| r.destination() == Some(server.address) && r.text("flowtel.flow.direction") == "outgoing";
    for record in told.records.iter().filter(asked) {
        match record.attributes.get("flowtel.destination.dns.names") {
            Some(Value::Texts(names)) if names.len() == 16 => {}
            other => anyhow::bail!("not sixteen names: {other:?}"),
        }
    }
    Ok(())
}

fn forks(scene: &Scene) -> Result<()> {
    let (n, per_second) = if slow() { (20_000, 5000) } else { (400, 1000) };
    let net = Pair::new(scene)?;
    net.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let memory = Memory::of(&watching.flowtel)?;
    let cpu = watching.flowtel.cpu()?;
    let mut parent = Child::start(scene, &net.client, &format!("fork {} {n} {per_second}", server.address), None)?;
    let said = parent.line()?;
    eprintln!("forked {said}; flowtel used {:.1?} of CPU", watching.flowtel.cpu()?.saturating_sub(cpu));
    ensure!(parent.ended()?.success(), "the parent failed");
    over(&net)?;
    memory.has_bounds(&watching.flowtel)?;
    let told = watching.finish_with_losses()?;
    gaps_are_right(&told)?;
    let begins = |way: &str| {
        let of = told.records.iter().filter(|r| r.destination() == Some(server.address));
        let of = of.filter(|r| r.event_name == "flowtel.tcp.flow.begin" && r.text("flowtel.flow.direction") == way);
        of.collect::<Vec<_>>()
    };
    let (outgoing, incoming) = (begins("outgoing"), begins("incoming"));
    let both = [outgoing.len(), incoming.len()];
    ensure!(both == [n; 2], "{both:?} begins of {n}");
    let lost = told.balance.lost(&OWNERS, "ring full");
    let processes: BTreeSet<_> = outgoing.iter().filter_map(|r| r.int("process.pid")).collect();
    ensure!(processes.len() as i128 + lost >= n as i128, "{} processes of {n}", processes.len());
    let others = outgoing.iter().filter(|r| r.int("process.real_user.id").is_some_and(|uid| uid != 65_534)).count();
    ensure!(others == 0, "{others} begins are another user's");
    Ok(())
}

fn hoard(scene: &Scene) -> Result<()> {
    /// What the kernel takes for both ends of a connection, generously.
    const EACH: u64 = 12 << 10;
    let (wanted, table, others) = if slow() { (1_000_000, 16_384, 250) } else { (6000, 4096, 25) };
    let room = usize::try_from(machine::available_memory()? / 2 / EACH)?;
    let net = Pair::new(scene)?;
    // Followed as all are, and not recorded: it is the others' records that count.
    let launch = launch()?
        .argument(&format!("--exclude=destination={}/128", net.server_v6))
        .set("flow.max_flows", &table.to_string());
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let dials = || burst(&net.client, server.address, 2, others / 2);
    let mut connections = dials()?;
    let (memory, cpu) = (Memory::of(&watching.flowtel)?, watching.flowtel.cpu()?);
    let hoard = Hoard::open(scene, &net, net.server_v6.into(), wanted, room)?;
    let (n, held) = (hoard.made, hoard.held);
    ensure!(2 * held > table, "{held} connections are not more than the table holds");
    eprintln!(
        "{n}, {held} at once, in {}; flowtel used {:.1?} of CPU",
        hoard.took,
        watching.flowtel.cpu()?.saturating_sub(cpu)
    );
    connections.extend(dials()?);
    pause(Duration::from_secs(2));
    memory.has_bounds(&watching.flowtel)?;
    hoard.close()?;
    connections.extend(dials()?);
    over(&net)?;
    pause(Duration::from_secs(1));
    memory.has_bounds(&watching.flowtel)?;
    let told = watching.finish_with_losses()?;
    gaps_are_right(&told)?;
    let balance = &told.balance;
    let forgotten = i128::try_from(2 * held - table)?;
    ensure!(balance.forgotten >= forgotten, "{} forgotten of at least {forgotten}", balance.forgotten);
    let seen = balance.kernel["established"].total;
    ensure!(seen >= 2 * i128::try_from(n)?, "{seen} begins seen of {n} on each side");
    each_once(&told.records, server.address, &connections)
}
