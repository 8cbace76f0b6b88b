//! What records leave out, shorten and hash: flowtel with such settings on the real kernel, and every form of its output.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::Grpc,
    flowtel::{Flowtel, Launch},
    netns::Pair,
    record::{Record, decode_lines},
    scene::{Scenario, Scene},
    traffic::{Server, burst},
    wait::until,
    watching::Watching,
};
use rustix::process::Signal;

use crate::over;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("privacy: what is hashed is in no record of any form, and records still join", 120, hashed),
    Scenario::new("privacy: a reload changes what is hidden, and one without its key is refused", 120, reloaded),
    Scenario::new("privacy: without its key flowtel does not start, and check says why", 60, keyless),
];

const KEY: &str = "0123456789abcdef0123456789abcdef";
const HASHED: &str = "record.hash.attributes=addresses,names,users,programs";
const CONNECTIONS: usize = 5;

fn hashed(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let launch = || -> Result<Launch> {
        Ok(Launch::everything()?
            .environment("FLOWTEL_RECORD__HASH__KEY", KEY)
            .argument("--set")
            .argument(HASHED)
            .set("record.groups", "client_server,tracee")
            // On the real address: it is hashed behind the rules.
            .argument(&format!("--include=destination={} direction=outgoing", net.server_v4)))
    };
    let people = launch()?.argument("--format=text").start(scene)?;
    let lines = launch()?.argument("--format=json").start(scene)?;
    let watching = Watching::with(scene, Grpc, launch()?)?;
    burst(&net.client, server.address, 1, CONNECTIONS)?;
    over(&net)?;
    let told = watching.finish()?;
    let secrets = [net.client_v4.to_string(), net.server_v4.to_string(), "/deps/kernel-".to_owned()];
    let silent = |text: &str| {
        let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
        ensure!(found.is_none(), "{found:?} is in {text}");
        Ok(())
    };
    for record in &told.records {
        silent(&format!("{record:?}"))?;
    }
    joins(&told.records)?;
    let ended = lines.stop()?;
    ended.lossless()?;
    let texts: Vec<_> = ended.stdout.iter().map(|line| line.text.as_str()).collect();
    texts.iter().try_for_each(|text| silent(text))?;
    let records = decode_lines(texts)?;
    joins(&records)?;
    // Two flowtels with one key: the same hashes and the same ids of flows.
    let said = |records: &[Record]| -> BTreeSet<[String; 2]> {
        records.iter().map(|r| ["source.address", "flowtel.flow.id"].map(|key| r.text(key).to_owned())).collect()
    };
    ensure!(said(&records) == said(&told.records), "{:?} {:?}", said(&records), said(&told.records));
    let ended = people.stop()?;
    ended.lossless()?;
    ensure!(ended.stdout.len() == 2 * CONNECTIONS, "{:?}", ended.stdout);
    for line in &ended.stdout {
        silent(&line.text)?;
        ensure!(line.text.contains(" → hmac-"), "{}", line.text);
    }
    silent(&ended.stderr)?;
    ensure!(!ended.stderr.contains(KEY), "the key was logged");
    Ok(())
}

/// Each connection's begin and end have one id, and all of them the same two addresses.
fn joins(records: &[Record]) -> Result<()> {
    ensure!(records.len() == 2 * CONNECTIONS, "{} records: {records:?}", records.len());
    let distinct = |key: &str| records.iter().map(|r| r.text(key).to_owned()).collect::<BTreeSet<_>>();
    for (key, count) in [
        ("flowtel.flow.id", CONNECTIONS),
        ("flowtel.flow.community_id", CONNECTIONS),
        ("log.record.uid", 2 * CONNECTIONS),
        ("source.address", 1),
        ("destination.address", 1),
        ("thread.name", 1),
    ] {
        let found = distinct(key);
        ensure!(found.len() == count && !found.contains(""), "{key}: {found:?}");
        let plain = key == "flowtel.flow.id" || key == "log.record.uid";
        ensure!(plain || found.iter().all(|value| value.starts_with("hmac-") && value.len() == 37), "{key}: {found:?}");
    }
    for record in records {
        ensure!(record.text("client.address") == record.text("source.address"), "{record:?}");
        ensure!(record.text("dst") == record.text("destination.address"), "{record:?}");
        ensure!(record.body.contains(record.text("destination.address")), "{record:?}");
        let user = record.int("process.real_user.id").context("no user")?;
        ensure!((1 << 52..1 << 53).contains(&user), "{user}");
    }
    Ok(())
}

