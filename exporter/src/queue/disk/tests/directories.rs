//! What a directory may hold, or be: the queue starts in all of them, unless another process has it.

use std::os::unix::fs::symlink;

use super::{faults::Broken, *};

fn listed(config: &config::Queue) -> std::io::Result<directory::Listing> {
    directory::list(&files::Directory::open(&config.path)?)
}

#[test]
fn a_second_queue_in_a_directory_is_refused_and_told_who_has_it() {
    let directory = directory();
    let config = config(directory.path());
    let first = Bench::open(&config);
    let error = Disk::prepare_in(&config, Arc::default()).map(drop).expect_err("it is taken").to_string();
    let wanted = format!("{} is in use by process {}", config.path.display(), std::process::id());
    assert!(error.contains(&wanted), "{error}");
    first.stop();
    Bench::open(&config);
}

#[test]
fn what_is_not_the_queues_is_left_alone_and_stops_nothing() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    bench.push(batch(1, 5, 50));
    bench.round();
    bench.stop();
    let put = |name: &str, bytes: &[u8]| fs::write(config.path.join(name), bytes).expect("writable");
    put("notes.txt", b"mine");
    put("00000000000000000500.segment.damaged", b"an older one");
    put("00000000000000000501.segment", b"");
    put("18446744073709551615.segment", &[0; 100]);
    put("00000000000000000600.segment", &[7; 4000]);
    let mut newer = segment::header(700);
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..28]).to_le_bytes();
    newer[28..].copy_from_slice(&crc);
    put("00000000000000000700.segment", &newer);
    put("00000000000000000800.acks", b"without a segment");
    fs::create_dir(config.path.join("00000000000000000900.segment")).expect("a directory");
    symlink("/dev/zero", config.path.join("00000000000000000901.segment")).expect("a link");
    let fifo = config.path.join("00000000000000000902.segment");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");

    let mut bench = Bench::open(&config);
    assert_eq!(names(&bench.peek()), [1]);
    bench.push(batch(2, 6, 50));
    bench.round();
    assert_eq!(bench.stop(), Left { lost: 0, queued: 11 });
    for name in ["notes.txt", "00000000000000000500.segment.damaged", "00000000000000000600.segment.damaged"] {
        assert!(config.path.join(name).exists(), "{name} is gone");
    }
    assert!(config.path.join("00000000000000000700.segment").exists(), "another version's is left alone");
    assert!(!config.path.join("00000000000000000501.segment").exists(), "an empty one is of no use");
    assert!(!config.path.join("00000000000000000800.acks").exists());
    assert_eq!(names(&Bench::open(&config).peek()), [1, 2]);
}

#[test]
fn a_directory_that_can_not_be_made_is_taken_into_use_as_soon_as_it_can() {
    let directory = directory();
    let mut config = config(directory.path());
    fs::write(directory.path().join("file"), "").expect("writable");
    config.path = directory.path().join("file/queue");
    let mut bench = Bench::open(&config);
    bench.push(batch(1, 5, 50));
    bench.round();
    assert_eq!((bench.disk.waiting().records, bench.disk.waiting().durable), (5, 0));
    assert!(bench.worker.is_failing());
    fs::remove_file(directory.path().join("file")).expect("removable");
    bench.round();
    assert!(!bench.worker.is_failing());
    assert_eq!(bench.disk.waiting().durable, 5);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 5 });
}

#[test]
fn what_an_earlier_run_left_is_older_even_when_it_is_found_late() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    (1..=3).for_each(|name| bench.push(batch(name, 1, 50)));
    bench.round();
    bench.stop();
    fs::rename(&config.path, directory.path().join("away")).expect("movable");
    fs::write(&config.path, "no directory").expect("writable");
    let mut bench = Bench::open(&config);
    bench.push(batch(4, 1, 50));
    bench.round();
    fs::remove_file(&config.path).expect("removable");
    fs::rename(directory.path().join("away"), &config.path).expect("movable");
    bench.round();
    assert_eq!(names(&bench.peek()), [1, 2, 3, 4]);
    assert_eq!(bench.ledger.records.carried_over.get(), 3);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 4 });
}

