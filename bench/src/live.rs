//! Live load: connections between two namespaces, flat out, with flowtel at the root of the cgroup tree. It sees both
//! ends, so each connection is two records.

use std::{fmt::Write as _, fs::File, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    bpf::{self, CONNECT4, CONNECT6, INGRESS, Info, Kind, Program, SOCK_OPS},
    flowtel::{Flowtel, Output},
    load,
    namespaces::Namespaces,
    numbers::{median, pause, spread},
    sink::{Got, Sink},
};

/// Two records a connection.
const RECORDS: f64 = 2.0;
/// From start to rest, and from the last connection to the last delivery: more than flowtel's longest wait.
const SETTLE: Duration = Duration::from_secs(2);

/// One run with flowtel.
struct Run {
    per_second: f64,
    /// CPU of flowtel, µs a connection.
    agent: f64,
    idle_mib: f64,
    peak_mib: f64,
    got: Option<Got>,
    balance: String,
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

/// Alternates runs without and with flowtel, and returns rows of the table.
pub fn agent(binary: &Path, connections: usize, pairs: usize, variants: &[Variant]) -> Result<String> {
    let mut table = String::from(
        "| records go to | runs | conn/s without | conn/s with | ratio | agent, µs CPU a connection | µs a record | RSS idle, MiB | RSS peak, MiB | recorded |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for variant in variants {
        let (mut without, mut runs) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // Now one first, now the other.
            if pair % 2 == 0 {
                without.push(per_second(connections)?);
                runs.push(with_flowtel(binary, *variant, connections)?);
            } else {
                runs.push(with_flowtel(binary, *variant, connections)?);
                without.push(per_second(connections)?);
            }
        }
        let with: Vec<f64> = runs.iter().map(|run| run.per_second).collect();
        let ratios: Vec<f64> = with.iter().zip(&without).map(|(w, o)| w / o).collect();
        let agent: Vec<f64> = runs.iter().map(|run| run.agent).collect();
        let record: Vec<f64> = agent.iter().map(|a| a / RECORDS).collect();
        writeln!(
            table,
            "| {} | {pairs} | {:.0} | {:.0} | {} | {} | {} | {:.1} | {:.1} | {} |",
            variant.name(),
            median(without),
            median(with),
            spread(&ratios, 2),
            spread(&agent, 2),
            spread(&record, 2),
            median(runs.iter().map(|run| run.idle_mib)),
            median(runs.iter().map(|run| run.peak_mib)),
            recorded(&runs, connections),
        )?;
    }
    Ok(table)
}

fn recorded(runs: &[Run], connections: usize) -> String {
    if let Some(run) = runs.iter().find(|run| run.got.as_ref().is_some_and(|got| !got.is_exact(connections))) {
        return format!("NOT EXACT: {:?}; {}", run.got, run.balance);
    }
    let got = runs.iter().filter_map(|run| run.got.as_ref());
    match got.map(|got| got.bytes / (got.outgoing + got.incoming + got.others).max(1)).next() {
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
    let before = flowtel.cpu()?;
    let took = load::run(&namespaces, connections)?;
    pause(SETTLE);
    let agent = flowtel.cpu()?.saturating_sub(before);
    let peak_mib = flowtel.memory("VmHWM")?;
    let said = flowtel.stop()?;
    let balance = said.lines().find(|line| line.starts_with("records:")).unwrap_or("no balance").to_owned();
    let got = if variant == Variant::Stdout { None } else { Some(sink.got()?) };
    let count = connections as f64;
    Ok(Run {
        per_second: count / took.as_secs_f64(),
        agent: agent.as_secs_f64() * 1e6 / count,
        idle_mib,
        peak_mib,
        got,
        balance,
    })
}

/// The kernel's side, by its own count of runs and their time, beside empty programs attached to the same places.
pub fn kernel(binary: &Path, connections: usize, runs: usize) -> Result<String> {
    let mut rows: Vec<(String, Vec<[f64; 4]>)> = Vec::new();
    for _ in 0..runs {
        for (i, (name, row)) in kernel_run(binary, connections)?.into_iter().enumerate() {
            if rows.len() <= i {
                rows.push((name, Vec::new()));
            }
            rows[i].1.push(row);
        }
    }
    let mut table = String::from(
        "| program | runs a connection | ns a run | ns a run, empty program | µs a connection over empty (min-max) |\n\
         |---|---|---|---|---|\n",
    );
    let mut sums = vec![0.0; runs];
    for (name, row) in &rows {
        let column = |i: usize| median(row.iter().map(|r| r[i]));
        let over: Vec<f64> = row.iter().map(|r| r[3]).collect();
        sums.iter_mut().zip(&over).for_each(|(sum, x)| *sum += x);
        writeln!(table, "| {name} | {:.2} | {:.0} | {:.0} | {} |", column(0), column(1), column(2), spread(&over, 2))?;
    }
    writeln!(table, "| all | | | | {} |", spread(&sums, 2))?;
    Ok(table)
}

/// Runs a connection, ns a run, ns of an empty run, µs a connection over empty; by program.
fn kernel_run(binary: &Path, connections: usize) -> Result<Vec<(String, [f64; 4])>> {
    let sink = Sink::start()?;
    let namespaces = Namespaces::new()?;
    let flowtel = Flowtel::start(binary, &Variant::Grpc.output(&sink))?;
    let _stats = bpf::enable_stats().context("switching on the kernel's BPF statistics")?;
    let root = File::open(cgroup_root()?)?;
    let mut empties = Vec::new();
    for kind in [INGRESS, SOCK_OPS, CONNECT4, CONNECT6] {
        let program = Program::empty(kind).context("loading an empty program")?;
        let link = program.attach(&root, kind).context("attaching an empty program")?;
        empties.push((kind, program, link));
    }
    pause(SETTLE);
    let ours = flowtel.programs()?;
    let empty_infos = |kind: Kind| -> Result<Info> {
        let mut found = empties.iter().filter(|(k, ..)| k.program == kind.program);
        Ok(found.next().context("no empty program of this kind")?.1.info()?)
    };
    let all = |programs: &[Program]| programs.iter().map(Program::info).collect::<std::io::Result<Vec<_>>>();
    let kinds = [INGRESS, SOCK_OPS, CONNECT4];
    let (before, empty_before) = (all(&ours)?, kinds.map(empty_infos));
    load::run(&namespaces, connections)?;
    let (after, empty_after) = (all(&ours)?, kinds.map(empty_infos));
    let mut rows = Vec::new();
    for ((kind, empty_before), empty_after) in kinds.into_iter().zip(empty_before).zip(empty_after) {
        let (runs, time) = spent(&empty_before?, &empty_after?);
        ensure!(runs > 0.0, "an empty program did not run");
        let empty = time / runs;
        for (before, after) in before.iter().zip(&after).filter(|(info, _)| info.kind == kind.program) {
            let (runs, time) = spent(before, after);
            if runs * 100.0 < connections as f64 {
                continue; // the program of the other family
            }
            let over = (time - runs * empty) / connections as f64 / 1000.0;
            rows.push((before.name.clone(), [runs / connections as f64, time / runs, empty, over]));
        }
    }
    flowtel.stop()?;
    Ok(rows)
}

fn spent(before: &Info, after: &Info) -> (f64, f64) {
    ((after.run_count - before.run_count) as f64, (after.run_time_ns - before.run_time_ns) as f64)
}

/// The directory of the cgroup v2 mount.
fn cgroup_root() -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).context("no cgroup v2 tree is mounted")?;
    Ok(mount.split(' ').nth(4).context("a strange line in mountinfo")?.to_owned())
}
