//! How records leave flowtel: as lines, to a collector that comes and goes, and in time.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{
        Collector,
        Protocol::{self, Grpc, Http},
    },
    expect::{About, Executable, Handshake, Names, Owner, Side, exactly},
    flowtel::{Ended, Flowtel, Launch, Line, user},
    machine,
    netns::Pair,
    record::{Record, decode_lines},
    scene::{Scenario, Scene},
    traffic::{Connection, Server, burst, dial},
    wait::{pause, until, wall},
    watching::{Told, Watching},
};
use rustix::process::Signal;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("OTLP/JSON lines in a pipe are right, and the collector's file receiver reads them", 60, json),
    Scenario::new("text lines in a pipe are one a flow, without escape sequences", 60, text),
    Scenario::new("a reader who goes away ends flowtel in order, and what is lost is named", 60, closed_pipe),
    Scenario::new("on standard output each flow comes within half a second", 60, in_time),
    Scenario::new("a collector that starts late by gRPC gets everything", 90, |s| late(s, Grpc)),
    Scenario::new("a collector that starts late by HTTP gets everything", 90, |s| late(s, Http)),
    Scenario::new("a collector that is restarted by gRPC gets everything", 120, |s| restarted(s, Grpc)),
    Scenario::new("a collector that is restarted by HTTP gets everything", 120, |s| restarted(s, Http)),
    Scenario::new("a stop without a collector ends within the grace time and names what is lost", 60, graceful),
    Scenario::new("a second signal ends flowtel at once", 60, at_once),
    Scenario::new("flowtel's own connection to a gRPC collector is left out, or told when asked for", 60, |s| {
        own(s, Grpc)
    }),
    Scenario::new("flowtel's own connection to an HTTP collector is left out, or told when asked for", 60, |s| {
        own(s, Http)
    }),
];

fn connected(net: &Pair, n: usize) -> Result<Vec<Connection>> {
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    (0..n).map(|_| net.client.run("client", || dial(server.address))).collect()
}

fn texts(ended: &Ended) -> impl Iterator<Item = &str> {
    ended.stdout.iter().map(|line| line.text.as_str())
}

fn json(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    // What a pipe gets when nothing is configured.
    let flowtel = Launch::new()?.start(scene)?;
    let connections = connected(&net, 3)?;
    let ended = flowtel.stop()?;
    let balance = ended.lossless()?;
    let direct = Told { records: decode_lines(texts(&ended))?, balance: balance.clone() }.checked()?.records;
    let (about, sides) = (About::Addresses(net.addresses()), Side::all(&connections));
    exactly(&direct, &about, &sides)?;

    let mut collector = Collector::start(scene)?;
    let mut input = File::options().append(true).open(collector.input())?;
    for line in texts(&ended) {
        writeln!(input, "{line}")?;
    }
    until("the collector to read the file", Duration::from_secs(10), || {
        Ok((collector.records()?.len() >= direct.len()).then_some(()))
    })?;
    collector.stop()?;
    let mut through = Told { records: collector.records()?, balance }.checked()?.records;
    exactly(&through, &about, &sides)?;
    let mut direct = direct;
    let key = |record: &Record| record.text("log.record.uid").to_owned();
    direct.sort_by_key(key);
    through.sort_by_key(key);
    ensure!(direct == through, "the collector read something else than flowtel wrote");
    Ok(())
}

fn text(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let flowtel = Launch::new()?.argument("--format=text").start(scene)?;
    let connections = connected(&net, 2)?;
    let ended = flowtel.stop()?;
    let balance = ended.lossless()?;
    ensure!(ended.stdout.len() as i128 == balance.records.total, "not one line a record: {:?}", ended.stdout);
    for line in texts(&ended) {
        ensure!(!line.chars().any(char::is_control), "a control character: {line:?}");
    }
    let program = std::env::current_exe()?;
    let owner = format!(" {}[", program.file_name().unwrap_or_default().to_string_lossy());
    for connection in connections {
        for way in ["out", "in "] {
            let flow = format!(" begin  {way} {} → {} ", connection.client, connection.server);
            let lines: Vec<_> = texts(&ended).filter(|line| line.contains(&flow)).collect();
            let owned = lines.iter().all(|line| line.contains(&owner));
            ensure!(lines.len() == 1 && owned, "{flow}: {lines:?}");
        }
    }
    Ok(())
}

