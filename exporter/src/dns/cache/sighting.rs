//! One list of names, as one container saw it stand for one address: when, and how long that holds.

use std::{sync::Arc, time::Duration};

use crate::{capture::KernelTime, dns::names::State};

/// How far the time that a look-up asks about may lie behind the newest answer that was read: an event waits for the
/// reading of its ring, and its flow for one reading more. (`capture.tick` is at most 1 s.)
pub(super) const LATE: u64 = 2_000_000_000;

/// Names and when they were seen.
#[derive(Debug)]
pub(super) struct Sighting {
    /// The name asked for, then CNAMEs, a blank between them.
    pub names: Arc<str>,
    /// Times of answers, newest first. The second and third are [`LATE`] apart or the same, so that for each time that
    /// may be asked about, an answer before it is among them if there was one.
    seen: [KernelTime; 3],
    /// Nanoseconds, within the configured limits.
    ttl: u64,
}

// === impl Sighting

impl Sighting {
    pub fn new(names: Arc<str>, time: KernelTime, ttl: u64) -> Self {
        Self { names, seen: [time; 3], ttl }
    }

    /// Notes that the same names were answered again.
    pub fn renew(&mut self, time: KernelTime, ttl: u64) {
        let [newest, middle, oldest] = self.seen;
        if time < newest {
            // Answers on two CPUs may come in the wrong order; only what was seen first of all is worth keeping.
            self.seen[2] = oldest.min(time);
            return;
        }
        if newest.since(middle) >= LATE {
            self.seen = [time, newest, middle];
        } else {
            self.seen[0] = time;
        }
        self.ttl = ttl;
    }

    /// When it was seen last.
    pub fn newest(&self) -> KernelTime {
        self.seen[0]
    }

    /// What it is worth at a time, and how old it is then; `None`: not seen yet, or past its grace time.
    pub fn at(&self, time: KernelTime, grace: u64) -> Option<(State, Duration)> {
        let seen = self.seen.into_iter().find(|seen| *seen <= time)?;
        let age = time.since(seen);
        let state = match age {
            age if age < self.ttl => State::Fresh,
            age if age - self.ttl < grace => State::Expired,
            _ => return None,
        };
        Some((state, Duration::from_nanos(age)))
    }

    /// Whether no look-up can get it any more.
    pub fn is_over(&self, now: KernelTime, grace: u64) -> bool {
        now.since(self.newest()) >= self.ttl.saturating_add(grace).saturating_add(LATE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> KernelTime {
        KernelTime(seconds * SECOND)
    }

    #[test]
    fn names_are_fresh_then_expired_then_gone() {
        let sighting = Sighting::new("a".into(), at(100), 30 * SECOND);
        let state = |seconds| sighting.at(at(seconds), 10 * SECOND).map(|(state, age)| (state, age.as_secs()));
        assert_eq!(state(99), None);
        assert_eq!(state(100), Some((State::Fresh, 0)));
        assert_eq!(state(129), Some((State::Fresh, 29)));
        assert_eq!(state(130), Some((State::Expired, 30)));
        assert_eq!(state(139), Some((State::Expired, 39)));
        assert_eq!(state(140), None);
        assert!(!sighting.is_over(at(141), 10 * SECOND) && sighting.is_over(at(142), 10 * SECOND));
    }

    #[test]
    fn an_answer_after_the_flow_began_does_not_hide_the_one_before_it() {
        let mut sighting = Sighting::new("a".into(), at(100), 30 * SECOND);
        sighting.renew(at(105), 30 * SECOND);
        sighting.renew(KernelTime(at(105).0 + 1), 30 * SECOND);
        assert_eq!(sighting.at(at(104), 0), Some((State::Fresh, Duration::from_secs(4))));
    }

    proptest! {
        #[test]
        fn a_time_that_may_be_asked_about_finds_an_answer_before_it_if_there_was_one(
            gaps in proptest::collection::vec(0u64..3 * SECOND, 1..50),
            back in 0..=LATE,
        ) {
            let mut times = vec![KernelTime(10 * SECOND)];
            let mut sighting = Sighting::new("a".into(), times[0], u64::MAX);
            for gap in gaps {
                times.push(KernelTime(times[times.len() - 1].0 + gap));
                sighting.renew(times[times.len() - 1], u64::MAX);
            }
            let asked = KernelTime(times[times.len() - 1].0 - back.min(times[times.len() - 1].0));
            let best = times.iter().rev().find(|time| **time <= asked);
            let found = sighting.at(asked, 0).map(|(_, age)| age.as_nanos() as u64);
            prop_assert_eq!(found.is_some(), best.is_some());
            if let (Some(found), Some(best)) = (found, best) {
                // Which of the answers before it is remembered may be off by what lies between two of them.
                prop_assert!(found >= asked.since(*best) && found <= asked.since(*best) + 2 * LATE + SECOND);
            }
        }
    }
}
