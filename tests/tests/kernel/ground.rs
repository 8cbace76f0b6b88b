//! The queue on disk robbed of its ground: a directory that goes away, belongs to others, or is full of what nobody wrote.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::{Collector, Protocol::Grpc},
    flowtel::{Flowtel, Launch, user},
    netns::Pair,
    scene::{Scenario, Scene},
    traffic::{Server, burst},
    wait::{pause, until},
};

use crate::queue::{on_disk, waiting};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "a queue's directory that was moved away keeps nothing for the next run, and that is told",
        90,
        moved,
    ),
    Scenario::new("a queue's directory that was removed is made again, and what is queued is there", 90, removed),
    Scenario::new("a queue's directory of another user, or that others may write to, is refused", 60, foreign),
    Scenario::new("a queue's directory full of what nobody wrote holds up neither start nor stop", 180, stuffed),
    Scenario::new("a limit to the size of files kills nothing and loses nothing", 90, limited),
];

/// A directory that is already there for flowtel to make its own in.
fn here(scene: &Scene) -> std::path::PathBuf {
    scene.directory().join("queue")
}

/// With its queue there, and nobody who takes anything from it.
fn launch(scene: &Scene) -> Result<Launch> {
    let collector = Collector::prepare(scene)?;
    Ok(collector.receive_from(on_disk(&here(scene))?, Grpc).set("export.grace", "300ms"))
}

/// Makes connections until some of what they gave is on the disk.
fn something_durable(scene: &Scene, net: &Pair, server: &Server) -> Result<()> {
    burst(&net.client, server.address, 1, 20)?;
    let there = || Ok((waiting(scene, &here(scene))?.len() >= 40).then_some(()));
    until("something durable", Duration::from_secs(15), there)
}

fn says(flowtel: &Flowtel, words: &str) -> Result<()> {
    until(words, Duration::from_secs(15), || Ok(flowtel.says(words).then_some(())))
}

fn moved(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let flowtel = launch(scene)?.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    something_durable(scene, &net, &server)?;
    fs::rename(here(scene), scene.directory().join("away"))?;
    says(&flowtel, "was moved")?;
    burst(&net.client, server.address, 1, 20)?;
    pause(Duration::from_millis(500));
    let records = flowtel.stop()?.balance()?.records;
    ensure!(!here(scene).exists(), "it is made again beside the one that was moved");
    let (queued, lost) = (records.part("queued for the next run"), records.part("undelivered at stop"));
    ensure!(queued == 0, "{queued} records are said to wait for the next run, which finds none: {records}");
    ensure!(lost == records.total && lost >= 80, "not all of {} records are counted as lost: {records}", records.total);
    Ok(())
}

fn removed(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    // Where the user may make a directory, as in that of its service.
    chown(scene.directory(), Some(user()), None)?;
    let flowtel = launch(scene)?.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    something_durable(scene, &net, &server)?;
    fs::remove_dir_all(here(scene))?;
    says(&flowtel, "was removed")?;
    burst(&net.client, server.address, 1, 20)?;
    let records = flowtel.stop()?.balance()?.records;
    let (queued, there) = (records.part("queued for the next run"), waiting(scene, &here(scene))?.len());
    ensure!(
        queued == there as i128,
        "{queued} records are said to wait for the next run, which finds {there}: {records}"
    );
    ensure!(queued >= 80, "what was in memory is not written again: {records}");
    Ok(())
}

fn foreign(scene: &Scene) -> Result<()> {
    fs::create_dir(here(scene))?;
    let refused = |why: &str| {
        let ended = on_disk(&here(scene))?.to_end(scene)?;
        ensure!(ended.status.code() == Some(69), "{why}: it ended with {}: {}", ended.status, ended.stderr);
        let words = format!("others than user {} may write there", user());
        ensure!(ended.stderr.contains(&words), "{why}: {}", ended.stderr);
        Ok(())
    };
    fs::set_permissions(here(scene), fs::Permissions::from_mode(0o777))?;
    refused("writable by all")?;
    fs::set_permissions(here(scene), fs::Permissions::from_mode(0o700))?;
    chown(here(scene), Some(user() - 1), None)?;
    refused("of another user")
}

/// A file of this length with nothing in it.
fn sparse(path: &Path, bytes: u64) -> Result<()> {
    Ok(fs::File::create(path)?.set_len(bytes)?)
}

const SEGMENTS: u64 = 100_000;

fn stuffed(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let directory = here(scene);
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    let name = |first: u64| directory.join(format!("{first:020}.segment"));
    sparse(&name(1), 20 << 30)?;
    for first in 2..SEGMENTS {
        fs::File::create(name(first))?;
    }
    // The greatest that can be read: what follows must be found again all the same.
    fs::File::create(name(1 << 62))?;
    let flowtel = launch(scene)?.start(scene)?;
    let idle = flowtel.resident()?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    burst(&net.client, server.address, 1, 20)?;
    pause(Duration::from_millis(500));
    let resident = flowtel.resident()?;
    eprintln!("{} MiB resident at the start, {} MiB with {SEGMENTS} segments", idle >> 20, resident >> 20);
    ensure!(resident < idle + (50 << 20), "{resident} bytes are resident, {idle} were at the start");
    let records = flowtel.stop()?.balance()?.records;
    let (queued, there) = (records.part("queued for the next run"), waiting(scene, &directory)?.len());
    ensure!(queued == there as i128 && queued >= 40, "{queued} records queued, {there} found: {records}");
    Ok(())
}

fn limited(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    // Batches that fit the limit, however fast the machine fills them.
    let launch = launch(scene)?.set("export.batch.max_bytes", "64KiB");
    // Blocks of 512 bytes: 256 KiB.
    let flowtel = launch.through(&["/bin/sh", "-c", "ulimit -S -f 512 && exec \"$0\" \"$@\""]).start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    burst(&net.client, server.address, 1, 20)?;
    for _ in 0..20 {
        burst(&net.client, server.address, 2, 20)?;
        pause(Duration::from_millis(50));
    }
    let records = flowtel.stop()?.balance()?.records;
    let (queued, there) = (records.part("queued for the next run"), waiting(scene, &here(scene))?.len());
    ensure!(queued == there as i128 && queued == records.total, "{queued} queued, {there} found: {records}");
    Ok(())
}
