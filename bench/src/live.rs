//! Live load: connections between two namespaces, flat out, with flowtel at the root of the cgroup tree. It sees both
//! ends, so each connection is two records.

use std::{
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bpf::{self, INGRESS, Kind, Program, SOCK_OPS},
    flowtel::{self, Flowtel, Mode, Output},
    load,
    namespaces::Namespaces,
    numbers::{median, pause, spread},
    peers,
    sink::{Got, Sink},
    stolen,
};

/// The thread from the rings to the queue.
const CAPTURE: &str = "flowtel-capture";
/// From start to rest, and from the last connection to the last delivery: more than flowtel's longest wait.
const SETTLE: Duration = Duration::from_secs(2);

/// One run with flowtel.
struct Run {
    per_second: f64,
    /// CPU of flowtel, µs a connection.
    agent: f64,
    /// The capture thread's part of it.
    capture: f64,
    idle_mib: f64,
    peak_mib: f64,
    got: Option<Got>,
    balance: String,
    /// CPU time that the hypervisor took while the load ran, of all CPUs together.
    stolen: Duration,
}

/// Where the records of a measurement go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Grpc,
    Http,
    Stdout,
}

impl Variant {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Http, Self::Stdout];

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "OTLP/gRPC to a local sink",
            Self::Http => "OTLP/HTTP to a local sink",
            Self::Stdout => "OTLP/JSON on stdout, to /dev/null",
        }
    }

    fn output(self, sink: &Sink) -> Output {
        match self {
            Self::Grpc => Output::Otlp { endpoint: sink.endpoint(), protocol: "grpc" },
            Self::Http => Output::Otlp { endpoint: sink.endpoint(), protocol: "http/protobuf" },
            Self::Stdout => Output::Null,
        }
    }
}

/// Alternates runs without flowtel and with each of `binaries`. Returns the table, and what of it others have, too.
pub fn agent(
    binaries: &[PathBuf],
    connections: usize,
    pairs: usize,
    variants: &[Variant],
) -> Result<(String, Vec<peers::Row>)> {
    let mut rows = Vec::new();
    let mut stolen = Vec::new();
    let mut table = String::from(
        "| records go to | runs | conn/s without | conn/s with | ratio | agent, µs CPU a connection | of that capture thread | µs a record | RSS idle, MiB | RSS peak, MiB | recorded |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for variant in variants {
        let mut without = Vec::new();
        let mut all: Vec<(&Path, Vec<Run>)> = binaries.iter().map(|path| (path.as_path(), Vec::new())).collect();
        for pair in 0..pairs {
            // Now one first, now the other.
            if pair % 2 == 0 {
                without.push(per_second(connections)?);
            }
            for (path, runs) in &mut all {
                runs.push(with_flowtel(path, *variant, connections)?);
            }
            if pair % 2 == 1 {
                without.push(per_second(connections)?);
            }
            all.reverse();
        }
        if pairs % 2 == 1 {
            all.reverse();
        }
        for (i, (path, runs)) in all.iter().enumerate() {
            let name = match i {
                0 => variant.name().to_owned(),
                _ => format!("{}: {}", variant.name(), path.display()),
            };
            let with: Vec<f64> = runs.iter().map(|run| run.per_second).collect();
            let ratios: Vec<f64> = with.iter().zip(&without).map(|(w, o)| w / o).collect();
            let agent: Vec<f64> = runs.iter().map(|run| run.agent).collect();
            let record: Vec<f64> = agent.iter().map(|a| a / flowtel::mode().records()).collect();
            writeln!(
                table,
                "| {} | {pairs} | {:.0} | {:.0} | {} | {} | {:.2} | {} | {:.1} | {:.1} | {} |",
                name,
                median(without.iter().copied()),
                median(with),
                spread(&ratios, 2),
                spread(&agent, 2),
                median(runs.iter().map(|run| run.capture)),
                spread(&record, 2),
                median(runs.iter().map(|run| run.idle_mib)),
                median(runs.iter().map(|run| run.peak_mib)),
                recorded(runs, connections),
            )?;
            if *variant != Variant::Stdout && i == 0 {
                rows.push(peers::Row {
                    program: format!("**flowtel**, {}, {}", flowtel::mode().name(), variant.name()),
                    agent: median(agent),
                    peak: median(runs.iter().map(|run| run.peak_mib)),
                    recorded: 100.0 * recorded_share(runs, connections),
                });
            }
            stolen.extend(runs.iter().map(|run| run.stolen.as_secs_f64() * 1000.0));
        }
    }
    writeln!(table, "\nTaken by the hypervisor while the load ran, of all CPUs together: {} ms", spread(&stolen, 0))?;
    Ok((table, rows))
}

