//! One begin past the rules: none, ten and a thousand networks, none of which matches.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use flowtel::{
    config::{self, rules::Rule},
    flow::FlowEvent,
    ledger::Ledger,
    select::Select,
};

use crate::sample::begin;

const EVENTS: u64 = 1000;

pub fn bench(c: &mut Criterion) {
    let begins: Vec<FlowEvent> = (0..EVENTS).map(|n| begin(n, false)).collect();
    let mut group = c.benchmark_group("select");
    group.throughput(Throughput::Elements(EVENTS));
    for networks in [0u16, 10, 1000] {
        let mut config = config::Config::default();
        let list: Vec<_> = (0..networks).map(|n| format!("172.{}.{}.0/24", 16 + n / 256, n % 256)).collect();
        if !list.is_empty() {
            let rule: Rule = format!("exclude address={}", list.join(",")).parse().expect("a rule");
            config.capture.filter = config::rules::Rules(vec![rule]);
        }
        let mut select = Select::new(&config, Arc::new(Ledger::default()));
        group.bench_function(format!("{networks} networks"), |b| {
            b.iter(|| begins.iter().for_each(|begin| _ = black_box(select.look(black_box(begin)))));
        });
    }
    group.finish();
}
