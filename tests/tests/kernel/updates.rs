//! Updates of open flows (`flow.update`): what passed so far, and deltas that add up to what the end says.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{Collector, Protocol::Grpc},
    expect::{About, Side},
    flowtel::{Flowtel, Launch},
    netns::Pair,
    record::Record,
    scene::{Scenario, Scene},
    wait::{patient, pause, until, wall},
    watching::{Told, Watching},
};

use crate::{
    life::{Talk, end_of},
    open::found,
    over,
    queue::Mounted,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "updates: in namespaces made after the start, IPv4 and IPv6: totals so far, and deltas that add up to the end",
        90,
        after_the_start,
    ),
    Scenario::new("updates: older connections: deltas from when they were found to the end", 90, older),
    Scenario::new("updates: a flow of no begin: the first has no delta, the others add up", 90, no_begin),
    Scenario::new("updates: a flow that is half closed, and one that is asleep", 90, half_closed_and_asleep),
    Scenario::new("updates: pinned, a restart loses no delta and doubles no update", 120, restarted),
    Scenario::new("updates: without flow.update there are none, and the program for them is not attached", 60, off),
];

const UPDATE: &str = "flowtel.tcp.flow.update";
const END: &str = "flowtel.tcp.flow.end";
/// The interval that is asked for.
const EVERY: Duration = Duration::from_secs(1);
/// How long connections talk: three intervals on a machine that keeps up.
const TALKS: Duration = Duration::from_millis(3300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Attributes of totals, each with that of its delta.
const TOTALS: [[&str; 2]; 5] = [
    ["flowtel.source.bytes", "flowtel.delta.source.bytes"],
    ["flowtel.destination.bytes", "flowtel.delta.destination.bytes"],
    ["flowtel.source.packets", "flowtel.delta.source.packets"],
    ["flowtel.destination.packets", "flowtel.delta.destination.packets"],
    ["flowtel.tcp.retransmits", "flowtel.delta.tcp.retransmits"],
];

fn launch() -> Result<Launch> {
    Ok(Launch::everything()?.set("flow.update", "1s"))
}

/// Has all of them talk now and then, and returns how much went up and down each.
fn talk(talks: &[Talk], lasting: Duration) -> Result<[i64; 2]> {
    let (start, mut passed) = (Instant::now(), [0, 0]);
    while start.elapsed() < patient(lasting) {
        for talk in talks {
            talk.up(1000)?;
            talk.down(5000)?;
        }
        passed = [passed[0] + 1000, passed[1] + 5000];
        pause(Duration::from_millis(150));
    }
    Ok(passed)
}

/// The client closes, then the server.
fn close(talk: Talk) -> Result<()> {
    drop(talk.client);
    end_of(&talk.server)
}

/// What was told of a side after its begin, in order: its updates, and its end.
struct Life<'a> {
    updates: Vec<&'a Record>,
    end: Option<&'a Record>,
}

fn life<'a>(records: &'a [Record], side: &Side) -> Result<Life<'a>> {
    let way = if side.outgoing { "outgoing" } else { "incoming" };
    let is = |r: &&Record| {
        r.source() == Some(side.source)
            && r.destination() == Some(side.destination)
            && r.text("flowtel.flow.direction") == way
    };
    let mine: Vec<_> = records.iter().filter(is).collect();
    let mut updates: Vec<_> = mine.iter().copied().filter(|r| r.event_name == UPDATE).collect();
    updates.sort_by_key(|r| r.time);
    let end = mine.iter().copied().find(|r| r.event_name == END);
    let ids: std::collections::BTreeSet<_> = mine.iter().map(|r| r.text("flowtel.flow.id")).collect();
    ensure!(ids.len() == 1, "one flow has the ids {ids:?}");
    Ok(Life { updates, end })
}

impl Life<'_> {
    /// Each counts on from the one before, and with the deltas of those from `from` on they come to the last of them.
    fn adds_up(&self, from: [i64; 5]) -> Result<()> {
        let all: Vec<_> = self.updates.iter().copied().chain(self.end).collect();
        for (i, [total, delta]) in TOTALS.into_iter().enumerate() {
            let mut sum = from[i];
            for record in &all {
                let (is, since) = (record.int(total), record.int(delta));
                let (is, since) = is.zip(since).with_context(|| format!("no {total} and {delta}: {record:#?}"))?;
                ensure!(since >= 0, "{delta}: {record:#?}");
                sum += since;
                ensure!(sum == is, "{delta}: all so far and {} make {sum}: {record:#?}", from[i]);
            }
        }
        Ok(())
    }

    /// They are as far apart as was asked for: but for what waits until a segment leaves.
    fn spread(&self) -> Result<()> {
        for pair in self.updates.windows(2) {
            let [a, b] = pair else { continue };
            let apart = b.time - a.time;
            ensure!(apart > EVERY.as_nanos() as u64 / 2, "{apart} ns after the one before: {b:#?}\n{a:#?}");
        }
        Ok(())
    }
}

