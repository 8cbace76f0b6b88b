//! Programs and rings that stay (`capture.pin`): what happens while no flowtel runs is told by the next one.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::{
        Collector,
        Protocol::{self, Grpc, Http},
    },
    expect::{About, End, Failure, Side, exactly_all},
    flowtel::{Balance, Flowtel, Launch},
    netns::{Namespace, Pair, joined},
    record::Record,
    scene::{Scenario, Scene, skip},
    traffic::{SERVER, Server, burst, dial},
    wait::{self, pause, until, wall},
    watching::Told,
};

use crate::{
    failed::{HOPEFUL, fail, outgoing},
    life::{Talk, end_of, with_ends},
    open::{found, open},
    open_sockets, over,
    queue::Mounted,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("pinned: what begins, ends and fails between two flowtels is told whole, and once", 60, in_order),
    Scenario::new("pinned: a flowtel that is killed: what begins and ends afterwards is told by the next", 60, killed),
    Scenario::new("pinned: more between two flowtels than the rings take is counted to the last event", 90, too_much),
    Scenario::new("pinned: with rings of another size all is made anew, and what nobody read is counted", 60, resized),
    Scenario::new("pinned: fewer programs are wanted, then all again", 60, fewer),
    Scenario::new("pinned: a second flowtel is refused, and the first one goes on", 60, second),
    Scenario::new("pinned: eight threads connect while flowtel is restarted: each is told once", 120, storm),
];

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a connection needs to be told and delivered.
const MOMENT: Duration = Duration::from_millis(500);

/// A collector, and a place for pins.
struct Stage {
    net: Pair,
    collector: Collector,
    pins: Mounted,
}

impl Stage {
    fn new(scene: &Scene) -> Result<Self> {
        let pins = Mounted::new("bpf", scene.directory().join("bpf"), "")?;
        Ok(Self { net: Pair::new(scene)?, collector: Collector::start(scene)?, pins })
    }

    fn directory(&self) -> PathBuf {
        self.pins.0.join("flowtel")
    }

    fn launch(&self, protocol: Protocol) -> Result<Launch> {
        let launch = self.collector.receive_from(Launch::everything()?, protocol);
        Ok(launch.set("capture.pin", &self.directory().display().to_string()))
    }

    fn start(&self, scene: &Scene, protocol: Protocol) -> Result<Flowtel> {
        self.launch(protocol)?.start(scene)
    }

    fn mine(&self) -> Result<Vec<Record>> {
        let about = self.about();
        Ok(self.collector.records()?.into_iter().filter(|r| about.concerns(r)).collect())
    }

    fn about(&self) -> About {
        About::Addresses(self.net.addresses())
    }

    /// Waits for so many records of this kind.
    fn told(&self, event: &str, n: usize) -> Result<()> {
        until(event, PATIENCE, || {
            let told = self.mine()?.iter().filter(|r| r.event_name.ends_with(event)).count();
            Ok((told >= n).then_some(()))
        })
    }

    /// Stops the collector, and checks that exactly this was told, and nothing of flowtel's own connections.
    fn finish(mut self, sides: &[Side], failures: &[Failure]) -> Result<()> {
        self.collector.stop()?;
        let records = self.collector.records()?;
        exactly_all(&records, &self.about(), sides, failures)?;
        for protocol in [Grpc, Http] {
            let receiver = Some(self.collector.address(protocol));
            let own = records.iter().find(|r| r.destination() == receiver || r.source() == receiver);
            ensure!(own.is_none(), "flowtel's own connection was told: {own:#?}");
        }
        Ok(())
    }
}

/// Stops it in order. Nothing may have been lost.
fn stopped(flowtel: Flowtel) -> Result<Balance> {
    flowtel.stop()?.lossless()
}

