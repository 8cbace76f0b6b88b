//! What flowtel says of itself while it runs, and how it takes a changed configuration: metrics at a real collector, the
//! admin address, `flowtel status`, the service manager, SIGHUP under load.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::{
        Collector,
        Protocol::{self, Grpc, Http},
    },
    expect::{About, Side, exactly},
    flowtel::{Flowtel, Launch, no_more},
    netns::{Pair, joined},
    ports,
    record::Record,
    scene::{Scenario, Scene},
    status::{Manager, ask, get, number},
    traffic::{Server, burst},
    wait::{pause, until},
    watching::{Told, Watching},
};
use rustix::process::Signal;
use serde_json::Value;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("metrics reach a gRPC collector, equal the balances, and their connection is left out", 60, |s| {
        metrics(s, Grpc)
    }),
    Scenario::new("metrics reach an HTTP collector, equal the balances, and their connection is left out", 60, |s| {
        metrics(s, Http)
    }),
    Scenario::new("the admin address answers, and says when records are about to be dropped", 60, admin),
    Scenario::new(
        "flowtel status shows both balances of a running flowtel, exact when nothing is in flight",
        60,
        status,
    ),
    Scenario::new("a service manager hears of readiness, reload, watchdog and stop, in order", 60, notify),
    Scenario::new("SIGHUP from one collector to another and back under load loses and doubles nothing", 900, hangups),
    Scenario::new("a broken configuration at SIGHUP is refused with the reason, and the old one holds on", 60, broken),
];

/// Reloads under load: more by FLOWTEL_TESTS_SIGHUPS.
const HANGUPS: u64 = 40;

fn socket(scene: &Scene) -> PathBuf {
    scene.directory().join("run/status.sock")
}

fn with_status(launch: Launch, scene: &Scene) -> Launch {
    launch.set("telemetry.status.socket", &socket(scene).display().to_string())
}

/// `n` connections from client to server.
fn load(net: &Pair, n: usize) -> Result<Vec<flowtel_tests::traffic::Connection>> {
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    burst(&net.client, server.address, 1, n)
}

fn free_port() -> Result<SocketAddr> {
    let [port] = ports::free()?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

// === metrics

/// The last value of each metric of a collector, by its name and the values of its attributes in the order of their keys.
fn last(requests: &[Value]) -> BTreeMap<String, f64> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut values = BTreeMap::new();
    let resources = requests.iter().flat_map(|request| list(request, "resourceMetrics"));
    for metric in resources.flat_map(|r| list(&r, "scopeMetrics")).flat_map(|s| list(&s, "metrics")) {
        let kind = ["sum", "gauge"].into_iter().find(|kind| metric[kind].is_object()).unwrap_or_default();
        for point in list(&metric[kind], "dataPoints") {
            let mut key = metric["name"].as_str().unwrap_or_default().to_owned();
            let mut attributes = list(&point, "attributes");
            // Which exporter it is says nothing here: there is one.
            attributes
                .retain(|attribute| !attribute["key"].as_str().unwrap_or_default().starts_with("otel.component."));
            attributes.sort_by_key(|attribute| attribute["key"].as_str().unwrap_or_default().to_owned());
            for attribute in attributes {
                key += &format!(" {}", attribute["value"]["stringValue"].as_str().unwrap_or_default());
            }
            let int = point["asInt"].as_str().and_then(|n| n.parse().ok());
            values.insert(key, int.or(point["asDouble"].as_f64()).unwrap_or(f64::NAN));
        }
    }
    values
}

