//! What the start of a program costs while flowtel watches starts: a loop of programs that do nothing, in turns with
//! `owner.exec` on and off.
//!
//! CPU time is compared, the loop's and its children's: the kernel programs run in whoever forks and starts. How long the loop
//! takes by the clock says more about what else the machine does.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bpf,
    flowtel::{Flowtel, Output},
    numbers::{median, pause, spread},
};

/// A program that does nothing.
const NOTHING: &str = "/bin/true";
/// Types of programs that watch processes: BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_RAW_TRACEPOINT (include/uapi/linux/bpf.h).
const WATCHING: [u32; 2] = [5, 17];
/// From start to rest, and from the last start to its last trace: more than flowtel's longest wait.
const SETTLE: Duration = Duration::from_secs(1);

/// One run of the loop.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// CPU of the loop and its children, µs a start.
    start: f64,
    /// CPU of flowtel, µs a start.
    agent: f64,
    /// Kernel programs, by the kernel's own count: µs a start. 0 where it did not count.
    programs: f64,
    /// Their runs, a start.
    runs: f64,
}

/// Measures `execs` starts `pairs` times with and without; then once more with the kernel's count of its programs' time.
pub fn measure(binary: &Path, execs: usize, pairs: usize) -> Result<String> {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for watched in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            let run = run(binary, execs, watched, false)?;
            if watched { on.push(run) } else { off.push(run) }
        }
    }
    let counted = (0..pairs).map(|_| run(binary, execs, true, true)).collect::<Result<Vec<_>>>()?;
    let column = |runs: &[Run], get: fn(&Run) -> f64| runs.iter().map(get).collect::<Vec<_>>();
    let more: Vec<f64> = on.iter().zip(&off).map(|(on, off)| on.start - off.start).collect();
    let mut table = String::from(
        "| pairs | CPU a start without, µs | with, µs | more, of each pair, µs | kernel programs, µs a start | their runs a start | agent, µs CPU a start |\n\
         |---|---|---|---|---|---|---|\n",
    );
    writeln!(
        table,
        "| {pairs} | {} | {} | {} | {} | {:.1} | {} |",
        spread(&column(&off, |run| run.start), 1),
        spread(&column(&on, |run| run.start), 1),
        spread(&more, 1),
        spread(&column(&counted, |run| run.programs), 2),
        median(counted.iter().map(|run| run.runs)),
        spread(&column(&on, |run| run.agent), 2),
    )?;
    Ok(table)
}

fn run(binary: &Path, execs: usize, watched: bool, counted: bool) -> Result<Run> {
    let setting = format!("owner.exec={watched}");
    let flowtel = Flowtel::with(binary, &Output::Null, &[&setting])?;
    let _stats = counted.then(bpf::enable_stats).transpose().context("switching on the kernel's BPF statistics")?;
    pause(SETTLE);
    let programs = flowtel.programs()?;
    let (agent_before, programs_before, before) = (flowtel.cpu()?, spent(&programs)?, loop_cpu()?);
    for _ in 0..execs {
        let status = Command::new(NOTHING).env_clear().stdin(Stdio::null()).status().context(NOTHING)?;
        ensure!(status.success(), "{NOTHING} ended with {status}");
    }
    let after = loop_cpu()?;
    pause(SETTLE);
    let (runs_after, time_after) = spent(&programs)?;
    let agent = flowtel.cpu()?.saturating_sub(agent_before);
    flowtel.stop()?;
    let (runs_before, time_before) = programs_before;
    ensure!(!counted || runs_after > runs_before, "no program that watches starts did run");
    let per = |nanoseconds: f64| nanoseconds / 1000.0 / execs as f64;
    Ok(Run {
        start: per(after.saturating_sub(before).as_nanos() as f64),
        agent: per(agent.as_nanos() as f64),
        programs: per(time_after - time_before),
        runs: (runs_after - runs_before) / execs as f64,
    })
}

/// Runs of the programs that watch processes, and nanoseconds in them.
fn spent(programs: &[bpf::Program]) -> Result<(f64, f64)> {
    let (mut runs, mut time) = (0.0, 0.0);
    for program in programs {
        let info = program.info()?;
        if WATCHING.contains(&info.kind) {
            runs += info.run_count as f64;
            time += info.run_time_ns as f64;
        }
    }
    Ok((runs, time))
}

/// CPU time of this thread, and of all children that were waited for.
fn loop_cpu() -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for who in [libc::RUSAGE_THREAD, libc::RUSAGE_CHILDREN] {
        // SAFETY: all zeroes is a value of it: it holds numbers alone.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is a rusage that the kernel fills.
        if unsafe { libc::getrusage(who, &raw mut usage) } != 0 {
            return Err(std::io::Error::last_os_error()).context("reading the CPU time");
        }
        for part in [usage.ru_utime, usage.ru_stime] {
            sum += Duration::new(part.tv_sec as u64, part.tv_usec as u32 * 1000);
        }
    }
    Ok(sum)
}
