//! A batch into the queue and out of it again; and what a record costs from its fields to the queue, in memory and on disk.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use flowtel::{
    config,
    enrich::Enriched,
    flow::FlowEvent,
    ledger::Ledger,
    queue::Queue,
    record::{Batch, Encoder, Form, Limits, Observer, resource},
};

use crate::sample::{BOOT, begin};

/// As many as 1 MiB holds, the default limit of a batch.
const RECORDS: u32 = 1600;

pub fn bench(c: &mut Criterion) {
    let queue = Queue::new(&config::Queue::default(), Arc::new(Ledger::default()));
    let batch = Batch { bytes: Bytes::from(vec![0; 64 << 10]), records: 100, first: 1, last: 2 };
    c.bench_function("queue: push, lease, done", |b| {
        b.iter(|| {
            queue.push(black_box(batch.clone()));
            queue.try_lease().map(|lease| lease.done())
        });
    });
    append(c);
}

fn append(c: &mut Criterion) {
    let host = resource::Host { name: "bench".into(), id: None };
    let resource = resource::build(&config::Record::default(), &host, &Observer::WHOLE_HOST);
    let limits = Limits { records: RECORDS, bytes: 64 << 20, age: Duration::from_secs(3600) };
    let begins: Vec<FlowEvent> = (0..RECORDS).map(|n| begin(n.into(), false)).collect();
    let mut encoder = Encoder::new(&resource, (BOOT, 0), Form::default(), limits);
    let mut encode = || begins.iter().filter_map(|begin| encoder.write(&Enriched::bare(black_box(begin)))).last();
    let mut group = c.benchmark_group("encode and append");
    group.throughput(Throughput::Elements(RECORDS.into()));

    let queue = Queue::new(&config::Queue::default(), Arc::new(Ledger::default()));
    group.bench_function("in memory", |b| {
        b.iter(|| {
            encode().into_iter().for_each(|batch| queue.push(batch));
            queue.try_lease().map(|lease| lease.done())
        });
    });

    // Until all of it is on the disk, with the default interval; nobody takes anything out, so all of it is written.
    let directory = tempfile::tempdir().expect("a directory for the queue");
    let settings = config::Queue {
        kind: config::QueueKind::Disk,
        path: directory.path().into(),
        max_bytes: config::Bytes(1 << 30),
        max_memory: config::Bytes(1 << 30),
        ..config::Queue::default()
    };
    let queue = Queue::open(&settings, Arc::new(Ledger::default())).expect("the directory is new");
    group.sample_size(10).bench_function("on disk, until it is durable", |b| {
        b.iter_custom(|n| {
            // One commit's wait is the same for one batch as for a thousand: enough of them for it not to count.
            let batches = n.max(100);
            let start = Instant::now();
            for _ in 0..batches {
                encode().into_iter().for_each(|batch| queue.push(batch));
            }
            while queue.waiting().durable < queue.waiting().records {
                std::thread::yield_now();
            }
            let took = start.elapsed();
            while let Some(records) = queue.try_lease().map(|lease| lease.done()) {
                black_box(records);
            }
            took.mul_f64(n as f64 / batches as f64)
        });
    });
    group.finish();
    queue.abandon();
}
