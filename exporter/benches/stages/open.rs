//! A whole life (asked for, established, closed) while few and while many flows are open: the cost has to be
//! flat. And what a hundred thousand open flows take in memory.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput};
use flowtel::{
    capture::{KernelEvent, KernelTime},
    config,
    flow::Flows,
    ledger::Ledger,
};

use crate::sample::{BOOT, close, events};

/// Connections of one tick.
const TICK: u64 = 1000;
const MANY: u64 = 100_000;

fn opened(open: u64) -> Flows {
    let mut flows = Flows::new(&config::Config::default(), BOOT, None, Arc::new(Ledger::default()));
    for n in 0..open {
        for event in events(u64::MAX - n, 1) {
            flows.on(&event);
        }
        if n % TICK == 0 {
            flows.settle(KernelTime(20_000_000 + n), |begin| _ = black_box(begin));
        }
    }
    flows.settle(KernelTime(40_000_000), |begin| _ = black_box(begin));
    assert_eq!(flows.open_flows() as u64, open);
    flows
}

fn lives(first: u64) -> Vec<KernelEvent> {
    // Two orders of time, as the kernel has it: a connection lives for a while.
    let begins = (first..first + TICK).flat_map(|n| events(n, 100_000_000 + n * 1000));
    let ends = (first..first + TICK).map(|n| close(n, 100_000_000 + (first + TICK + n) * 1000));
    let mut all: Vec<_> = begins.chain(ends).collect();
    all.sort_by_key(|event| event.time);
    all
}

pub fn bench(c: &mut Criterion) {
    let before = resident();
    let flows = opened(MANY);
    if let (Some(before), Some(now)) = (before, resident()) {
        println!("flow: {MANY} open flows take {:.1} MiB", (now - before) as f64 / f64::from(1 << 20));
    }
    drop(flows);
    let mut group = c.benchmark_group("flow: events of one life");
    group.throughput(Throughput::Elements(TICK));
    for open in [1_000, 10_000, MANY] {
        let mut flows = opened(open);
        let mut next = 1u64;
        group.bench_function(format!("{open} flows open"), |b| {
            b.iter_batched(
                || {
                    let first = next;
                    next += 2 * TICK;
                    lives(first)
                },
                |events| {
                    for event in &events {
                        flows.on(event);
                    }
                    let now = KernelTime(events.last().map_or(0, |event| event.time.0) + 20_000_000);
                    flows.settle(now, |event| _ = black_box(event));
                },
                BatchSize::LargeInput,
            );
        });
        assert_eq!(flows.open_flows() as u64, open);
    }
    group.finish();
}

/// Bytes of this process in memory.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
