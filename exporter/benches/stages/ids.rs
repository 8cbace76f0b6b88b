//! The two identities of a flow.

use std::hint::black_box;

use criterion::Criterion;
use flowtel::flow::{CommunityId, FlowId};

use crate::sample::{BOOT, begin};

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("ids");
    for (name, ipv6) in [("ipv4", false), ("ipv6", true)] {
        let begin = begin(7, ipv6);
        let (a, b) = (begin.flow.source, begin.flow.destination);
        group.bench_function(format!("community id, {name}"), |bench| {
            bench.iter(|| CommunityId::tcp(black_box(a), black_box(b)).text());
        });
        group.bench_function(format!("flow id, {name}"), |bench| {
            bench.iter(|| FlowId::new(&BOOT, black_box(7), black_box(a), black_box(b)));
        });
    }
    group.finish();
}
