//! One begin into the open batch, sealed at 4,096 records.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use flowtel::{
    enrich::Enriched,
    flow::FlowEvent,
    record::{Encoder, Form, Limits, Observer, resource},
};

use crate::sample::{BOOT, begin};

const RECORDS: u32 = 4096;

pub fn bench(c: &mut Criterion) {
    let host = resource::Host { name: "bench".into(), id: None };
    let resource = resource::build(&flowtel::config::Record::default(), &host, &Observer::WHOLE_HOST);
    let limits = Limits { records: RECORDS, bytes: 64 << 20, age: Duration::from_secs(3600) };
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(RECORDS.into()));
    for (name, ipv6) in [("ipv4", false), ("ipv6", true)] {
        let begins: Vec<FlowEvent> = (0..RECORDS).map(|n| begin(n.into(), ipv6)).collect();
        let mut encoder = Encoder::new(&resource, (BOOT, 0), Form::default(), limits);
        let mut fill = || begins.iter().filter_map(|begin| encoder.write(&Enriched::bare(black_box(begin)))).last();
        let sealed = fill().expect("as many records as a batch holds");
        println!("record, {name}: {:.1} bytes a record", sealed.bytes.len() as f64 / f64::from(sealed.records));
        group.bench_function(format!("batch of {RECORDS}, {name}"), |b| b.iter(&mut fill));
    }
    group.finish();
}