fn metrics(scene: &Scene, protocol: Protocol) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::new()?.set("telemetry.metrics.enabled", "true").set("telemetry.metrics.interval", "200ms");
    let Watching { flowtel, mut collector } = Watching::with(scene, protocol, launch)?;
    let connections = load(&net, 5)?;
    until("metrics of delivered records", Duration::from_secs(20), || {
        let values = last(&collector.metrics()?);
        Ok((values.get("flowtel.records delivered") >= Some(&10.0)).then_some(()))
    })?;
    let ended = flowtel.stop()?;
    let balance = ended.lossless()?;
    collector.stop()?;
    let records = Told { records: collector.records()?, balance: balance.clone() }.checked()?.records;
    exactly(&records, &About::Addresses(net.addresses()), &Side::all(&connections))?;
    exactly(&records, &About::Endpoints(vec![collector.address(protocol)]), &[])?;

    // The last push came when everything was settled.
    let values = last(&collector.metrics()?);
    let should = |name: &str, n: i128| {
        let is = values.get(name).copied();
        ensure!(is == Some(n as f64), "{name} is {is:?}, not {n}");
        Ok(())
    };
    should("otel.sdk.log.created", balance.records.total)?;
    should("otel.sdk.exporter.log.exported", balance.records.total)?;
    should("flowtel.records delivered", balance.records.part("delivered"))?;
    should("flowtel.records.waiting", 0)?;
    should("flowtel.queue.size", 0)?;
    for (kind, account) in &balance.kernel {
        let kind = kind.replace([' ', '-'], "_");
        should(&format!("flowtel.kernel.events {kind}"), account.total)?;
        should(&format!("flowtel.kernel.events.settled joined {kind}"), account.part("joined"))?;
    }
    let memory = values.get("process.memory.usage").copied().unwrap_or_default();
    ensure!(memory > 1e6, "process.memory.usage is {memory}");
    let instance = &collector.metrics()?[0]["resourceMetrics"][0]["resource"]["attributes"];
    ensure!(instance.to_string().contains("service.instance.id"), "the Resource is {instance}");
    Ok(())
}

// === the admin address

