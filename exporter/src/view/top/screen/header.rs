//! What is watched, what time it is, and the sums of all that is shown.

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Block, Borders, Sparkline},
};

use super::{Ink, bytes, fitted, lines, rate};
use crate::{
    view::top::{
        App,
        model::sums::{OVER, SECONDS},
    },
    words::{cell, cut, thousands, time},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, ink: Ink) {
    let width = usize::from(area.width);
    lines(frame, area, vec![title(app, width, ink), rates(app, width, ink), more(app, width)]);
}

fn title(app: &App, width: usize, ink: Ink) -> Line<'static> {
    let clock = clock(app.model.now());
    let state = match (&app.over, app.is_frozen()) {
        (Some(why), _) => Span::styled(format!("  {why}"), ink.bad()),
        (None, true) => Span::styled("  FROZEN", ink.warn()),
        (None, false) => Span::raw(""),
    };
    let room = width.saturating_sub(clock.len() + 1 + "flowtel top  ".len());
    let state_room = state.width().min(room);
    let what = cell(&app.title, room.saturating_sub(state_room));
    let what = what.trim_end();
    let mut line = Line::from(vec![Span::styled("flowtel top  ", Ink::strong()), Span::raw(what.to_owned())]);
    line.push_span(state);
    let gap = width.saturating_sub(line.width() + clock.len());
    line.push_span(Span::raw(" ".repeat(gap)));
    line.push_span(Span::raw(clock));
    line
}

/// The wall clock's time, with its zone.
fn clock(now: u64) -> String {
    if now == 0 {
        return String::new();
    }
    let time =
        Timestamp::from_nanosecond(now.into()).map(|at| at.to_zoned(zone()).strftime("%H:%M:%S UTC%:z").to_string());
    time.unwrap_or_default()
}

pub(super) fn zone() -> TimeZone {
    if cfg!(test) { TimeZone::UTC } else { TimeZone::system() }
}

fn rates(app: &App, width: usize, ink: Ink) -> Line<'static> {
    let model = &app.model;
    let rates = model.sums().rates(model.now());
    let failed = if rates.failed > 0.0 { ink.bad() } else { Ink::strong() };
    let number = |text: String| Span::styled(text, Ink::strong());
    fitted(
        vec![
            Span::raw("open "),
            number(thousands(open(app))),
            Span::raw("   new "),
            number(format!("{}/s", rate(rates.begun))),
            Span::raw("   ended "),
            number(format!("{}/s", rate(rates.ended))),
            Span::raw("   failed "),
            Span::styled(format!("{}/s", rate(rates.failed)), failed),
            Span::raw("   there "),
            number(format!("{}B/s", bytes(rates.there))),
            Span::raw("   back "),
            number(format!("{}B/s", bytes(rates.back))),
        ],
        width,
    )
}

/// Open flows: those that the flowtel knows, which may be more than are remembered here.
fn open(app: &App) -> u64 {
    app.model.open() as u64
}

fn more(app: &App, width: usize) -> Line<'static> {
    let sums = app.model.sums();
    let handshake = match (sums.handshake(50), sums.handshake(95)) {
        (Some(half), Some(most)) => format!("handshake {}, 95% within {}", time(half), time(most)),
        _ => "handshake -".into(),
    };
    let note = notes(app).join("; ");
    let text = format!("{handshake}   rates over {OVER} s   {note}");
    Line::styled(cut(text.trim_end(), width), Ink::faint())
}

/// What the numbers don't say, because it isn't recorded.
fn notes(app: &App) -> Vec<String> {
    let Some(hello) = app.model.hello() else { return Vec::new() };
    let recording = &hello.recording;
    let mut notes = Vec::new();
    if !recording.ends {
        notes.push("ends aren't recorded (capture.events)".into());
    }
    match recording.update_seconds {
        None if recording.ends => notes.push("bytes count at the end (flow.update is off)".into()),
        Some(seconds) => notes.push(format!("bytes every {}", time(seconds))),
        None => {}
    }
    if recording.sample < 1.0 {
        notes.push(format!("sample {}", recording.sample));
    }
    notes
}

/// New flows, and bytes, of the last minute.
pub(super) fn curves(frame: &mut Frame<'_>, area: Rect, app: &App, ink: Ink) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let seconds: Vec<_> = app.model.sums().seconds(app.model.now(), SECONDS - 4).collect();
    let mut curve = |area: Rect, title: &'static str, data: Vec<u64>, style| {
        let block = Block::new().borders(Borders::TOP).title(Span::styled(title, Ink::faint()));
        let inner = block.inner(area);
        let most = usize::from(inner.width);
        // Each second is as wide as it can be.
        let wide = (most / data.len().max(1)).max(1);
        let data: Vec<_> = data.into_iter().flat_map(|value| std::iter::repeat_n(value, wide)).collect();
        let data = data[data.len().saturating_sub(most)..].to_vec();
        frame.render_widget(block, area);
        frame.render_widget(Sparkline::default().data(data).style(style), inner);
    };
    curve(
        left,
        " new flows and failures, last minute ",
        seconds.iter().map(|s| s.begun.saturating_add(s.failed)).collect(),
        ink.good(),
    );
    curve(
        right,
        " bytes, last minute ",
        seconds.iter().map(|s| s.there.saturating_add(s.back)).collect(),
        ink.accent(),
    );
}
