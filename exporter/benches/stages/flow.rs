//! Connect, SYN-ACK and Established to a begin, with few and with many attempts open: the cost has to be flat.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput};
use flowtel::{capture::KernelTime, config, flow::Flows, ledger::Ledger};

use crate::sample::{BOOT, events};

/// Connections of one tick.
const TICK: u64 = 1000;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow: events of one begin");
    group.throughput(Throughput::Elements(TICK));
    let mut config = config::Config::default();
    config.capture.events = config::Events::BEGINS;
    for open in [1_000u64, 100_000] {
        let mut flows = Flows::new(&config, BOOT, None, Arc::new(Ledger::default()));
        for n in 0..open {
            flows.on(&events(u64::MAX - n, 1)[0]);
        }
        let mut next = 1u64;
        group.bench_function(format!("{open} attempts open"), |b| {
            b.iter_batched(
                || {
                    let first = next;
                    next += TICK;
                    (first..next).flat_map(|n| events(n, n * 1000)).collect::<Vec<_>>()
                },
                |events| {
                    for event in &events {
                        flows.on(event);
                    }
                    // Much later than any of them, yet too early for an open attempt to be forgotten.
                    let now = KernelTime(events.last().map_or(0, |event| event.time.0) + 20_000_000);
                    flows.settle(now, |begin| _ = black_box(begin));
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}