/// The begins that came of those that there were: the least of all runs.
fn recorded_share(runs: &[Run], connections: usize) -> f64 {
    let begins = runs.iter().filter_map(|run| run.got.as_ref()).map(|got| got.outgoing.min(got.incoming));
    begins.min().map_or(0.0, |least| least as f64 / connections as f64)
}

fn recorded(runs: &[Run], connections: usize) -> String {
    if let Some(run) = runs.iter().find(|run| run.got.as_ref().is_some_and(|got| !got.is_exact(connections))) {
        return format!("NOT EXACT: {:?}; {}; the hypervisor took {:?}", run.got, run.balance, run.stolen);
    }
    let got = runs.iter().filter_map(|run| run.got.as_ref());
    match got.map(|got| got.bytes / (got.outgoing + got.incoming + got.ends + got.others).max(1)).next() {
        Some(bytes) => format!("both ends of {connections} in each run, none twice; {bytes} bytes a record"),
        None => format!("by its own ledger: {}", runs.last().map_or("", |run| run.balance.as_str())),
    }
}

fn per_second(connections: usize) -> Result<f64> {
    let namespaces = Namespaces::new()?;
    Ok(connections as f64 / load::run(&namespaces, connections)?.as_secs_f64())
}

fn with_flowtel(binary: &Path, variant: Variant, connections: usize) -> Result<Run> {
    let mut sink = Sink::start()?;
    let namespaces = Namespaces::new()?;
    let flowtel = Flowtel::start(binary, &variant.output(&sink))?;
    pause(SETTLE);
    let idle_mib = flowtel.memory("VmRSS")?;
    let (before, capture_before) = (flowtel.cpu()?, flowtel.thread_cpu(CAPTURE)?);
    let stolen_before = stolen::so_far()?;
    let took = load::run(&namespaces, connections)?;
    let stolen = stolen::so_far()?.saturating_sub(stolen_before);
    pause(SETTLE);
    let agent = flowtel.cpu()?.saturating_sub(before);
    let capture = flowtel.thread_cpu(CAPTURE)?.saturating_sub(capture_before);
    let peak_mib = flowtel.memory("VmHWM")?;
    let said = flowtel.stop()?;
    let balance = said.lines().find(|line| line.starts_with("records:")).unwrap_or("no balance").to_owned();
    let got = if variant == Variant::Stdout { None } else { Some(sink.got()?) };
    if got.as_ref().is_some_and(|got| !got.is_exact(connections)) {
        // The reason why stands there, if anywhere.
        eprintln!("not exact, peak {peak_mib:.1} MiB, the hypervisor took {stolen:?}; flowtel said:\n{said}");
    }
    let count = connections as f64;
    Ok(Run {
        per_second: count / took.as_secs_f64(),
        agent: agent.as_secs_f64() * 1e6 / count,
        capture: capture.as_secs_f64() * 1e6 / count,
        idle_mib,
        peak_mib,
        got,
        balance,
        stolen,
    })
}

/// The kernel's side, by its own count of runs and their time. A run with flowtel alone, and one with empty programs
/// alone in its places: the difference is what its instructions cost, and not what it costs to count.
pub fn kernel(binaries: &[PathBuf], connections: usize, runs: usize) -> Result<String> {
    let mut all: Vec<Vec<[Spent; PLACES]>> = vec![Vec::new(); binaries.len()];
    let mut none: Vec<[Spent; PLACES]> = Vec::new();
    for _ in 0..runs {
        none.push(kernel_empty(connections)?);
        for (binary, all) in binaries.iter().zip(&mut all) {
            all.push(kernel_flowtel(binary, connections)?);
        }
    }
    let mut table = String::from(
        "| programs | runs a connection | ns a run | ns a run, empty program | µs a connection | µs a connection over empty |\n\
         |---|---|---|---|---|---|\n",
    );
    let per = 1.0 / connections as f64;
    for (binary, all) in binaries.iter().zip(&all) {
        if binaries.len() > 1 {
            writeln!(table, "| **{}** | | | | | |", binary.display())?;
        }
        let (mut sums, mut overs) = (vec![0.0; runs], vec![0.0; runs]);
        for (i, name) in NAMES.into_iter().enumerate() {
            let empty = median(none.iter().map(|spent| spent[i].time / spent[i].runs.max(1.0)));
            let spent: Vec<Spent> = all.iter().map(|spent| spent[i]).collect();
            let sum: Vec<f64> = spent.iter().map(|s| s.time * per / 1000.0).collect();
            let over: Vec<f64> = spent.iter().map(|s| (s.time - s.runs * empty) * per / 1000.0).collect();
            sums.iter_mut().zip(&sum).for_each(|(all, x)| *all += x);
            overs.iter_mut().zip(&over).for_each(|(all, x)| *all += x);
            writeln!(
                table,
                "| {name} | {:.2} | {:.0} | {empty:.0} | {} | {} |",
                median(spent.iter().map(|s| s.runs * per)),
                median(spent.iter().map(|s| s.time / s.runs.max(1.0))),
                spread(&sum, 2),
                spread(&over, 2)
            )?;
        }
        writeln!(table, "| all | | | | {} | {} |", spread(&sums, 2), spread(&overs, 2))?;
    }
    Ok(table)
}