fn sample(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn admin(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let mut collector = Collector::prepare(scene)?;
    let address = free_port()?;
    let launch = collector
        .receive_from(Launch::new()?, Grpc)
        .set("telemetry.admin.address", &address.to_string())
        .set("queue.max_bytes", "128KiB")
        .set("export.batch.max_bytes", "64KiB")
        .set("export.batch.max_age", "50ms")
        .set("export.retry.max", "1s");
    let flowtel = launch.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    ensure!(get(address, "/healthz")?.0 == 200, "not alive");
    ensure!(get(address, "/readyz")?.0 == 200, "not ready, though the queue has room");
    // The receiver is away: until there is no room for another batch.
    let full = until("a full queue", Duration::from_secs(40), || {
        burst(&net.client, server.address, 2, 20)?;
        let (code, text) = get(address, "/readyz")?;
        Ok((code == 503).then_some(text))
    })?;
    ensure!(full.contains("the queue is full"), "{full}");
    ensure!(get(address, "/healthz")?.0 == 200, "a full queue is no death");
    let (_, text) = get(address, "/metrics")?;
    ensure!(sample(&text, "flowtel_export_up") == Some(0.0), "the receiver is not down: {text}");
    collector.run()?;
    until("readiness", Duration::from_secs(20), || Ok((get(address, "/readyz")?.0 == 200).then_some(())))?;
    until("an empty queue", Duration::from_secs(20), || {
        let (_, text) = get(address, "/metrics")?;
        let delivered = sample(&text, "flowtel_records_total{flowtel_fate=\"delivered\"}");
        Ok((sample(&text, "flowtel_queue_batches") == Some(0.0) && delivered > Some(0.0)).then_some(()))
    })?;
    let (code, _) = get(address, "/nothing")?;
    ensure!(code == 404, "{code}");
    flowtel.stop()?.balance()?;
    Ok(())
}

// === flowtel status

fn flowtel_status(scene: &Scene, form: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(Launch::new()?.program());
    command.env_clear().arg("status").args(form);
    command.arg("--set").arg(format!("telemetry.status.socket={}", socket(scene).display()));
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// Whether all balances of a status are exact now.
fn adds_up(status: &Value) -> bool {
    let kinds = status["kernel_events"].as_array().map(Vec::as_slice).unwrap_or_default();
    !kinds.is_empty()
        && kinds.iter().chain([&status["records"]]).all(|account| {
            let parts = account["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
            Some(parts.iter().filter_map(|part| part["count"].as_u64()).sum::<u64>()) == account["total"].as_u64()
        })
}

fn status(scene: &Scene) -> Result<()> {
    let (code, _, error) = flowtel_status(scene, &[])?;
    ensure!(code == Some(69) && error.contains("no flowtel answers at"), "{code:?}: {error}");
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Http, with_status(Launch::everything()?, scene))?;
    load(&net, 10)?;
    // It is exact unless it is taken in the middle of a round: others on this host may be at it at any moment.
    let status = until("exact balances", Duration::from_secs(40), || {
        let status = ask(&socket(scene))?;
        let delivered = number(&status, "/records/parts/0/count")? >= 40;
        Ok((delivered && adds_up(&status)).then_some(status))
    })?;
    ensure!(number(&status, "/pid")? == u64::from(watching.flowtel.pid()), "{status}");
    ensure!(status["export"]["state"] == "up" && status["capture"]["alive"] == true, "{status}");
    let (code, text, error) = flowtel_status(scene, &[])?;
    ensure!(code == Some(0) && error.is_empty(), "{code:?}: {error}");
    for words in ["export          up for ", "kernel events", "established", " made = ", "in flight"] {
        ensure!(text.contains(words), "no {words:?}: {text}");
    }
    let (code, json, _) = flowtel_status(scene, &["--json"])?;
    let json: Value = serde_json::from_str(&json)?;
    ensure!(code == Some(0) && json["records"]["total"].is_u64() && json["pid"] == status["pid"], "{json}");
    let told = watching.finish()?;
    let made = number(&status, "/records/total")?;
    ensure!(told.balance.records.total >= i128::from(made), "the end knows of less than {made} records");
    ensure!(!socket(scene).exists(), "the socket is left behind");
    Ok(())
}

// === the service manager

fn notify(scene: &Scene) -> Result<()> {
    let mut manager = Manager::start(scene.directory())?;
    let launch = Launch::new()?
        .environment("NOTIFY_SOCKET", &manager.path().display().to_string())
        .environment("WATCHDOG_USEC", "1000000");
    let flowtel = launch.start(scene)?;
    let ready = manager.hears("READY=1")?;
    ensure!(ready.contains("STATUS=watching"), "{ready}");
    manager.hears("WATCHDOG=1")?;
    flowtel.signal(Signal::HUP)?;
    let reloading = manager.hears("RELOADING=1")?;
    ensure!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1")?;
    manager.hears("WATCHDOG=1")?;
    flowtel.stop()?.lossless()?;
    manager.hears("STOPPING=1")?;
    let after = manager.rest();
    ensure!(!after.iter().any(|message| message.contains("READY")), "after the stop: {after:?}");
    Ok(())
}

// === SIGHUP

fn reloads(scene: &Scene) -> Result<u64> {
    number(&ask(&socket(scene))?, "/configuration/reloads")
}

/// Descriptors by kind, and resident bytes.
fn taken(flowtel: &Flowtel) -> Result<(BTreeMap<String, usize>, u64)> {
    Ok((flowtel.descriptors()?, flowtel.resident()?))
}

fn hangups(scene: &Scene) -> Result<()> {
    let times = std::env::var("FLOWTEL_TESTS_SIGHUPS").ok().and_then(|n| n.parse().ok()).unwrap_or(HANGUPS);
    let net = Pair::new(scene)?;
    let mut collectors = [Collector::prepare_in(scene, "first")?, Collector::prepare_in(scene, "second")?];
    for collector in &mut collectors {
        collector.run()?;
    }
    let file = scene.directory().join("flowtel.toml");
    collectors[0].configure(&file, Grpc)?;
    let launch = with_status(Launch::new()?, scene).argument("--config").argument(&file.display().to_string());
    let flowtel = launch.start(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let over = AtomicBool::new(false);
    let mut settled = None;
    let connections = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut made = Vec::new();
            while !over.load(Relaxed) {
                made.extend(burst(&net.client, server.address, 1, 10)?);
                pause(Duration::from_millis(20));
            }
            Ok::<_, anyhow::Error>(made)
        });
        let mut hangups = || -> Result<()> {
            for i in 1..=times {
                // By turns: the other collector, and every other time another protocol.
                let protocol = if i % 4 < 2 { Grpc } else { Http };
                collectors[usize::from(i % 2 == 1)].configure(&file, protocol)?;
                flowtel.signal(Signal::HUP)?;
                until("the reload", Duration::from_secs(20), || Ok((reloads(scene)? >= i).then_some(())))?;
                if i == times / 2 {
                    settled = Some(taken(&flowtel)?);
                }
            }
            Ok(())
        };
        let result = hangups();
        over.store(true, Relaxed);
        let made = joined(clients.join());
        result.and(made)
    })?;
    let before = settled.context("half of them")?;
    // What the last reload left may be open for a moment.
    let after = until("no more descriptors and memory than before", Duration::from_secs(30), || {
        let after = taken(&flowtel)?;
        Ok((no_more(&before.0, &after.0) && after.1 <= before.1 + (24 << 20)).then_some(after))
    });
    let after = after.with_context(|| format!("grew from {before:?} to {:?}", taken(&flowtel).ok()))?;
    eprintln!("{times} reloads: {before:?} descriptors and bytes after half of them, {after:?} after all");
    let balance = flowtel.stop()?.lossless()?;
    let mut records = Vec::new();
    for collector in &mut collectors {
        collector.stop()?;
        let its = collector.records()?;
        ensure!(!its.is_empty(), "a collector got nothing");
        records.extend(its);
    }
    let told = Told { records, balance }.checked()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &Side::all(&connections))
}

