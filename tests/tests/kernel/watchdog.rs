//! What becomes of a capture thread that stands still: the service manager and the admin address hear of it.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::{Collector, Protocol::Grpc},
    expect::About,
    flowtel::Launch,
    netns::Pair,
    scene::{Scenario, Scene},
    status::{Manager, get},
    sys::Halted,
    traffic::{Server, burst},
    wait::until,
    watching::Told,
};

/// All of them.
pub const ALL: &[Scenario] = &[Scenario::new(
    "a capture thread that stands still lets the watchdog bark, and misses nothing when it goes on",
    120,
    stalled,
)];

/// Longer than several intervals of the watchdog.
const SILENCE: Duration = Duration::from_secs(2);

fn stalled(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let mut manager = Manager::start(scene.directory())?;
    let mut collector = Collector::start(scene)?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let launch = Launch::new()?
        .set("telemetry.admin.address", &address.to_string())
        .environment("NOTIFY_SOCKET", &manager.path().display().to_string())
        .environment("WATCHDOG_USEC", "500000");
    let flowtel = collector.receive_from(launch, Grpc).start(scene)?;
    manager.hears("READY=1")?;
    manager.hears("WATCHDOG=1")?;
    let health = |code| {
        let asked = || Ok(get(address, "/healthz").is_ok_and(|(answer, _)| answer == code).then_some(()));
        until(&format!("{code} at /healthz"), Duration::from_secs(40), asked)
    };
    health(200)?;

    // The kernel's name of a thread has 15 bytes. The process goes on: only this thread does not.
    let halted = Halted::at(flowtel.thread("flowtel-capture")?)?;
    manager.hears_no_more("WATCHDOG=1", SILENCE)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let connections = burst(&net.client, server.address, 1, 10)?;
    health(503)?;
    ensure!(get(address, "/readyz")?.1.contains("stood still"), "ready, though nothing is read");
    ensure!(
        !manager.rest().iter().any(|message| message.contains("WATCHDOG")),
        "the watchdog was told that all is well"
    );

    drop(halted);
    manager.hears("WATCHDOG=1")?;
    health(200)?;
    let balance = flowtel.stop()?.lossless()?;
    collector.stop()?;
    let told = Told { records: collector.records()?, balance }.checked()?;
    // They say when it was, but are observed late: that is why they are not looked at one by one.
    let (about, all) = (About::Addresses(net.addresses()), 2 * connections.len());
    let told = told.records.iter().filter(|record| about.concerns(record)).count();
    ensure!(told == all, "{told} records of {all}");
    Ok(())
}
