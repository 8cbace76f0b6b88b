//! A whole life (asked for, established, closed) while few and while many flows are open: the cost has to be flat. And what a
//! hundred thousand open flows take in memory.
//!
//! Tables of all sizes take their turns, tick by tick, so that whatever else the machine does meets all of them alike.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::Criterion;
use flowtel::{
    capture::{KernelEvent, KernelTime},
    config,
    flow::Flows,
    ledger::Ledger,
};

use crate::sample::{BOOT, close, events};

/// Connections of one tick.
const TICK: u64 = 1000;
/// Ticks that are measured.
const TICKS: usize = 600;
const OPEN: [u64; 3] = [1_000, 10_000, 100_000];

/// Which flows end in a tick.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Those that began in it: short ones, among others that stay.
    Youngest,
    /// Those that have been open for longest: all live equally long.
    Oldest,
    /// Any.
    Any,
}

/// A table with so many open flows.
struct Table {
    flows: Flows,
    open: Vec<u64>,
    next: u64,
    time: u64,
    seed: u64,
}

impl Table {
    fn new(open: u64) -> Self {
        let flows = Flows::new(&config::Config::default(), BOOT, None, Arc::new(Ledger::default()));
        let mut table = Self { flows, open: Vec::new(), next: 1, time: 1, seed: 1 };
        for _ in 0..open / TICK {
            let begins = table.begins();
            table.take(&begins);
        }
        assert_eq!(table.flows.open_flows() as u64, open);
        table
    }

    fn begins(&mut self) -> Vec<KernelEvent> {
        let first = self.next;
        self.next += TICK;
        self.open.extend(first..self.next);
        (first..self.next).flat_map(|n| events(n, self.time + (n - first) * 1000)).collect()
    }

    fn ends(&mut self, end: End) -> Vec<KernelEvent> {
        let over: Vec<_> = match end {
            End::Youngest => self.open.drain(self.open.len() - TICK as usize..).collect(),
            End::Oldest => self.open.drain(..TICK as usize).collect(),
            End::Any => (0..TICK)
                .map(|_| {
                    // Numerical Recipes' linear congruential generator: any will do.
                    self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    self.open.swap_remove((self.seed >> 16) as usize % self.open.len())
                })
                .collect(),
        };
        (0..).zip(over).map(|(i, n)| close(n, self.time + (TICK + i) * 1000)).collect()
    }

    /// Takes a tick's events. Returns how long that took.
    fn take(&mut self, events: &[KernelEvent]) -> Duration {
        self.time += 20_000_000;
        let start = Instant::now();
        for event in events {
            self.flows.on(event);
        }
        self.flows.settle(KernelTime(self.time), |event| _ = black_box(event));
        start.elapsed()
    }

    /// A tick of whole lives.
    fn lives(&mut self, end: End) -> Duration {
        let mut events = self.begins();
        events.extend(self.ends(end));
        self.take(&events)
    }
}

pub fn bench(_: &mut Criterion) {
    let before = resident();
    let many = Table::new(OPEN[2]);
    if let (Some(before), Some(now)) = (before, resident()) {
        println!("flow: {} open flows take {:.1} MiB", OPEN[2], (now - before) as f64 / f64::from(1 << 20));
    }
    drop(many);
    for end in [End::Youngest, End::Oldest, End::Any] {
        let mut tables = OPEN.map(Table::new);
        let mut took = OPEN.map(|_| Vec::with_capacity(TICKS));
        for _ in 0..TICKS {
            for (table, took) in tables.iter_mut().zip(&mut took) {
                took.push(table.lives(end));
            }
        }
        let medians = took.map(|mut took| {
            took.sort();
            took[took.len() / 2].as_nanos() as f64 / TICK as f64
        });
        let words: Vec<_> = OPEN
            .iter()
            .zip(medians)
            .map(|(open, ns)| format!("{ns:.0} ns ({:.2}) among {open}", ns / medians[0]))
            .collect();
        println!("flow: a life, {end:?} end, open flows: {}", words.join(", "));
        for (table, open) in tables.iter().zip(OPEN) {
            assert_eq!(table.flows.open_flows() as u64, open);
        }
    }
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