/// Both sides end it in order after so many bytes up.
fn ends(stage: &Stage, talk: Talk, sides: [Side; 2], bytes: i64) -> Result<impl Iterator<Item = Side>> {
    let open = || -> Result<usize> {
        let of = |namespace: &Namespace| Ok::<_, anyhow::Error>(namespace.run("looker", open_sockets)?.len());
        Ok(of(&stage.net.client)? + of(&stage.net.server)?)
    };
    let (before, all) = (wall(), open()?);
    drop(talk.client);
    end_of(&talk.server)?;
    drop(talk.server);
    until("a connection's end", PATIENCE, || Ok((open()? + 2 <= all).then_some(())))?;
    let end = End::fin([bytes, 0], (before, wall()));
    Ok(with_ends(sides, [end.clone(), end]))
}

fn in_order(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let to = stage.net.server_v4;
    let begin = || -> Result<Talk> {
        let talk = Talk::begin(&stage.net, to)?;
        talk.up(100)?;
        Ok(talk)
    };
    let first = stage.start(scene, Grpc)?;
    let (across_half, across) = (begin()?, begin()?);
    stage.told(".begin", 4)?;
    stopped(first)?;

    let mut sides = Vec::new();
    let of = across_half.sides();
    sides.extend(ends(&stage, across_half, of, 100)?);
    let within = begin()?;
    let of = within.sides();
    sides.extend(ends(&stage, within, of, 100)?);
    let from_within = begin()?;
    let (from, closed) = ((stage.net.client_v4, 7303).into(), (to, 9).into());
    let refused = || Ok((fail(from, closed, 0, std::io::ErrorKind::ConnectionRefused)?.1, wall()));
    let between = stage.net.client.run(HOPEFUL, refused)?;
    let asked = outgoing(from, closed, "refused", 1, between);
    let was_asked = Failure { outgoing: false, owner: None, ..asked.clone() };
    let failures = [asked, was_asked];

    let second = stage.start(scene, Http)?;
    found(&second)?;
    ensure!(second.says("reading on where process"), "{}", second.stderr());
    for talk in [across, from_within] {
        let of = talk.sides();
        sides.extend(ends(&stage, talk, of, 100)?);
    }
    let after = begin()?;
    let of = after.sides();
    sides.extend(ends(&stage, after, of, 100)?);
    over(&stage.net)?;
    stopped(second)?;
    stage.finish(&sides, &failures)
}

fn killed(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let begin = || Talk::begin(&stage.net, stage.net.server_v6);
    let first = stage.start(scene, Http)?;
    let across = begin()?;
    stage.told(".begin", 2)?;
    // What was read and not delivered yet dies with it.
    pause(MOMENT);
    let begun = stage.mine()?.len();
    ensure!(begun == 2, "{begun} records of the begins");
    first.kill()?;

    let mut sides = Vec::new();
    let within = begin()?;
    let of = within.sides();
    sides.extend(ends(&stage, within, of, 0)?);
    let from_within = begin()?;
    let before = wall();
    let second = stage.start(scene, Grpc)?;
    let started = (before, found(&second)?);
    let of = from_within.sides();
    sides.extend(ends(&stage, from_within, of, 0)?);
    // Nobody could hand on what the first one knew.
    let of = open(&across, started)?;
    let again = across.sides();
    sides.extend(ends(&stage, across, of, 0)?);
    over(&stage.net)?;
    stage.told(".end", 6)?;
    stopped(second)?;
    sides.extend(again);
    stage.finish(&sides, &[])
}

