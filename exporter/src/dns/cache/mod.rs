//! Names by address: what answers proved comes in, and what an address was called at a time goes out.
//!
//! What one asker (a user of a cgroup in a network namespace) saw stand for one address is a unit; it is kept, found and
//! forgotten as one, and charged to its source, the cgroup: a user may make as many namespaces as he likes. Askers are told
//! apart for two reasons. An address of a content network or a proxy has
//! many names, and the one that a container asked for is the right one for its connections. And a source that asks for
//! 100,000 names must not push out those of others: when something has to go, the source that holds most loses what it
//! has used longest ago.
//!
//! Bounds, held after each call: addresses; bytes, reckoned from above (a list of names is kept once, but charged to
//! everyone who uses it); the share of one source in both; [`MAX_NAMES`] lists of names a unit; [`MAX_SOURCES`] units an
//! address, where the cgroup that has most loses first. Each call's work is bounded by constants, or paid for by earlier calls (what is forgotten was once stored).
//!
//! Must never give a name that was first seen after the time asked about, or one past its grace time.

mod chains;
mod sighting;
mod slab;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use hashbrown::HashMap;

use self::{
    chains::Chains,
    sighting::Sighting,
    slab::{Slab, Source, Unit},
};
use super::{
    names::{Gather, MAX_NAMES, Names, State},
    reader::{Asker, Nearness, Reader},
};
use crate::{
    capture::KernelTime,
    config,
    ledger::{self, Counter},
};

/// The most askers whose names are kept for one address.
pub const MAX_SOURCES: usize = 64;
/// Slots looked at for what is over, each time that [`Cache::sweep`] is called: 65,536 within half a minute at the usual
/// 20 calls a second.
const SWEEP: usize = 128;
/// Reckoned bytes of a unit without its names: its slot (vectors grow to twice their use), its place in the list of its
/// address, and that address's in the map.
///
/// Maps are reckoned at four places an entry: they are at most 7/8 full and double, and where entries come and go they
/// may double for the traces of those that went (hashbrown, `reserve_rehash`: which of the two hangs on the hashes).
const UNIT_COST: usize = 2 * size_of::<Option<Unit>>() + size_of::<Place>() + 4 * size_of::<(IpAddr, Vec<Place>)>();
/// Reckoned bytes of a source: its place in the map, and in the ranks.
const SOURCE_COST: usize = 4 * size_of::<(u64, Source)>() + 3 * size_of::<(usize, u64)>();
/// Reckoned bytes of a list of names beside its text: the counts before it, and its place in the set of all.
const NAMES_COST: usize = 64;

/// Names by address.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    units: Slab,
    /// Units of an address; the one that was renewed last in front.
    addresses: HashMap<IpAddr, Vec<Place>, foldhash::fast::RandomState>,
    sources: HashMap<u64, Source, foldhash::fast::RandomState>,
    /// Sources by what they hold, to find the one that holds most.
    ranks: BTreeSet<(usize, u64)>,
    chains: Chains,
    bytes: usize,
    /// The slot where the next sweep begins.
    hand: usize,
}

/// What is to be remembered: names that an answer proved for an address.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The address, canonical.
    pub address: IpAddr,
    /// Who asked.
    pub asker: Asker,
    /// The name asked for, then CNAMEs, a blank between them; not empty.
    pub names: &'a str,
    /// The time to live that the answer says.
    pub ttl: Duration,
    /// When it came.
    pub time: KernelTime,
}

/// The configured limits. Times in nanoseconds.
#[derive(Debug)]
struct Limits {
    min_ttl: u64,
    max_ttl: u64,
    grace: u64,
    addresses: usize,
    bytes: usize,
    source_addresses: usize,
    source_bytes: usize,
    /// What others asked for is told.
    fallback: bool,
}

/// Where an address's unit of one asker is.
#[derive(Debug, Clone, Copy)]
struct Place {
    asker: Asker,
    slot: u32,
}

/// A list of names that a look-up may give.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    names: &'a str,
    age: Duration,
}

// === impl Cache

impl Cache {
    /// An empty cache.
    pub fn new(config: &config::Dns) -> Self {
        Self {
            limits: Limits::new(config),
            units: Slab::default(),
            addresses: HashMap::default(),
            sources: HashMap::default(),
            ranks: BTreeSet::new(),
            chains: Chains::default(),
            bytes: 0,
            hand: 0,
        }
    }

    /// Goes on with other limits; what is over them is forgotten at once.
    pub fn set_limits(&mut self, config: &config::Dns, ledger: &ledger::Dns) {
        self.limits = Limits::new(config);
        let sources: Vec<u64> = self.sources.keys().copied().collect();
        for source in sources {
            self.bound_source(source, ledger);
        }
        self.bound_all(ledger);
    }

