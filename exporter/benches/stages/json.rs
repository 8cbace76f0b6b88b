//! A sealed batch to one line of OTLP/JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use flowtel::{
    enrich::Enriched,
    export::json_line,
    record::{Batch, Encoder, Form, Limits, Observer, resource},
};

use crate::sample::{BOOT, begin};

/// As many as one tick of 50 ms brings at 20,000 records a second.
const RECORDS: u32 = 1000;

pub fn bench(c: &mut Criterion) {
    let host = resource::Host { name: "bench".into(), id: None };
    let resource = resource::build(&flowtel::config::Record::default(), &host, &Observer::WHOLE_HOST);
    let limits = Limits { records: RECORDS, bytes: 64 << 20, age: std::time::Duration::from_secs(3600) };
    let mut encoder = Encoder::new(&resource, (BOOT, 0), Form::default(), limits);
    let batch: Batch = (0..RECORDS)
        .filter_map(|n| encoder.write(&Enriched::bare(&begin(n.into(), false))))
        .last()
        .expect("the last record fills it");
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Elements(RECORDS.into()));
    let mut out = Vec::new();
    group.bench_function("transcoded", |b| {
        b.iter(|| {
            out.clear();
            json_line(black_box(&batch), &mut out).expect("it is a request");
            out.len()
        });
    });
    group.finish();
}
