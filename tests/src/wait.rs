//! Waiting: a condition and a limit go in, what was waited for or an error that names it comes out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Does nothing for a while: for situations that are made of time, such as an answer that comes late. To wait for
/// something to happen, use [`until`].
pub fn pause(time: Duration) {
    let mut left =
        Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() };
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

/// Looks again and again until `probe` finds something.
///
/// # Errors
/// `limit` passes first, or `probe` fails.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        pause(STEP);
    }
}

/// The wall clock, in nanoseconds since 1970.
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
