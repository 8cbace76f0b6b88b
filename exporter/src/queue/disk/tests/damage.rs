//! Each byte flipped, each truncation: at most one batch is lost, and it is counted.

use proptest::prelude::*;

use super::{
    super::segment::{ENTRY, HEADER, Stretch},
    *,
};

/// Batches 1 to 6 in a queue of three segments; 2 and 4 are settled.
fn queue() -> (TempDir, config::Queue) {
    let directory = directory();
    let config = config(directory.path());
    let mut bench = Bench::open(&config);
    for name in 1..=6 {
        bench.push(batch(name, 10 + name as u32, 90));
    }
    bench.round();
    let leases: Vec<_> = std::iter::from_fn(|| bench.lease()).collect();
    for (at, batch) in leases {
        if [2, 4].contains(&batch.first) {
            bench.ledger.records.delivered.add(bench.disk.done(at).into());
        } else {
            bench.disk.give_back(at);
        }
    }
    assert_eq!(bench.stop(), Left { lost: 0, queued: 11 + 13 + 15 + 16 });
    (directory, config)
}

const LEFT: [u64; 4] = [1, 3, 5, 6];

/// What a start finds: the batches, and how many were lost. The balance must hold, and a second start must not count
/// the same loss again, nor give the budget more than the first did: what it acknowledges has its room already.
fn found(config: &config::Queue) -> (Vec<u64>, u64) {
    let mut bench = Bench::open(config);
    let names = names(&bench.peek());
    let (lost, bytes) = (bench.ledger.queue.corrupt_batches.get(), bench.disk.waiting().bytes);
    let r = &bench.ledger.records;
    assert_eq!(r.waiting(), i128::from(bench.disk.waiting().records));
    assert!(r.corrupt.get() == 0 || lost > 0);
    bench.round();
    bench.stop();
    let mut again = Bench::open(config);
    assert_eq!(super::names(&again.peek()), names, "a second start finds the same");
    assert_eq!(again.ledger.queue.corrupt_batches.get(), 0, "and counts no loss twice");
    let now = again.disk.waiting().bytes;
    assert!(now <= bytes, "{now} bytes of the budget, {bytes} before");
    (names, lost)
}

fn files(config: &config::Queue) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(&config.path).expect("the directory is there");
    files.map(|item| item.expect("a name").path()).filter(|path| path.extension().is_some()).collect()
}

/// Runs `damage` on each file of the queue, each time anew, for each of its bytes.
fn each_byte(damage: impl Fn(&mut Vec<u8>, usize), check: impl Fn(&Path, usize, &[u64], u64)) {
    let (directory, config) = queue();
    let kept: Vec<_> = files(&config).into_iter().map(|path| (fs::read(&path).expect("readable"), path)).collect();
    assert!(kept.len() >= 4, "several segments, or this tests little");
    for (bytes, path) in &kept {
        for at in 0..bytes.len() {
            for file in files(&config) {
                fs::remove_file(file).expect("removable");
            }
            for (bytes, path) in &kept {
                fs::write(path, bytes).expect("writable");
            }
            let mut damaged = bytes.clone();
            damage(&mut damaged, at);
            fs::write(path, damaged).expect("writable");
            let (names, lost) = found(&config);
            assert!(names.is_sorted());
            check(path, at, &names, lost);
        }
    }
    drop(directory);
}

#[test]
fn a_flipped_byte_costs_one_batch_at_most_and_that_is_counted() {
    for mask in [0xff, 1] {
        each_byte(
            |bytes, at| bytes[at] ^= mask,
            |path, at, names, lost| {
                let missing: Vec<_> = LEFT.iter().filter(|name| !names.contains(name)).collect();
                let again = names.iter().filter(|name| !LEFT.contains(name)).count();
                let is_segment = path.extension().is_some_and(|e| e == "segment");
                if is_segment && at >= HEADER {
                    // The batch may be one that is settled: then nothing is lost.
                    assert_eq!((missing.len() as u64, again), (lost, 0), "{} byte {at}", path.display());
                    assert!(lost <= 1, "{} byte {at}: {lost} batches", path.display());
                } else {
                    // A settled batch may go out again, but none is lost.
                    assert!(missing.is_empty() && lost == 0 && again <= 1, "{} byte {at}: {names:?}", path.display());
                }
            },
        );
    }
}

#[test]
fn a_truncation_costs_the_batches_behind_it_and_one_at_most_is_torn() {
    each_byte(
        |bytes, at| bytes.truncate(at),
        |path, at, names, lost| {
            let is_segment = path.extension().is_some_and(|e| e == "segment");
            let missing = LEFT.iter().filter(|name| !names.contains(name)).count() as u64;
            // What is behind the end leaves no trace; what is cut within is counted.
            let size = ENTRY + 90;
            let within = at > HEADER && !(at - HEADER).is_multiple_of(size);
            assert!(lost <= u64::from(is_segment && within), "{} cut at {at}: {lost}", path.display());
            assert!(lost <= missing && (is_segment || missing == 0), "{} cut at {at}: {names:?}", path.display());
        },
    );
}

