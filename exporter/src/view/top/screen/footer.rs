//! What is missing, how much is remembered, and which keys there are.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Ink, fitted, lines};
use crate::{
    escape::Escaped,
    view::top::{
        App,
        model::{MOST_FLOWS, flow::MOST_PAST},
    },
    words::{cut, thousands},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, ink: Ink) {
    let width = usize::from(area.width);
    let keys = match &app.input {
        Some(input) => typed(input, width),
        None => keys(width),
    };
    lines(frame, area, vec![balance(app, width, ink), history(app, width, ink), keys]);
}

/// Records: made = delivered + the rest; and what is known to be missing.
fn balance(app: &App, width: usize, ink: Ink) -> Line<'static> {
    let (gaps, last) = app.model.gaps();
    let mut pieces = Vec::new();
    let lost = app.model.status().map_or(0, |status| status.lost);
    if let Some(status) = app.model.status() {
        let parts = status.records.parts.iter().filter(|part| part.count > 0 || part.name == "delivered");
        let parts: Vec<_> = parts.map(|part| format!("{} {}", thousands(part.count), Escaped(&part.name))).collect();
        let text = format!("records {} = {}", thousands(status.records.total), parts.join(" + "));
        pieces.push(Span::raw(cut(&text, width.saturating_sub(24))));
    }
    let style = if lost > 0 { ink.bad() } else { Ink::faint() };
    pieces.push(Span::styled(format!("   lost {}", thousands(lost)), style));
    let style = if gaps > 0 { ink.warn() } else { Ink::faint() };
    pieces.push(Span::styled(format!("   gaps {}", thousands(gaps)), style));
    let mut line = fitted(pieces, width);
    if let Some((_, text)) = last.last() {
        let room = width.saturating_sub(line.width() + 2);
        let text = text.strip_prefix("gap: ").unwrap_or(text);
        line.push_span(Span::styled(format!(": {}", cut(text, room)), style));
    }
    line
}

fn history(app: &App, width: usize, ink: Ink) -> Line<'static> {
    if let (Some(_), Some(why)) = (&app.input, &app.error) {
        // It says what is meant near its beginning.
        let why = Escaped(why).to_string();
        return Line::styled(cut(why.strip_prefix("rule 1: ").unwrap_or(&why), width), ink.bad());
    }
    let (held, forgotten) = app.model.held();
    let missed = app.model.missed();
    let mut pieces = vec![Span::styled(
        format!(
            "history {} of {} flows, {MOST_PAST} events each, while this runs",
            thousands(held as u64),
            thousands(MOST_FLOWS as u64)
        ),
        Ink::faint(),
    )];
    if missed > 0 {
        pieces.push(Span::styled(format!("   missed {} records", thousands(missed)), ink.bad()));
    }
    if forgotten > 0 {
        pieces.push(Span::styled(format!("   forgotten {}", thousands(forgotten)), Ink::faint()));
    }
    fitted(pieces, width)
}

fn keys(width: usize) -> Line<'static> {
    let keys = [
        ("q", "quit"),
        ("Enter", "details"),
        ("s", "sort"),
        ("/", "filter"),
        ("e", "ended"),
        ("Space", "freeze"),
        ("?", "help"),
    ];
    let mut pieces = Vec::new();
    for (key, does) in keys {
        pieces.push(Span::styled(key, Ink::strong()));
        pieces.push(Span::raw(format!(" {does}  ")));
    }
    fitted(pieces, width + 2)
}

fn typed(input: &str, width: usize) -> Line<'static> {
    let mut line = Line::from(Span::styled("filter: ", Ink::strong()));
    let tail: String = input.chars().rev().take(width / 2).collect::<Vec<_>>().into_iter().rev().collect();
    line.push_span(Span::raw(tail));
    line.push_span(Span::styled(" ", Ink::reversed()));
    let room = width.saturating_sub(line.width() + 2);
    line.push_span(Span::styled(format!("  {}", cut("as --include; Enter: apply, Esc: leave", room)), Ink::faint()));
    line
}
