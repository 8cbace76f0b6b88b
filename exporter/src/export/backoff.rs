//! How long to wait before the next try: failures in a row go in, a wait comes out. Full jitter, so that senders that
//! lost the same receiver don't come back in step.

use std::time::Duration;

/// The waits of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait is a random time up to this.
    pub initial: Duration,
    /// No wait that the receiver didn't ask for is longer.
    pub max: Duration,
    /// No silence that the receiver asks for is longer: one bad answer, or a wrong date in it, must not silence flowtel.
    pub longest_silence: Duration,
}

// === impl Backoff

impl Backoff {
    /// The wait after `failures` failures in a row: a random time up to `initial` · 2^(`failures` − 1), at most `max`,
    /// but never less than `after`, the receiver's own wish, as far as it is granted.
    pub fn wait(&self, failures: u32, after: Option<Duration>) -> Duration {
        self.ceiling(failures).mul_f64(fastrand::f64()).max(self.silence(after))
    }

    /// How long the receiver is left in peace where it asks for `after`.
    pub fn silence(&self, after: Option<Duration>) -> Duration {
        after.unwrap_or_default().min(self.longest_silence)
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1));
        self.initial.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(30),
        longest_silence: Duration::from_secs(300),
    };

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let seconds: Vec<u64> = [1, 2, 3, 5, 6, 7, 40, u32::MAX].map(|n| BACKOFF.ceiling(n).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 16, 30, 30, 30, 30]);
    }

    #[test]
    fn the_wait_is_spread_below_the_ceiling() {
        let waits: Vec<Duration> = (0..1000).map(|_| BACKOFF.wait(3, None)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(4)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(1)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(3)));
    }

    #[test]
    fn the_receivers_wish_is_the_least_and_has_an_end() {
        assert!((0..100).all(|_| BACKOFF.wait(1, Some(Duration::from_secs(60))) == Duration::from_secs(60)));
        assert!((0..100).all(|_| BACKOFF.wait(1, Some(Duration::MAX)) == Duration::from_secs(300)));
    }
}
