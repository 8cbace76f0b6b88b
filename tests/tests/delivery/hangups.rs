//! SIGHUP a thousand times, from one collector to another and back, by gRPC and by HTTP.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{
        Collector, Form,
        Protocol::{Grpc, Http},
    },
    flowtel::{Flowtel, no_more},
    load::Load,
    netns::Pair,
    scene::Scene,
    status::number,
    tally::Tally,
    wait::until,
};
use rustix::process::Signal;

use super::{ask, beside_others, exactly, launch, mebibytes, report, share};

const HANGUPS: u64 = 1000;
const CONNECTIONS_PER_SECOND: u32 = 250;
/// In MiB, from a tenth of the reloads to the last: an exporter that was kept would be some 100 KiB each.
const MOST_GROWTH: f64 = 16.0;

pub fn hangups(scene: &Scene) -> Result<()> {
    let hangups = share(HANGUPS)?;
    let launch = launch(scene)?;
    let _turn = beside_others();
    let net = Pair::new(scene)?;
    let mut collectors = [
        Collector::prepare_as(scene, "first", Form::Protobuf)?,
        Collector::prepare_as(scene, "second", Form::Protobuf)?,
    ];
    for collector in &mut collectors {
        collector.run()?;
    }
    let file = scene.directory().join("flowtel.toml");
    collectors[0].configure(&file, Grpc)?;
    let mut load = Load::prepare(scene, &net, CONNECTIONS_PER_SECOND)?;
    let launch = load.watched_by(launch).argument("--config").argument(&file.display().to_string());
    let flowtel = launch.start(scene)?;
    load.start()?;
    let start = Instant::now();
    let mut early = None;
    for i in 1..=hangups {
        // By turns: the other collector, and every other time another protocol.
        let protocol = if i % 4 < 2 { Grpc } else { Http };
        collectors[usize::from(i % 2 == 1)].configure(&file, protocol)?;
        flowtel.signal(Signal::HUP)?;
        until("the reload", Duration::from_secs(30), || {
            Ok((number(&ask(scene)?, "/configuration/reloads")? >= i).then_some(()))
        })
        .with_context(|| flowtel.stderr())?;
        if i == hangups.div_ceil(10) {
            early = Some(taken(&flowtel)?);
        }
    }
    let took = start.elapsed();
    let before = early.context("a tenth of them")?;
    // What the last reload left may be open for a moment.
    let after = until("no more descriptors and memory than before", Duration::from_secs(60), || {
        let after = taken(&flowtel)?;
        Ok((no_more(&before.0, &after.0) && after.1 < before.1 + MOST_GROWTH).then_some(after))
    });
    let after = after.with_context(|| format!("from {before:?} to {:?}", taken(&flowtel).ok()))?;
    let made = load.stop()?;
    flowtel.stop_within(Duration::from_secs(60))?.lossless()?;
    let mut tally = Tally::default();
    for collector in &mut collectors {
        collector.stop()?;
        let had = tally.arrived.len();
        tally.add_file(&collector.output())?;
        ensure!(tally.arrived.len() > had, "a collector got nothing");
    }
    exactly(&tally, made)?;
    ensure!(tally.copies.is_empty(), "{} records came twice", tally.copies.len());
    let sum = |descriptors: &BTreeMap<String, usize>| descriptors.values().sum::<usize>();
    report::note(
        "SIGHUP: reloads, records, lost, came twice",
        format!("{hangups} in {} s, {}, 0, 0", took.as_secs(), tally.arrived.len()),
        "1,000, -, 0, 0",
    );
    report::note(
        "SIGHUP: descriptors, resident; after a tenth, and at the end",
        format!("{}, {:.1} MiB; {}, {:.1} MiB", sum(&before.0), before.1, sum(&after.0), after.1),
        "no growth",
    );
    Ok(())
}

/// Descriptors by kind, and resident MiB.
fn taken(flowtel: &Flowtel) -> Result<(BTreeMap<String, usize>, f64)> {
    Ok((flowtel.descriptors()?, mebibytes(flowtel)?))
}
