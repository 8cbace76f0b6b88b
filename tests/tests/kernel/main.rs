//! Scenarios on the real kernel: each makes a situation on the network and checks all that flowtel recorded of it.
//!
//! They run one after the other, for each watches the whole host. What this machine can't do is ignored, with the reason.
//! `FLOWTEL_TESTS=slow` adds those that take long; `FLOWTEL_TESTS_ROOMS=life,names` takes those of some files alone, or the few named `proofs`;
//! `FLOWTEL_TESTS_PATIENCE=6` makes all limits of time longer.

#[cfg(target_arch = "x86_64")]
mod afterwards;
mod causes;
mod delivery;
#[cfg(target_arch = "x86_64")]
mod dropped;
mod execs;
mod explain;
mod failed;
mod ground;
mod handshakes;
mod hostile;
mod life;
mod listeners;
mod lives;
mod names;
mod neighbours;
mod observers;
mod open;
mod pins;
mod privacy;
mod queue;
mod reached;
mod replay;
mod rights;
mod rivals;
mod select;
mod sidecar;
mod slow;
mod telemetry;
mod tls;
mod top;
mod updates;
mod watchdog;
mod whereabouts;

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

/// Starts of the names of those rows that prove what differs from kernel to kernel: begins, ends, failures, owners, names,
/// older connections, forged peers. `FLOWTEL_TESTS_ROOMS=proofs` takes these alone, for emulated machines.
const PROOFS: &[&str] = &[
    "address translation on the client's host",
    "SYN cookies",
    "a hundred half-open SYNs",
    "forged SYN-ACKs before the right one",
    "a SYN that crosses a SYN, between two kernels",
    "Fast Open: one begin a side",
    "a life closed by the client",
    "a life closed by close()",
    "a life closed by one half",
    "a peer that falls silent with FINs out",
    "a reset by either side",
    "refused: both sides by IPv4",
    "failures: timed out",
    "a SYN whose TCP_USER_TIMEOUT",
    "nobody answers",
    "a bound socket",
    "answers to a SYN",
    "an attempt given up",
    "no route",
    "connect() that another program refuses",
    "TCP_DEFER_ACCEPT",
    "a FIN that waits",
    "owners: another process accepts",
    "a port with many listeners",
    "SO_REUSEPORT: workers",
    "a worker that accepts late",
    "listen() without bind()",
    "a listener whose process has left",
    "an onlooker's getpeername()",
    "listeners older than flowtel",
    "names from answers",
    "answers that are forged",
    "a client in a container's cgroup",
    "three hundred processes that live",
    "relative, linked and script",
    "a program of memory",
    "a path in another mount namespace",
    "a fork without exec",
    "rights: no thread has any",
    "rights: as in a container",
    "rights: as a service",
    "rights: a queue and pins",
    "afterwards: TLS by gRPC",
    "afterwards: a file of records that root",
    "updates: older connections",
    "updates: a flow of no begin",
    "updates: pinned",
    "namespaces: each record",
    "names of one namespace",
    "names that another cgroup",
    "names: at another port",
    "names: a flood",
    "link-local addresses",
    "older connections, closed by either side",
    "older connections that one side has left",
    "older connections reset by either side",
    "updates: ",
    "tls: ",
    "pinned: what begins, ends and fails",
    "pinned: a flowtel that is killed",
    "pinned: fewer programs are wanted",
];

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
            if let Err(error) = machine::raise_descriptors() {
                eprintln!("the limit of descriptors stays as it is: {error}");
            }
            if let Err(error) = machine::raise_locked_memory() {
                eprintln!("the limit of locked memory stays as it is: {error}");
            }
            netns::sweep();
            names::sweep();
            queue::sweep();
        }
    }
    let rooms: &[(&str, &[Scenario])] = &[
        ("reached", reached::ALL),
        ("handshakes", handshakes::ALL),
        ("lives", lives::ALL),
        ("life", life::ALL),
        ("listeners", listeners::ALL),
        ("failed", failed::ALL),
        ("causes", causes::ALL),
        ("names", names::ALL),
        ("execs", execs::ALL),
        ("whereabouts", whereabouts::ALL),
        ("observers", observers::ALL),
        ("open", open::ALL),
        ("updates", updates::ALL),
        ("tls", tls::ALL),
        ("pins", pins::ALL),
        ("replay", replay::ALL),
        ("delivery", delivery::ALL),
        ("queue", queue::ALL),
        ("ground", ground::ALL),
        ("telemetry", telemetry::ALL),
        ("top", top::ALL),
        ("neighbours", neighbours::ALL),
        ("explain", explain::ALL),
        ("watchdog", watchdog::ALL),
        ("select", select::ALL),
        ("privacy", privacy::ALL),
        ("sidecar", sidecar::ALL),
        ("rights", rights::ALL),
        #[cfg(target_arch = "x86_64")]
        ("dropped", dropped::ALL),
        #[cfg(target_arch = "x86_64")]
        ("afterwards", afterwards::ALL),
        ("rivals", rivals::ALL),
        ("hostile", hostile::ALL),
        ("slow", slow::ALL),
    ];
    let wanted = std::env::var("FLOWTEL_TESTS_ROOMS").ok();
    let wanted: Option<Vec<_>> = wanted.as_deref().map(|names| names.split(',').collect());
    if let Some(unknown) = wanted.iter().flatten().find(|n| **n != "proofs" && rooms.iter().all(|(room, _)| room != *n))
    {
        eprintln!("FLOWTEL_TESTS_ROOMS: there is no room {unknown:?}");
        return ExitCode::FAILURE;
    }
    let is_wanted = |room: &str, row: &Scenario| {
        let Some(names) = &wanted else { return true };
        names.contains(&room) || names.contains(&"proofs") && PROOFS.iter().any(|start| row.name.starts_with(start))
    };
    let all = rooms.iter().flat_map(|(room, rows)| rows.iter().map(move |row| (*room, row)));
    if let Some(gone) = PROOFS.iter().find(|start| !all.clone().any(|(_, row)| row.name.starts_with(*start))) {
        eprintln!("no scenario is called {gone:?} any more");
        return ExitCode::FAILURE;
    }
    let scenarios = all.filter(|(room, row)| is_wanted(room, row)).map(|(_, row)| row);
    let trials = scenarios.map(|scenario| scenario.trial(missing.clone())).collect();
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
        // Timer 3 is that of what is left of a socket (get_timewait4_sock, net/ipv4/tcp_ipv4.c), whatever its state is called.
        let listens = |line: &str| line.split_whitespace().nth(3) == Some("0A");
        let waits = |line: &str| line.split_whitespace().nth(5).is_some_and(|timer| timer.starts_with("03:"));
        open.extend(text.lines().skip(1).filter(|line| !listens(line) && !waits(line)).map(str::to_owned));
    }
    Ok(open)
}