fn too_much(scene: &Scene) -> Result<()> {
    const CONNECTIONS: usize = 2000;
    let mut stage = Stage::new(scene)?;
    let small = |stage: &Stage| -> Result<Launch> {
        Ok(stage.launch(Grpc)?.set("capture.rings.flows", "64KiB").set("capture.rings.owners", "64KiB"))
    };
    stopped(small(&stage)?.start(scene)?)?;
    let server = Server::start(&stage.net.server, (stage.net.server_v4, 0))?;
    burst(&stage.net.client, server.address, 4, CONNECTIONS / 4)?;
    over(&stage.net)?;
    let second = small(&stage)?.start(scene)?;
    found(&second)?;
    pause(MOMENT);
    let balance = second.stop()?.balance()?;
    stage.collector.stop()?;
    let told = Told { records: stage.collector.records()?, balance };
    let gaps = told.gaps()?;
    let lost = |reason: &str| gaps.get(&("kernel".to_owned(), reason.to_owned())).copied().unwrap_or_default();
    let kinds = ["established", "close", "fin", "reset", "syn again", "used again", "refused", "netns"];
    ensure!(lost("flows_ring_full") > 0 && lost("owners_ring_full") > 0, "nothing was lost: {gaps:?}");
    ensure!(lost("flows_ring_full") == told.balance.lost(&kinds, "ring full"), "{gaps:?}, {:?}", told.balance.kernel);
    // Others' connections on this machine are in the rings too, but few.
    let seen: i128 = ["established", "close"].iter().map(|kind| told.balance.kernel[*kind].total).sum();
    ensure!(seen >= 4 * CONNECTIONS as i128, "{seen} events seen: {:?}", told.balance.kernel);
    let begins = stage.mine()?.iter().filter(|r| r.event_name.ends_with(".begin")).count();
    ensure!(begins > 50, "{begins} begins told, where the ring had room for hundreds");
    Ok(())
}

fn resized(scene: &Scene) -> Result<()> {
    let mut stage = Stage::new(scene)?;
    stopped(stage.start(scene, Grpc)?)?;
    let unread = Talk::begin(&stage.net, stage.net.server_v4)?;
    drop(unread);
    over(&stage.net)?;
    let second = stage.launch(Grpc)?.set("capture.rings.flows", "16MiB").start(scene)?;
    found(&second)?;
    let talk = Talk::begin(&stage.net, stage.net.server_v4)?;
    let of = talk.sides();
    let sides: Vec<_> = ends(&stage, talk, of, 0)?.collect();
    over(&stage.net)?;
    stage.told(".end", 2)?;
    let said = second.stderr();
    let balance = second.stop()?.balance()?;
    ensure!(said.contains("events, which can't be read"), "{said}");
    stage.collector.stop()?;
    let records = stage.collector.records()?;
    let lost = balance.losses.map(|losses| (losses.counted, losses.told));
    let told = Told { records, balance }.gaps()?;
    let unknown = told.get(&("capture".to_owned(), "unknown_kind".to_owned())).copied();
    // Two begins and ends, who asked, listened, took and dropped: others' events may come in between.
    ensure!(unknown.is_some_and(|n| n >= 6) && told.len() == 1, "{told:?}");
    ensure!(lost.is_some_and(|(counted, told)| counted == told), "{lost:?}");
    let generations = generations(&stage.directory())?;
    ensure!(generations == ["2"], "generations: {generations:?}");
    let flows: Vec<_> = stage.mine()?.into_iter().filter(|r| r.event_name != "flowtel.gap").collect();
    exactly_all(&flows, &stage.about(), &sides, &[])
}

