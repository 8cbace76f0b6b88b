//! Scenarios on the real kernel: each makes a situation on the network and checks all that flowtel recorded of it.
//!
//! They run one after the other, for each watches the whole host. What this machine can't do is ignored, with the reason.
//! `FLOWTEL_TESTS=slow` adds those that take long.

mod delivery;
mod handshakes;
mod lives;
mod reached;
mod rights;
mod slow;

use std::process::ExitCode;

use anyhow::Result;
use flowtel_tests::{
    collector::Protocol,
    expect::{About, Side, exactly},
    flowtel::{Balance, Launch},
    machine,
    netns::{self, Pair},
    scene::{Scenario, Scene},
    watching::Watching,
};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let missing = machine::missing();
    match &missing {
        Some(reason) => eprintln!("no scenario can run on this machine: {reason}"),
        None => netns::sweep(),
    }
    let rooms: [&[Scenario]; _] = [reached::ALL, handshakes::ALL, lives::ALL, delivery::ALL, rights::ALL, slow::ALL];
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
