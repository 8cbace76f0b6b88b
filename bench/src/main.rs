//! Measures what flowtel costs, and prints tables in Markdown (docs/performance.md says what they mean).
//!
//! ```text
//! flowtel-bench [packet] [kernel] [grpc] [http] [stdout] [delay] [exec] [updates] [look] [tls] [--begins] [--connections N] [--execs N] [--pairs N]
//!     [--against OTHER/flowtel]
//! ```
//!
//! Without a name, all of them. `--against`: another flowtel takes turns with this one in each pair, and has rows of its own. `--begins`: flowtel records begins only (`capture.events = "begins"`, no look-ups). Needs root, and the release binary of flowtel beside its own. Reading order: [`packet`]
//! and [`live`] measure, [`flowtel`](mod@flowtel), [`load`], [`sink`] and [`namespaces`] are what they measure with.

mod bpf;
mod delay;
mod ending;
mod exec;
mod flowtel;
mod live;
mod load;
mod look;
mod namespaces;
mod numbers;
mod packet;
mod peers;
mod sink;
mod stolen;
mod tls;
mod updates;

use std::{collections::BTreeSet, fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{
    flowtel::{Flowtel, Mode, Output},
    live::Variant,
    numbers::pause,
};

const PARTS: [&str; 10] = ["packet", "kernel", "grpc", "http", "stdout", "delay", "exec", "updates", "look", "tls"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["sink"] => sink::serve(),
        ["load-client", n] => n.parse().context("a number").and_then(load::client),
        ["load-server", n] => n.parse().context("a number").and_then(load::server),
        _ => bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowtel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[&str]) -> Result<()> {
    let (mut connections, mut execs, mut pairs, mut parts) = (40_000, 5_000, 5, BTreeSet::new());
    let mut binaries = vec![flowtel::binary()?];
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || -> Result<usize> { Ok(rest.next().context("a number is missing")?.parse()?) };
        match *argument {
            "--connections" => connections = number()?,
            "--execs" => execs = number()?,
            "--against" => binaries.push(rest.next().context("a path is missing")?.into()),
            "--pairs" => pairs = number()?,
            "--begins" => _ = flowtel::MODE.set(Mode::Begins),
            part if PARTS.contains(&part) => _ = parts.insert(part),
            other => {
                bail!("{other:?} is none of {}, --begins, --connections, --execs, --pairs, --against", PARTS.join(", "))
            }
        }
    }
    let wanted = |part| parts.is_empty() || parts.contains(part);
    ending::watch()?;
    let [binary, ..] = binaries.as_slice() else { bail!("there is no flowtel") };
    about(binary)?;

    if wanted("packet") {
        let flowtel = Flowtel::start(binary, &Output::Null)?;
        println!(
            "## A packet (BPF_PROG_TEST_RUN, 1,000,000 runs, medians of 11, one CPU)\n\n{}",
            packet::measure(&flowtel)?
        );
        flowtel.stop()?;
    }
    if wanted("kernel") {
        let table = live::kernel(&binaries, connections, pairs)?;
        println!("## A connection, kernel programs ({connections} connections, {pairs} runs)\n\n{table}");
    }
    let variants: Vec<Variant> =
        ["grpc", "http", "stdout"].into_iter().zip(Variant::ALL).filter(|(n, _)| wanted(n)).map(|(_, v)| v).collect();
    if !variants.is_empty() {
        let (table, rows) = live::agent(&binaries, connections, pairs, &variants)?;
        println!("## A connection, user space ({connections} connections flat out, alternating)\n\n{table}");
        println!(
            "## Beside other programs (theirs on 2 CPUs of an AMD EPYC, in runs of their own: docs/performance.md)\n\n{}",
            peers::table(&rows)
        );
    }
    if wanted("tls") {
        println!("## ClientHellos\n\n{}\n", tls::measure(binary)?);
    }
    if wanted("updates") {
        println!("## Updates of open flows\n\n{}\n", updates::measure(binary)?);
    }
    if wanted("look") {
        println!("## Somebody looks on\n\n{}\n", look::measure(binary, connections, pairs)?);
    }
    if wanted("delay") {
        println!("## Delay\n\n{}\n", delay::measure(binary, 400)?);
    }
    if wanted("exec") {
        println!("## The start of a program ({execs} starts, alternating)\n\n{}", exec::measure(binary, execs, pairs)?);
    }
    Ok(())
}

/// The machine, and what rests: size of the binary, memory and CPU of an idle flowtel.
fn about(binary: &Path) -> Result<()> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpu.lines().find_map(|l| l.strip_prefix("model name")).map_or("?", |l| l.trim_start_matches(['\t', ':', ' ']));
    let cpus = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("{cpus} CPUs ({model}), Linux {}, load average before: {}\n", kernel.trim(), load.trim());
    let flowtel = Flowtel::start(binary, &Output::Null)?;
    pause(std::time::Duration::from_secs(2));
    let before = flowtel.cpu()?;
    pause(std::time::Duration::from_secs(5));
    let idle = (flowtel.cpu()?.saturating_sub(before)).as_secs_f64() / 5.0;
    println!(
        "Release binary {:.1} MiB; idle: {:.1} MiB resident (peak {:.1}), {:.2} % of a CPU\n",
        fs::metadata(binary)?.len() as f64 / f64::from(1 << 20),
        flowtel.memory("VmRSS")?,
        flowtel.memory("VmHWM")?,
        idle * 100.0,
    );
    flowtel.stop()?;
    Ok(())
}
