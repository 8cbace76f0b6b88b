//! The directory, or a file in it, is taken away, given to others, or replaced: what is told of it stays true.

use std::os::unix::fs::{PermissionsExt as _, chown};

use super::{faults::Broken, *};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is the test's own");
}

fn segments(path: &Path) -> Vec<u64> {
    directory::list(&files::Directory::open(path).expect("it is there")).expect("readable").segments
}

/// A queue with batches 1 to 3 on the disk, and read by this run from there: nothing of it is in memory.
fn found(config: &config::Queue) -> Bench {
    let mut bench = Bench::open(config);
    (1..=3).for_each(|name| bench.push(batch(name, 10, 90)));
    bench.round();
    bench.stop();
    Bench::open(config)
}

#[test]
fn what_waits_in_a_directory_that_was_moved_away_is_not_kept_until_it_is_back() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    let away = directory.path().join("away");
    fs::rename(&config.path, &away).expect("movable");
    bench.push(batch(4, 10, 90));
    bench.round();
    let waiting = bench.disk.waiting();
    assert_eq!((waiting.records, waiting.durable), (40, 0));
    assert!(bench.worker.is_failing() && !config.path.exists(), "it is not made again beside the one that was moved");
    assert_eq!(names(&bench.peek()), [1, 2, 3, 4], "it is still read");
    fs::rename(&away, &config.path).expect("movable");
    bench.round();
    assert_eq!(bench.disk.waiting().durable, 40);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 40 });
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2, 3, 4]);
}

#[test]
fn a_stop_while_the_directory_is_away_counts_nothing_as_kept() {
    let directory = directory();
    let config = config(directory.path());
    let bench = found(&config);
    bench.push(batch(4, 10, 90));
    fs::rename(&config.path, directory.path().join("away")).expect("movable");
    assert_eq!(bench.stop(), Left { lost: 40, queued: 0 }, "also where it was not noticed before");
}

#[test]
fn a_directory_that_was_removed_is_made_again_for_what_is_in_memory() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    (4..=5).for_each(|name| bench.push(batch(name, 10, 90)));
    bench.round();
    let (leased, _) = bench.lease().expect("they wait");
    fs::remove_dir_all(&config.path).expect("removable");
    bench.round();
    // Batch 1 is being sent, and 2 and 3 were read ahead for export.
    let waiting = bench.disk.waiting();
    assert_eq!((waiting.records, waiting.durable, bench.ledger.records.corrupt.get()), (50, 50, 0));
    bench.disk.give_back(leased);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 50 });
    let mut names = names(&Bench::open(&config).peek());
    names.sort_unstable();
    assert_eq!(names, [1, 2, 3, 4, 5]);
}

#[test]
fn what_was_in_files_alone_is_lost_with_them_and_counted() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    fs::remove_file(config.path.join(directory::segment_name(segments(&config.path)[0]))).expect("removable");
    bench.round();
    let waiting = bench.disk.waiting();
    assert_eq!((bench.ledger.records.corrupt.get(), bench.ledger.queue.corrupt_batches.get()), (20, 2));
    assert_eq!((waiting.records, waiting.durable, waiting.batches), (10, 10, 1));
    assert_eq!(names(&bench.peek()), [3]);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 10 });
    fs::remove_dir_all(&config.path).expect("removable");
    assert_eq!(Bench::open(&config).stop(), Left::default());
}

#[test]
fn the_file_that_is_written_to_is_read_and_written_again_where_its_name_was_removed() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    let mut limits = Limits::of(&config);
    limits.loaded = 0;
    bench.disk.shared.books().set_limits(limits);
    (1..=2).for_each(|name| bench.push(batch(name, 10, 90)));
    bench.round();
    let before = segments(&config.path);
    fs::remove_file(config.path.join(directory::segment_name(before[0]))).expect("removable");
    bench.round();
    assert_ne!(segments(&config.path), before);
    assert_eq!((bench.disk.waiting().durable, bench.ledger.records.corrupt.get()), (20, 0));
    bench.crash(|_| 0);
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2]);
}

