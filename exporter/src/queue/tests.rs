//! The queue against a tiny model of its rules, and its waits.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::{Bytes as Size, OnFull};

fn queue(max_bytes: u64, on_full: OnFull) -> (Queue, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let config = config::Queue { max_bytes: Size(max_bytes), on_full, ..config::Queue::default() };
    (Queue::new(&config, ledger.clone()), ledger)
}

/// A batch whose bytes tell it from all others.
fn batch(name: u64, records: u32, size: usize) -> Batch {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&name.to_le_bytes());
    Batch { bytes: Bytes::from(bytes), records, first: name, last: name }
}

fn push(queue: &Queue, ledger: &Ledger, batch: Batch) {
    ledger.records.made.add(batch.records.into());
    queue.push(batch);
}

#[derive(Debug, Clone)]
enum Op {
    Push { records: u32, size: usize },
    Lease,
    Done(usize),
    GiveBack(usize),
    Replace(usize),
    Close,
    Abandon,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..20u32, 8..120usize).prop_map(|(records, size)| Op::Push { records, size }),
        6 => Just(Op::Lease),
        3 => any::<usize>().prop_map(Op::Done),
        3 => any::<usize>().prop_map(Op::GiveBack),
        2 => any::<usize>().prop_map(Op::Replace),
        1 => prop_oneof![9 => Just(Op::Lease), 1 => Just(Op::Close)],
        1 => prop_oneof![19 => Just(Op::Lease), 1 => Just(Op::Abandon)],
    ]
}

/// The rules in their plainest form: a list in order of age, each batch with a mark.
#[derive(Default)]
struct Model {
    all: Vec<(Batch, bool)>,
    closed: bool,
    abandoned: bool,
    queue_full: u64,
    undelivered: u64,
    /// Bytes that splits added, the only way over the budget.
    grown: u64,
}

impl Model {
    fn bytes(&self, only_leased: bool) -> u64 {
        self.all.iter().filter(|(_, leased)| *leased || !only_leased).map(|(b, _)| b.bytes.len() as u64).sum()
    }

    fn push(&mut self, batch: Batch, max: u64, on_full: OnFull) {
        let (records, size) = (u64::from(batch.records), batch.bytes.len() as u64);
        if self.closed {
            self.undelivered += records;
            return;
        }
        if on_full == OnFull::DropOldest && self.bytes(true) + size <= max {
            while self.bytes(false) + size > max {
                let oldest = self.all.iter().position(|(_, leased)| !leased).expect("only waiting ones are left");
                self.queue_full += u64::from(self.all.remove(oldest).0.records);
            }
        }
        if self.bytes(false) + size > max { self.queue_full += records } else { self.all.push((batch, false)) }
    }

