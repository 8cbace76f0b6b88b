//! A flowtel beside an app: both and the collector in one group of cgroups, with private namespaces as a container has them.
//! What the group does is recorded, and nothing else.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    cgroup::{self, Cgroup},
    child::Child,
    collector::{Collector, Protocol::Http},
    flowtel::{Flowtel, Launch},
    netns::Pair,
    record::Record,
    scene::{Scenario, Scene},
    traffic::Server,
    wait::until,
};

use crate::over;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "sidecar: capture.cgroup = \"self\" in private namespaces: the group's flows and no others",
        120,
        group,
    ),
    Scenario::new(
        "sidecar: two of them and a flowtel of the host: each tells its own, with one flow id",
        120,
        together,
    ),
    Scenario::new(
        "sidecar: attached from outside: the self-test is not tried, and the neighbour stays out",
        120,
        outside,
    ),
    Scenario::new("sidecar: \"self\" without a group of its own is refused, and says what is missing", 60, alone),
];

/// What container runtimes call containers.
const APP: &str = "docker-1111111111111111111111111111111111111111111111111111111111111111.scope";
const APP_AGAIN: &str = "docker-2222222222222222222222222222222222222222222222222222222222222222.scope";
const FLOWTEL: &str = "docker-3333333333333333333333333333333333333333333333333333333333333333.scope";
const COLLECTOR: &str = "docker-4444444444444444444444444444444444444444444444444444444444444444.scope";

/// Becomes flowtel in a cgroup namespace of its own, with the host's tree read-only.
fn contained(launch: Launch) -> Result<Launch> {
    let root = cgroup::root().context("no cgroup v2 tree")?;
    let script = format!("mount -o remount,bind,ro {} && exec \"$@\"", root.display());
    Ok(launch.through(&["unshare", "--cgroup", "--mount", "sh", "-c", &script, "sh"]))
}

/// A client in this cgroup connects; returns its port.
fn connect(scene: &Scene, net: &Pair, cgroup: &Cgroup, server: SocketAddr) -> Result<u16> {
    let mut client = Child::start(scene, &net.client, &format!("join {server}"), None)?;
    cgroup.take(client.id())?;
    client.go()?;
    let port = client.line()?.parse::<SocketAddr>()?.port();
    client.kill()?;
    over(net)?;
    Ok(port)
}

fn ports(records: &[Record]) -> BTreeSet<i64> {
    records.iter().filter_map(|record| record.int("source.port")).collect()
}

fn group(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (slice, neighbour) = (Cgroup::new()?, Cgroup::new()?);
    let app = slice.inner(APP)?;
    let (home, other) = (slice.inner(FLOWTEL)?, slice.inner(COLLECTOR)?);
    let mut collector = Collector::start(scene)?;
    other.take(collector.pid().context("the collector runs")?)?;
    let launch = Launch::everything()?
        .set("capture.cgroup", "self")
        .set("capture.filter", "[\"exclude process=otelcol*\"]")
        .inside(&home);
    let flowtel = contained(collector.receive_from(launch, Http))?.start(scene)?;
    let mut wanted = vec![connect(scene, &net, &app, server.address)?];
    connect(scene, &net, &neighbour, server.address)?;
    // Who is told of a container asks for its path, so it has to be there until then.
    until("the app's first records", Duration::from_secs(20), || Ok((collector.records()?.len() >= 2).then_some(())))?;
    // The app is started anew: another container of the same group.
    drop(app);
    let again = slice.inner(APP_AGAIN)?;
    wanted.push(connect(scene, &net, &again, server.address)?);
    ensure!(!flowtel.says("self-test"), "{}", flowtel.stderr());
    ensure!(flowtel.says("below a cgroup"), "{}", flowtel.stderr());
    flowtel.stop()?.lossless()?;
    collector.stop()?;
    let records = collector.records()?;
    // Neither flowtel's own connections to the collector, nor the collector's side of them, nor the neighbour's.
    ensure!(ports(&records) == wanted.iter().map(|port| i64::from(*port)).collect(), "{wanted:?}: {records:#?}");
    ensure!(records.len() == 4, "begin and end each: {records:#?}");
    for record in &records {
        let id = if record.int("source.port") == Some(wanted[0].into()) { APP } else { APP_AGAIN };
        let id = id.trim_start_matches("docker-").trim_end_matches(".scope");
        ensure!(record.text("container.id") == id, "{record:?}");
        ensure!(record.text("process.executable.name").starts_with("kernel-"), "{record:?}");
    }
    Ok(())
}

