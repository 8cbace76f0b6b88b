//! What goes on after flowtel has given its rights up: TLS with files that are replaced, proxies, compression, metrics, a file of
//! records with its rotation, a replay.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    certificates::Certificates,
    collector::{
        Collector,
        Protocol::{self, Grpc, Http},
    },
    flowtel::{Flowtel, Launch, user},
    proxy::Proxy,
    scene::{Scenario, Scene},
    status::ask,
    traffic::{Server, burst},
    wait::{pause, until},
};
use rustix::process::Signal;

use crate::dropped::{PATIENCE, Stage, bare, kept_by_main, owner};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("afterwards: TLS by gRPC with gzip, a proxy, metrics; replaced certificates are read", 120, |s| {
        secured(s, Grpc, "gzip")
    }),
    Scenario::new("afterwards: TLS by HTTP with zstd, a proxy, metrics; replaced certificates are read", 120, |s| {
        secured(s, Http, "zstd")
    }),
    Scenario::new("afterwards: a proxy without TLS, a tunnel for gRPC and requests for HTTP", 120, proxied),
    Scenario::new("afterwards: a file of records that root began is gone on with, rotated and thinned out", 120, filed),
    Scenario::new(
        "afterwards: a file of records in a directory of others is written, and why not rotated is said",
        60,
        shared,
    ),
    Scenario::new("afterwards: a replay reads what root alone may read, and delivers", 60, replayed),
];

/// No call was refused: nothing that is needed is missing from the list.
fn nothing_refused(stage: &Stage, flowtel: &Flowtel) -> Result<()> {
    let status = ask(&stage.socket())?;
    ensure!(status["rights"]["refused_calls"] == 0, "{status}: {}", flowtel.stderr());
    bare(flowtel.pid(), user(), kept_by_main()).map(drop)
}

