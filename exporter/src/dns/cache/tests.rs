//! What was seen comes in, what an address was called goes out; and the bounds, whatever comes in.

use std::net::Ipv4Addr;

use super::*;

mod bounds;
mod model;

const SECOND: u64 = 1_000_000_000;
/// An address that many names stand for.
const SHARED: u32 = 1;

/// A cgroup's only user, in the only namespace.
pub(super) fn asker(cgroup: u64) -> Asker {
    Asker { cgroup, netns: 1, uid: 0 }
}

/// The same, connecting.
pub(super) fn reader(cgroup: Option<u64>) -> Reader {
    Reader { netns: 1, owner: cgroup.map(|cgroup| (cgroup, 0)), hosts: true }
}

/// A cache with its counters.
pub(super) struct Rig {
    pub cache: Cache,
    pub ledger: ledger::Dns,
}

impl Rig {
    pub fn new(config: &config::Dns) -> Self {
        Self { cache: Cache::new(config), ledger: ledger::Dns::default() }
    }

    pub fn see(&mut self, address: u32, source: u64, names: &str, time: u64, ttl: u64) {
        let seen = Seen {
            address: ip(address),
            asker: asker(source),
            names,
            ttl: Duration::from_secs(ttl),
            time: KernelTime(time * SECOND),
        };
        self.cache.insert(&seen, &self.ledger);
    }

    /// State, age in seconds, and names.
    pub fn names(&self, address: u32, cgroup: Option<u64>, at: u64) -> Option<(State, u64, String)> {
        let names = self.cache.names(ip(address), &reader(cgroup), KernelTime(at * SECOND))?;
        Some((names.state, names.age.expect("an answer's age").as_secs(), names.as_slice().join(" ")))
    }

    /// Checks everything that holds after each call.
    pub fn audit(&self) {
        let Cache { limits, units, addresses, sources, ranks, chains, bytes, .. } = &self.cache;
        assert!(addresses.len() <= limits.addresses && *bytes <= limits.bytes);
        let live: Vec<_> = (0..units.len() as u32).filter_map(|slot| Some((slot, units.get(slot)?))).collect();
        assert_eq!(live.len(), addresses.values().map(Vec::len).sum::<usize>());
        let mut texts = std::collections::HashSet::new();
        for (slot, unit) in &live {
            assert!(
                addresses[&unit.address].iter().any(|place| place.slot == *slot && place.asker.cgroup == unit.source)
            );
            assert!((1..=MAX_NAMES).contains(&unit.sightings.len()));
            assert!(unit.sightings.is_sorted_by(|a, b| a.newest() >= b.newest()));
            texts.extend(unit.sightings.iter().map(|s| &*s.names));
        }
        assert_eq!(chains.len(), texts.len(), "names nobody uses are forgotten");
        for (source, held) in sources {
            let own = live.iter().filter(|(_, unit)| unit.source == *source);
            let charge: usize = SOURCE_COST + own.clone().map(|(_, unit)| unit.charge as usize).sum::<usize>();
            assert_eq!((held.units, held.charge), (own.count(), charge));
            assert!(held.units <= limits.source_addresses && held.charge <= limits.source_bytes);
            assert!(ranks.contains(&(held.charge, *source)));
        }
        assert_eq!(ranks.len(), sources.len());
        assert_eq!(*bytes, sources.values().map(|held| held.charge).sum::<usize>());
        let held: usize = live.iter().map(|(_, unit)| unit.sightings.len()).sum();
        assert_eq!(self.ledger.held(), held as i128, "stored = held + expired + evicted + over quota");
        assert!(addresses.values().all(|places| (1..=MAX_SOURCES).contains(&places.len())));
    }
}