    /// Addresses with names.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are no names at all.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Memory in use, bytes, reckoned from above.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Remembers names for an address, and forgets others where a limit says so.
    pub fn insert(&mut self, seen: &Seen<'_>, ledger: &ledger::Dns) {
        let ttl = self.limits.ttl(seen.ttl);
        let slot = self.slot(seen.address, seen.asker);
        let Some(unit) = self.units.get_mut(slot) else { return };
        // What is over goes first: it would only take the room of what isn't.
        let expired = unit.sightings.extract_if(.., |s| s.is_over(seen.time, self.limits.grace));
        ledger.expired.add(expired.map(|s| self.chains.release(s.names)).count() as u64);
        if let Some(i) = unit.sightings.iter().position(|s| *s.names == *seen.names) {
            ledger.renewed.add(1);
            unit.sightings[i].renew(seen.time, ttl);
            let newer = unit.sightings[..i].partition_point(|s| s.newest() > seen.time);
            unit.sightings[newer..=i].rotate_right(1);
        } else {
            ledger.stored.add(1);
            let newer = unit.sightings.partition_point(|s| s.newest() > seen.time);
            unit.sightings.insert(newer, Sighting::new(self.chains.keep(seen.names), seen.time, ttl));
            let more = unit.sightings.len() > MAX_NAMES;
            if let Some(oldest) = unit.sightings.pop_if(|_| more) {
                ledger.over_quota.add(1);
                self.chains.release(oldest.names);
            }
        }
        self.charge(slot);
        self.bound(seen, ledger);
    }

    /// What an address was called at a time, by whoever connected to it, or where he never asked for it, by anybody whose
    /// answers hold for `reader`. Names that are `Fresh` come alone; only where there are none, `Expired` ones do.
    ///
    /// `at` may lie up to 2 s behind the newest answer. Then an answer after `at` doesn't count.
    pub fn names(&self, address: IpAddr, reader: &Reader, at: KernelTime) -> Option<Names<'_>> {
        if self.addresses.is_empty() {
            return None;
        }
        let places = self.addresses.get(&address.to_canonical())?;
        [Nearness::Own, Nearness::Any]
            .into_iter()
            .filter(|near| *near == Nearness::Own || self.limits.fallback)
            .filter(|near| places.iter().any(|place| reader.may_know(&place.asker, *near)))
            .flat_map(|near| [(near, State::Fresh), (near, State::Expired)])
            .find_map(|(near, state)| self.gather(places, (reader, near), state, at))
    }

    /// Looks through some more of what is remembered for what is over. Calling it now and then gives memory back;
    /// look-ups are right without it.
    pub fn sweep(&mut self, now: KernelTime, ledger: &ledger::Dns) {
        for _ in 0..SWEEP.min(self.units.len()) {
            self.hand = (self.hand + 1) % self.units.len();
            let slot = self.hand as u32;
            let Some(unit) = self.units.get_mut(slot) else { continue };
            if unit.sightings.iter().all(|s| s.is_over(now, self.limits.grace)) {
                self.forget(slot, &ledger.expired);
            }
        }
    }

    /// The slot for an address and an asker, at the front of all lists that it is in.
    fn slot(&mut self, address: IpAddr, asker: Asker) -> u32 {
        let source = asker.cgroup;
        let places = self.addresses.entry(address).or_insert_with(|| Vec::with_capacity(1));
        let list = self.sources.entry(source).or_insert_with(|| {
            self.bytes += SOURCE_COST;
            Source::new(SOURCE_COST)
        });
        if let Some(i) = places.iter().position(|place| place.asker == asker) {
            places[..=i].rotate_right(1);
            let slot = places[0].slot;
            self.units.touch(slot, list);
            return slot;
        }
        let slot = self.units.insert(Unit::new(address, source), list);
        places.insert(0, Place { asker, slot });
        slot
    }

    /// Reckons a unit anew.
    fn charge(&mut self, slot: u32) {
        let Some(unit) = self.units.get_mut(slot) else { return };
        let text: usize = unit.sightings.iter().map(|s| s.names.len() + NAMES_COST).sum();
        let charge = UNIT_COST + unit.sightings.capacity() * size_of::<Sighting>() + text;
        let before = std::mem::replace(&mut unit.charge, charge as u32) as usize;
        let source = unit.source;
        self.recharge(source, before, charge);
    }

    fn recharge(&mut self, cgroup: u64, before: usize, after: usize) {
        let Some(source) = self.sources.get_mut(&cgroup).filter(|_| before != after) else { return };
        self.ranks.remove(&(source.charge, cgroup));
        source.charge = source.charge - before + after;
        self.bytes = self.bytes - before + after;
        if source.units > 0 {
            self.ranks.insert((source.charge, cgroup));
        } else {
            self.bytes -= source.charge;
            self.sources.remove(&cgroup);
        }
    }

    /// Forgets until all limits are kept again, after something was stored.
    fn bound(&mut self, seen: &Seen<'_>, ledger: &ledger::Dns) {
        let places = self.addresses.get(&seen.address).filter(|places| places.len() > MAX_SOURCES);
        if let Some(Place { slot, .. }) = places.and_then(|places| least(places)) {
            self.forget(slot, &ledger.over_quota);
        }
        self.bound_source(seen.asker.cgroup, ledger);
        self.bound_all(ledger);
    }

    fn bound_source(&mut self, cgroup: u64, ledger: &ledger::Dns) {
        let Limits { source_addresses, source_bytes, .. } = self.limits;
        while let Some(source) =
            self.sources.get(&cgroup).filter(|s| s.units > source_addresses || s.charge > source_bytes)
        {
            self.forget(source.oldest(), &ledger.over_quota);
        }
    }

    fn bound_all(&mut self, ledger: &ledger::Dns) {
        let Limits { addresses, bytes, .. } = self.limits;
        while self.addresses.len() > addresses || self.bytes > bytes {
            let most = self.ranks.last().and_then(|(_, cgroup)| self.sources.get(cgroup));
            let Some(source) = most else { return };
            self.forget(source.oldest(), &ledger.evicted);
        }
    }

    /// Forgets a unit and counts its names under `why`.
    fn forget(&mut self, slot: u32, why: &Counter) {
        let Some(cgroup) = self.units.get(slot).map(|unit| unit.source) else { return };
        let Some(list) = self.sources.get_mut(&cgroup) else { return };
        let Some(unit) = self.units.remove(slot, list) else { return };
        if let Some(places) = self.addresses.get_mut(&unit.address) {
            places.retain(|place| place.slot != slot);
            if places.is_empty() {
                self.addresses.remove(&unit.address);
            }
        }
        why.add(unit.sightings.len() as u64);
        for sighting in unit.sightings {
            self.chains.release(sighting.names);
        }
        self.recharge(cgroup, unit.charge as usize, 0);
    }

    /// The names of some units of one address that are of one state at a time.
    fn gather(
        &self,
        places: &[Place],
        (reader, near): (&Reader, Nearness),
        state: State,
        at: KernelTime,
    ) -> Option<Names<'_>> {
        let worth = |s: &Sighting| s.at(at, self.limits.grace).filter(|(is, _)| *is == state).map(|(_, age)| age);
        let units = places
            .iter()
            .filter(|place| reader.may_know(&place.asker, near))
            .filter_map(|place| self.units.get(place.slot))
            .filter(|unit| unit.sightings.iter().any(|s| worth(s).is_some()));
        // One source with many names leaves room for the names of others.
        let each = (MAX_NAMES / units.clone().count().max(1)).max(1);
        let sightings =
            units.flat_map(|unit| unit.sightings.iter().filter_map(|s| Some((&*s.names, worth(s)?))).take(each));
        let mut found = [Candidate { names: "", age: Duration::MAX }; MAX_NAMES];
        let mut count = 0;
        for (names, age) in sightings.take(MAX_NAMES) {
            let newer = found[..count].partition_point(|other| other.age <= age);
            found[newer..=count].rotate_right(1);
            found[newer] = Candidate { names, age };
            count += 1;
        }
        let found = &found[..count];
        let mut names = Gather::new();
        found.iter().filter_map(|c| c.names.split(' ').next()).for_each(|name| names.add(name));
        found.iter().flat_map(|c| c.names.split(' ').skip(1)).for_each(|name| names.add(name));
        names.done(state, found.first().map(|c| c.age), reader.origin(near))
    }
}

