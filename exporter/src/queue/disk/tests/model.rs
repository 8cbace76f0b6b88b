//! Random operations, faults and crashes against a list in order of age.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{faults::Broken, *};

#[derive(Debug, Clone)]
enum Op {
    Push {
        records: u32,
        size: usize,
    },
    Lease,
    Done(usize),
    GiveBack(usize),
    Replace(usize),
    /// The thread does what is due.
    Round,
    Break(Broken),
    /// The power fails; the numbers decide what of the unsynced survives.
    Crash(u64),
    /// An orderly stop and a start.
    Restart,
    /// Something befalls the directory, and the thread looks at it.
    Ground(Blow),
}

/// What befalls the directory.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// It is moved away, and comes back.
    Move,
    Return,
    /// It is removed, wherever it is.
    Remove,
    /// One of its files is removed.
    Unlink(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let broken = prop_oneof![
        2 => Just(Broken::Nothing),
        1 => Just(Broken::Full),
        1 => Just(Broken::Sync),
        1 => Just(Broken::Writing),
        1 => Just(Broken::All),
    ];
    let blow = prop_oneof![
        2 => Just(Blow::Move),
        3 => Just(Blow::Return),
        1 => Just(Blow::Remove),
        2 => any::<usize>().prop_map(Blow::Unlink),
    ];
    prop_oneof![
        10 => (1..20u32, 8..120usize).prop_map(|(records, size)| Op::Push { records, size }),
        6 => Just(Op::Lease),
        4 => any::<usize>().prop_map(Op::Done),
        3 => any::<usize>().prop_map(Op::GiveBack),
        3 => any::<usize>().prop_map(Op::Replace),
        6 => Just(Op::Round),
        2 => broken.prop_map(Op::Break),
        1 => any::<u64>().prop_map(Op::Crash),
        1 => Just(Op::Restart),
        1 => blow.prop_map(Op::Ground),
    ]
}

/// Does it.
fn befall(path: &Path, blow: Blow) {
    let away = path.with_extension("away");
    match blow {
        Blow::Move if !away.exists() => _ = fs::rename(path, away),
        Blow::Return if !path.exists() => _ = fs::rename(away, path),
        Blow::Remove => _ = fs::remove_dir_all(if away.exists() { &away } else { path }),
        Blow::Unlink(n) => {
            let mut files: Vec<_> = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).collect();
            // Without its acknowledgements what was settled goes out once more: a test of its own.
            files.retain(|file| file.path().extension().is_none_or(|kind| kind != "acks"));
            files.sort_by_key(fs::DirEntry::file_name);
            if let Some(file) = n.checked_rem(files.len()).and_then(|n| files.get(n)) {
                fs::remove_file(file.path()).expect("it is there");
            }
        }
        Blow::Move | Blow::Return => {}
    }
}

/// A batch of the model.
#[derive(Debug, Clone)]
struct Item {
    records: u32,
    leased: Option<Batch>,
    /// The batch that was pushed: itself, or what it is a half of.
    origin: u64,
}

#[derive(Debug, Default)]
struct Model {
    all: BTreeMap<Position, Item>,
    /// The records of each batch that was pushed.
    pushed: BTreeMap<u64, u64>,
    /// What fsync was seen to have taken, and nobody has settled: records by the batch that was pushed.
    durable: BTreeMap<u64, u64>,
    /// Acknowledged, and that was synced: must never come again.
    over: BTreeSet<u64>,
    /// Files were removed: what was written again is younger for the next run.
    shuffled: bool,
    settled: BTreeSet<u64>,
}

impl Model {
    fn leased(&self, n: usize) -> Option<(Position, Batch)> {
        let leased: Vec<_> = self.all.iter().filter_map(|(at, item)| Some((*at, item.leased.clone()?))).collect();
        leased.get(n.checked_rem(leased.len())?).cloned()
    }

    /// A batch is not there any more.
    fn gone(&mut self, at: Position) {
        let Some(item) = self.all.remove(&at) else { return };
        if let Some(durable) = self.durable.get_mut(&item.origin) {
            *durable = durable.saturating_sub(item.records.into());
        }
        if !self.all.values().any(|other| other.origin == item.origin) {
            self.durable.remove(&item.origin);
            self.settled.insert(item.origin);
        }
    }