fn generations(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn fewer(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let links = || -> Result<usize> {
        let generation = stage.directory().join("1");
        let names = generations(&generation)?;
        Ok(names.iter().filter(|name| name.starts_with("cgroup_")).count())
    };
    stopped(stage.start(scene, Grpc)?)?;
    let all = links()?;
    stopped(stage.launch(Grpc)?.set("owner.acceptor", "false").set("dns.enabled", "false").start(scene)?)?;
    let few = links()?;
    ensure!(few < all, "{few} links of {all} are left");
    let talk = Talk::begin(&stage.net, stage.net.server_v4)?;
    let third = stage.start(scene, Grpc)?;
    ensure!(links()? == all, "not all are attached again");
    found(&third)?;
    let of = talk.sides();
    stage.told(".begin", 2)?;
    let sides: Vec<_> = ends(&stage, talk, of, 0)?.collect();
    over(&stage.net)?;
    stopped(third)?;
    // The programs that ran when it began told nothing of who accepts, but which socket listens.
    let [outgoing, incoming] = <[Side; 2]>::try_from(sides).map_err(|_| anyhow::anyhow!("two sides"))?;
    stage.finish(&[outgoing, incoming.bound_by(SERVER)], &[])
}

fn second(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let first = stage.start(scene, Grpc)?;
    let refused = stage.launch(Grpc)?.to_end(scene)?;
    let said = &refused.stderr;
    ensure!(refused.status.code() == Some(69) && said.contains("another flowtel uses"), "{}: {said}", refused.status);
    let check = |at: &Path| -> Result<String> {
        let pin = format!("capture.pin={}", at.display());
        let checked = Launch::bare()?.command("check").argument("--set").argument(&pin).to_end(scene)?;
        Ok(checked.stdout.iter().map(|line| line.text.clone() + "\n").collect())
    };
    let said = check(&stage.directory())?;
    ensure!(said.contains("is another flowtel's, which runs"), "{said}");
    let said = check(scene.directory())?;
    ensure!(said.contains("FAIL") && said.contains("mount -t bpf"), "{said}");
    let talk = Talk::begin(&stage.net, stage.net.server_v4)?;
    let of = talk.sides();
    let sides: Vec<_> = ends(&stage, talk, of, 0)?.collect();
    over(&stage.net)?;
    stopped(first)?;
    let said = check(&stage.directory())?;
    ensure!(said.contains("to be taken over"), "{said}");
    stage.finish(&sides, &[])
}

fn storm(scene: &Scene) -> Result<()> {
    if wait::is_slow() {
        return Err(skip("this machine is too slow: more comes than flowtel can tell"));
    }
    const THREADS: usize = 8;
    const RESTARTS: usize = 4;
    let mut stage = Stage::new(scene)?;
    let server = Server::start(&stage.net.server, (stage.net.server_v4, 0))?;
    let (to, stop) = (server.address, Arc::<AtomicBool>::default());
    let mut running = stage.start(scene, Grpc)?;
    let mut threads = Vec::new();
    for i in 0..THREADS {
        let stop = Arc::clone(&stop);
        threads.push(stage.net.client.spawn(&format!("storm-{i}"), move || {
            let mut connections = Vec::new();
            while !stop.load(Relaxed) {
                connections.push(dial(to)?);
                pause(Duration::from_millis(4));
            }
            Ok(connections)
        })?);
    }
    for _ in 0..RESTARTS {
        pause(MOMENT);
        stopped(running)?;
        pause(MOMENT);
        running = stage.start(scene, Grpc)?;
    }
    pause(MOMENT);
    stop.store(true, Relaxed);
    let mut connections = Vec::new();
    for thread in threads {
        connections.extend(joined(thread.join())?);
    }
    over(&stage.net)?;
    pause(MOMENT);
    stopped(running)?;
    stage.collector.stop()?;
    let mut told: BTreeMap<_, Vec<(String, String)>> = BTreeMap::new();
    for record in stage.mine()? {
        let word = record.event_name.rsplit('.').next().unwrap_or_default().to_owned();
        let key = (record.source(), record.destination(), record.text("flowtel.flow.direction").to_owned());
        told.entry(key).or_default().push((word, record.text("thread.name").to_owned()));
    }
    ensure!(connections.len() > 500, "{} connections", connections.len());
    for connection in &connections {
        for way in ["outgoing", "incoming"] {
            let key = (Some(connection.client), Some(connection.server), way.to_owned());
            let mut records = told.remove(&key).unwrap_or_default();
            records.sort();
            let words: Vec<_> = records.iter().map(|(word, _)| word.as_str()).collect();
            ensure!(words == ["begin", "end"], "{key:?}: {records:?}");
            // Also where it was asked for under one flowtel and established under the next.
            let owned = records.iter().all(|(_, thread)| *thread == connection.thread);
            ensure!(way == "incoming" || owned, "{key:?} by {}: {records:?}", connection.thread);
        }
    }
    ensure!(told.is_empty(), "others: {told:?}");
    eprintln!("{} connections over {RESTARTS} restarts", connections.len());
    Ok(())
}
