//! What an event costs the owner room: `cargo bench -p flowtel --bench owner`.
//!
//! Known: events of one process or cgroup that were looked up before, at 25,000 a second nearly all of them. Checked: the
//! first event of a process in each tick. Read: the first event of a process, of a cgroup.

use std::{hint::black_box, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use flowtel::{
    capture::{KernelTime, cgroup},
    config,
    ledger::Ledger,
    owner::{Place, Places, Processes},
};

fn processes() -> Processes {
    Processes::new(&config::Owner::default(), Arc::new(Ledger::default()))
}

fn places() -> Places {
    Places::new(&config::Owner::default(), Arc::new(Ledger::default()))
}

fn executable(c: &mut Criterion) {
    let visibility = processes().visibility();
    if visibility.is_hidden() {
        println!("skipped: {visibility}");
        return;
    }
    let mut group = c.benchmark_group("executable");
    let pid = std::process::id();
    let mut known = processes();
    let at = KernelTime::now();
    known.executable(pid, at);
    group.bench_function("known", |b| b.iter(|| known.executable(black_box(pid), at)));
    group.bench_function("checked", |b| b.iter(|| known.executable(black_box(pid), KernelTime::now())));
    group.bench_function("read", |b| {
        b.iter_batched_ref(
            processes,
            |fresh| fresh.executable(black_box(pid), KernelTime::now()),
            criterion::BatchSize::SmallInput,
        );
    });
    // No process has this number: an event of a process that has ended.
    group.bench_function("gone", |b| b.iter(|| known.executable(black_box(u32::MAX), KernelTime::now())));
    group.finish();
}

fn place(c: &mut Criterion) {
    let mut group = c.benchmark_group("place");
    let path =
        b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d8e4f6c_1b2a_4c3d_9e5f_a1b2c3d4e5f6.slice/\
        cri-containerd-3f4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8.scope";
    group.bench_function("path", |b| b.iter(|| Place::from_path(black_box(path))));
    let root = cgroup::mount().ok().and_then(|mount| std::fs::metadata(mount).ok());
    match root.map(|root| root.ino()) {
        Some(id) if places().by_handle() => {
            let mut known = places();
            known.of(id);
            group.bench_function("known", |b| b.iter(|| known.of(black_box(id))));
            group.bench_function("read", |b| {
                b.iter_batched_ref(places, |fresh| fresh.of(black_box(id)), criterion::BatchSize::SmallInput);
            });
        }
        _ => println!("skipped: cgroups can't be opened by handle here"),
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = executable, place
}
criterion_main!(benches);