    /// The records of each pushed batch that are left.
    fn left(&self) -> BTreeMap<u64, u64> {
        let mut left = BTreeMap::new();
        self.all.values().for_each(|item| *left.entry(item.origin).or_default() += u64::from(item.records));
        left
    }

    /// After a blow: what is gone was in files alone, and is counted; nothing that is leased is.
    fn robbed(&mut self, bench: &Bench, corrupt_before: u64) -> Result<(), TestCaseError> {
        let there: BTreeMap<_, _> =
            bench.disk.shared.books().contents().into_iter().map(|(at, n, _)| (at, n)).collect();
        let gone: Vec<_> = self.all.keys().filter(|at| !there.contains_key(at)).copied().collect();
        let mut lost = 0;
        for at in gone {
            let item = &self.all[&at];
            prop_assert!(item.leased.is_none() && self.durable.contains_key(&item.origin));
            lost += u64::from(item.records);
            self.gone(at);
        }
        prop_assert_eq!(bench.ledger.records.corrupt.get() - corrupt_before, lost);
        // What is left may be in memory alone now.
        self.durable.clear();
        Ok(())
    }

    /// After a start: what is there must be what was durable, in order, and nothing that was over.
    fn restarted(&mut self, bench: &mut Bench) -> Result<(), TestCaseError> {
        let (held, found) = (bench.disk.waiting(), bench.peek());
        let names = names(&found);
        prop_assert!(self.shuffled || names.is_sorted(), "not in order: {names:?}");
        let mut there = BTreeMap::<u64, u64>::new();
        found.iter().for_each(|b| *there.entry(b.first).or_default() += u64::from(b.records));
        for (name, records) in &self.durable {
            // A batch that was split comes back whole, or as what is left of its halves.
            prop_assert!(there.get(name) >= Some(records), "of durable {name}: {records} records, there are {there:?}");
        }
        prop_assert!(there.iter().all(|(name, n)| *n <= self.pushed[name]), "more than was pushed: {there:?}");
        for name in &names {
            prop_assert!(!self.over.contains(name), "{name} was over and is there again");
        }
        let records: u64 = found.iter().map(|b| u64::from(b.records)).sum();
        prop_assert_eq!((held.records, held.durable), (records, records));
        let r = &bench.ledger.records;
        prop_assert_eq!(r.carried_over.get(), records + r.corrupt.get());
        self.all.clear();
        self.settled.clear();
        for ((at, records, _), batch) in bench.disk.shared.books().contents().into_iter().zip(found) {
            self.all.insert(at, Item { records, leased: None, origin: batch.first });
        }
        self.durable = there;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn keeps_order_budget_balance_and_what_is_durable_whatever_befalls_it(
        ops in prop::collection::vec(ops(), 1..150),
        max in 600..4000u64,
        memory in 300..3000u64,
        oldest in any::<bool>(),
    ) {
        let directory = directory();
        let mut config = config(directory.path());
        config.max_bytes = config::Bytes(max);
        config.max_memory = config::Bytes(memory);
        config.on_full = if oldest { OnFull::DropOldest } else { OnFull::DropNewest };
        let mut bench = Bench::open(&config);
        let (mut model, mut name) = (Model::default(), 1);
        // Splits are the only way over the budget: each half has headers of its own.
        let mut grown = 0;
        for op in ops {
            match op {
                Op::Push { records, size } => {
                    name += 1;
                    model.pushed.insert(name, records.into());
                    let before = bench.ledger.records.queue_full.get();
                    bench.push(batch(name, records, size));
                    let there: BTreeMap<_, _> =
                        bench.disk.shared.books().contents().into_iter().map(|(at, n, _)| (at, n)).collect();
                    let mut dropped = 0;
                    let gone: Vec<_> = model.all.keys().filter(|at| !there.contains_key(at)).copied().collect();
                    for at in gone {
                        let item = model.all[&at].clone();
                        prop_assert!(oldest && item.leased.is_none(), "a leased batch was dropped, or the oldest");
                        dropped += u64::from(item.records);
                        model.gone(at);
                    }
                    match there.keys().find(|at| !model.all.contains_key(at)) {
                        Some(at) => {
                            model.all.insert(*at, Item { records, leased: None, origin: name });
                        }
                        None => dropped += u64::from(records),
                    }
                    prop_assert_eq!(bench.ledger.records.queue_full.get() - before, dropped);
                }
                Op::Lease => {
                    let oldest = model.all.iter().find(|(_, item)| item.leased.is_none()).map(|(at, _)| *at);
                    match bench.lease() {
                        Some((at, batch)) => {
                            prop_assert_eq!(Some(at), oldest);
                            let item = model.all.get_mut(&at).expect("found just now");
                            prop_assert_eq!(batch.records, item.records);
                            item.leased = Some(batch);
                        }
                        // Only what must be read from a disk that fails may have to wait.
                        None => prop_assert!(oldest.is_none() || bench.disk.shared.books().to_load().is_some()),
                    }
                }
                Op::Done(n) => if let Some((at, batch)) = model.leased(n) {
                    prop_assert_eq!(bench.disk.done(at), batch.records);
                    bench.ledger.records.delivered.add(batch.records.into());
                    model.gone(at);
                },
                Op::GiveBack(n) => if let Some((at, _)) = model.leased(n) {
                    bench.disk.give_back(at);
                    model.all.get_mut(&at).expect("it is leased").leased = None;
                },
                Op::Replace(n) => if let Some((at, whole)) = model.leased(n).filter(|(_, b)| b.records > 1) {
                    let (first, size) = (whole.records / 2, whole.bytes.len() / 2 + 5);
                    let halves = [batch(whole.first, first, size), batch(whole.first, whole.records - first, size)];
                    bench.disk.replace(at, halves);
                    grown += 200;
                    let origin = model.all.remove(&at).expect("it is leased").origin;
                    let second_at = Position { record: at.record + first, ..at };
                    for (at, records) in [(at, first), (second_at, whole.records - first)] {
                        model.all.insert(at, Item { records, leased: None, origin });
                    }
                },
                Op::Round => {
                    bench.round();
                    let held = bench.disk.waiting();
                    if held.durable == held.records && !bench.worker.is_failing() {
                        model.durable = model.left();
                        if bench.worker.has_synced_acks() {
                            let settled = std::mem::take(&mut model.settled);
                            model.over.extend(settled);
                        }
                    }
                }
                Op::Break(broken) => bench.faults.breaks(broken),
                Op::Ground(blow) => {
                    let before = bench.ledger.records.corrupt.get();
                    befall(&config.path, blow);
                    model.shuffled |= matches!(blow, Blow::Remove | Blow::Unlink(_));
                    bench.round();
                    model.robbed(&bench, before)?;
                    let waiting = bench.disk.waiting();
                    // What is written again may each be the first of a segment.
                    grown += 200 * waiting.batches as u64;
                    if !config.path.exists() {
                        prop_assert_eq!(waiting.durable, 0, "nothing is kept where the next run will not look");
                        prop_assert!(bench.worker.is_failing());
                    }
                }
                Op::Crash(seed) => {
                    // What is away when the power fails is forgotten.
                    let _ = fs::remove_dir_all(config.path.with_extension("away"));
                    let mut random = fastrand::Rng::with_seed(seed);
                    bench.crash(|most| random.u64(0..=most));
                    bench = Bench::open(&config);
                    model.restarted(&mut bench)?;
                }
                Op::Restart => {
                    bench.faults.breaks(Broken::Nothing);
                    befall(&config.path, Blow::Return);
                    model.durable = model.left();
                    let settled = std::mem::take(&mut model.settled);
                    model.over.extend(settled);
                    let held = bench.disk.waiting().records;
                    prop_assert_eq!(bench.stop(), Left { lost: 0, queued: held });
                    bench = Bench::open(&config);
                    prop_assert_eq!(bench.ledger.records.corrupt.get(), 0);
                    model.restarted(&mut bench)?;
                }
            }
            let held: u64 = model.all.values().map(|item| u64::from(item.records)).sum();
            let waiting = bench.disk.waiting();
            prop_assert_eq!((waiting.batches, waiting.records), (model.all.len(), held));
            prop_assert!(waiting.bytes <= max + grown, "the budget is kept: {waiting:?}");
            prop_assert!(waiting.durable <= waiting.records);
            prop_assert_eq!(bench.ledger.records.waiting(), i128::from(held), "made + carried over = settled + held");
        }
    }
}