#[test]
fn what_waits_in_a_directory_that_was_replaced_goes_out_from_there_and_new_batches_into_the_new_one() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    let away = directory.path().join("away");
    fs::rename(&config.path, &away).expect("movable");
    fs::create_dir(&config.path).expect("a directory");
    chmod(&config.path, 0o700);
    bench.push(batch(4, 10, 90));
    bench.round();
    let waiting = bench.disk.waiting();
    assert_eq!((waiting.records, waiting.durable), (40, 10), "the next run finds the new one alone");
    for name in 1..=3 {
        let (at, batch) = bench.lease().expect("they wait");
        assert_eq!(batch.first, name);
        bench.ledger.records.delivered.add(bench.disk.done(at).into());
        bench.round();
    }
    assert_eq!(segments(&away), [0; 0], "what is settled is removed where it was");
    assert_eq!(bench.stop(), Left { lost: 0, queued: 10 });
    assert_eq!(names(&Bench::open(&config).peek()), [4]);
}

#[test]
fn a_segment_of_the_replacement_is_not_removed_for_one_of_the_same_number_that_was_settled() {
    let directory = directory();
    let config = config(directory.path());
    // Another queue, whose first segment has the number that the first one of every queue has.
    let other = found(&config);
    other.stop();
    let (away, there) = (directory.path().join("away"), directory.path().join("there"));
    fs::rename(&config.path, &there).expect("movable");
    let mut bench = Bench::open(&config);
    bench.push(batch(7, 10, 90));
    bench.round();
    let (at, _) = bench.lease().expect("it waits");
    bench.ledger.records.delivered.add(bench.disk.done(at).into());
    let settled = segments(&config.path);
    assert!(settled.iter().any(|number| segments(&there).contains(number)), "{settled:?}");
    fs::rename(&config.path, &away).expect("movable");
    fs::rename(&there, &config.path).expect("movable");
    (0..3).for_each(|_| bench.round());
    let (mut left, lost) = (names(&bench.peek()), bench.ledger.records.corrupt.get());
    left.sort_unstable();
    bench.stop();
    let mut next = names(&Bench::open(&config).peek());
    next.sort_unstable();
    assert!(next == [1, 2, 3] && lost == 0, "{left:?} and then {next:?}, {lost} lost");
}

#[test]
fn a_directory_that_comes_back_for_its_replacement_is_gone_on_with() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    let (away, other) = (directory.path().join("away"), directory.path().join("other"));
    fs::rename(&config.path, &away).expect("movable");
    fs::create_dir(&config.path).expect("a directory");
    chmod(&config.path, 0o700);
    bench.push(batch(4, 10, 90));
    bench.round();
    // As where a file system was mounted over it, and is unmounted.
    fs::rename(&config.path, &other).expect("movable");
    fs::rename(&away, &config.path).expect("movable");
    bench.push(batch(5, 10, 90));
    bench.round();
    assert_eq!((bench.disk.waiting().records, bench.disk.waiting().durable), (50, 40));
    assert_eq!(bench.ledger.records.carried_over.get(), 30, "nothing is taken over twice");
    assert_eq!(names(&bench.peek()), [1, 2, 3, 4, 5]);
    assert_eq!(bench.stop(), Left { lost: 10, queued: 40 });
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2, 3, 5]);
}

#[test]
fn a_lock_that_was_removed_is_made_again_and_keeps_others_out() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    fs::remove_file(config.path.join("lock")).expect("removable");
    bench.round();
    assert_eq!(bench.disk.waiting().durable, 30);
    assert!(matches!(Disk::prepare_in(&config, Arc::default()), Err(OpenError::Held { .. })));
    assert_eq!(bench.stop(), Left { lost: 0, queued: 30 });
}

