//! What was decided when flows began, until they end. Bounded: past the limit the oldest decision is forgotten.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::flow::FlowId;

/// Decisions by flow.
#[derive(Debug)]
pub(super) struct Decided {
    kept: HashMap<FlowId, (bool, u64), foldhash::fast::RandomState>,
    /// Flows by age, each with its number. An entry is stale when its flow is gone.
    by_age: VecDeque<(FlowId, u64)>,
    next: u64,
    most: usize,
}

// === impl Decided

impl Decided {
    pub fn new(most: usize) -> Self {
        Self { kept: HashMap::default(), by_age: VecDeque::new(), next: 0, most: most.max(1) }
    }

    pub fn insert(&mut self, id: FlowId, kept: bool) {
        while self.kept.len() >= self.most {
            let Some((oldest, number)) = self.by_age.pop_front() else { break };
            if self.kept.get(&oldest).is_some_and(|(_, is)| *is == number) {
                self.kept.remove(&oldest);
            }
        }
        self.next += 1;
        self.kept.insert(id, (kept, self.next));
        self.by_age.push_back((id, self.next));
        // Flows end in any order, so stale entries stay behind: sweep when they are the majority.
        if self.by_age.len() > 2 * self.kept.len() + 1024 {
            let kept = &self.kept;
            self.by_age.retain(|(id, number)| kept.get(id).is_some_and(|(_, is)| is == number));
        }
    }

    /// What was decided, which is then forgotten.
    pub fn take(&mut self, id: FlowId) -> Option<bool> {
        self.kept.remove(&id).map(|(kept, _)| kept)
    }

    /// What was decided, which is remembered still.
    pub fn get(&self, id: FlowId) -> Option<bool> {
        self.kept.get(&id).map(|(kept, _)| *kept)
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_given_once_and_the_oldest_is_forgotten_first() {
        let mut decided = Decided::new(2);
        for n in 0..3 {
            decided.insert(FlowId(n), n % 2 == 0);
        }
        assert_eq!([0, 1, 2, 2].map(|n| decided.take(FlowId(n))), [None, Some(false), Some(true), None]);
        for n in 0..100_000 {
            decided.insert(FlowId(n), true);
            decided.take(FlowId(n));
        }
        assert!(decided.is_empty() && decided.by_age.len() < 2000);
    }
}
