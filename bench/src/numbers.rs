//! What is made of repeated measurements.

use std::time::Duration;

/// The middle one.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of `q` does not exceed (nearest rank).
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// "median (min-max)".
pub fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    format!("{:.digits$} ({least:.digits$}-{most:.digits$})", median(values.iter().copied()))
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "a bench lets time pass on purpose, and nothing has to wake it")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
