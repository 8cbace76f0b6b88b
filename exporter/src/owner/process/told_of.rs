//! A small set of process ids that forgets as it likes: to ask about the same few once in a round and not at each event.

/// Ids remembered: a power of two.
const SLOTS: usize = 64;

/// The set. Each id has one place that it can be in; whoever came last is in it. Id 0 is never in it.
#[derive(Debug)]
pub(super) struct ToldOf {
    slots: [u32; SLOTS],
    any: bool,
}

// === impl ToldOf

impl ToldOf {
    #[inline]
    pub fn holds(&self, pid: u32) -> bool {
        pid != 0 && self.slots.get(pid as usize % SLOTS) == Some(&pid)
    }

    pub fn insert(&mut self, pid: u32) {
        if let Some(slot) = self.slots.get_mut(pid as usize % SLOTS) {
            *slot = pid;
            self.any = true;
        }
    }

    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        if self.any {
            *self = Self::default();
        }
    }
}

impl Default for ToldOf {
    fn default() -> Self {
        Self { slots: [0; SLOTS], any: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_came_last_to_a_place_and_nothing_after_it_was_cleared() {
        let mut ids = ToldOf::default();
        assert!(!ids.holds(0) && !ids.holds(7));
        ids.insert(7);
        ids.insert(8);
        assert!(ids.holds(7) && ids.holds(8));
        ids.insert(7 + SLOTS as u32);
        assert!(!ids.holds(7) && ids.holds(7 + SLOTS as u32));
        ids.clear();
        assert!(!ids.holds(8));
    }
}
