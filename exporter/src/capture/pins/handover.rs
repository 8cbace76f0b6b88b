//! What a flowtel leaves to the next one beside its rings: how far it had read them, and what it had counted by then. It lies
//! in a pinned map of one value, as words: written after each reading, in one system call, so a flowtel that is killed
//! leaves no half of it.

use flowtel_common::tally;

use crate::{capture::cgroup::Cgroup, config};

/// The layout of what lies in the pinned maps: events, counters, and [`Words`]. To be raised with each change of it.
const LAYOUT: u64 = 11;
const MAGIC: u64 = u64::from_be_bytes(*b"flowtel\0");

/// Kinds of kernel events that are counted.
pub(super) const KINDS: usize = tally::LEN as usize;
/// The most of flowtel's own sockets that are told of: many times what it has.
pub const MOST_OWN: usize = 64;

/// How many rings are handed on.
pub(super) const RINGS: usize = 4;
const FIXED: usize = 1 + RINGS + 1 + 1 + 1 + RINGS + 3 * KINDS + 1;
/// The value of the map.
pub(super) type Words = [u64; FIXED + MOST_OWN];

/// What has to be equal for the maps of one flowtel to be of use to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Sizes of the rings of flows, owners, answers and hellos, in bytes.
    pub rings: [u64; RINGS],
    /// The watched cgroup's number.
    pub cgroup: u64,
    /// Whether sockets tell their ends: they are asked for it when they are connected.
    pub ends: bool,
}

// === impl Layout

impl Layout {
    /// That of a flowtel with these settings.
    pub fn of(capture: &config::Capture, cgroup: &Cgroup) -> Self {
        let config::Rings { flows, owners, answers, hellos, execs: _ } = &capture.rings;
        Self { rings: [flows.0, owners.0, answers.0, hellos.0], cgroup: cgroup.id, ends: capture.events.needs_ends() }
    }
}

/// Counts by kind of event: indices of [`tally`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken out of the rings.
    pub read: [u64; KINDS],
    /// Lost for want of room in the ring, and told.
    pub ring_full: [u64; KINDS],
    /// Left out by a rate limit, and told.
    pub limited: [u64; KINDS],
}

/// What is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handover {
    pub layout: Layout,
    /// The process id, as the kernel sees it; 0 where it was not learned, or is not to be left out.
    pub tgid: u32,
    /// How far the rings were read.
    pub positions: [u64; RINGS],
    /// What was counted since the maps were made, by this flowtel and those before it.
    pub counts: Counts,
    /// flowtel's own sockets: of its connections to receivers, and their other ends.
    pub own: Vec<u64>,
}

// === impl Handover

impl Handover {
    pub fn encode(&self) -> Words {
        let Self { layout, tgid, positions, counts, own } = self;
        let own = own.get(..own.len().min(MOST_OWN)).unwrap_or_default();
        let head = [MAGIC | LAYOUT].into_iter().chain(layout.rings).chain([
            layout.cgroup,
            u64::from(layout.ends),
            u64::from(*tgid),
        ]);
        let counts = [&counts.read, &counts.ring_full, &counts.limited].into_iter().flatten();
        let all = head.chain(*positions).chain(counts.copied()).chain([own.len() as u64]).chain(own.iter().copied());
        let mut words = [0; FIXED + MOST_OWN];
        words.iter_mut().zip(all).for_each(|(word, value)| *word = value);
        words
    }

    /// The layout that is written and read.
    pub const LAYOUT: u64 = LAYOUT;

    /// The layout by its first word, where another version wrote it. Layouts have numbers below 256.
    pub fn foreign(first: u64) -> Option<u64> {
        let layout = first & 0xff;
        (first - layout == MAGIC && layout != LAYOUT).then_some(layout)
    }

    /// `None` where it is another version's, or nothing was written yet.
    pub fn decode(words: &Words) -> Option<Self> {
        let mut words = words.iter().copied();
        let mut next = || words.next();
        if next()? != MAGIC | LAYOUT {
            return None;
        }
        let layout = Layout { rings: [next()?, next()?, next()?, next()?], cgroup: next()?, ends: next()? != 0 };
        let tgid = u32::try_from(next()?).ok()?;
        let positions = [next()?, next()?, next()?, next()?];
        let mut counts = Counts::default();
        for count in [&mut counts.read, &mut counts.ring_full, &mut counts.limited].into_iter().flatten() {
            *count = next()?;
        }
        let len = usize::try_from(next()?).ok().filter(|len| *len <= MOST_OWN)?;
        let own = words.take(len).collect();
        Some(Self { layout, tgid, positions, counts, own })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha1::{Digest as _, Sha1};

    use super::*;

    fn handover() -> impl Strategy<Value = Handover> {
        let counts = || proptest::array::uniform(any::<u64>());
        let own = proptest::collection::vec(any::<u64>(), 0..=MOST_OWN);
        let layout = (any::<[u64; RINGS]>(), any::<u64>(), any::<bool>()).prop_map(|(rings, cgroup, ends)| Layout {
            rings,
            cgroup,
            ends,
        });
        let counts =
            (counts(), counts(), counts()).prop_map(|(read, ring_full, limited)| Counts { read, ring_full, limited });
        (layout, any::<u32>(), any::<[u64; RINGS]>(), counts, own)
            .prop_map(|(layout, tgid, positions, counts, own)| Handover { layout, tgid, positions, counts, own })
    }

    proptest! {
        #[test]
        fn what_is_left_is_found(left in handover()) {
            prop_assert_eq!(Handover::decode(&left.encode()), Some(left));
        }

        #[test]
        fn any_words_are_taken_or_refused(words in proptest::collection::vec(any::<u64>(), FIXED + MOST_OWN), ours: bool) {
            let mut words: Words = words.try_into().expect("as many");
            if ours {
                words[0] = MAGIC | LAYOUT;
            }
            if let Some(found) = Handover::decode(&words) {
                prop_assert!(found.own.len() <= MOST_OWN);
            }
        }
    }

    #[test]
    fn nothing_written_and_another_version_are_refused() {
        let mut words = [0; FIXED + MOST_OWN];
        assert_eq!(Handover::decode(&words), None);
        assert_eq!(Handover::foreign(words[0]), None);
        words[0] = MAGIC | (LAYOUT + 1);
        assert_eq!(Handover::decode(&words), None);
        assert_eq!(Handover::foreign(words[0]), Some(LAYOUT + 1));
        words[0] = MAGIC | LAYOUT;
        assert_eq!(Handover::foreign(words[0]), None);
    }

    /// A flowtel reads what another version's programs wrote only where both mean the same by it.
    #[test]
    fn the_layout_is_raised_with_the_events() {
        let sources =
            [include_str!("../../../../common/src/event.rs"), include_str!("../../../../common/src/tally.rs")];
        let mut hash = Sha1::new();
        for line in sources.iter().flat_map(|source| source.lines()).map(str::trim) {
            if !line.starts_with("//") {
                hash.update(line);
            }
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            (LAYOUT, digest.as_str()),
            (11, "5e2d882ae0a3ade4202be9454f22bcfa302d9b27"),
            "if the layout of an event or a counter changed, raise LAYOUT; then write both here"
        );
    }
}
