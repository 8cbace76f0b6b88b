//! What flowtel promises of delivery, in full figures: the optimized program, a real collector, minutes of load.
//!
//! `make test-delivery` runs them; without `FLOWTEL_DELIVERY`, the percentage of the full time and numbers, they are
//! ignored. What must hold on any machine is asserted: nothing is lost, nothing is told twice under two ids, balances add
//! up, memory and descriptors do not grow. How fast it was, and at what cost, is printed beside its goal.
//!
//! The first scenario waits for ten minutes, beside the second and the third; what is measured is measured alone.

mod flood;
mod hangups;
mod kills;
mod outage;
mod report;

use std::{
    process::ExitCode,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anyhow::{Result, ensure};
use flowtel_tests::{
    cgroup, child,
    flowtel::{Flowtel, Launch},
    machine, netns,
    scene::{Scenario, Scene, skip},
    status,
    tally::Tally,
};
use libtest_mimic::Arguments;
use serde_json::Value;

const ALL: &[Scenario] = &[
    Scenario::new("a receiver that is away for ten minutes gets all of it afterwards", 3000, outage::outage),
    Scenario::new("killed at random moments: what was durable arrives, and only copies come twice", 3000, kills::kills),
    Scenario::new("a thousand reloads under load lose nothing and leave nothing behind", 3000, hangups::hangups),
    Scenario::new("ten thousand records a second for five minutes: all arrive", 3000, flood::flood),
];

const BEGIN: &str = "flowtel.tcp.flow.begin";
const END: &str = "flowtel.tcp.flow.end";

fn main() -> ExitCode {
    if let Some(code) = child::main() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let missing = machine::missing();
    if missing.is_none() {
        netns::sweep();
        cgroup::sweep();
    }
    let trials = ALL.iter().map(|scenario| scenario.trial(missing.clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    report::print();
    conclusion.exit_code()
}

/// This share of `full` that is asked for.
///
/// # Errors
/// Skips the scenario: none of it.
fn share(full: u64) -> Result<u64> {
    let percent = std::env::var("FLOWTEL_DELIVERY").ok().and_then(|percent| percent.parse::<u64>().ok());
    let percent = percent.ok_or_else(|| skip("takes long: make test-delivery"))?;
    Ok((full * percent / 100).max(1))
}

/// The optimized program, telling all that it can tell but connections that are older than it, with a socket for its status.
fn launch(scene: &Scene) -> Result<Launch> {
    let launch = Launch::optimized().ok_or_else(|| skip("no optimized flowtel: cargo build --release -p flowtel"))?;
    let socket = scene.directory().join("status.sock");
    Ok(launch.set("telemetry.status.socket", &socket.display().to_string()).set("capture.snapshot", "false"))
}

fn ask(scene: &Scene) -> Result<Value> {
    status::ask(&scene.directory().join("status.sock"))
}

/// How many of these records there are, by a status.
fn records(status: &Value, part: &str) -> Result<u64> {
    let parts = status["records"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = parts.iter().find(|p| p["name"] == part).and_then(|p| p["count"].as_u64());
    found.ok_or_else(|| anyhow::anyhow!("no {part} in {status}"))
}

/// Checks that both ends' begins and ends of all connections arrived, and nothing else.
fn exactly(tally: &Tally, connections: u64) -> Result<()> {
    let both = [BEGIN, END].map(|name| (name.to_owned(), 2 * connections));
    ensure!(tally.names == both.into(), "{connections} connections were made; arrived: {:?}", tally.names);
    Ok(())
}

/// Resident bytes, in MiB.
fn mebibytes(flowtel: &Flowtel) -> Result<f64> {
    Ok(flowtel.resident()? as f64 / f64::from(1 << 20))
}

// === taking turns

static MACHINE: RwLock<()> = RwLock::new(());

/// Others may go on meanwhile.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody else does anything, and has the machine alone.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
