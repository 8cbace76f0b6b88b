//! A batch into the queue and out of it again.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::Criterion;
use flowtel::{config, ledger::Ledger, queue::Queue, record::Batch};

pub fn bench(c: &mut Criterion) {
    let queue = Queue::new(&config::Queue::default(), Arc::new(Ledger::default()));
    let batch = Batch { bytes: Bytes::from(vec![0; 64 << 10]), records: 100, first: 1, last: 2 };
    c.bench_function("queue: push, lease, done", |b| {
        b.iter(|| {
            queue.push(black_box(batch.clone()));
            queue.try_lease().map(|lease| lease.done())
        });
    });
}