fn closed_pipe(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let (reader, writer) = std::io::pipe()?;
    let flowtel = Launch::new()?.argument("--format=json").stdout(writer).start(scene)?;
    connected(&net, 1)?;
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut line)?;
    ensure!(!decode_lines([line.trim_end()])?.is_empty(), "no record in the first line");
    drop(reader);
    let start = Instant::now();
    connected(&net, 1)?;
    let ended = flowtel.ended(start, Duration::from_secs(5))?;
    let balance = ended.balance()?;
    let (records, lost) = (&balance.records, balance.records.part("not written"));
    ensure!(lost >= 2 && records.part("delivered") + lost == records.total, "wrong accounts: {records}");
    Ok(())
}

/// When the flow's first line came.
fn came(lines: &[Line], connection: &Connection) -> Option<Instant> {
    let port = format!("\"{}\"", connection.client.port());
    lines.iter().find(|line| line.text.contains(&port)).map(|line| line.at)
}

fn in_time(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let flowtel = Launch::new()?.argument("--format=json").start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let mut delays = Vec::new();
    for i in 0..40u64 {
        // At every phase of a tick.
        pause(Duration::from_millis(7 + i % 13));
        let start = Instant::now();
        let connection = net.client.run("client", || dial(server.address))?;
        let mut seen = 0;
        let at = until("the flow's line", Duration::from_secs(5), || {
            let lines = flowtel.stdout_from(seen);
            seen += lines.len();
            Ok(came(&lines, &connection))
        })?;
        delays.push(at.saturating_duration_since(start));
    }
    flowtel.stop()?.lossless()?;
    delays.sort();
    let (median, most) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!("from connect() to a line in a pipe: median {median:.1?}, longest {most:.1?} of {}", delays.len());
    ensure!(most < Duration::from_millis(500), "the slowest took {most:?}");
    Ok(())
}

/// Retries soon, so that an outage costs the scenario seconds only.
fn impatient(launch: Launch) -> Launch {
    launch.set("export.retry.initial", "100ms").set("export.retry.max", "500ms")
}

fn late(scene: &Scene, protocol: Protocol) -> Result<()> {
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare(scene)?;
    let flowtel = impatient(collector.receive_from(Launch::new()?, protocol)).start(scene)?;
    let connections = connected(&net, 20)?;
    pause(Duration::from_secs(3));
    collector.run()?;
    let told = Watching { flowtel, collector }.finish()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &Side::all(&connections))
}

fn restarted(scene: &Scene, protocol: Protocol) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = impatient(Launch::new()?).set("export.batch.max_age", "50ms");
    let mut watching = Watching::with(scene, protocol, launch)?;
    let mut connections = connected(&net, 20)?;
    until("the first records", Duration::from_secs(10), || {
        Ok((watching.collector.records()?.len() >= 40).then_some(()))
    })?;
    // Records come all the while: as it goes, while it is away, and as it comes again.
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let collector = &mut watching.collector;
    let meanwhile = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(4);
            let mut made = Vec::new();
            while Instant::now() < until {
                made.extend(burst(&net.client, server.address, 1, 5)?);
                pause(Duration::from_millis(20));
            }
            Ok::<_, anyhow::Error>(made)
        });
        pause(Duration::from_millis(500));
        collector.stop()?;
        pause(Duration::from_secs(1));
        collector.run()?;
        flowtel_tests::netns::joined(clients.join())
    })?;
    connections.extend(meanwhile);
    connections.extend(connected(&net, 5)?);
    let balance = watching.flowtel.stop()?.lossless()?;
    watching.collector.stop()?;
    // A batch whose answer was lost with the collector may be there twice: as the same records, to the last byte.
    let mut records = watching.collector.records()?;
    let all = records.len();
    let key = |record: &Record| record.text("log.record.uid").to_owned();
    records.sort_by_key(key);
    records.dedup();
    if records.len() < all {
        eprintln!("{} records came twice", all - records.len());
    }
    let told = Told { records, balance }.checked()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &Side::all(&connections))
}

fn without_collector(scene: &Scene, grace: &str) -> Result<Flowtel> {
    let net = Pair::new(scene)?;
    let collector = Collector::prepare(scene)?;
    let launch = collector.receive_from(Launch::new()?, Grpc).set("export.grace", grace);
    let flowtel = launch.start(scene)?;
    connected(&net, 5)?;
    Ok(flowtel)
}

