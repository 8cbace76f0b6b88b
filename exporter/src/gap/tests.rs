use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::ledger::Counter;

const SECOND: u64 = 1_000_000_000;

/// A stage that is looked at once a second.
struct Rig {
    gaps: Gaps,
    ledger: Arc<Ledger>,
    now: u64,
    told: Vec<Gap>,
}

impl Rig {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let gaps = Gaps::new(BootId::new([5; 16]), KernelTime(0), wall(0), Arc::clone(&ledger));
        Self { gaps, ledger, now: 0, told: Vec::new() }
    }

    fn look(&mut self, room: bool, last: bool) -> usize {
        self.now += SECOND;
        let before = self.told.len();
        let told = &mut self.told;
        let (time, from, wall) = (KernelTime(self.now), wall(self.now - 7), wall(self.now));
        self.gaps.look(Look { from, time, wall, room, last }, |gap| told.push(gap));
        self.told.len() - before
    }

    fn pass(&mut self, seconds: u64) -> usize {
        (0..seconds).map(|_| self.look(true, false)).sum()
    }

    fn events(&self) -> Vec<u64> {
        self.told.iter().map(|gap| gap.events).collect()
    }
}

fn wall(time: u64) -> WallTime {
    WallTime(1_000_000 * SECOND + time)
}

#[test]
fn the_first_loss_is_told_at_once_and_more_of_it_ten_seconds_later_in_one() {
    let mut rig = Rig::new();
    rig.pass(3);
    let full = |rig: &Rig, n| rig.ledger.records.queue_full.add(n);
    full(&rig, 500);
    assert_eq!(rig.look(true, false), 1);
    for _ in 0..9 {
        full(&rig, 100);
        assert_eq!(rig.look(true, false), 0);
    }
    assert_eq!(rig.look(true, false), 1);
    assert_eq!(rig.events(), [500, 900]);
    let [first, second] = &rig.told[..] else { panic!("two") };
    assert_eq!((first.stage, first.reason, first.total), ("queue", "queue_full", 500));
    assert_eq!(first.since, wall(3 * SECOND - 7), "the last look that found nothing");
    assert_eq!((second.total, second.since), (1400, wall(4 * SECOND - 7)), "what was counted by then is told");
    assert_ne!(first.uid, second.uid);
}

#[test]
fn kinds_are_told_apart_and_do_not_wait_for_each_other() {
    let mut rig = Rig::new();
    rig.ledger.records.rejected.add(1);
    rig.look(true, false);
    rig.ledger.kernel.close.ring_full.set(7);
    rig.ledger.kernel.connect.ring_full.set(8);
    rig.look(true, false);
    let told: Vec<_> = rig.told.iter().map(|gap| (gap.stage, gap.reason, gap.events)).collect();
    assert_eq!(told, [("export", "rejected", 1), ("kernel", "flows_ring_full", 7), ("kernel", "owners_ring_full", 8)]);
}

#[test]
fn without_room_a_loss_waits_and_the_end_tells_it_all_the_same() {
    let mut rig = Rig::new();
    rig.pass(1);
    rig.ledger.records.queue_full.add(5);
    assert_eq!((0..60).map(|_| rig.look(false, false)).sum::<usize>(), 0);
    rig.ledger.records.queue_full.add(5);
    assert_eq!(rig.look(true, false), 1);
    assert_eq!((rig.events(), rig.told[0].since), (vec![10], wall(SECOND - 7)));
    rig.ledger.records.queue_full.add(1);
    assert_eq!(rig.look(false, true), 1);
}

#[test]
fn gap_records_that_are_all_lost_become_ever_rarer_and_another_loss_is_told_in_time_again() {
    let mut rig = Rig::new();
    rig.ledger.records.rejected.add(1000);
    // Whatever is sent is refused: each gap record becomes a loss of one.
    let mut seconds_with_one = Vec::new();
    for second in 0..20_000u64 {
        let made = rig.look(true, false);
        rig.ledger.records.rejected.add(made as u64);
        if made > 0 {
            seconds_with_one.push(second);
        }
    }
    assert!(seconds_with_one.len() < 16, "{seconds_with_one:?}");
    let waits: Vec<_> = seconds_with_one.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted() && waits.last() == Some(&LONGEST.as_secs()), "{waits:?}");
    rig.ledger.records.rejected.add(2);
    assert_eq!(rig.pass(11), 1);
    rig.ledger.records.rejected.add(50);
    assert_eq!(rig.pass(11), 1);
}

proptest! {
    #[test]
    fn whatever_is_lost_is_told_once_and_never_more_often_than_each_ten_seconds(
        steps in prop::collection::vec((0usize..5, 0u64..4, any::<bool>()), 1..300),
    ) {
        let mut rig = Rig::new();
        let ledger = Arc::clone(&rig.ledger);
        let counters: [&Counter; 5] = [
            &ledger.kernel.established.ring_full,
            &ledger.kernel.connect.evicted,
            &ledger.records.queue_full,
            &ledger.records.rejected,
            &ledger.flows_forgotten,
        ];
        for (which, n, room) in steps {
            counters[which].add(n);
            rig.look(room, false);
        }
        rig.look(true, true);
        let lost: u64 = counters.iter().map(|c| c.get()).sum();
        prop_assert_eq!(rig.events().iter().sum::<u64>(), lost);
        prop_assert_eq!(ledger.gaps.told.get(), lost);
        prop_assert_eq!(ledger.gaps.made.get(), rig.told.len() as u64);
        let ids: HashSet<u128> = rig.told.iter().map(|gap| gap.uid).collect();
        prop_assert_eq!(ids.len(), rig.told.len());
        for loss in &LOSSES {
            let of_kind: Vec<_> =
                rig.told.iter().filter(|gap| (gap.stage, gap.reason) == (loss.stage, loss.reason)).collect();
            let mut total = 0;
            for gap in &of_kind {
                total += gap.events;
                prop_assert!(gap.events > 0 && gap.since < gap.at.wall);
                prop_assert_eq!(gap.total, total);
            }
            for pair in of_kind.windows(2) {
                prop_assert!(pair[1].since.0 + 7 >= pair[0].at.wall.0);
                let last = pair[1].at.time.0 == rig.now;
                prop_assert!(last || pair[1].at.time.since(pair[0].at.time) >= QUIET.as_nanos() as u64);
            }
        }
    }
}