pub(super) fn ip(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

fn rig() -> Rig {
    Rig::new(&config::Dns::default())
}

fn some(state: State, age: u64, names: &str) -> Option<(State, u64, String)> {
    Some((state, age, names.to_owned()))
}

#[test]
fn names_asked_for_stand_before_aliases_and_the_newest_in_front() {
    let mut rig = rig();
    rig.see(SHARED, 7, "a.example edge.example cdn.example", 100, 60);
    rig.see(SHARED, 7, "b.example edge.example", 101, 60);
    rig.see(SHARED, 7, "cdn.example", 102, 60);
    assert_eq!(rig.names(SHARED, Some(7), 110), some(State::Fresh, 8, "cdn.example b.example a.example edge.example"));
    rig.see(SHARED, 7, "a.example edge.example cdn.example", 105, 60);
    assert_eq!(rig.names(SHARED, Some(7), 110), some(State::Fresh, 5, "a.example cdn.example b.example edge.example"));
    rig.audit();
}

#[test]
fn an_address_that_nobody_asked_for_has_no_names() {
    assert!(rig().names(SHARED, Some(7), 100).is_none());
}

#[test]
fn a_container_gets_the_name_that_it_asked_for_and_others_what_anybody_asked_for() {
    let mut rig = rig();
    rig.see(SHARED, 7, "seven.example", 100, 60);
    rig.see(SHARED, 8, "eight.example", 101, 60);
    assert_eq!(rig.names(SHARED, Some(7), 110), some(State::Fresh, 10, "seven.example"));
    assert_eq!(rig.names(SHARED, Some(8), 110), some(State::Fresh, 9, "eight.example"));
    let all = some(State::Fresh, 9, "eight.example seven.example");
    assert_eq!(rig.names(SHARED, Some(9), 110), all);
    assert_eq!(rig.names(SHARED, None, 110), all);
    assert_eq!(rig.names(SHARED, Some(7), 100 + 60), some(State::Expired, 60, "seven.example"));
}

#[test]
fn an_answer_after_the_flow_began_does_not_count_for_it() {
    let mut rig = rig();
    rig.see(SHARED, 7, "a.example", 100, 60);
    assert!(rig.names(SHARED, Some(7), 99).is_none());
    rig.see(SHARED, 7, "a.example", 110, 60);
    assert_eq!(rig.names(SHARED, Some(7), 109), some(State::Fresh, 9, "a.example"));
}

#[test]
fn a_time_to_live_is_brought_within_its_limits() {
    let mut rig = rig();
    rig.see(1, 7, "short.example", 100, 0);
    rig.see(2, 7, "long.example", 100, 1_000_000);
    assert_eq!(rig.names(1, None, 129), some(State::Fresh, 29, "short.example"));
    assert_eq!(rig.names(1, None, 130), some(State::Expired, 30, "short.example"));
    assert_eq!(rig.names(2, None, 3_699), some(State::Fresh, 3_599, "long.example"));
    assert_eq!(rig.names(2, None, 3_700), some(State::Expired, 3_600, "long.example"));
    assert!(rig.names(1, None, 130 + 600).is_none() && rig.names(2, None, 3_700 + 600).is_none());
}

#[test]
fn fresh_names_come_without_expired_ones() {
    let mut rig = rig();
    rig.see(SHARED, 7, "old.example", 100, 60);
    rig.see(SHARED, 7, "new.example", 170, 60);
    assert_eq!(rig.names(SHARED, Some(7), 175), some(State::Fresh, 5, "new.example"));
    assert_eq!(rig.names(SHARED, Some(7), 300), some(State::Expired, 130, "new.example old.example"));
}

#[test]
fn an_ipv4_mapped_address_is_looked_up_as_ipv4() {
    let mut rig = rig();
    rig.see(SHARED, 7, "a.example", 100, 60);
    let IpAddr::V4(v4) = ip(SHARED) else { panic!("not IPv4") };
    assert!(rig.cache.names(v4.to_ipv6_mapped().into(), &reader(None), KernelTime(101 * SECOND)).is_some());
}

#[test]
fn sweeping_gives_back_what_is_past_its_grace_time_and_nothing_else() {
    let mut rig = rig();
    for address in 0..2_000 {
        rig.see(address, address.into(), "a.example", 100, if address % 2 == 0 { 30 } else { 3_600 });
    }
    for _ in 0..2_000 / SWEEP + 1 {
        rig.cache.sweep(KernelTime(800 * SECOND), &rig.ledger);
    }
    assert_eq!(rig.cache.len(), 1_000);
    assert_eq!(rig.ledger.expired.get(), 1_000);
    rig.audit();
    for _ in 0..2_000 / SWEEP + 1 {
        rig.cache.sweep(KernelTime(10_000 * SECOND), &rig.ledger);
    }
    assert!(rig.cache.is_empty() && rig.cache.bytes() == 0);
    rig.audit();
}
