//! Everything remembered, in numbered slots, with a list through them for each source: the one used last in front.
//!
//! Must never hold a slot that no list leads to.

use std::net::IpAddr;

use super::sighting::Sighting;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// What one source saw stand for one address.
#[derive(Debug)]
pub(super) struct Unit {
    pub address: IpAddr,
    pub source: u64,
    /// Newest first.
    pub sightings: Vec<Sighting>,
    /// Bytes that it is reckoned to take.
    pub charge: u32,
    newer: u32,
    older: u32,
}

/// One source's list, and what it holds.
#[derive(Debug)]
pub(super) struct Source {
    newest: u32,
    oldest: u32,
    pub units: usize,
    /// Bytes that it and its units are reckoned to take.
    pub charge: usize,
}

/// The slots.
#[derive(Debug, Default)]
pub(super) struct Slab {
    slots: Vec<Option<Unit>>,
    free: Vec<u32>,
}

// === impl Unit

impl Unit {
    pub fn new(address: IpAddr, source: u64) -> Self {
        Self { address, source, sightings: Vec::with_capacity(1), charge: 0, newer: NONE, older: NONE }
    }
}

// === impl Source

impl Source {
    /// A source without units, that is reckoned to take `charge` bytes itself.
    pub fn new(charge: usize) -> Self {
        Self { newest: NONE, oldest: NONE, units: 0, charge }
    }

    /// The slot that was used longest ago, or [`NONE`].
    pub fn oldest(&self) -> u32 {
        self.oldest
    }
}

// === impl Slab

impl Slab {
    /// Slots, used or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, slot: u32) -> Option<&Unit> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Unit> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Puts a unit in a slot and at the front of its source's list.
    pub fn insert(&mut self, unit: Unit, source: &mut Source) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                // There are fewer slots than bytes of budget / the least charge of a unit: far from 2³².
                self.slots.len() as u32 - 1
            }
        };
        self.slots[slot as usize] = Some(unit);
        source.units += 1;
        self.link(slot, source);
        slot
    }

    /// Takes a unit out of its slot and its source's list.
    pub fn remove(&mut self, slot: u32, source: &mut Source) -> Option<Unit> {
        self.unlink(slot, source);
        let unit = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        source.units -= 1;
        Some(unit)
    }

    /// Moves a unit to the front of its source's list.
    pub fn touch(&mut self, slot: u32, source: &mut Source) {
        if source.newest != slot {
            self.unlink(slot, source);
            self.link(slot, source);
        }
    }

    fn link(&mut self, slot: u32, source: &mut Source) {
        let before = std::mem::replace(&mut source.newest, slot);
        match self.get_mut(before) {
            Some(unit) => unit.newer = slot,
            None => source.oldest = slot,
        }
        if let Some(unit) = self.get_mut(slot) {
            (unit.newer, unit.older) = (NONE, before);
        }
    }

    fn unlink(&mut self, slot: u32, source: &mut Source) {
        let Some((newer, older)) = self.get(slot).map(|unit| (unit.newer, unit.older)) else { return };
        match self.get_mut(newer) {
            Some(unit) => unit.older = older,
            None => source.newest = older,
        }
        match self.get_mut(older) {
            Some(unit) => unit.newer = newer,
            None => source.oldest = newer,
        }
    }
}
