//! The app in, a picture of it out. Everything fits 80 columns and 24 rows; more room shows more.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::App;
use crate::words::{self, shorten, thousands};

mod details;
mod footer;
mod header;
mod help;
mod table;

/// From this height on there is room for curves.
const TALL: u16 = 30;
/// Rows of the curves.
const CURVES: u16 = 4;
/// What can't be shown in less.
const LEAST: (u16, u16) = (40, 10);

/// Colours that can be read on a dark and on a light ground; without colour, what they say is said by bold, dim and reversed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ink(bool);

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("flowtel top needs {} x {}", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(shorten(&text, area.width.into())), area);
        return;
    }
    let ink = Ink(app.colour);
    let curves = if area.height >= TALL { CURVES } else { 0 };
    let parts = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(curves),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(3),
    ]);
    let [head, curve, tabs, body, foot] = parts.areas(area);
    header::draw(frame, head, app, ink);
    if curves > 0 {
        header::curves(frame, curve, app, ink);
    }
    table::tabs(frame, tabs, app, ink);
    if app.help {
        help::draw(frame, body, ink);
    } else if let Some(number) = app.details {
        details::draw(frame, body, app, number, ink);
    } else {
        table::draw(frame, body, app, ink);
    }
    footer::draw(frame, foot, app, ink);
}

/// Lines from the top of an area on; those that don't fit are left out.
fn lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines), area);
}

/// Pieces of a line that fit its width: those that come later go first.
fn fitted<'a>(pieces: Vec<Span<'a>>, width: usize) -> Line<'a> {
    let mut line = Line::default();
    for piece in pieces {
        if line.width() + piece.width() > width {
            break;
        }
        line.push_span(piece);
    }
    line
}

/// A rate with as many digits as say something.
fn rate(n: f64) -> String {
    match n {
        n if n <= 0.0 => "0".into(),
        n if n < 9.95 => format!("{n:.1}"),
        n => thousands(n.round() as u64),
    }
}

/// A count of bytes, from a number that may be none.
fn bytes(n: f64) -> String {
    // Larger than any is the largest.
    words::bytes(n as i64)
}

// === impl Ink

impl Ink {
    fn coloured(self, colour: Color, without: Modifier) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new().add_modifier(without) }
    }

    fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    fn warn(self) -> Style {
        self.coloured(Color::Magenta, Modifier::BOLD)
    }

    fn accent(self) -> Style {
        self.coloured(Color::Cyan, Modifier::BOLD)
    }

    fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn faint() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn reversed() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_can_be_read() {
        assert_eq!([0.0, 0.2, 9.94, 9.96, 1234.4].map(rate), ["0", "0.2", "9.9", "10", "1,234"]);
        assert_eq!([0.0, 1234.0, f64::MAX, f64::NAN].map(bytes), ["0", "1.2k", "9.2E", "0"]);
    }
}
