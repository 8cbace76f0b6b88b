//! Lists of names, each kept once however many addresses it stands for.

use std::sync::Arc;

use hashbrown::HashSet;

/// All lists in use. It holds one reference of each beside those that it gave out.
#[derive(Debug, Default)]
pub(super) struct Chains(HashSet<Arc<str>, foldhash::fast::RandomState>);

// === impl Chains

impl Chains {
    /// The kept copy of a list.
    pub fn keep(&mut self, names: &str) -> Arc<str> {
        self.0.get_or_insert_with(names, |names| Arc::from(names)).clone()
    }

    /// Takes a copy back. With the last one the list is forgotten.
    pub fn release(&mut self, names: Arc<str>) {
        if Arc::strong_count(&names) == 2 {
            self.0.remove(&*names);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
