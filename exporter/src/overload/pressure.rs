//! Whether more comes than there is room for: how full the queue is, and what it and the kernel's ring of flows lost, go in,
//! yes or no comes out. It comes on late and goes off later, so that it does not flutter.

use std::time::Duration;

use crate::capture::KernelTime;

/// How long it lasts after something was lost last.
const AFTER_LOSS: Duration = Duration::from_secs(10);

/// Whether there is pressure.
#[derive(Debug, Default)]
pub struct Pressure {
    full: bool,
    lost: u64,
    lost_at: Option<KernelTime>,
}

impl Pressure {
    /// As it was when last looked at.
    pub fn is_on(&self) -> bool {
        self.full || self.lost_at.is_some()
    }

    /// Looks at the queue, which holds `bytes` of `most`, and at how much was lost so far for want of room. Returns
    /// [`Self::is_on`].
    pub fn look(&mut self, now: KernelTime, bytes: u64, most: u64, lost: u64) -> bool {
        // From three quarters on, until less than half is left.
        self.full = if self.full { bytes >= most / 2 } else { bytes >= most - most / 4 };
        if lost > self.lost {
            self.lost = lost;
            self.lost_at = Some(now);
        } else if self.lost_at.is_some_and(|last| u128::from(now.since(last)) >= AFTER_LOSS.as_nanos()) {
            self.lost_at = None;
        }
        self.is_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_queue_presses_from_three_quarters_until_less_than_half() {
        let mut pressure = Pressure::default();
        let looks = [(74, false), (75, true), (60, true), (50, true), (49, false), (74, false)];
        for (bytes, on) in looks {
            assert_eq!(pressure.look(KernelTime(0), bytes, 100, 0), on, "{bytes}");
        }
    }

    #[test]
    fn a_loss_presses_for_ten_seconds() {
        let mut pressure = Pressure::default();
        assert!(pressure.look(KernelTime(SECOND), 0, 100, 7));
        assert!(pressure.look(KernelTime(10 * SECOND), 0, 100, 7));
        assert!(!pressure.look(KernelTime(11 * SECOND), 0, 100, 7));
        assert!(pressure.look(KernelTime(12 * SECOND), 0, 100, 8));
    }
}
