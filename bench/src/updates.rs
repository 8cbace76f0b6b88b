//! What updates of open flows cost (`flow.update`): a data segment in the kernel, and flowtel while many flows are open; each in
//! turns with the same flowtel without them.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    bpf,
    flowtel::{Flowtel, Output},
    numbers::{pause, spread},
    packet::pinned,
};

/// Pairs of runs.
const PAIRS: usize = 11;
/// Segments with data of a run.
const SEGMENTS: u32 = 200_000;
/// The setting that is measured, and which is the default.
const ON: &str = "flow.update=5m";
const OFF: &str = "flow.update=0s";

/// Connections within this host: two flows each. As many updates a second as 100,000 flows have at 5 minutes.
const CONNECTIONS: usize = 4500;
const OFTEN: &str = "flow.update=27s";
const ROUND: Duration = Duration::from_secs(54);
/// Each connection sends something so often.
const SAYS: Duration = Duration::from_secs(5);

/// Measures, and returns the tables.
pub fn measure(binary: &Path) -> Result<String> {
    let mut text = segments(binary, [OFF, ON], &[EGRESS])?;
    text.push('\n');
    text.push_str(&open(binary)?);
    Ok(text)
}

/// A place of programs: how their names begin, and what it is called.
pub type Place = (&'static str, &'static str);
/// What leaves.
pub const EGRESS: Place = ("flowtel_out", "the program at egress (BPF_ENABLE_STATS)");
/// What arrives.
pub const INGRESS: Place = ("flowtel_in", "the program at ingress (BPF_ENABLE_STATS)");

/// One byte there and one back, over and over, by one thread on one CPU: with the first of two settings and with the second, in
/// turns. Of the programs of these places, and of the whole way.
pub fn segments(binary: &Path, settings: [&str; 2], places: &[Place]) -> Result<String> {
    let rows = places.len() + 1;
    let mut found = [vec![Vec::new(); rows], vec![Vec::new(); rows]];
    for pair in 0..PAIRS {
        let mut order = [0, 1];
        if pair % 2 == 1 {
            order.reverse();
        }
        for which in order {
            let flowtel = Flowtel::with(binary, &Output::Null, &[settings[which]])?;
            for (row, place) in places.iter().enumerate() {
                found[which][row].push(pinned(|| of_program(&flowtel, place.0))?);
            }
            found[which][places.len()].push(pinned(|| talk(SEGMENTS))?);
            flowtel.stop()?;
        }
    }
    let [off, on] = found;
    let mut table = String::from(
        "| | without, ns a segment | with, ns a segment | more, ns (median of the pairs) |\n|---|---|---|---|\n",
    );
    let names = places.iter().map(|place| place.1).chain(["the whole way"]);
    for ((name, off), on) in names.zip(&off).zip(&on) {
        let more: Vec<f64> = on.iter().zip(off).map(|(on, off)| on - off).collect();
        writeln!(table, "| {name} | {} | {} | {} |", spread(off, 1), spread(on, 1), spread(&more, 1))?;
    }
    Ok(table)
}

/// Nanoseconds of each run of flowtel's program whose name begins so.
fn of_program(flowtel: &Flowtel, prefix: &str) -> Result<f64> {
    let programs = flowtel.programs()?;
    let sum = || -> Result<(u64, u64)> {
        let mut sum = (0, 0);
        for program in &programs {
            let info = program.info()?;
            if info.kind == bpf::INGRESS.program && info.name.starts_with(prefix) {
                sum = (sum.0 + info.run_time_ns, sum.1 + info.run_count);
            }
        }
        Ok(sum)
    };
    let _stats = bpf::enable_stats().context("BPF_ENABLE_STATS")?;
    let before = sum()?;
    talk(SEGMENTS)?;
    let after = sum()?;
    Ok((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64)
}

/// Has a connection send so many segments. Returns the nanoseconds of each.
fn talk(segments: u32) -> Result<f64> {
    let [mut a, mut b] = connection(&TcpListener::bind("127.0.0.1:0")?)?;
    let mut byte = [0];
    // What a connection's first segments cost is no part of it.
    for round in [1000, segments / 2] {
        let start = Instant::now();
        for _ in 0..round {
            a.write_all(&byte)?;
            b.read_exact(&mut byte)?;
            b.write_all(&byte)?;
            a.read_exact(&mut byte)?;
        }
        if round == segments / 2 {
            return Ok(start.elapsed().as_nanos() as f64 / f64::from(segments));
        }
    }
    Ok(f64::NAN)
}

fn connection(listener: &TcpListener) -> Result<[TcpStream; 2]> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok([client, server])
}

/// Many open flows that send a little now and then.
fn open(binary: &Path) -> Result<String> {
    let mut table = String::from(
        "| open flows | updates | flowtel, % of a core | of that capture thread | resident, MiB |\n|---|---|---|---|---|\n",
    );
    for setting in [OFF, OFTEN, OFF, OFTEN] {
        let flowtel = Flowtel::with(binary, &Output::Null, &[setting])?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut pairs = (0..CONNECTIONS).map(|_| connection(&listener)).collect::<Result<Vec<_>>>()?;
        // The first interval spreads them.
        speak(&mut pairs, ROUND / 2)?;
        let before = (flowtel.cpu()?, flowtel.thread_cpu("flowtel-capture")?);
        speak(&mut pairs, ROUND)?;
        let share = |now: Duration, then: Duration| 100.0 * (now - then).as_secs_f64() / ROUND.as_secs_f64();
        let (all, capture) = (share(flowtel.cpu()?, before.0), share(flowtel.thread_cpu("flowtel-capture")?, before.1));
        let resident = flowtel.memory("VmRSS")?;
        drop(pairs);
        pause(Duration::from_secs(1));
        let said = flowtel.stop()?;
        let line = said.lines().find(|line| line.trim_start().starts_with("update")).unwrap_or("none").trim();
        writeln!(table, "| {}, {setting} | {line} | {all:.2} | {capture:.2} | {resident:.1} |", 2 * CONNECTIONS)?;
    }
    Ok(table)
}

/// Each sends a byte now and then, for so long.
fn speak(pairs: &mut [[TcpStream; 2]], lasting: Duration) -> Result<()> {
    let start = Instant::now();
    let each = SAYS.div_f64(pairs.len() as f64);
    let mut byte = [0];
    for (n, at) in (0..pairs.len()).cycle().zip(1u32..) {
        let due = each * at;
        if due > lasting {
            break;
        }
        let now = start.elapsed();
        if due > now + Duration::from_millis(2) {
            pause(due - now);
        }
        if let Some([a, b]) = pairs.get_mut(n) {
            a.write_all(&byte)?;
            b.read_exact(&mut byte)?;
            b.write_all(&byte)?;
            a.read_exact(&mut byte)?;
        }
    }
    Ok(())
}
