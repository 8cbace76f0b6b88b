//! Segments of a connection's beginning, put together. Bounded in bytes and in parts.

use super::{Hello, Read, read};

/// The most bytes of a hello that are looked at.
pub const MOST: usize = flowtel_common::event::HELLO_PAYLOAD;
/// The most segments of one: of a single byte each, a sender could make thousands.
pub const MOST_PARTS: usize = 32;

/// So many bytes tell that it is a hello: a record's header, and the first byte of a message.
const TELLS: usize = 6;

/// What has come so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembly {
    /// The beginning, as far as there is no gap.
    bytes: Vec<u8>,
    /// What lies behind a gap: where, and what.
    later: Vec<(usize, Vec<u8>)>,
    parts: usize,
}

// === impl Assembly

impl Assembly {
    /// Takes the bytes whose first is the connection's byte `at`. What is there already stays. Returns whether there was
    /// anything new in them.
    pub fn add(&mut self, at: u32, bytes: &[u8]) -> bool {
        let at = at as usize;
        let room = MOST.saturating_sub(at);
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        if bytes.is_empty() || at + bytes.len() <= self.bytes.len() || self.parts >= MOST_PARTS {
            return false;
        }
        if at > self.bytes.len() {
            let kept: usize = self.later.iter().map(|(_, bytes)| bytes.len()).sum();
            if kept + bytes.len() > MOST {
                return false;
            }
            self.parts += 1;
            self.later.push((at, bytes.to_vec()));
            return true;
        }
        self.parts += 1;
        self.append(at, bytes);
        // What the new bytes reach is the beginning's, too, and may reach more.
        while let Some(i) = self.later.iter().position(|(at, _)| *at <= self.bytes.len()) {
            let (at, bytes) = self.later.swap_remove(i);
            self.append(at, &bytes);
        }
        true
    }

    fn append(&mut self, at: usize, bytes: &[u8]) {
        let new = self.bytes.len().saturating_sub(at);
        self.bytes.extend_from_slice(bytes.get(new..).unwrap_or_default());
    }

    /// Takes what another one has.
    pub fn join(&mut self, other: Self) {
        let Self { bytes, later, .. } = other;
        for (at, bytes) in [(0, bytes)].into_iter().chain(later) {
            self.add(u32::try_from(at).unwrap_or(u32::MAX), &bytes);
        }
    }

    /// What it says so far.
    pub fn read(&self) -> Read {
        read(&self.bytes)
    }

    /// What it says, whole or not; `None` where it is no hello, or where too little is there to tell.
    pub fn hello(&self) -> Option<Hello> {
        match self.read() {
            Read::Whole(hello) => Some(hello),
            Read::Part(hello) => (self.bytes.len() >= TELLS).then_some(hello),
            Read::Nothing => None,
        }
    }

    /// The beginning, as far as there is no gap.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_in_any_order_cut_anywhere_and_repeated_give_what_was_sent(
            sent in proptest::collection::vec(any::<u8>(), 1..MOST),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            order in Just(()).prop_perturb(|(), mut random| (0..32).map(|_| random.random::<u32>()).collect::<Vec<_>>()),
            overlap in 0usize..64,
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len())).chain([0, sent.len()]).collect();
            cuts.sort_unstable();
            let mut parts: Vec<(usize, usize)> = cuts.windows(2).map(|w| (w[0].saturating_sub(overlap), w[1])).collect();
            parts.sort_by_key(|(at, _)| order[at % order.len()]);
            let mut assembly = Assembly::default();
            for (from, to) in parts.iter().chain(&parts) {
                assembly.add(*from as u32, &sent[*from..*to]);
            }
            prop_assert_eq!(assembly.bytes(), &sent[..]);
        }

        #[test]
        fn whatever_comes_stays_within_its_bounds(
            parts in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..1500)), 0..24),
        ) {
            let mut assembly = Assembly::default();
            for (at, bytes) in &parts {
                // Mostly near the beginning.
                assembly.add(at % 6000, bytes);
                assembly.add(*at, bytes);
            }
            let kept: usize = assembly.later.iter().map(|(_, bytes)| bytes.len()).sum();
            prop_assert!(assembly.bytes.len() <= MOST && assembly.later.len() <= MOST_PARTS);
            prop_assert!(kept <= MOST);
            let _ = assembly.hello();
        }
    }

    #[test]
    fn what_repeats_or_lies_too_far_is_nothing_new() {
        let mut assembly = Assembly::default();
        assert!(assembly.add(0, b"abc"));
        assert!(!assembly.add(0, b"abc") && !assembly.add(1, b"xy") && !assembly.add(3, b""));
        assert!(!assembly.add(MOST as u32, b"x") && !assembly.add(u32::MAX, b"x"));
        assert!(assembly.add(2, b"XdE"));
        assert_eq!(assembly.bytes(), b"abcdE");
    }
}