/// All that was made is named as lost, on the balance and as a warning.
fn undelivered(ended: &Ended) -> Result<()> {
    let balance = ended.balance()?;
    let records = &balance.records;
    let all = records.total >= 10 && records.part("undelivered at stop") == records.total;
    ensure!(all, "wrong accounts: {records}");
    ensure!(ended.stderr.contains("records undelivered"), "no warning: {}", ended.stderr);
    Ok(())
}

fn graceful(scene: &Scene) -> Result<()> {
    let ended = without_collector(scene, "2s")?.stop()?;
    let took = ended.took;
    // What is in the rings is taken out first, which takes its time on a busy machine.
    let right = took > Duration::from_millis(1500) && took < Duration::from_secs(8);
    ensure!(right, "it took {took:?} for a grace of 2 s");
    undelivered(&ended)
}

fn at_once(scene: &Scene) -> Result<()> {
    let flowtel = without_collector(scene, "1m")?;
    flowtel.signal(Signal::INT)?;
    until("the answer to the first signal", Duration::from_secs(5), || Ok(flowtel.says("stopping").then_some(())))?;
    pause(Duration::from_millis(300));
    let start = Instant::now();
    flowtel.signal(Signal::INT)?;
    let ended = flowtel.ended(start, Duration::from_secs(5))?;
    ensure!(ended.took < Duration::from_secs(1), "it took {:?}", ended.took);
    undelivered(&ended)
}

fn own(scene: &Scene, protocol: Protocol) -> Result<()> {
    for told in [false, true] {
        let launch = Launch::new()?.environment("FLOWTEL_CAPTURE__EXCLUDE_SELF", if told { "false" } else { "true" });
        let launch = launch.set("export.batch.max_age", "50ms");
        let before = wall();
        let watching = Watching::with(scene, protocol, launch)?;
        let net = Pair::new(scene)?;
        let processes = (
            (watching.flowtel.pid(), Launch::new()?.program().clone()),
            (watching.collector.pid().context("the collector runs")?, machine::otelcol()?.canonicalize()?),
        );
        let to = watching.collector.address(protocol);
        connected(&net, 1)?;
        let count = |n| {
            until("records at the collector", Duration::from_secs(10), || {
                Ok((watching.collector.records()?.len() >= n).then_some(()))
            })
        };
        // Two of the client's connection; then flowtel's own, which was made to deliver those.
        count(if told { 4 } else { 2 })?;
        connected(&net, 1)?;
        let Told { records, .. } = watching.finish()?;
        let about = About::Endpoints(vec![to]);
        let mut sides = Vec::new();
        if told {
            let own = records.iter().filter(|r| about.concerns(r) && r.text("flowtel.flow.direction") == "outgoing");
            // Two batches in flight may make two connections; each is told once at each end.
            let sources: BTreeSet<_> = own.filter_map(Record::source).collect();
            ensure!(!sources.is_empty(), "flowtel's own connection is not told");
            for source in sources {
                sides.extend(own_sides(source, to, processes.clone(), (before, wall())));
            }
        }
        exactly(&records, &about, &sides)?;
        drop(net);
        // The next round writes a file of its own.
        std::fs::remove_file(scene.directory().join("collector/out.json"))?;
    }
    Ok(())
}

fn own_sides(
    source: SocketAddr,
    destination: SocketAddr,
    (flowtel, collector): ((u32, PathBuf), (u32, PathBuf)),
    between: (u64, u64),
) -> [Side; 2] {
    let owner = |(pid, program): (u32, PathBuf), thread: &str, role| {
        let known = machine::has_kernel_pids();
        let executable = if known { Executable::Is(program) } else { Executable::May(program) };
        Owner { executable, ..Owner::here(thread, role).process(pid) }
    };
    let outgoing = Side {
        outgoing: true,
        source,
        destination,
        local: Some(true),
        handshake: Handshake::Between(1e-9, 1.0),
        owner: Some(Owner { uid: user(), ..owner(flowtel, "flowtel-export", "connector") }),
        instead: None,
        begun: None,
        between,
        older: None,
        names: Names::default(),
        end: None,
    };
    let incoming = Side { outgoing: false, ..outgoing.clone() }.owned(Some(owner(collector, "otelcol", "acceptor")));
    [outgoing, incoming]
}
