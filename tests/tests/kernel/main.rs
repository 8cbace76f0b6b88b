//! Scenarios on the real kernel: each makes a situation on the network and checks all that flowtel recorded of it.
//!
//! They run one after the other, for each watches the whole host. What this machine can't do is ignored, with the reason.
//! `FLOWTEL_TESTS=slow` adds those that take long.

mod reached;

use std::process::ExitCode;

use flowtel_tests::{machine, netns, scene::Scenario};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let missing = machine::missing();
    match &missing {
        Some(reason) => eprintln!("no scenario can run on this machine: {reason}"),
        None => netns::sweep(),
    }
    let rooms: [&[Scenario]; _] = [reached::ALL];
    let trials = rooms.concat().into_iter().map(|scenario| scenario.trial(missing.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
