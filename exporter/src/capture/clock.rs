//! Kernel time (CLOCK_BOOTTIME, which goes on in suspend) and wall-clock time, with the offset between them measured
//! anew at each reading of the rings, so that stamps follow when the wall clock is stepped.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME. Order and durations come from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelTime(pub u64);

/// Nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// The offset between the two.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset: i128,
}

impl KernelTime {
    /// The kernel's clock now.
    pub fn now() -> Self {
        Self(nanoseconds(ClockId::Boottime))
    }

    /// Nanoseconds from `earlier` to this, 0 where it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Clock {
    /// Measures the offset. Three readings, the tightest counts: this thread may be interrupted between two clocks.
    pub fn measure() -> Self {
        let mut best: Option<(u64, i128)> = None;
        for _ in 0..3 {
            let before = nanoseconds(ClockId::Boottime);
            let wall = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Boottime);
            let gap = after.saturating_sub(before);
            let offset = i128::from(wall) - i128::from(before + gap / 2);
            if best.is_none_or(|(least, _)| gap < least) {
                best = Some((gap, offset));
            }
        }
        Self { offset: best.map_or(0, |(_, offset)| offset) }
    }

    /// The wall-clock time at which the kernel's clock showed `time`.
    pub fn wall(&self, time: KernelTime) -> WallTime {
        WallTime(u64::try_from(i128::from(time.0) + self.offset).unwrap_or(0))
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_stamps_and_neither_order_nor_duration() {
        const HOUR: i128 = 3_600_000_000_000;
        let (began, ended) = (KernelTime(5_000_000_000), KernelTime(7_000_000_000));
        let before = Clock { offset: 1_000_000 * HOUR };
        let set_back = Clock { offset: before.offset - HOUR };
        assert!(set_back.wall(ended) < before.wall(began), "the stamps follow the wall clock");
        assert!(began < ended);
        assert_eq!(ended.since(began), 2_000_000_000);
        assert_eq!(began.since(ended), 0, "no duration is negative, nor wraps around");
        let before_1970 = Clock { offset: -HOUR };
        assert_eq!(before_1970.wall(began), WallTime(0));
    }

    #[test]
    fn kernel_time_is_the_clock_that_goes_on_in_suspend() {
        let (before, now, after) = (nanoseconds(ClockId::Boottime), KernelTime::now(), nanoseconds(ClockId::Boottime));
        assert!((before..=after).contains(&now.0));
    }

    #[test]
    fn kernel_time_turned_into_wall_time_agrees_with_the_wall_clock() {
        let clock = Clock::measure();
        let wall = clock.wall(KernelTime::now()).0;
        let reference =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        assert!(wall.abs_diff(reference) < 5_000_000, "{wall} and {reference}");
    }
}
