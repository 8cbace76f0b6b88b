//! Scenarios on the real kernel: each makes a situation on the network and checks all that flowtel recorded of it.
//!
//! They run one after the other, for each watches the whole host. What this machine can't do is ignored, with the reason.
//! `FLOWTEL_TESTS=slow` adds those that take long.

mod delivery;
mod handshakes;
mod hostile;
mod life;
mod lives;
mod names;
mod open;
mod queue;
mod reached;
mod replay;
mod rights;
mod select;
mod slow;
mod telemetry;
mod watchdog;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use flowtel_tests::{
    child,
    collector::Protocol,
    expect::{About, Failure, Side, exactly, exactly_all},
    flowtel::{Balance, Launch},
    machine,
    netns::{self, Pair},
    scene::{Scenario, Scene},
    wait::{pause, until, wall},
    watching::Watching,
};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(code) = child::main() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let missing = machine::missing();
    match &missing {
        Some(reason) => eprintln!("no scenario can run on this machine: {reason}"),
        None => {
            netns::sweep();
            names::sweep();
            queue::sweep();
        }
    }
    let rooms: [&[Scenario]; _] = [
        reached::ALL,
        handshakes::ALL,
        lives::ALL,
        life::ALL,
        names::ALL,
        open::ALL,
        replay::ALL,
        delivery::ALL,
        queue::ALL,
        telemetry::ALL,
        watchdog::ALL,
        select::ALL,
        rights::ALL,
        hostile::ALL,
        slow::ALL,
    ];
    let trials = rooms.concat().into_iter().map(|scenario| scenario.trial(missing.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Makes two namespaces, has flowtel and a collector watch what `happen` does there, and checks that exactly the sides
/// that it returns were told.
fn watched(scene: &Scene, protocol: Protocol, happen: impl FnOnce(&Pair) -> Result<Vec<Side>>) -> Result<Balance> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, protocol, Launch::new()?)?;
    let sides = happen(&net)?;
    let told = watching.finish()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &sides)?;
    Ok(told.balance)
}

/// What must have been told.
type Story = (Vec<Side>, Vec<Failure>);

/// As [`watched`], with ends, failures and names.
fn lived(scene: &Scene, protocol: Protocol, happen: impl FnOnce(&Pair) -> Result<Story>) -> Result<Balance> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, protocol, Launch::everything()?)?;
    let (sides, failures) = happen(&net)?;
    over(&net)?;
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &failures)?;
    Ok(told.balance)
}

/// Waits until no connection is left in either namespace, and returns the time then.
fn over(net: &Pair) -> Result<u64> {
    for namespace in [&net.client, &net.server] {
        until("the connections' end", Duration::from_secs(15), || {
            Ok(namespace.run("looker", open_sockets)?.is_empty().then_some(()))
        })?;
    }
    // A reset leaves after its socket is closed.
    pause(Duration::from_millis(5));
    Ok(wall())
}

/// The TCP sockets of the calling thread's namespace that are neither listeners nor waiting for stragglers.
fn open_sockets() -> Result<Vec<String>> {
    let mut open = Vec::new();
    for file in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let state = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        let lines = text.lines().skip(1).filter(|line| !matches!(state(line).as_deref(), Some("06" | "0A")));
        open.extend(lines.map(str::to_owned));
    }
    Ok(open)
}
