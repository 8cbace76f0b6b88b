//! What somebody who can write files of flowtel's own user may put into the directory: it costs a bounded amount of memory
//! and time, and no sound batch.

use super::*;

/// Bytes of a segment with these headers, each with as many bytes behind it as it says.
fn segment(first: u64, entries: impl IntoIterator<Item = segment::Entry>) -> Vec<u8> {
    let mut bytes = segment::header(first).to_vec();
    for entry in entries {
        bytes.extend(entry.encode());
        bytes.resize(bytes.len() + entry.length as usize, 0);
    }
    bytes
}

fn entry(sequence: u64, records: u32, length: u32) -> segment::Entry {
    let crc = crc32c::crc32c(&vec![0; length as usize]);
    segment::Entry { sequence, records, first: 0, last: 0, length, crc }
}

fn put(config: &config::Queue, first: u64, bytes: &[u8]) {
    fs::create_dir_all(&config.path).expect("it can be made");
    fs::write(config.path.join(directory::segment_name(first)), bytes).expect("writable");
}

/// What is written in a directory is found again, by a run after the next too.
fn goes_on(config: &config::Queue) {
    let mut bench = Bench::open(config);
    for name in 1..=2 {
        bench.push(batch(name, 5, 50));
        bench.round();
        let held = bench.disk.waiting().records;
        assert_eq!(bench.disk.waiting().durable, held);
        assert_eq!(bench.stop(), Left { lost: 0, queued: held });
        bench = Bench::open(config);
        let found = names(&bench.peek());
        assert!((1..=name).all(|name| found.contains(&name)), "{found:?} after {name}");
        assert_eq!(bench.ledger.records.corrupt.get(), 0);
    }
}

#[test]
fn a_number_that_is_as_great_as_can_be_read_does_not_make_what_follows_unreadable() {
    for number in [segment::FAR_SEQUENCE - 1, segment::FAR_SEQUENCE, segment::MAX_SEQUENCE - 1, segment::MAX_SEQUENCE] {
        let directory = directory();
        let config = config(directory.path());
        put(&config, number, &segment(number, [entry(number, 3, 20)]));
        goes_on(&config);
    }
}

#[test]
fn an_entry_with_a_number_that_its_file_can_not_hold_is_no_batch() {
    for number in [7 + segment::SPAN, segment::FAR_SEQUENCE, segment::MAX_SEQUENCE] {
        let directory = directory();
        let config = config(directory.path());
        put(&config, 7, &segment(7, [entry(7, 3, 20), entry(number, 3, 20), entry(8, 3, 20)]));
        let bench = Bench::open(&config);
        // Lost is what the numbers around leave room for: nothing.
        assert_eq!((bench.disk.waiting().batches, bench.ledger.queue.corrupt_batches.get()), (2, 0));
        bench.stop();
        goes_on(&config);
    }
}

#[test]
fn a_header_with_a_number_that_is_not_its_files_is_damaged() {
    let directory = directory();
    let config = config(directory.path());
    put(&config, 7, &segment(segment::MAX_SEQUENCE, [entry(segment::MAX_SEQUENCE, 3, 20)]));
    put(&config, 8, &segment(segment::MAX_SEQUENCE, [entry(8, 3, 20)]));
    let bench = Bench::open(&config);
    assert_eq!(bench.disk.waiting().batches, 1);
    bench.stop();
    goes_on(&config);
}

#[test]
fn nothing_is_written_that_would_not_be_read() {
    assert!(segment::Entry::of(&batch(1, 1, 10), segment::MAX_SEQUENCE).is_some());
    assert!(segment::Entry::of(&batch(1, 1, 10), segment::MAX_SEQUENCE + 1).is_none());
    assert!(segment::Entry::of(&batch(1, 0, 10), 1).is_none());
    assert!(segment::Entry::of(&Batch { bytes: Bytes::new(), ..batch(1, 1, 8) }, 1).is_none());
    let long = Batch { bytes: vec![0; segment::MAX_PAYLOAD as usize + 1].into(), ..batch(1, 1, 8) };
    assert!(segment::Entry::of(&long, 1).is_none());
}