/// The types of flowtel's programs: more than one place is of the same type to the kernel.
const TYPES: [u32; PLACES] = [INGRESS.program, SOCK_OPS.program, bpf::ADDRESS, bpf::SOCKET];
const PLACES: usize = 4;
const NAMES: [&str; PLACES] = [
    "packets: flowtel_in, _out",
    "flowtel_ops",
    "calls: flowtel_connect, _accept, _send",
    "sockets: flowtel_bind, _release",
];

/// Where flowtel attaches programs.
fn places() -> Vec<Kind> {
    let address = |attach| Kind { program: bpf::ADDRESS, attach };
    let socket = |attach| Kind { program: bpf::SOCKET, attach };
    // connect4 and 6, getpeername4 and 6; post_bind4 and 6
    let mut places =
        vec![INGRESS, SOCK_OPS, address(10), address(11), address(29), address(30), socket(12), socket(13)];
    if flowtel::mode() == Mode::All {
        // egress, sendmsg4 and 6, sock_release
        places.extend([Kind { program: INGRESS.program, attach: 1 }, address(14), address(15), socket(34)]);
    }
    places
}

fn kernel_flowtel(binary: &Path, connections: usize) -> Result<[Spent; PLACES]> {
    let sink = Sink::start()?;
    let namespaces = Namespaces::new()?;
    let flowtel = Flowtel::start(binary, &Variant::Grpc.output(&sink))?;
    let programs = flowtel.programs()?;
    let spent = counted(&programs, &namespaces, connections)?;
    flowtel.stop()?;
    Ok(spent)
}

fn kernel_empty(connections: usize) -> Result<[Spent; PLACES]> {
    let namespaces = Namespaces::new()?;
    let root = File::open(cgroup_root()?)?;
    let (mut programs, mut links) = (Vec::new(), Vec::new());
    for kind in places() {
        let program = Program::empty(kind).context("loading an empty program")?;
        links.push(program.attach(&root, kind).context("attaching an empty program")?);
        programs.push(program);
    }
    let spent = counted(&programs, &namespaces, connections)?;
    drop(links);
    Ok(spent)
}

/// What `programs` spend on the load.
fn counted(programs: &[Program], namespaces: &Namespaces, connections: usize) -> Result<[Spent; PLACES]> {
    let _stats = bpf::enable_stats().context("switching on the kernel's BPF statistics")?;
    pause(SETTLE);
    let before = Spent::of(programs)?;
    load::run(namespaces, connections)?;
    let after = Spent::of(programs)?;
    let mut spent = before;
    for (spent, after) in spent.iter_mut().zip(after) {
        *spent = Spent { runs: after.runs - spent.runs, time: after.time - spent.time };
    }
    ensure!(spent[0].runs > 0.0 && spent[1].runs > 0.0, "a program did not run");
    Ok(spent)
}

/// Runs, and nanoseconds in them.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    runs: f64,
    time: f64,
}

impl Spent {
    /// Of each of [`TYPES`].
    fn of(programs: &[Program]) -> Result<[Self; PLACES]> {
        let mut all = [Self::default(); PLACES];
        for program in programs {
            let info = program.info()?;
            // The tracepoints of exec and fork cost starts of programs, not connections.
            let Some(place) = TYPES.iter().position(|kind| *kind == info.kind) else { continue };
            all[place].runs += info.run_count as f64;
            all[place].time += info.run_time_ns as f64;
        }
        Ok(all)
    }
}

/// The directory of the cgroup v2 mount.
fn cgroup_root() -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).context("no cgroup v2 tree is mounted")?;
    Ok(mount.split(' ').nth(4).context("a strange line in mountinfo")?.to_owned())
}