fn secured(scene: &Scene, protocol: Protocol, compression: &str) -> Result<()> {
    let certificates = Certificates::new(scene.directory().join("tls"))?;
    let mut collector = Collector::prepare(scene)?;
    collector.secure(&certificates)?;
    collector.run()?;
    let proxy = Proxy::start()?;
    let mut stage = Stage::with(scene, collector)?;
    let mut launch = stage
        .launch_by(protocol)?
        .environment("HTTPS_PROXY", &proxy.url())
        .environment("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        .set("telemetry.metrics.enabled", "true")
        .set("telemetry.metrics.interval", "500ms")
        .set("export.retry.max", "1s");
    for (key, name) in [("ca_file", "ca.pem"), ("cert_file", "client.pem"), ("key_file", "client.key")] {
        launch = launch.set(&format!("export.tls.{key}"), &certificates.file(name).display().to_string());
    }
    let flowtel = launch.start(scene)?;
    stage.delivers(40)?;
    until("metrics", PATIENCE, || Ok((!stage.collector.metrics()?.is_empty()).then_some(())))?;
    let tunnels = proxy.tunnels();
    ensure!(tunnels >= 1, "it went past the proxy");

    // Another authority: what flowtel trusted before is worth nothing any more.
    stage.collector.stop()?;
    certificates.renew()?;
    stage.collector.run()?;
    let server = Server::start(&stage.net.server, (stage.net.server_v4, 0))?;
    burst(&stage.net.client, server.address, 2, 10)?;
    pause(Duration::from_secs(2));
    let before = stage.begins()?;
    ensure!(before == 40, "{before} begins came by certificates that are no longer valid");
    flowtel.signal(Signal::HUP)?;
    until("a reload", PATIENCE, || Ok((ask(&stage.socket())?["configuration"]["reloads"] == 1).then_some(())))
        .with_context(|| flowtel.stderr())?;
    stage.delivers(120).with_context(|| flowtel.stderr())?;
    ensure!(proxy.tunnels() > tunnels, "it went past the proxy");
    nothing_refused(&stage, &flowtel)?;
    flowtel.stop()?.balance().map(drop)
}

fn proxied(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let proxy = Proxy::start()?;
    for (protocol, all) in [(Grpc, 40), (Http, 80)] {
        let launch = stage.launch_by(protocol)?.environment("HTTP_PROXY", &proxy.url());
        let flowtel = launch.environment("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd").start(scene)?;
        stage.delivers(all)?;
        nothing_refused(&stage, &flowtel)?;
        flowtel.stop()?.balance()?;
    }
    let (tunnels, forwarded) = (proxy.tunnels(), proxy.forwarded());
    ensure!(tunnels >= 1 && forwarded >= 1, "{tunnels} tunnels, {forwarded} passed on");
    Ok(())
}

/// A launch that writes a file of small pieces.
fn into_file(stage: &Stage, file: &Path) -> Result<Launch> {
    let launch = Launch::everything()?.argument("--include");
    Ok(launch
        .argument(&format!("destination={}", stage.net.server_v4))
        .set("telemetry.status.socket", &stage.socket().display().to_string())
        .set("export.kind", "stdout")
        .set("export.format", "ndjson")
        .set("export.path", &file.display().to_string())
        .set("export.rotate.max_bytes", "64KiB")
        .set("export.rotate.keep", "2"))
}

/// Begins in the files of a directory, and the files.
fn written(directory: &Path) -> Result<(usize, Vec<PathBuf>)> {
    let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let mut begins = 0;
    for file in &files {
        begins += fs::read_to_string(file)?.matches("\"flowtel.tcp.flow.begin\"").count();
    }
    Ok((begins, files))
}

/// Connections, and waits until the file has grown by their begins; or was put aside, and older ones are gone.
fn connect(stage: &Stage, connections: usize) -> Result<()> {
    let server = Server::start(&stage.net.server, (stage.net.server_v4, 0))?;
    burst(&stage.net.client, server.address, 2, connections / 2).map(drop)
}

fn filed(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let directory = scene.directory().join("log");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    let file = directory.join("records.ndjson");
    // As the version before ran: root all the time.
    let root = into_file(&stage, &file)?.set("security.drop", "false").start(scene)?;
    connect(&stage, 4)?;
    until("eight begins", PATIENCE, || Ok((written(&directory)?.0 >= 8).then_some(())))?;
    root.stop()?.balance()?;
    ensure!((owner(&directory)?, owner(&file)?) == (0, 0), "root's are root's");

    for round in 0..2 {
        let flowtel = into_file(&stage, &file)?.start(scene)?;
        ensure!((owner(&directory)?, owner(&file)?) == (user(), user()), "they are the user's now");
        let old = written(&directory)?;
        let first = |files: &[PathBuf]| files.iter().find(|path| **path != file).cloned();
        for _ in 0..20 {
            connect(&stage, 20)?;
            pause(Duration::from_millis(150));
            let files = written(&directory)?.1;
            // Three, of which the oldest is another one than before: it was put aside, and thinned out.
            if files.len() == 3 && round == 0 || files.len() == 3 && first(&files) != first(&old.1) {
                break;
            }
        }
        let (begins, files) = written(&directory)?;
        ensure!(files.len() == 3 && first(&files) != first(&old.1), "not rotated: {files:?}; {}", flowtel.stderr());
        ensure!(begins > old.0 || round == 1, "{begins} begins are no more than {} before", old.0);
        let owners = files.iter().map(|path| owner(path)).collect::<Result<BTreeSet<_>>>()?;
        ensure!(owners == BTreeSet::from([user()]), "files of {owners:?}");
        nothing_refused(&stage, &flowtel)?;
        // As logrotate does it.
        fs::rename(&file, scene.directory().join(format!("moved-{round}")))?;
        pause(Duration::from_millis(1100));
        connect(&stage, 4)?;
        until("a new file", PATIENCE, || Ok(file.exists().then_some(())))?;
        let balance = flowtel.stop()?.balance()?;
        ensure!(balance.records.part("write_failed") == 0, "{}", balance.records);
    }
    // And back, without the right to write where it may not.
    let words = ["/bin/sh", "-c", "exec \"$0\" \"$@\" --set security.drop=false"];
    let root = into_file(&stage, &file)?.through(&words).start(scene)?;
    ensure!((owner(&directory)?, owner(&file)?) == (0, 0), "they are root's again");
    root.stop()?.balance().map(drop)
}

fn shared(scene: &Scene) -> Result<()> {
    let stage = Stage::new(scene)?;
    let directory = scene.directory().join("log");
    fs::create_dir(&directory)?;
    fs::write(directory.join("another.log"), "another's")?;
    let file = directory.join("records.ndjson");
    let flowtel = into_file(&stage, &file)?.start(scene)?;
    ensure!(owner(&directory)? == 0, "a directory that is not flowtel's alone was given away");
    ensure!(flowtel.says("is no directory of the user"), "{}", flowtel.stderr());
    connect(&stage, 4)?;
    until("eight begins", PATIENCE, || Ok((written(&directory)?.0 >= 8).then_some(())))?;
    flowtel.stop()?.balance().map(drop)
}

fn replayed(scene: &Scene) -> Result<()> {
    let collector = Collector::start(scene)?;
    let shut = scene.directory().join("shut");
    fs::create_dir(&shut)?;
    let capture = shut.join("live.pcap");
    fs::write(&capture, include_bytes!("../../../fuzz/seeds/pcap/loopback.pcap"))?;
    fs::set_permissions(&capture, fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700))?;
    let launch = Launch::everything()?.command("replay").argument(&capture.display().to_string());
    let ended =
        collector.receive_from(launch, Grpc).environment("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip").to_end(scene)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    ensure!(!ended.stderr.contains("with all rights"), "{}", ended.stderr);
    until("its records", PATIENCE, || Ok((!collector.records()?.is_empty()).then_some(())))
}
