//! kill -9 at random moments, under 2,000 records a second.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{Collector, Form, Protocol::Grpc},
    flowtel::Launch,
    load::Load,
    netns::Pair,
    scene::Scene,
    tally::{Tally, delimited},
    wait::{pause, until},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{BEGIN, END, beside_others, launch, report, share};

const KILLS: u64 = 300;
/// Records are four times as many.
const CONNECTIONS_PER_SECOND: u32 = 500;
/// After flowtel is ready: from before its first batch to after several.
const LIFE: std::ops::Range<u64> = 50..850;

pub fn kills(scene: &Scene) -> Result<()> {
    let kills = share(KILLS)?;
    let directory = scene.directory().join("queue");
    let prepared = || -> Result<Launch> {
        Ok(launch(scene)?
            .set("queue.kind", "disk")
            .set("queue.path", &directory.display().to_string())
            .set("queue.sync_interval", "20ms")
            .set("export.batch.max_age", "50ms")
            .set("export.retry.initial", "100ms")
            .set("export.retry.max", "500ms"))
    };
    let program = prepared()?.program().clone();
    let _turn = beside_others();
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare_as(scene, "collector", Form::Protobuf)?;
    collector.run()?;
    let mut load = Load::prepare(scene, &net, CONNECTIONS_PER_SECOND)?;
    let start = |load: &Load| collector.receive_from(load.watched_by(prepared()?), Grpc).start(scene);
    let signal = |signal| -> Result<()> {
        let pid = collector.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the collector runs")?, signal)?)
    };
    // After how many kills each record was in the directory.
    let mut durable: HashMap<u128, u32> = HashMap::new();
    let mut shown = 0;
    let mut flowtel = start(&load)?;
    load.start()?;
    for round in 0..kills {
        // A collector that stands still lets the queue grow; one that runs lets batches be in flight.
        let stands = random(3) != 0;
        if stands {
            signal(Signal::STOP)?;
        }
        pause(Duration::from_millis(LIFE.start + random(LIFE.end - LIFE.start)));
        let killed = flowtel.kill();
        if stands {
            signal(Signal::CONT)?;
        }
        killed?;
        let waiting = waiting(&program, &directory)?;
        shown += u64::from(!waiting.is_empty());
        for uid in waiting {
            *durable.entry(uid).or_default() += 1;
        }
        flowtel = start(&load).with_context(|| format!("after {} kills", round + 1))?;
    }
    let made = load.stop()?;
    until("an empty queue", Duration::from_secs(60), || Ok(waiting(&program, &directory)?.is_empty().then_some(())))?;
    // fsync may take its time on a busy machine.
    flowtel.stop_within(Duration::from_secs(60))?.lossless()?;
    collector.stop()?;

    let mut tally = Tally::default();
    tally.add_file(&collector.output())?;
    tally.check_copies()?;
    // Or nothing was proven.
    ensure!(durable.len() > 10 * usize::try_from(kills)?, "only {} records were ever durable", durable.len());
    let missing = durable.keys().filter(|uid| !tally.arrived.contains(*uid)).count();
    ensure!(missing == 0, "{missing} of {} durable records did not arrive", durable.len());
    // What comes again was in the directory when flowtel was killed, and not yet settled: once for each time.
    for (uid, copies) in &tally.copies {
        let times = durable.get(uid).copied().unwrap_or_default();
        ensure!(*copies <= times, "{uid:032x} came {copies} times more, and was waiting after {times} kills");
    }
    for name in [BEGIN, END] {
        let told = tally.names.get(name).copied().unwrap_or_default();
        ensure!((made..=2 * made).contains(&told), "{made} connections were made; arrived: {:?}", tally.names);
    }
    report::note(
        "kill -9: times, records that were durable, of these lost",
        format!("{kills} ({shown} with records waiting), {}, 0", durable.len()),
        "300, -, 0",
    );
    report::note(
        "kill -9: records that came twice, all with their uid and bytes",
        format!("{} of {}", tally.copies.len(), tally.arrived.len()),
        "those in flight",
    );
    Ok(())
}

/// The ids of all records that wait in a queue's directory.
fn waiting(program: &Path, directory: &Path) -> Result<HashSet<u128>> {
    let mut command = Command::new(program);
    command.env_clear().args(["queue", "export", "--format", "protobuf"]).arg(directory);
    let output = command.output()?;
    // A killed flowtel may have left half a batch, of which the command says that it is damaged.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "queue export ended with {}: {said}", output.status);
    Ok(delimited(&output.stdout)?.into_iter().collect())
}

/// Less than `below`.
fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below
}
