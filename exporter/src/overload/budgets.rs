//! How much one cgroup may have recorded before its repeats are folded, whether there is pressure or not: the cgroup of each
//! event goes in, whether it is over its budget comes out. So one user's storm is a count before it costs others' records.
//!
//! A token bucket a cgroup. As long as all of them together stay within one cgroup's budget, none can be over it: so there
//! is one bucket for all in quiet times, and a bucket for each only once that is empty. What has no known owner has no budget.

use hashbrown::HashMap;

use crate::capture::KernelTime;

/// The most cgroups that have a bucket at once. Beyond it, those that come later have none: they are told in full.
const MOST: usize = 4096;

/// A budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Records a second; 0: no limit.
    pub rate: u64,
    /// Records at once.
    pub burst: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u64,
    filled: KernelTime,
    /// Whether it was said that this one is over.
    told: bool,
}

/// The budgets of all cgroups.
#[derive(Debug)]
pub struct Budgets {
    budget: Budget,
    all: Bucket,
    each: HashMap<u64, Bucket, foldhash::fast::RandomState>,
    /// When one was last over.
    over: Option<KernelTime>,
}

// === impl Budgets

impl Budgets {
    /// Full ones.
    pub fn new(budget: Budget) -> Self {
        let all = Bucket { left: budget.burst, filled: KernelTime(0), told: false };
        Self { budget, all, each: HashMap::default(), over: None }
    }

    /// Whether the cgroup of an event at this time is over its budget. Called once an event.
    pub fn is_over(&mut self, cgroup: u64, now: KernelTime) -> bool {
        if self.budget.rate == 0 {
            return false;
        }
        // Once it is empty each has its own, a full one: which of them took how much of the common one is not known.
        if self.each.is_empty() && self.all.takes(self.budget, now) {
            return false;
        }
        if self.each.len() >= MOST && !self.each.contains_key(&cgroup) {
            return false;
        }
        let full = Bucket { left: self.budget.burst, filled: now, told: false };
        let bucket = self.each.entry(cgroup).or_insert(full);
        if bucket.takes(self.budget, now) {
            return false;
        }
        self.over = Some(now);
        if !bucket.told {
            bucket.told = true;
            tracing::warn!(
                cgroup,
                records_per_second = self.budget.rate,
                "one cgroup makes more records than its budget (overload.cgroup_rate): its repeats are folded into counts"
            );
        }
        true
    }

    /// Whether one was over within so many nanoseconds before `now`. Forgets, once a call, whoever has a full bucket again.
    pub fn look(&mut self, now: KernelTime, lasting: u64) -> bool {
        if self.over.is_some_and(|over| now.since(over) >= lasting) {
            self.over = None;
        }
        if self.over.is_none() && !self.each.is_empty() {
            let budget = self.budget;
            self.each.retain(|_, bucket| {
                bucket.fill(budget, now);
                bucket.left < budget.burst
            });
            if self.each.is_empty() {
                self.all = Bucket { left: budget.burst, filled: now, told: false };
            }
        }
        self.over.is_some()
    }

    /// Whether one is over.
    pub fn is_on(&self) -> bool {
        self.over.is_some()
    }
}

// === impl Bucket

impl Bucket {
    /// Takes a token, if there is one.
    fn takes(&mut self, budget: Budget, now: KernelTime) -> bool {
        if self.left == 0 {
            self.fill(budget, now);
        }
        let is_there = self.left > 0;
        self.left -= u64::from(is_there);
        is_there
    }

    fn fill(&mut self, budget: Budget, now: KernelTime) {
        const SECOND: u128 = 1_000_000_000;
        let parts = u128::from(now.since(self.filled)) * u128::from(budget.rate);
        let earned = parts / SECOND;
        // What is less than one goes on to be earned.
        if earned > 0 {
            self.left = self.left.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(budget.burst);
            let rest = parts % SECOND / u128::from(budget.rate);
            self.filled = KernelTime(now.0.saturating_sub(u64::try_from(rest).unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BUDGET: Budget = Budget { rate: 100, burst: 1000 };

    fn over(budgets: &mut Budgets, cgroup: u64, at: u64, events: u64) -> u64 {
        (0..events).filter(|_| budgets.is_over(cgroup, KernelTime(at))).count() as u64
    }

    #[test]
    fn a_storm_of_one_is_over_its_budget_and_others_are_not() {
        let mut budgets = Budgets::new(BUDGET);
        assert_eq!(over(&mut budgets, 1, SECOND, 1000), 0, "the common bucket");
        assert!(budgets.each.is_empty(), "quiet times cost no table");
        assert_eq!(over(&mut budgets, 1, SECOND, 5000), 3900, "its own, and what the common one earned");
        assert_eq!(over(&mut budgets, 2, SECOND, 1000), 0);
        assert!(budgets.look(KernelTime(2 * SECOND), SECOND * 10));
        assert_eq!(over(&mut budgets, 1, 2 * SECOND, 500), 400, "a second's worth");
        assert!(budgets.look(KernelTime(3 * SECOND), SECOND * 10));
        assert!(!budgets.look(KernelTime(30 * SECOND), SECOND * 10));
        assert!(budgets.each.is_empty(), "all are full again");
    }

    #[test]
    fn a_steady_rate_a_little_over_the_budget_has_the_whole_budget() {
        let mut bucket = Bucket { left: 0, filled: KernelTime(SECOND), told: false };
        let took = (1..=10_000).filter(|i| bucket.takes(BUDGET, KernelTime(SECOND + i * SECOND / 102))).count();
        assert_eq!(took, 10_000 * 100 / 102);
    }

    #[test]
    fn a_steady_rate_within_the_budget_is_never_over() {
        let mut budgets = Budgets::new(BUDGET);
        for second in 1..100 {
            assert_eq!(over(&mut budgets, 1, second * SECOND, 100), 0);
            budgets.look(KernelTime(second * SECOND), SECOND);
        }
    }

    #[test]
    fn without_a_rate_there_is_no_limit_and_more_cgroups_than_there_is_room_for_are_told_in_full() {
        let mut budgets = Budgets::new(Budget { rate: 0, burst: 1 });
        assert_eq!(over(&mut budgets, 1, SECOND, 5000), 0);
        let mut budgets = Budgets::new(Budget { rate: 1, burst: 1 });
        for cgroup in 0..3 * MOST as u64 {
            budgets.is_over(cgroup, KernelTime(SECOND));
        }
        assert_eq!(budgets.each.len(), MOST);
        assert!(!budgets.is_over(u64::MAX, KernelTime(SECOND)));
    }
}