#[test]
fn a_full_disk_loses_what_memory_has_no_room_for_and_nothing_durable() {
    let directory = directory();
    let mut config = config(directory.path());
    config.max_memory = config::Bytes(200);
    let mut bench = Bench::open(&config);
    bench.push(batch(1, 1, 100));
    bench.round();
    bench.faults.breaks(Broken::Full);
    (2..=4).for_each(|name| bench.push(batch(name, 1, 100)));
    bench.round();
    assert_eq!(bench.ledger.records.queue_full.get(), 1);
    assert_eq!(names(&bench.peek()), [1, 3, 4]);
    bench.faults.breaks(Broken::Nothing);
    bench.round();
    assert_eq!(bench.disk.waiting().durable, 3);
    bench.crash(|_| 0);
    assert_eq!(names(&Bench::open(&config).peek()), [1, 3, 4]);
}

#[test]
fn a_batch_that_is_settled_before_it_is_due_is_never_written() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    bench.push(batch(1, 4, 50));
    let (at, _) = bench.lease().expect("at once");
    bench.ledger.records.delivered.add(bench.disk.done(at).into());
    bench.round();
    assert!(listed(&config).expect("readable").segments.is_empty());
    assert_eq!(bench.stop(), Left::default());
}

#[test]
fn a_segment_goes_when_all_of_it_is_settled() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    (1..=9).for_each(|name| bench.push(batch(name, 1, 100)));
    bench.round();
    let segments = || listed(&config).expect("readable").segments.len();
    assert_eq!(segments(), 5);
    for left in [5, 4, 4, 3, 3] {
        let (at, _) = bench.lease().expect("some wait");
        bench.ledger.records.delivered.add(bench.disk.done(at).into());
        bench.round();
        assert_eq!(segments(), left);
    }
    assert_eq!(bench.stop(), Left { lost: 0, queued: 4 });
}

#[test]
fn a_disk_that_can_not_be_read_costs_what_is_on_it_after_some_tries() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    bench.push(batch(1, 4, 50));
    bench.round();
    bench.stop();
    let mut bench = Bench::open(&config);
    bench.faults.breaks(Broken::All);
    bench.push(batch(2, 1, 50));
    (0..3).for_each(|_| bench.round());
    assert!(bench.lease().is_none(), "the oldest comes first, and it may become readable");
    (0..3).for_each(|_| bench.round());
    assert_eq!(bench.ledger.records.corrupt.get(), 4);
    assert_eq!(bench.lease().map(|(_, batch)| batch.first), Some(2));
    assert_eq!(bench.ledger.records.waiting(), 1);
}

#[tokio::test]
async fn the_real_thread_writes_loads_and_ends() {
    let directory = directory();
    let mut config = config(directory.path());
    config.sync_interval = config::Span(Duration::from_millis(1));
    let ledger = Arc::<Ledger>::default();
    let queue = super::super::super::Queue::open(&config, ledger.clone()).expect("it is free");
    for name in 1..=50 {
        ledger.records.made.add(2);
        queue.push(batch(name, 2, 4000));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while queue.waiting().durable < 100 {
        assert!(Instant::now() < deadline, "nothing becomes durable: {:?}", queue.waiting());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(queue.abandon(), Left { lost: 0, queued: 100 });
    drop(queue);
    let ledger = Arc::<Ledger>::default();
    let queue = loop {
        match super::super::super::Queue::open(&config, ledger.clone()) {
            Ok(queue) => break queue,
            // The thread lets go of the lock as it ends.
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    queue.close();
    for name in 1..=50 {
        let lease = queue.lease().await.expect("fifty are left");
        assert_eq!(lease.batch().first, name);
        ledger.records.delivered.add(lease.done().into());
    }
    assert!(queue.lease().await.is_none());
    assert_eq!(queue.abandon(), Left::default());
    assert_eq!((ledger.records.delivered.get(), ledger.records.waiting()), (100, 0));
}

#[test]
fn a_batch_that_was_delivered_while_fsync_failed_does_not_come_again() {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    bench.faults.breaks(Broken::Sync);
    bench.push(batch(1, 5, 50));
    // Written, and not to be trusted.
    bench.round();
    let (at, _) = bench.lease().expect("it is in memory");
    assert_eq!(bench.disk.done(at), 5);
    bench.ledger.records.delivered.add(5);
    bench.faults.breaks(Broken::Nothing);
    assert_eq!(bench.stop(), Left { lost: 0, queued: 0 });
    assert_eq!(names(&Bench::open(&config).peek()), [0; 0]);
}
