//! Several flowtels on one host that see the same connections: each records them once, and nobody takes the records of one
//! for copies of another's.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use flowtel_tests::{
    cgroup::Cgroup,
    child::Child,
    collector::{Collector, Protocol::Http},
    flowtel::{Flowtel, Launch},
    netns::Pair,
    record::Record,
    scene::{Scenario, Scene},
    traffic::Server,
};

use crate::over;

/// All of them.
pub const ALL: &[Scenario] = &[Scenario::new(
    "a flowtel of the host and two of one cgroup each: one flow id, records and instances of their own",
    60,
    three,
)];

fn three(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (cgroup, neighbour) = (Cgroup::new()?, Cgroup::new()?);
    let launches = [
        Launch::everything()?,
        Launch::everything()?.within(&cgroup),
        Launch::everything()?.within(&neighbour).set("capture.exclude_self", "false"),
    ];
    let mut collector = Collector::start(scene)?;
    let flowtels: Vec<Flowtel> =
        launches.into_iter().map(|launch| collector.receive_from(launch, Http).start(scene)).collect::<Result<_>>()?;
    let mut client = Child::start(scene, &net.client, &format!("join {}", server.address), None)?;
    cgroup.take(client.id())?;
    client.go()?;
    let port = client.line()?.parse::<std::net::SocketAddr>()?.port();
    client.kill()?;
    over(&net)?;
    for flowtel in flowtels {
        flowtel.stop()?.lossless()?;
    }
    collector.stop()?;
    // Two flowtels saw it, each its begin and its end. The neighbour's would be a third instance.
    let mut by_instance = BTreeMap::<String, Vec<Record>>::new();
    for record in collector.records()? {
        if record.int("source.port") == Some(port.into()) && record.text("flowtel.flow.direction") == "outgoing" {
            by_instance.entry(format!("{:?}", record.resource["service.instance.id"])).or_default().push(record);
        }
    }
    let told: Vec<_> = by_instance.into_values().collect();
    let [one, other] = told.as_slice() else { bail!("{} instances told of it: {told:?}", told.len()) };
    ensure!(one.len() == 2 && other.len() == 2, "begin and end each: {one:?} {other:?}");
    for (a, b) in one.iter().zip(other) {
        ensure!(a.event_name == b.event_name, "{} and {}", a.event_name, b.event_name);
        ensure!(a.text("flowtel.flow.id") == b.text("flowtel.flow.id"), "two flow ids: {a:?} {b:?}");
        ensure!(a.text("log.record.uid") != b.text("log.record.uid"), "one id for two records: {a:?} {b:?}");
    }
    Ok(())
}
