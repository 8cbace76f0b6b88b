//! What a capture holds and flowtel doesn't look into, counted by kind: so that nothing is left out in silence.

use std::{collections::BTreeMap, fmt};

use super::Link;

/// The most kinds that are counted each; further ones are counted together.
const MOST_KINDS: usize = 32;

/// Counts of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undecoded {
    counts: BTreeMap<Kind, u64>,
    further: u64,
}

/// What was not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Packets of a link type that is not known here.
    Link(Link),
    /// Blocks of pcapng of a type that is not known here.
    Block(u32),
}

// === impl Undecoded

impl Undecoded {
    /// Counts a packet of this link type.
    pub fn link(&mut self, link: Link) {
        self.count(Kind::Link(link), 1);
    }

    /// Counts a block of this type.
    pub fn block(&mut self, kind: u32) {
        self.count(Kind::Block(kind), 1);
    }

    /// Adds what another capture had.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.counts {
            self.count(*kind, *count);
        }
        self.further += other.further;
    }

    /// Whether all was looked into.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn count(&mut self, kind: Kind, by: u64) {
        if let Some(count) = self.counts.get_mut(&kind) {
            *count += by;
        } else if self.counts.len() < MOST_KINDS {
            self.counts.insert(kind, by);
        } else {
            self.further += by;
        }
    }
}

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (kind, count) in &self.counts {
            let s = if *count == 1 { "" } else { "s" };
            match kind {
                Kind::Link(link) => {
                    write!(f, "{between}{count} packet{s} of link type {}", link.number())?;
                    if let Some(name) = link.name() {
                        write!(f, " ({name})")?;
                    }
                }
                Kind::Block(kind) => {
                    write!(f, "{between}{count} block{s} of type {kind:#x}")?;
                    if matches!(kind, 0x0bad | 0x4000_0bad) {
                        write!(f, " (a vendor's own)")?;
                    }
                }
            }
            between = ", ";
        }
        if self.further > 0 {
            write!(f, "{between}{} of further kinds", self.further)?;
        }
        Ok(())
    }
}
