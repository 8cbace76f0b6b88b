//! Lines in the order of their batches in, lines in the order of time out.
//!
//! What happened first isn't always recorded first: the owner of an incoming connection may come later. So on a terminal each
//! line waits a moment for those that belong before it.

use std::time::{Duration, Instant};

use super::Line;

/// How long a line waits. The capture thread holds nothing back longer, from the event to the record.
pub(in crate::export::stdout) const HOLD: Duration = Duration::from_millis(250);
/// The most lines that wait.
const MOST: usize = 10_000;

/// Lines that wait.
#[derive(Debug, Default)]
pub(in crate::export::stdout) struct Held {
    /// By time, with when they came.
    lines: Vec<(Line, Instant)>,
}

// === impl Held

impl Held {
    pub(in crate::export::stdout) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes lines in.
    pub(in crate::export::stdout) fn add(&mut self, lines: Vec<Line>, now: Instant) {
        self.lines.extend(lines.into_iter().map(|line| (line, now)));
        self.lines.sort_by_key(|(line, _)| line.at);
    }

    /// The lines that have waited long enough, and those before them; all of them with `now` as `None`.
    pub(in crate::export::stdout) fn ready(&mut self, now: Option<Instant>) -> Vec<Line> {
        let due = |came: &Instant| now.is_none_or(|now| now.saturating_duration_since(*came) >= HOLD);
        let waited = self.lines.iter().rposition(|(_, came)| due(came)).map_or(0, |last| last + 1);
        let ready = waited.max(self.lines.len().saturating_sub(MOST));
        self.lines.drain(..ready).map(|(line, _)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64) -> Line {
        Line { at, text: at.to_string() }
    }

    fn times(lines: Vec<Line>) -> Vec<u64> {
        lines.into_iter().map(|line| line.at).collect()
    }

    #[test]
    fn a_line_waits_for_those_that_belong_before_it() {
        let (mut held, start) = (Held::default(), Instant::now());
        held.add(vec![line(5), line(7)], start);
        assert!(held.ready(Some(start + HOLD / 2)).is_empty());
        held.add(vec![line(3), line(9)], start + HOLD / 2);
        assert_eq!(times(held.ready(Some(start + HOLD))), [3, 5, 7]);
        assert_eq!(times(held.ready(None)), [9]);
        assert!(held.is_empty());
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let (mut held, start) = (Held::default(), Instant::now());
        held.add((0..MOST as u64 + 3).map(line).collect(), start);
        assert_eq!(times(held.ready(Some(start))), [0, 1, 2]);
    }
}
