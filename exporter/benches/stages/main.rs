//! The stages of the flow path one by one, without a kernel: `cargo bench -p flowtel`. What the whole costs is measured
//! by flowtel-bench.

mod flow;
mod ids;
mod json;
mod open;
mod packet;
mod privacy;
mod queue;
mod record;
mod sample;
mod select;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    stages,
    packet::bench,
    ids::bench,
    flow::bench,
    open::bench,
    select::bench,
    record::bench,
    privacy::bench,
    queue::bench,
    json::bench
);
criterion_main!(stages);
