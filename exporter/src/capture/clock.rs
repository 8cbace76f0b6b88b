//! Kernel time (CLOCK_BOOTTIME, which goes on in suspend) and wall-clock time, with the offset between them measured
//! anew at each reading of the rings, so that stamps follow when the wall clock is stepped.
//!
//! The kernel programs read the clock of the initial time namespace. A process in another one is shown a shifted clock, so
//! [`settle_in`] takes the shift out before anything asks for the time. Must never guess it.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use rustix::time::{ClockId, clock_gettime};

use super::Error;

/// What this process's time namespace adds to CLOCK_BOOTTIME, nanoseconds. Set once, at the start.
static SHIFT: AtomicI64 = AtomicI64::new(0);

/// Inode number of the initial time namespace: PROC_TIME_INIT_INO (include/linux/proc_ns.h), the same in each kernel.
const INITIAL_TIME_NAMESPACE: u64 = 0xEFFF_FFFA;

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
        Self(boot_time())
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
            let before = boot_time();
            let wall = nanoseconds(ClockId::Realtime);
            let after = boot_time();
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

/// Finds out how this process's time namespace shifts the clock. To be called before anything asks for the time.
///
/// # Errors
/// The namespace's offsets can't be read: every stamp would be wrong.
pub fn settle_in() -> Result<(), Error> {
    let shift = shift_in(Path::new("/proc/self")).map_err(|reason| Error::TimeNamespace { reason })?;
    SHIFT.store(shift, Relaxed);
    Ok(())
}

/// How long one of the ticks is that /proc counts in: nanoseconds.
pub fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// When something happened whose time /proc shows as `ticks` of `tick_ns` each, rounded down: /proc adds its reader's own
/// shift (fs/proc/array.c, timens_add_boottime_ns), in 64 bits, also where that makes the time negative.
pub fn shown_as(ticks: u64, tick_ns: u64) -> KernelTime {
    unshifted(ticks, tick_ns, SHIFT.load(Relaxed))
}

fn unshifted(ticks: u64, tick_ns: u64, shift: i64) -> KernelTime {
    let shown = i128::from(ticks) * i128::from(tick_ns);
    let signed = if shift < 0 && shown > i128::from(i64::MAX) { shown - (1 << 64) } else { shown };
    KernelTime(u64::try_from((signed - i128::from(shift)).max(0)).unwrap_or(u64::MAX))
}

/// The shift that the process whose directory of /proc this is sees.
fn shift_in(process: &Path) -> Result<i64, String> {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = |name: &str| fs::metadata(process.join("ns").join(name)).ok().map(|found| found.ino());
    // Without such a file the kernel has no time namespaces.
    let Some(own) = namespace("time").filter(|inode| *inode != INITIAL_TIME_NAMESPACE) else { return Ok(0) };
    // The file with the offsets is about the namespace of children (proc_timens_show_offsets, kernel/time/namespace.c).
    if namespace("time_for_children") != Some(own) {
        return Err("flowtel's children would get another time namespace than flowtel has".into());
    }
    let path = process.join("timens_offsets");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    offset_of_boot_time(&text).ok_or_else(|| format!("{} has no offset of \"boottime\"", path.display()))
}

/// The line `boottime SECONDS NANOSECONDS` (time_namespaces(7)), as nanoseconds.
fn offset_of_boot_time(text: &str) -> Option<i64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let (seconds, rest): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(rest)
}

/// CLOCK_BOOTTIME as the initial time namespace, and so the kernel programs, have it.
fn boot_time() -> u64 {
    nanoseconds(ClockId::Boottime).saturating_add_signed(SHIFT.load(Relaxed).saturating_neg())
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
    fn the_offset_is_that_of_the_boot_time_with_its_sign() {
        let text = |line: &str| format!("monotonic           7         0\n{line}\n");
        assert_eq!(offset_of_boot_time(&text("boottime        -5000         0")), Some(-5_000_000_000_000));
        assert_eq!(offset_of_boot_time(&text("boottime         3600 500000000")), Some(3_600_500_000_000));
        for line in ["", "boottime", "boottime 1", "boottime x 0", "boottime 99999999999999999999 0"] {
            assert_eq!(offset_of_boot_time(&text(line)), None, "{line:?}");
        }
    }

    #[test]
    fn times_in_proc_are_taken_back_to_the_kernels_clock_whatever_the_shift() {
        const TICK: u64 = 10_000_000;
        for shift in [0, 5_000_000_000_000, -5_000_000_000_000, -7_000_000_003] {
            for began in [0, 3 * TICK, 4_000_000_000_123, 9_000_000_000_000] {
                let shown = u64::wrapping_add_signed(began, shift) / TICK;
                let found = unshifted(shown, TICK, shift).0;
                assert!(found <= began && began - found < TICK, "{shift} {began} {found}");
            }
        }
    }

    #[test]
    fn a_namespace_whose_offsets_cant_be_told_is_refused() {
        let proc = tempfile::tempdir().expect("a directory");
        assert_eq!(shift_in(proc.path()), Ok(0), "a kernel without time namespaces");
        fs::create_dir(proc.path().join("ns")).expect("made");
        fs::write(proc.path().join("ns/time"), "").expect("written");
        assert!(shift_in(proc.path()).is_err(), "children would have another");
        fs::hard_link(proc.path().join("ns/time"), proc.path().join("ns/time_for_children")).expect("linked");
        assert!(shift_in(proc.path()).is_err(), "no offsets");
        fs::write(proc.path().join("timens_offsets"), "monotonic 0 0\nboottime -2 1\n").expect("written");
        assert_eq!(shift_in(proc.path()), Ok(-1_999_999_999));
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