    fn place(&self, batch: &Batch) -> Option<usize> {
        self.all.iter().position(|(b, leased)| *leased && b == batch)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn keeps_order_budget_and_balance_whatever_is_done_to_it(
        ops in prop::collection::vec(ops(), 1..120),
        max in 60..600u64,
        oldest in any::<bool>(),
    ) {
        let on_full = if oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let (queue, ledger) = queue(max, on_full);
        let (mut model, mut leases, mut names) = (Model::default(), Vec::<Lease>::new(), 0..);
        for op in ops {
            match op {
                Op::Push { records, size } => {
                    let batch = batch(names.next().unwrap(), records, size);
                    push(&queue, &ledger, batch.clone());
                    model.push(batch, max, on_full);
                }
                Op::Lease => {
                    let lease = queue.try_lease();
                    let expected = model.all.iter_mut().find(|(_, leased)| !*leased);
                    prop_assert_eq!(lease.as_ref().map(Lease::batch), expected.as_ref().map(|(b, _)| b));
                    if let Some((_, leased)) = expected { *leased = true }
                    leases.extend(lease);
                }
                Op::Done(n) if !leases.is_empty() => {
                    let lease = leases.swap_remove(n % leases.len());
                    let place = model.place(lease.batch());
                    let expected = place.map_or(0, |i| model.all.remove(i).0.records);
                    let records = lease.done();
                    prop_assert_eq!(records, expected);
                    ledger.records.delivered.add(records.into());
                }
                Op::GiveBack(n) if !leases.is_empty() => {
                    let lease = leases.swap_remove(n % leases.len());
                    if let Some(i) = model.place(lease.batch()) { model.all[i].1 = false }
                    lease.give_back();
                }
                Op::Replace(n) if leases.iter().any(|l| l.batch().records > 1) => {
                    let n = n % leases.len();
                    let Some(n) = (0..leases.len()).map(|i| (i + n) % leases.len()).find(|i| leases[*i].batch().records > 1)
                    else { continue };
                    let lease = leases.swap_remove(n);
                    let (records, size) = (lease.batch().records, lease.batch().bytes.len());
                    let halves = [
                        batch(names.next().unwrap(), records / 2, size / 2 + 5),
                        batch(names.next().unwrap(), records - records / 2, size / 2 + 5),
                    ];
                    if let Some(i) = model.place(lease.batch()) {
                        let after: u64 = halves.iter().map(|half| half.bytes.len() as u64).sum();
                        model.grown += after.saturating_sub(size as u64);
                        model.all.splice(i..=i, halves.iter().map(|half| (half.clone(), false)));
                    }
                    lease.replace(halves);
                }
                Op::Close => { queue.close(); model.closed = true }
                Op::Abandon => {
                    let left: u64 = model.all.drain(..).map(|(b, _)| u64::from(b.records)).sum();
                    prop_assert_eq!(queue.abandon(), Left { lost: left, queued: 0 });
                    model.undelivered += left;
                    (model.closed, model.abandoned) = (true, true);
                }
                Op::Done(_) | Op::GiveBack(_) | Op::Replace(_) => {}
            }
            let held: u64 = model.all.iter().map(|(b, _)| u64::from(b.records)).sum();
            prop_assert_eq!(queue.waiting(), Waiting {
                batches: model.all.len(),
                records: held,
                bytes: model.bytes(false),
                leased: model.all.iter().filter(|(_, leased)| *leased).count(),
                durable: 0,
            });
            prop_assert!(queue.waiting().bytes <= max + model.grown, "the budget is kept");
            prop_assert_eq!(ledger.records.waiting(), i128::from(held), "made = settled + held");
            prop_assert_eq!(ledger.records.queue_full.get(), model.queue_full);
            prop_assert_eq!(ledger.records.undelivered.get(), model.undelivered);
        }
    }
}

#[test]
fn a_lease_that_is_dropped_gives_its_batch_back() {
    let (queue, ledger) = queue(1000, OnFull::DropOldest);
    push(&queue, &ledger, batch(1, 3, 10));
    drop(queue.try_lease());
    assert_eq!(queue.try_lease().map(|lease| lease.batch().first), Some(1));
}

#[test]
fn a_leased_batch_is_never_dropped_for_a_new_one() {
    let (queue, ledger) = queue(100, OnFull::DropOldest);
    push(&queue, &ledger, batch(1, 3, 60));
    let lease = queue.try_lease().expect("one waits");
    push(&queue, &ledger, batch(2, 5, 60));
    assert_eq!(ledger.records.queue_full.get(), 5);
    assert_eq!(lease.done(), 3);
}

#[test]
fn a_batch_larger_than_the_budget_drops_nothing_but_itself() {
    let (queue, ledger) = queue(100, OnFull::DropOldest);
    push(&queue, &ledger, batch(1, 3, 60));
    push(&queue, &ledger, batch(2, 5, 101));
    assert_eq!(ledger.records.queue_full.get(), 5);
    assert_eq!(queue.waiting().records, 3);
}

#[tokio::test]
async fn a_lease_waits_for_a_push_from_another_thread() {
    let (queue, _) = queue(1000, OnFull::DropOldest);
    let pusher = queue.clone();
    let waiting = tokio::spawn(async move { queue.lease().await.map(|lease| lease.batch().first) });
    tokio::task::yield_now().await;
    std::thread::spawn(move || pusher.push(batch(7, 1, 10))).join().expect("the thread ends");
    assert_eq!(waiting.await.expect("the task ends"), Some(7));
}

#[tokio::test]
async fn several_waiters_get_a_batch_each() {
    let (queue, _) = queue(1000, OnFull::DropOldest);
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.lease().await.map(|lease| lease.done()) })
        })
        .collect();
    tokio::task::yield_now().await;
    (0..4).for_each(|n| queue.push(batch(n, 1, 10)));
    for waiter in waiters {
        assert_eq!(waiter.await.expect("the task ends"), Some(1));
    }
}

#[tokio::test]
async fn a_closed_queue_ends_only_when_what_is_leased_is_settled() {
    let (queue, _) = queue(1000, OnFull::DropOldest);
    queue.push(batch(1, 1, 10));
    let lease = queue.lease().await.expect("one waits");
    queue.close();
    let other = queue.clone();
    let waiting = tokio::spawn(async move { other.lease().await.map(|lease| (lease.batch().first, lease.done())) });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    lease.give_back();
    assert_eq!(waiting.await.expect("the task ends"), Some((1, 1)));
    assert!(queue.lease().await.is_none());
}

#[test]
fn a_changed_budget_holds_from_the_next_push_on() {
    let (queue, ledger) = queue(1000, OnFull::DropOldest);
    for name in 0..10 {
        push(&queue, &ledger, batch(name, 1, 100));
    }
    let reconfigured =
        |max_bytes, on_full| config::Queue { max_bytes: Size(max_bytes), on_full, ..config::Queue::default() };
    queue.reconfigure(&reconfigured(300, OnFull::DropOldest));
    assert_eq!((queue.waiting().batches, queue.max_bytes()), (10, 300), "what is there stays");
    push(&queue, &ledger, batch(10, 1, 100));
    assert_eq!((queue.waiting().batches, ledger.records.queue_full.get()), (3, 8));
    queue.reconfigure(&reconfigured(300, OnFull::DropNewest));
    push(&queue, &ledger, batch(11, 1, 100));
    assert_eq!(queue.try_lease().map(|lease| lease.batch().first), Some(8));
    assert_eq!(ledger.records.queue_full.get(), 9);
}