fn zero() -> [i64; 5] {
    [0; 5]
}

fn about(net: &Pair, told: &Told) -> Vec<Record> {
    let about = About::Addresses(net.addresses());
    told.records.iter().filter(|r| about.concerns(r)).cloned().collect()
}

fn after_the_start(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    // Nobody had a socket in these when flowtel started.
    let net = Pair::new(scene)?;
    let to: [IpAddr; 2] = [net.server_v4.into(), net.server_v6.into()];
    let talks = to.map(|to| Talk::begin(&net, to));
    let [v4, v6] = talks;
    let talks = [v4?, v6?];
    let passed = talk(&talks, TALKS)?;
    let sides: Vec<Side> = talks.iter().flat_map(Talk::sides).collect();
    for talk in talks {
        close(talk)?;
    }
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for side in &sides {
        let life = life(&records, side)?;
        ensure!(life.updates.len() >= 2, "{} updates of {side:?}: {records:#?}", life.updates.len());
        life.adds_up(zero())?;
        life.spread()?;
        let end = life.end.context("no end")?;
        let bytes = [end.int("flowtel.source.bytes"), end.int("flowtel.destination.bytes")];
        ensure!(bytes == passed.map(Some), "{bytes:?} and not {passed:?}");
        for update in &life.updates {
            let age = update.double("flowtel.flow.duration").context("no age")?;
            ensure!(age > 0.0 && age <= end.double("flowtel.flow.duration").unwrap_or_default(), "{update:#?}");
            ensure!(update.double("flowtel.tcp.rtt").is_some_and(|rtt| rtt > 0.0), "no round trip time: {update:#?}");
            let whose = update.int("process.pid");
            ensure!(whose == end.int("process.pid"), "another owner: {update:#?}");
            ensure!(update.body.contains(" still open: "), "{}", update.body);
        }
    }
    Ok(())
}

fn older(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let talks = [Talk::begin(&net, net.server_v4)?, Talk::begin(&net, net.server_v6)?];
    for talk in &talks {
        talk.up(700)?;
        talk.down(300)?;
    }
    let watching = Watching::with(scene, Grpc, launch()?)?;
    found(&watching.flowtel)?;
    let passed = talk(&talks, TALKS)?;
    let sides: Vec<Side> = talks.iter().flat_map(Talk::sides).collect();
    for talk in talks {
        close(talk)?;
    }
    over(&net)?;
    ends(&watching.collector, &net, sides.len())?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for side in &sides {
        let life = life(&records, side)?;
        ensure!(!life.updates.is_empty(), "no update of {side:?}: {records:#?}");
        let first = life.updates[0];
        let before = TOTALS.map(|[total, delta]| first.int(total).unwrap_or(-1) - first.int(delta).unwrap_or_default());
        ensure!(before[..2] == [700, 300], "{before:?} passed before: {first:#?}");
        life.adds_up(before)?;
        life.spread()?;
        let end = life.end.context("no end")?;
        let bytes = [end.int("flowtel.source.bytes"), end.int("flowtel.destination.bytes")];
        ensure!(bytes == [Some(passed[0] + 700), Some(passed[1] + 300)], "{bytes:?} and not {passed:?} more");
        ensure!(first.double("flowtel.flow.duration").is_none(), "nobody saw its begin: {first:#?}");
    }
    Ok(())
}

/// Waits for so many ends.
fn ends(collector: &Collector, net: &Pair, n: usize) -> Result<()> {
    let about = About::Addresses(net.addresses());
    until("ends", PATIENCE, || {
        let ends = collector.records()?.iter().filter(|r| about.concerns(r) && r.event_name == END).count();
        Ok((ends >= n).then_some(()))
    })
}

fn no_begin(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let talks = [Talk::begin(&net, net.server_v4)?];
    talks[0].up(700)?;
    let watching = Watching::with(scene, Grpc, launch()?.set("capture.snapshot", "false"))?;
    let passed = talk(&talks, TALKS)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    ensure!(records.iter().all(|r| r.event_name == UPDATE), "what nobody saw begin: {records:#?}");
    let mut sides: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in &records {
        sides.entry(record.text("flowtel.flow.id")).or_default().push(record);
    }
    ensure!(sides.len() == 2, "two sides: {records:#?}");
    for mut updates in sides.into_values() {
        updates.sort_by_key(|r| r.time);
        ensure!(updates.len() >= 2, "{} updates: {records:#?}", updates.len());
        let first = updates.remove(0);
        let without = |record: &Record| TOTALS.iter().all(|[_, delta]| record.int(delta).is_none());
        ensure!(without(first) && !updates.iter().any(|r| without(r)), "the first alone has no delta: {first:#?}");
        ensure!(first.text("flowtel.flow.direction").is_empty(), "who asked nobody saw: {first:#?}");
        let life = Life { updates, end: None };
        life.adds_up(TOTALS.map(|[total, _]| first.int(total).unwrap_or(-1)))?;
        // Whichever side it is, the local one stands first.
        let last = life.updates.last().context("a last one")?;
        let bytes = [last.int("flowtel.source.bytes"), last.int("flowtel.destination.bytes")];
        let most = passed[0].max(passed[1]) + 700 + 1;
        ensure!(bytes.iter().all(|n| n.is_some_and(|n| n > 700 && n <= most)), "{bytes:?}: {last:#?}");
    }
    Ok(())
}

