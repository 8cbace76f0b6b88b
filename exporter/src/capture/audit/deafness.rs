//! Whether the programs hear of ends: the ledger's count of ends that nobody reported comes in; that it begins, and that it is
//! over, go out, each once.

use std::time::Duration;

use crate::capture::KernelTime;

/// How many samples in a row without a miss say that it is over.
const SAMPLES: u32 = 4;

/// The state.
#[derive(Debug, Default)]
pub struct Deafness {
    unseen: u64,
    /// When the last miss was noticed, and how many there were before the first.
    since: Option<(KernelTime, u64)>,
}

/// News.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// So many ends went unseen.
    Deaf(u64),
    /// No more do; so many did.
    Over(u64),
}

// === impl Deafness

impl Deafness {
    /// Takes the count of ends that went unseen, as it is at `now`. Samples are `every` so long.
    pub fn look(&mut self, unseen: u64, now: KernelTime, every: Duration) -> Option<News> {
        let more = unseen.saturating_sub(self.unseen);
        let before = std::mem::replace(&mut self.unseen, unseen);
        match self.since {
            None if more > 0 => {
                self.since = Some((now, before));
                Some(News::Deaf(more))
            }
            Some((_, first)) if more > 0 => {
                self.since = Some((now, first));
                None
            }
            Some((last, first)) if u128::from(now.since(last)) >= (every * SAMPLES).as_nanos() => {
                self.since = None;
                Some(News::Over(unseen - first))
            }
            _ => None,
        }
    }

    /// Whether ends go unseen.
    pub fn is_deaf(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_when_ends_go_unseen_and_once_when_none_did_for_a_while() {
        let mut deafness = Deafness::default();
        let every = Duration::from_secs(15);
        let mut look = |unseen, seconds: u64| deafness.look(unseen, KernelTime(seconds * 1_000_000_000), every);
        assert_eq!(look(0, 1), None);
        assert_eq!(look(2, 2), Some(News::Deaf(2)));
        assert_eq!(look(5, 20), None);
        assert_eq!(look(5, 79), None);
        assert_eq!(look(5, 80), Some(News::Over(5)));
        assert_eq!(look(5, 200), None);
        assert_eq!(look(6, 201), Some(News::Deaf(1)));
        assert_eq!(look(6, 300), Some(News::Over(1)));
    }
}
