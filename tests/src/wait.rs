//! Waiting: a condition and a limit go in, what was waited for or an error that names it comes out.
//!
//! On a machine that is known to be slow (an emulated one) `FLOWTEL_TESTS_PATIENCE=6` makes all limits six times as long.

use std::{
    env,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
    let asked = env::var("FLOWTEL_TESTS_PATIENCE").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(1).clamp(1, 100)
});

/// A limit that was meant for an ordinary machine, as long as this one needs it.
pub fn patient(limit: Duration) -> Duration {
    limit * *PATIENCE
}

/// Whether this machine is known to be slow.
pub fn is_slow() -> bool {
    *PATIENCE > 1
}

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
/// `limit` (made [`patient`]) passes first, or `probe` fails.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (start, limit) = (Instant::now(), patient(limit));
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