/// Makes one connection, and returns the records of it.
fn next(net: &Pair, server: SocketAddr, flowtel: &Flowtel) -> Result<Vec<Record>> {
    let before = flowtel.stdout().len();
    burst(&net.client, server, 1, 1)?;
    over(net)?;
    until("a begin and an end", Duration::from_secs(15), || {
        let lines = flowtel.stdout_from(before);
        let records = decode_lines(lines.iter().map(|line| line.text.as_str()))?;
        Ok((records.len() >= 2).then_some(records))
    })
}

fn reload(flowtel: &Flowtel, file: &Path, settings: &str, says: &str) -> Result<()> {
    fs::write(file, settings)?;
    flowtel.signal(Signal::HUP)?;
    until("the reload", Duration::from_secs(15), || Ok(flowtel.says(says).then_some(())))
}

fn reloaded(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let file = scene.directory().join("flowtel.toml");
    fs::write(&file, "[record.attributes]\nexclude = [\"addresses\", \"programs\"]\n")?;
    let flowtel = Launch::everything()?
        .argument(&format!("--config={}", file.display()))
        .argument("--format=json")
        .argument(&format!("--include=destination={} direction=outgoing", net.server_v4))
        .start(scene)?;
    let hidden = |records: &[Record]| {
        for record in records {
            let [source, thread] = ["source.address", "thread.name"].map(|key| record.text(key));
            ensure!(source.is_empty() && thread.is_empty(), "{record:?}");
            ensure!(record.body.starts_with("outgoing tcp ? -> ? ["), "{}", record.body);
            ensure!(!record.attributes.contains_key("flowtel.flow.community_id"), "{record:?}");
        }
        Ok(())
    };
    hidden(&next(&net, server.address, &flowtel)?)?;
    let missing = "[record.hash]\nattributes = \"addresses\"\nkey_file = \"/nowhere/key\"\n";
    reload(&flowtel, &file, missing, "/nowhere/key cannot be read")?;
    ensure!(flowtel.says("the old one holds on"), "{}", flowtel.stderr());
    hidden(&next(&net, server.address, &flowtel)?)?;
    reload(&flowtel, &file, "[record.shorten]\nipv4 = 16\n", "a changed configuration is applied")?;
    let [a, b, ..] = net.client_v4.octets();
    // It is said before the capture thread has it.
    let records = until("the new form", Duration::from_secs(15), || {
        let records = next(&net, server.address, &flowtel)?;
        let shown = records.iter().all(|record| !record.text("source.address").is_empty());
        Ok(shown.then_some(records))
    })?;
    for record in records {
        ensure!(record.text("source.address") == format!("{a}.{b}.0.0"), "{record:?}");
        ensure!(format!("{:?}", record.resource.get("flowtel.address.ipv4.prefix")) == "Some(Int(16))", "{record:?}");
        ensure!(!record.text("thread.name").is_empty(), "{record:?}");
    }
    flowtel.stop()?.lossless()?;
    Ok(())
}

fn keyless(scene: &Scene) -> Result<()> {
    let launch = || -> Result<Launch> {
        Ok(Launch::bare()?.set("record.hash.attributes", "addresses").set("record.hash.key_file", "/nowhere/key"))
    };
    let ended = launch()?.to_end(scene)?;
    ensure!(ended.status.code() == Some(78), "{} {}", ended.status, ended.stderr);
    ensure!(ended.stderr.contains("/nowhere/key cannot be read"), "{}", ended.stderr);
    let ended = launch()?.command("check").to_end(scene)?;
    let said: Vec<_> = ended.stdout.iter().map(|line| line.text.as_str()).collect();
    ensure!(ended.status.code() == Some(69), "{} {said:?}", ended.status);
    let line = said.iter().find(|line| line.contains("privacy")).context("no line about it")?;
    ensure!(line.starts_with("FAIL") && line.contains("/nowhere/key"), "{line}");
    Ok(())
}