fn delivered(collector: &Collector, flowtel: &Flowtel, about: &About, n: usize) -> Result<()> {
    until("records at the collector", Duration::from_secs(20), || {
        let concerns = |record: &&Record| about.concerns(record);
        Ok((collector.records()?.iter().filter(concerns).count() >= n).then_some(()))
    })
    .with_context(|| flowtel.stderr())
}

fn broken(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let about = About::Addresses(net.addresses());
    let mut collector = Collector::start(scene)?;
    let file = scene.directory().join("flowtel.toml");
    collector.configure(&file, Http)?;
    let launch = with_status(Launch::new()?, scene).argument("--config").argument(&file.display().to_string());
    let flowtel = launch.start(scene)?;
    let mut connections = load(&net, 2)?;
    let right = fs::read_to_string(&file)?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let refused = [
        ("this is no TOML".to_owned(), "flowtel.toml"),
        (format!("{right}no_such_key = 1\n"), "no_such_key"),
        (format!("{right}timeout = \"1y\"\n"), "export.timeout"),
        (format!("{right}tls.ca_file = \"/nonexistent.pem\"\n"), "/nonexistent.pem"),
        (
            format!("{right}concurrency = 1\n[telemetry.admin]\naddress = \"{}\"\n", taken.local_addr()?),
            "telemetry.admin.address",
        ),
    ];
    for (i, (text, words)) in (1..).zip(&refused) {
        fs::write(&file, text)?;
        flowtel.signal(Signal::HUP)?;
        let status = until("the refusal", Duration::from_secs(20), || {
            let status = ask(&socket(scene))?;
            Ok((number(&status, "/configuration/refused")? >= i).then_some(status))
        })?;
        let why = status["configuration"]["last_refused"].as_str().unwrap_or_default();
        ensure!(why.contains(words), "{words}: {why}");
        ensure!(flowtel.says(words) && flowtel.says("the old one holds on"), "{}", flowtel.stderr());
        connections.extend(load(&net, 1)?);
    }
    delivered(&collector, &flowtel, &about, 2 * connections.len())?;
    // What needs a restart is named, and the rest is applied.
    fs::write(&file, format!("{right}[capture]\ntick = \"20ms\"\n[log]\nlevel = \"debug\"\n"))?;
    flowtel.signal(Signal::HUP)?;
    let start = Instant::now();
    until("the reload", Duration::from_secs(20), || Ok((reloads(scene)? == 1).then_some(())))?;
    eprintln!("a reload took at most {:.1?}", start.elapsed());
    let status = ask(&socket(scene))?;
    ensure!(status["configuration"]["restart_for"] == serde_json::json!(["capture.tick"]), "{status}");
    ensure!(flowtel.says("log.level") && flowtel.says("capture.tick"), "{}", flowtel.stderr());
    connections.extend(load(&net, 1)?);
    let balance = flowtel.stop()?.lossless()?;
    collector.stop()?;
    let told = Told { records: collector.records()?, balance }.checked()?;
    exactly(&told.records, &about, &Side::all(&connections))
}
