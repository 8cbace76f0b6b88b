//! One begin into the open batch, as it is, and with what the settings of privacy can do to it.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput};
use flowtel::{
    config::{AttributeNames, HashedNames, Record},
    enrich::Enriched,
    flow::FlowEvent,
    record::{Encoder, Form, Limits, Observer, privacy::Policy, resource},
};

use crate::sample::{BOOT, begin};

const RECORDS: u32 = 4096;
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

pub fn bench(c: &mut Criterion) {
    let host = resource::Host { name: "bench".into(), id: None };
    let resource = resource::build(&Record::default(), &host, &Observer::WHOLE_HOST);
    let limits = Limits { records: RECORDS, bytes: 64 << 20, age: Duration::from_secs(3600) };
    let begins: Vec<FlowEvent> = (0..RECORDS).map(|n| begin(n.into(), false)).collect();
    let mut group = c.benchmark_group("privacy");
    group.throughput(Throughput::Elements(RECORDS.into()));
    let off = Record::default();
    let mut left_out = Record::default();
    left_out.attributes.exclude = AttributeNames::new(["programs", "processes"]);
    let mut shortened = Record::default();
    shortened.shorten.ipv4 = Some(24);
    let mut hashed = Record::default();
    hashed.hash.attributes = HashedNames::new(["addresses", "names", "users", "containers"]);
    for (name, settings) in [("off", off), ("left out", left_out), ("shortened", shortened), ("hashed", hashed)] {
        let policy = Policy::new(&settings, Some(KEY)).map(Arc::new);
        let mut encoder = Encoder::new(&resource, (BOOT, 0), Form::default(), limits).with_privacy(policy);
        let mut fill = || begins.iter().filter_map(|begin| encoder.write(&Enriched::bare(black_box(begin)))).last();
        group.bench_function(name, |b| b.iter(&mut fill));
    }
    group.finish();
}
