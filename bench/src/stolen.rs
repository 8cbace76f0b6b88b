//! What the hypervisor took of this machine's CPUs: a run in which it took much says little.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// A tick of /proc/stat: USER_HZ is 100 on every architecture that flowtel is built for (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// So far, of all CPUs together.
pub fn so_far() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    // "cpu user nice system idle iowait irq softirq steal ..."
    let steal =
        stat.lines().next().and_then(|line| line.split_whitespace().nth(8)).context("no steal in /proc/stat")?;
    Ok(TICK * steal.parse().context("a strange number in /proc/stat")?)
}