#[test]
fn what_is_inserted_or_written_over_costs_what_it_hits() {
    let (_directory, config) = queue();
    let path = files(&config).into_iter().filter(|p| p.extension().is_some_and(|e| e == "segment")).min();
    let path = path.expect("a segment");
    let mut bytes = fs::read(&path).expect("readable");
    bytes.splice(HEADER..HEADER, [0x46; 1000]);
    fs::write(&path, bytes).expect("writable");
    assert_eq!(found(&config), (LEFT.to_vec(), 0), "garbage between batches is passed over");
}

/// Bytes of a segment with these batches.
fn segment(batches: &[Batch]) -> Vec<u8> {
    let mut bytes = segment::header(7).to_vec();
    for (sequence, batch) in (7..).zip(batches) {
        bytes.extend(segment::Entry::of(batch, sequence).expect("small").encode());
        bytes.extend(&batch.bytes);
    }
    bytes
}

#[test]
fn what_looks_like_a_batch_within_a_payload_is_not_taken_for_one() {
    // As an executable's name could hold it: a sound batch, with the sequence of another place.
    let forged = batch(99, 1, 20);
    let mut payload = segment::Entry::of(&forged, 1_000).expect("small").encode().to_vec();
    payload.extend(&forged.bytes);
    let carrier = Batch { bytes: payload.into(), ..batch(1, 1, 0) };
    let mut bytes = segment(&[carrier, batch(2, 1, 30)]);
    bytes[HEADER] ^= 1;
    let stretches: Vec<_> =
        segment::Scan::new(&bytes[..], bytes.len() as u64, 7).map(|s| s.expect("bytes can be read")).collect();
    let [Stretch::Damaged { sequence: 7, batches: 1, .. }, Stretch::Batch { entry, .. }] = stretches[..] else {
        panic!("{stretches:?}")
    };
    assert_eq!(entry.sequence, 8);
}

/// Makes the checksums of a segment's headers right again, so that what stands behind a changed byte is reached.
fn mend(bytes: &mut [u8]) {
    let mut at = 0;
    for _ in 0..8 {
        let size = if at == 0 { HEADER } else { ENTRY };
        let Some(header) = bytes.get_mut(at..at + size) else { return };
        let crc = crc32c::crc32c(&header[..size - 4]).to_le_bytes();
        header[size - 4..].copy_from_slice(&crc);
        let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
        at += size + if at == 0 { 0 } else { length as usize };
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_scan_panic_or_find_what_is_not_there(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        garbage in any::<bool>(),
        mended in any::<bool>(),
    ) {
        if !garbage {
            bytes = segment(&(1..=5).map(|name| batch(name, 3, 8 + 9 * name as usize)).collect::<Vec<_>>());
            let size = bytes.len();
            changes.iter().for_each(|(at, byte)| bytes[at.index(size)] = *byte);
        }
        if mended {
            mend(&mut bytes);
        }
        let (end, mut behind, mut before) = (bytes.len() as u64, HEADER as u64, None);
        for stretch in segment::Scan::new(&bytes[..], end, 7) {
            match stretch.expect("bytes can be read") {
                Stretch::Batch { entry, at } => {
                    prop_assert!(at >= behind && at + entry.size() <= end);
                    prop_assert!(before.is_none_or(|before| before < entry.sequence));
                    (behind, before) = (at + entry.size(), Some(entry.sequence));
                    if let Ok(batch) = segment::read(&bytes[..], at, entry.sequence, entry.length) {
                        prop_assert_eq!(segment::Entry::of(&batch, entry.sequence), Some(entry));
                    }
                }
                Stretch::Damaged { at, batches, .. } => prop_assert!(at >= behind && batches <= end / ENTRY as u64),
                Stretch::Torn { at, .. } => {
                    prop_assert!(at >= behind && at < end);
                    behind = end;
                }
            }
        }
    }
}

#[test]
fn every_bit_of_a_segment_flipped_loses_at_most_one_batch() {
    let batches: Vec<_> = (1..=4).map(|name| batch(name, 3, 40)).collect();
    let sound = segment(&batches);
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut found = Vec::new();
        for stretch in segment::Scan::new(&bytes[..], bytes.len() as u64, 7) {
            if let Stretch::Batch { entry, at } = stretch.expect("bytes can be read") {
                found.extend(segment::read(&bytes[..], at, entry.sequence, entry.length).ok());
            }
        }
        assert!(found.len() >= 3 && found.iter().all(|batch| batches.contains(batch)), "bit {bit}");
        assert!(found.len() == 4 || bit / 8 >= HEADER, "bit {bit}");
    }
}
