//! The receiver is away for ten minutes at 1,000 records a second; the queue on disk keeps all of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{Collector, Form, Protocol::Grpc},
    load::Load,
    netns::Pair,
    scene::Scene,
    status::number,
    tally::Tally,
    wait::{pause, until},
};

use super::{alone, ask, beside_others, exactly, launch, mebibytes, records, report, share};

/// Records are four times as many.
const CONNECTIONS_PER_SECOND: u32 = 250;
const SECONDS: u64 = 600;
/// Less than two seconds' records: the queue is as empty as it ever is under load.
const EMPTY: u64 = 2000;
/// In MiB, during the outage. What waits is some hundred times as much.
const MOST_GROWTH: f64 = 16.0;
/// In MiB, at any time: while a queue is drained batches are read from the disk.
const MOST_MEMORY: f64 = 150.0;

pub fn outage(scene: &Scene) -> Result<()> {
    let seconds = share(SECONDS)?;
    let launch = launch(scene)?
        .set("queue.kind", "disk")
        .set("queue.path", &scene.directory().join("queue").display().to_string())
        .set("queue.max_bytes", "4GiB")
        .set("export.retry.max", "5s");
    let turn = beside_others();
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare_as(scene, "collector", Form::Protobuf)?;
    collector.run()?;
    let mut load = Load::prepare(scene, &net, CONNECTIONS_PER_SECOND)?;
    let flowtel = collector.receive_from(load.watched_by(launch), Grpc).start(scene)?;
    load.start()?;
    until("records at the receiver", Duration::from_secs(30), || {
        Ok((records(&ask(scene)?, "delivered")? > EMPTY).then_some(()))
    })?;
    collector.stop()?;
    // Memory that is flat is flat from its first part on.
    let start = Instant::now();
    let (mut early, mut late) = (0f64, 0f64);
    while start.elapsed() < Duration::from_secs(seconds) {
        pause(Duration::from_millis(500));
        let now = mebibytes(&flowtel)?;
        let part = if start.elapsed() < Duration::from_secs(seconds) / 4 { &mut early } else { &mut late };
        *part = part.max(now);
    }
    drop(turn);
    let turn = alone();
    let waited = start.elapsed();
    let waiting = number(&ask(scene)?, "/queue/records")?;
    ensure!(waiting > 500 * waited.as_secs(), "{waiting} records in {waited:.0?}: this tests nothing");
    collector.run()?;
    let before = records(&ask(scene)?, "delivered")?;
    until("the first of it at the receiver", Duration::from_secs(30), || {
        Ok((records(&ask(scene)?, "delivered")? > before).then_some(()))
    })?;
    let drained = Instant::now();
    let mut peak = 0f64;
    // However slow a machine is, it delivers twice as much as comes.
    let after = until("an empty queue", 2 * waited + Duration::from_secs(60), || {
        pause(Duration::from_millis(20));
        peak = peak.max(mebibytes(&flowtel)?);
        let status = ask(scene)?;
        Ok((number(&status, "/queue/records")? < EMPTY).then_some(records(&status, "delivered")?))
    })
    .with_context(|| flowtel.stderr())?;
    let took = drained.elapsed();
    drop(turn);
    let made = load.stop()?;
    flowtel.stop_within(Duration::from_secs(60))?.lossless()?;
    collector.stop()?;
    let mut tally = Tally::default();
    tally.add_file(&collector.output())?;
    tally.check_copies()?;
    exactly(&tally, made)?;
    let inflow = f64::from(4 * CONNECTIONS_PER_SECOND);
    let rate = (after - before) as f64 / took.as_secs_f64();
    report::note(
        "outage: records that waited, lost, came twice",
        format!("{waiting} in {} s, 0, {}", waited.as_secs(), tally.copies.len()),
        "600,000 in 600 s, 0, those in flight",
    );
    report::note("outage: drained, times the inflow", format!("{:.1} ({rate:.0}/s)", rate / inflow), "20");
    report::note(
        "outage: resident in its first quarter, later, while it was drained",
        format!("{early:.1}, {late:.1}, {peak:.1} MiB"),
        "flat",
    );
    ensure!(late < early + MOST_GROWTH, "memory grew from {early:.1} to {late:.1} MiB");
    ensure!(peak.max(late) < MOST_MEMORY, "{peak:.0} MiB resident while the queue was drained");
    Ok(())
}
