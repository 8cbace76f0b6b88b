//! Floods: memory stays bounded, and what others asked for stays.

use proptest::prelude::*;

use super::*;

fn small() -> config::Dns {
    config::Dns { max_addresses: 1_000, ..config::Dns::default() }
}

#[test]
fn of_100_000_names_for_one_address_the_newest_sixteen_are_kept() {
    let mut rig = rig();
    rig.see(SHARED, 8, "other.example", 99, 3_600);
    for i in 0..100_000u64 {
        rig.see(SHARED, 7, &format!("n{i}.example"), 100 + i / 1_000, 3_600);
    }
    rig.audit();
    assert_eq!(rig.cache.len(), 1);
    assert!(rig.cache.bytes() < 8 << 10, "{} bytes", rig.cache.bytes());
    assert_eq!(rig.ledger.over_quota.get(), 100_000 - 16);
    let newest: Vec<_> = (0..16).map(|i| format!("n{}.example", 99_999 - i)).collect();
    assert_eq!(rig.names(SHARED, Some(7), 300).expect("names").2, newest.join(" "));
    assert!(rig.names(SHARED, None, 300).expect("names").2.contains("other.example"), "each source has its part");
}

#[test]
fn a_flood_of_names_from_one_container_leaves_the_names_of_others() {
    let mut rig = rig();
    for address in 0..1_000 {
        rig.see(address, 8, &format!("keep{address}.example"), 100, 3_600);
    }
    for i in 0..100_000 {
        rig.see(1_000_000 + i, 7, &format!("flood{i}.example"), 101, 3_600);
    }
    rig.audit();
    for address in 0..1_000 {
        let kept = some(State::Fresh, 2, &format!("keep{address}.example"));
        assert_eq!(rig.names(address, Some(8), 102), kept);
    }
    assert_eq!(rig.ledger.evicted.get(), 0);
    assert_eq!(rig.ledger.over_quota.get() + rig.cache.len() as u64, 101_000);
    // Of the flood itself the newest are there.
    assert!(rig.names(1_099_999, None, 102).is_some() && rig.names(1_000_000, None, 102).is_none());
}

#[test]
fn a_flood_of_the_longest_names_leaves_the_names_of_others() {
    let mut rig = rig();
    rig.see(SHARED, 8, "keep.example", 100, 3_600);
    for i in 0..10_000 {
        let names: Vec<_> = (0..17).map(|n| format!("{i:06}{n:02}{}", "x".repeat(240))).collect();
        rig.see(1_000_000 + i, 7, &names.join(" "), 101, 3_600);
    }
    rig.audit();
    assert_eq!(rig.names(SHARED, Some(8), 102), some(State::Fresh, 2, "keep.example"));
    assert!(rig.cache.bytes() <= 16 << 20);
}

#[test]
fn when_many_fill_it_the_one_that_holds_most_gives_way() {
    let mut rig = Rig::new(&small());
    for i in 0..400 {
        rig.see(10_000 + i, 7, "most.example", 100, 3_600);
    }
    for source in 100..160 {
        for i in 0..10 {
            rig.see(source * 10 + i, source.into(), "few.example", 101, 3_600);
        }
    }
    assert_eq!(rig.cache.len(), 1_000);
    rig.see(1, 8, "new.example", 102, 3_600);
    rig.audit();
    assert_eq!(rig.ledger.evicted.get(), 1);
    assert!(rig.names(10_000, None, 102).is_none(), "its oldest is gone");
    assert!(rig.names(10_001, None, 102).is_some() && rig.names(1_000, None, 102).is_some());
}

#[test]
fn what_a_source_saw_again_is_not_its_oldest() {
    let mut rig = Rig::new(&small());
    for i in 0..500 {
        rig.see(i, 7, "a.example", 100, 3_600);
    }
    rig.see(0, 7, "a.example", 101, 3_600);
    rig.see(500, 7, "a.example", 102, 3_600);
    assert!(rig.names(0, None, 103).is_some() && rig.names(1, None, 103).is_none());
}

#[test]
fn an_address_that_very_many_containers_ask_for_keeps_the_last_of_them() {
    let mut rig = rig();
    for source in 0..1_000 {
        rig.see(SHARED, source, &format!("s{source}.example"), 100, 3_600);
    }
    rig.audit();
    assert_eq!(rig.names(SHARED, Some(999), 101), some(State::Fresh, 1, "s999.example"));
    assert_eq!(rig.names(SHARED, Some(0), 101).expect("names of others").2.split(' ').count(), MAX_NAMES);
}

#[test]
fn limits_too_small_for_one_name_keep_none() {
    let mut rig = Rig::new(&config::Dns { max_bytes: config::Bytes(64), ..config::Dns::default() });
    rig.see(SHARED, 7, "a.example", 100, 3_600);
    assert!(rig.cache.is_empty());
    rig.audit();
}

proptest! {
    #[test]
    fn the_bounds_hold_and_the_counts_balance_after_any_calls(
        max_addresses in 1u32..40,
        max_bytes in 1_000u64..40_000,
        source_share in 1u8..=100,
        calls in prop::collection::vec((0u32..60, 0u64..6, 0u32..30, 0usize..3, 0u64..400, 0u64..4_000), 1..150),
    ) {
        let mut rig = Rig::new(&config::Dns {
            max_addresses, source_share, max_bytes: config::Bytes(max_bytes), ..config::Dns::default()
        });
        let mut now = 1_000;
        for (address, source, name, aliases, wait, ttl) in calls {
            // Now and then an answer comes late.
            let time = if wait == 0 { now - 1 } else { now };
            rig.see(address, source, &format!("n{name}{}", " alias".repeat(aliases)), time, ttl);
            rig.audit();
            now += wait;
            rig.cache.sweep(KernelTime(now * SECOND), &rig.ledger);
            rig.audit();
        }
    }
}

#[test]
fn lowered_limits_hold_at_once_and_every_name_is_accounted_for() {
    let mut rig = rig();
    for address in 0..2_000 {
        rig.see(address, u64::from(address % 4 == 0), &format!("n{address}.example"), 100, 3_600);
    }
    rig.cache.set_limits(&config::Dns { max_addresses: 100, ..small() }, &rig.ledger);
    rig.audit();
    assert!(rig.cache.len() <= 100, "{} addresses", rig.cache.len());
    let ledger = &rig.ledger;
    assert_eq!(ledger.stored.get(), ledger.evicted.get() + ledger.over_quota.get() + rig.cache.len() as u64);
    rig.cache.set_limits(&small(), &rig.ledger);
    rig.see(5_000, 9, "new.example", 101, 3_600);
    rig.audit();
}
