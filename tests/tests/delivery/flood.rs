//! Throughput: 2,500 connections a second, each with begin and end at both ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::{Collector, Form, Protocol::Grpc},
    load::Load,
    netns::Pair,
    scene::Scene,
    tally::Tally,
    wait::pause,
};

use super::{alone, exactly, launch, mebibytes, report, share};

/// Records are four times as many.
const CONNECTIONS_PER_SECOND: u32 = 2500;
const SECONDS: u64 = 300;
/// In MiB. The goal is 50; a machine that lets the collector fall behind fills the queue, whose budget is 64.
const MOST_MEMORY: f64 = 150.0;

pub fn flood(scene: &Scene) -> Result<()> {
    let seconds = share(SECONDS)?;
    let launch = launch(scene)?;
    let _turn = alone();
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare_as(scene, "collector", Form::Protobuf)?;
    collector.run()?;
    let mut load = Load::prepare(scene, &net, CONNECTIONS_PER_SECOND)?;
    let flowtel = collector.receive_from(load.watched_by(launch), Grpc).start(scene)?;
    let (start, before) = (Instant::now(), flowtel.cpu()?);
    load.start()?;
    let mut memory = 0f64;
    while start.elapsed() < Duration::from_secs(seconds) {
        pause(Duration::from_millis(500));
        memory = memory.max(mebibytes(&flowtel)?);
    }
    let (took, cpu) = (start.elapsed(), flowtel.cpu()? - before);
    let made = load.stop()?;
    flowtel.stop_within(Duration::from_secs(60))?.lossless()?;
    collector.stop()?;
    let mut tally = Tally::default();
    tally.add_file(&collector.output())?;
    exactly(&tally, made)?;
    ensure!(memory < MOST_MEMORY, "{memory:.0} MiB resident");
    let rate = 4.0 * made as f64 / took.as_secs_f64();
    let share = 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
    report::note(
        "throughput: records a second, lost",
        format!("{rate:.0} for {} s, 0 of {} lost", took.as_secs(), 4 * made),
        "10,000 for 300 s, 0",
    );
    report::note("throughput: flowtel's CPU, of one core", format!("{share:.1} %"), "15 %");
    report::note("throughput: resident, at most", format!("{memory:.1} MiB"), "50 MiB");
    Ok(())
}