fn half_closed_and_asleep(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let [half, asleep] = [Talk::begin(&net, net.server_v4)?, Talk::begin(&net, net.server_v4)?];
    asleep.up(10)?;
    half.up(500)?;
    half.client.shutdown(std::net::Shutdown::Write)?;
    end_of(&half.server)?;
    let start = Instant::now();
    let mut down = 0;
    while start.elapsed() < patient(TALKS) {
        half.down(2000)?;
        down += 2000;
        pause(Duration::from_millis(150));
    }
    let woken = wall();
    let sides = [half.sides(), asleep.sides()];
    drop(half.server);
    end_of(&half.client)?;
    drop(half.client);
    close(asleep)?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for side in &sides[0] {
        let life = life(&records, side)?;
        ensure!(life.updates.len() >= 2, "{} updates of {side:?}: {records:#?}", life.updates.len());
        life.adds_up(zero())?;
        let end = life.end.context("no end")?;
        let bytes = [end.int("flowtel.source.bytes"), end.int("flowtel.destination.bytes")];
        ensure!(bytes == [Some(500), Some(down)], "{bytes:?} and not {down} down");
    }
    for side in &sides[1] {
        let life = life(&records, side)?;
        life.adds_up(zero())?;
        // What it said at its begin takes a moment; after that it sleeps.
        let began = side.between.1 + EVERY.as_nanos() as u64 / 4;
        let asleep = life.updates.iter().filter(|r| r.time > began && r.time < woken).count();
        ensure!(asleep == 0, "what is asleep said something: {:#?}", life.updates);
    }
    Ok(())
}

fn restarted(scene: &Scene) -> Result<()> {
    let pins = Mounted::new("bpf", scene.directory().join("bpf"), "")?;
    let mut collector = Collector::start(scene)?;
    let start = || -> Result<Flowtel> {
        let launch = launch()?.set("capture.pin", &pins.0.join("flowtel").display().to_string());
        let flowtel = collector.receive_from(launch, Grpc).start(scene)?;
        found(&flowtel)?;
        Ok(flowtel)
    };
    let net = Pair::new(scene)?;
    // One that flowtel finds, one that it sees begin.
    let older = Talk::begin(&net, net.server_v4)?;
    older.up(700)?;
    let first = start()?;
    let talks = [older, Talk::begin(&net, net.server_v6)?];
    let mut passed = talk(&talks, TALKS)?;
    let mut more = |add: [i64; 2]| passed = [passed[0] + add[0], passed[1] + add[1]];
    first.stop()?.lossless()?;
    more(talk(&talks, EVERY / 2)?);
    let second = start()?;
    more(talk(&talks, TALKS)?);
    let sides: Vec<_> = talks.iter().map(Talk::sides).collect();
    for talk in talks {
        close(talk)?;
    }
    over(&net)?;
    ends(&collector, &net, 4)?;
    second.stop()?.lossless()?;
    collector.stop()?;
    let about = About::Addresses(net.addresses());
    let records: Vec<_> = collector.records()?.into_iter().filter(|r| about.concerns(r)).collect();
    for (side, before) in sides.iter().zip([700, 0]).flat_map(|(sides, before)| sides.iter().map(move |s| (s, before)))
    {
        let life = life(&records, side)?;
        ensure!(life.updates.len() >= 4, "{} updates of {side:?}: {records:#?}", life.updates.len());
        let from = TOTALS.map(|[total, delta]| {
            let first = life.updates[0];
            first.int(total).unwrap_or(-1) - first.int(delta).unwrap_or_default()
        });
        ensure!(from[..2] == [before, 0], "{from:?}");
        life.adds_up(from)?;
        life.spread()?;
        let end = life.end.context("no end")?;
        let bytes = [end.int("flowtel.source.bytes"), end.int("flowtel.destination.bytes")];
        ensure!(bytes == [Some(passed[0] + before), Some(passed[1])], "{bytes:?} and not {passed:?} and {before}");
    }
    Ok(())
}

fn off(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let net = Pair::new(scene)?;
    let talks = [Talk::begin(&net, net.server_v4)?];
    talk(&talks, EVERY * 2)?;
    let [one] = talks;
    close(one)?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    ensure!(records.iter().filter(|r| r.event_name == END).count() == 2, "two ends: {records:#?}");
    let delta =
        |r: &&Record| r.event_name == UPDATE || r.attributes.keys().any(|key| key.starts_with("flowtel.delta."));
    ensure!(!records.iter().any(|r| delta(&r)), "{records:#?}");
    let account = told.balance.kernel.get("update");
    ensure!(account.is_none_or(|account| account.total == 0), "{account:?}");
    Ok(())
}