/// The place to forget where an address has too many: of the cgroup that has most of them, the one renewed longest ago.
fn least(places: &[Place]) -> Option<Place> {
    let held = |cgroup: u64| places.iter().filter(|place| place.asker.cgroup == cgroup).count();
    // Of equal ones the last counts, which is the oldest.
    places.iter().max_by_key(|place| held(place.asker.cgroup)).copied()
}

// === impl Limits

impl Limits {
    fn new(config: &config::Dns) -> Self {
        let nanoseconds = |span: config::Span| u64::try_from(span.0.as_nanos()).unwrap_or(u64::MAX);
        let bytes = usize::try_from(config.max_bytes.0).unwrap_or(usize::MAX);
        let addresses = config.max_addresses as usize;
        let share = |whole: usize| (whole.saturating_mul(config.source_share.into()) / 100).max(1);
        Self {
            min_ttl: nanoseconds(config.min_ttl),
            max_ttl: nanoseconds(config.max_ttl),
            grace: nanoseconds(config.grace),
            addresses,
            bytes,
            source_addresses: share(addresses),
            source_bytes: share(bytes),
            fallback: config.fallback,
        }
    }

    /// A time to live brought within the limits. (Not `clamp`: it panics where they are the wrong way round.)
    fn ttl(&self, ttl: Duration) -> u64 {
        u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX).max(self.min_ttl).min(self.max_ttl)
    }
}

#[cfg(test)]
mod tests;