fn together(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let slices = [Cgroup::new()?, Cgroup::new()?];
    let mut inner = Vec::new();
    for slice in &slices {
        inner.push((slice.inner(APP)?, slice.inner(FLOWTEL)?));
    }
    let mut collector = Collector::start(scene)?;
    let mut flowtels = vec![collector.receive_from(Launch::everything()?, Http).start(scene)?];
    for (_, home) in &inner {
        let launch = Launch::everything()?.set("capture.cgroup", "self").inside(home);
        flowtels.push(contained(collector.receive_from(launch, Http))?.start(scene)?);
    }
    let mut wanted = Vec::new();
    for (app, _) in &inner {
        wanted.push(connect(scene, &net, app, server.address)?);
    }
    flowtels.into_iter().try_for_each(|flowtel: Flowtel| flowtel.stop()?.lossless().map(drop))?;
    collector.stop()?;
    let all = collector.records()?;
    let mut instances = BTreeSet::new();
    for port in &wanted {
        let side = |record: &&Record| {
            record.int("source.port") == Some((*port).into()) && record.text("flowtel.flow.direction") == "outgoing"
        };
        let told: Vec<_> = all.iter().filter(side).collect();
        // The host's flowtel and the one sidecar, a begin and an end each.
        ensure!(told.len() == 4, "{told:#?}");
        let distinct = |value: &dyn Fn(&Record) -> String| told.iter().map(|r| value(r)).collect::<BTreeSet<_>>();
        ensure!(distinct(&|r| r.text("flowtel.flow.id").to_owned()).len() == 1, "{told:#?}");
        ensure!(distinct(&|r| r.text("log.record.uid").to_owned()).len() == 4, "{told:#?}");
        let who = distinct(&|r| format!("{:?}", r.resource.get("service.instance.id")));
        ensure!(who.len() == 2, "{who:?}");
        let each = distinct(&|r| format!("{:?} {}", r.resource.get("service.instance.id"), r.event_name));
        ensure!(each.len() == 4, "{each:?}");
        instances.extend(who);
    }
    ensure!(instances.len() == 3, "the host's and two sidecars': {instances:?}");
    Ok(())
}

fn outside(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (app, neighbour) = (Cgroup::new()?, Cgroup::new()?);
    let mut collector = Collector::start(scene)?;
    let path = app.path().display().to_string();
    let launch = Launch::everything()?.set("capture.cgroup", &path);
    let flowtel = collector.receive_from(launch, Http).start(scene)?;
    let wanted = connect(scene, &net, &app, server.address)?;
    connect(scene, &net, &neighbour, server.address)?;
    let words = "self-test: not tried: flowtel runs outside of the watched cgroup";
    until("its word about the self-test", Duration::from_secs(20), || Ok(flowtel.says(words).then_some(())))?;
    ensure!(!flowtel.says("did not arrive"), "{}", flowtel.stderr());
    flowtel.stop()?.lossless()?;
    collector.stop()?;
    let records = collector.records()?;
    ensure!(ports(&records) == BTreeSet::from([i64::from(wanted)]) && records.len() == 2, "{records:#?}");
    let check = Launch::bare()?.set("capture.cgroup", &path).command("check").to_end(scene)?;
    let said: Vec<_> = check.stdout.iter().map(|line| line.text.as_str()).collect();
    let line = said.iter().find(|line| line.contains("self-test")).context("no line about it")?;
    ensure!(check.status.success() && line.starts_with('-') && line.contains("not tried"), "{} {said:?}", check.status);
    Ok(())
}

fn alone(scene: &Scene) -> Result<()> {
    let only = Cgroup::new()?;
    let launch = || Ok::<_, anyhow::Error>(Launch::bare()?.set("capture.cgroup", "self").inside(&only));
    let ended = launch()?.to_end(scene)?;
    ensure!(ended.status.code() == Some(69) && ended.stderr.contains("that is the whole host"), "{}", ended.stderr);
    ensure!(ended.stderr.contains("cgroup_parent"), "{}", ended.stderr);
    // As in a container that has its own cgroup alone in sight.
    let root = cgroup::root().context("no cgroup v2 tree")?;
    let script = format!("mount --bind {} {} && exec \"$@\"", only.path().display(), root.display());
    let ended = launch()?
        .command("check")
        .through(&["unshare", "--cgroup", "--mount", "sh", "-c", &script, "sh"])
        .to_end(scene)?;
    let said: Vec<_> = ended.stdout.iter().map(|line| line.text.as_str()).collect();
    let line = said.iter().find(|line| line.starts_with("FAIL")).context("nothing fails")?;
    ensure!(line.contains("own cgroup alone") && line.contains(":/sys/fs/cgroup:ro"), "{said:?}");
    Ok(())
}