#[test]
fn a_directory_whose_lock_another_process_took_is_not_written_to() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    fs::remove_file(config.path.join("lock")).expect("removable");
    let other = Bench::open(&config);
    bench.push(batch(4, 10, 90));
    bench.round();
    assert!(bench.worker.is_failing());
    assert_eq!((bench.disk.waiting().records, bench.disk.waiting().durable), (40, 0));
    other.stop();
    bench.round();
    assert_eq!(bench.disk.waiting().durable, 40);
}

#[test]
fn acknowledgements_that_were_removed_are_made_again() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    let settle = |bench: &mut Bench| {
        let (at, _) = bench.lease().expect("they wait");
        bench.ledger.records.delivered.add(bench.disk.done(at).into());
        bench.round();
    };
    settle(&mut bench);
    let acks = config.path.join(directory::acks_name(segments(&config.path)[0]));
    fs::remove_file(&acks).expect("removable");
    bench.round();
    settle(&mut bench);
    bench.stop();
    // The first goes out once more: nobody knows any longer.
    assert!(!acks.exists() || names(&Bench::open(&config).peek()) == [1, 3]);
    assert!(names(&Bench::open(&config).peek()).contains(&3));
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = directory();
    let config = config(directory.path());
    found(&config).stop();
    for mode in [0o770, 0o702, 0o777] {
        chmod(&config.path, mode);
        let error = Disk::prepare_in(&config, Arc::default()).map(drop).expect_err("it is open to others").to_string();
        assert!(error.contains("others than user") && error.contains("chmod 0700"), "{error}");
    }
    chmod(&config.path, 0o755);
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2, 3], "to read is enough for nothing bad");
    if chown(&config.path, Some(65534), None).is_err() {
        return println!("skipped: a directory can be given to another user by root alone");
    }
    assert!(matches!(Disk::prepare_in(&config, Arc::default()), Err(OpenError::Unfit { .. })));
}

#[test]
fn a_directory_that_others_may_write_to_does_not_replace_one_that_is_in_use() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = found(&config);
    fs::rename(&config.path, directory.path().join("away")).expect("movable");
    fs::create_dir(&config.path).expect("a directory");
    chmod(&config.path, 0o777);
    bench.push(batch(4, 10, 90));
    bench.round();
    assert!(bench.worker.is_failing() && segments(&config.path).is_empty());
    assert_eq!((bench.disk.waiting().records, bench.disk.waiting().durable), (40, 0));
}

#[test]
fn files_that_others_may_write_to_are_left_alone() {
    let directory = directory();
    let config = config(directory.path());
    found(&config).stop();
    let all = segments(&config.path);
    assert_eq!(all.len(), 2);
    let path = |first: u64| config.path.join(directory::segment_name(first));
    chmod(&path(all[0]), 0o622);
    let bench = Bench::open(&config);
    assert_eq!((bench.disk.waiting().batches, bench.ledger.records.corrupt.get()), (1, 0));
    bench.stop();
    chmod(&path(all[0]), 0o600);
    if chown(path(all[1]), Some(65534), None).is_err() {
        return println!("skipped: a file can be given to another user by root alone");
    }
    let mut bench = Bench::open(&config);
    assert_eq!(names(&bench.peek()), [1, 2]);
    // Nor are new batches written into it, or what stands beside it removed.
    bench.push(batch(4, 10, 90));
    bench.round();
    bench.stop();
    assert!(path(all[0]).exists() && path(all[1]).exists());
}

#[test]
fn files_as_short_as_the_process_may_make_them_take_everything() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    // RLIMIT_FSIZE: one batch fits into a file.
    bench.faults.breaks(Broken::Long(250));
    (1..=4).for_each(|name| bench.push(batch(name, 10, 100)));
    bench.round();
    assert_eq!((bench.disk.waiting().durable, segments(&config.path).len()), (40, 4));
    assert!(!bench.worker.is_failing());
    assert_eq!(bench.stop(), Left { lost: 0, queued: 40 });
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2, 3, 4]);
}
