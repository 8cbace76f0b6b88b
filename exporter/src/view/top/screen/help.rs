//! Which keys there are, and what the columns mean.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Ink, lines};
use crate::view::top::keys::HELP;

/// What is not said by itself.
const WORDS: &[&str] = &[
    "THERE is what the initiator sent, BACK what the responder sent. A flow's rate",
    "is as of its last update; of one that ended, its average.",
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, ink: Ink) {
    let key = |(key, does): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("{key:<24}"), ink.accent()), Span::raw(*does)])
    };
    let mut drawn: Vec<_> = HELP.iter().map(key).collect();
    drawn.push(Line::default());
    drawn.extend(WORDS.iter().map(|text| Line::raw(*text)));
    lines(frame, area, drawn);
}