#[test]
fn twenty_gigabytes_of_nothing_are_passed_over_and_take_no_room() {
    for bytes in [segment(1, [entry(1, 3, 20)]), segment(1, []), Vec::new()] {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let config = config(directory.path());
        put(&config, 1, &bytes);
        put(&config, 2, &segment(2, [entry(2, 3, 20)]));
        let file = fs::File::options().write(true).open(config.path.join(directory::segment_name(1))).expect("there");
        if file.set_len(20 << 30).is_err() {
            return println!("skipped: the file system has no file of this length");
        }
        let mut bench = Bench::open(&config);
        let found = bench.peek().len();
        assert_eq!(found, if bytes.len() > segment::HEADER { 2 } else { 1 });
        assert!(bench.disk.waiting().bytes < 1 << 20, "{:?}", bench.disk.waiting());
        bench.push(batch(3, 5, 50));
        bench.round();
        assert_eq!(bench.ledger.records.queue_full.get(), 0, "nothing had to go for it");
        bench.stop();
    }
}

#[test]
fn a_payload_longer_than_any_batch_is_none() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let config = config(directory.path());
    let mut huge = entry(1, 3, 0);
    huge.length = u32::MAX;
    let mut bytes = segment::header(1).to_vec();
    bytes.extend(huge.encode());
    put(&config, 1, &bytes);
    let file = fs::File::options().write(true).open(config.path.join(directory::segment_name(1))).expect("there");
    file.set_len(5 << 30).expect("it can have holes");
    let bench = Bench::open(&config);
    assert_eq!(bench.disk.waiting().batches, 0);
}

#[test]
fn batches_with_nothing_in_them_are_passed_over() {
    let directory = directory();
    let config = config(directory.path());
    let empty = (2..50_000).map(|sequence| entry(sequence, u32::from(sequence % 2 == 0), 0));
    put(&config, 1, &segment(1, std::iter::once(entry(1, 3, 20)).chain(empty)));
    put(&config, 60_000, &segment(60_000, (60_000..60_100).map(|sequence| entry(sequence, 0, 5))));
    let mut bench = Bench::open(&config);
    assert_eq!(bench.disk.waiting().batches, 1);
    assert!(!config.path.join(directory::segment_name(60_000)).exists(), "nothing in it is needed");
    assert_eq!(bench.peek().len(), 1);
    goes_on(&{
        bench.stop();
        config
    });
}

#[test]
fn more_batches_than_are_needed_stay_in_their_files_until_there_is_room_for_them() {
    let directory = directory();
    let config = config(directory.path());
    for first in [1, 10_001] {
        put(&config, first, &segment(first, (first..first + 5_000).map(|sequence| entry(sequence, 1, 10))));
    }
    let mut bench = Bench::unread(&config);
    bench.disk.shared.books().set_limits(Limits { enough: 2_000, ..Limits::of(&config) });
    bench.worker.look_in(bench.now).expect("it can be listed");
    let mut delivered = 0;
    loop {
        while bench.worker.read_on(bench.now) {}
        assert!(bench.disk.waiting().batches < 2_000 + 1_024, "{:?}", bench.disk.waiting());
        let Some((at, _)) = bench.lease() else { break };
        delivered += bench.disk.done(at);
        bench.ledger.records.delivered.add(1);
        if delivered == 3_000 {
            // Its segment is not removed while there is more in it than is known.
            bench.round();
            assert_eq!(fs::read_dir(&config.path).expect("there").filter_map(Result::ok).count(), 4);
        }
    }
    assert_eq!((delivered, bench.ledger.records.carried_over.get()), (10_000, 10_000));
    assert_eq!(bench.stop(), Left::default());
    let held = Bench::open(&config);
    assert_eq!(held.disk.waiting().batches, 0);
}

#[test]
fn an_end_does_not_wait_for_all_that_an_earlier_run_left() {
    let directory = directory();
    let config = config(directory.path());
    for first in 1..=1_000 {
        put(&config, first * 10, &segment(first * 10, [entry(first * 10, 1, 10)]));
    }
    let mut bench = Bench::unread(&config);
    bench.push(batch(1, 5, 50));
    bench.round();
    let known = bench.disk.waiting();
    assert!(known.batches < 200, "a round reads a bounded part: {known:?}");
    assert!(bench.lease().is_some_and(|(_, batch)| batch.records == 1), "what is older comes first");
    let left = bench.stop();
    assert_eq!(left.queued, known.records);
    let next = Bench::open(&config);
    assert_eq!(next.disk.waiting().records, 1_005);
}
