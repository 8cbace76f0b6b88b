//! One flow: what is known of it, and its history.

use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Ink, bytes, header, lines};
use crate::{
    view::{
        facts::{Event, Process},
        top::{
            App,
            model::{Number, flow::Flow},
        },
    },
    words::{shorten, thousands, time},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, number: Number, ink: Ink) {
    let Some(flow) = app.model.flow(number) else {
        lines(frame, area, vec![Line::styled("this flow is not remembered any more", Ink::faint())]);
        return;
    };
    let width = usize::from(area.width);
    let mut drawn = Vec::new();
    for (name, value) in about(flow, number, app.model.now()) {
        let name = format!("{name:<13}");
        let value = shorten(&value, width.saturating_sub(name.len()));
        drawn.push(Line::from(vec![Span::styled(name, Ink::faint()), Span::raw(value)]));
    }
    drawn.push(Line::styled(format!("{:<13}{:<15}{:>10}{:>10}", "history", "event", "there", "back"), Ink::strong()));
    // The first event, and as many of the last as there is room for.
    let room = usize::from(area.height).saturating_sub(drawn.len());
    let past = flow.past();
    let skipped = past.len().saturating_sub(room.max(1));
    for (at, past) in past.iter().enumerate() {
        if at > 0 && at <= skipped {
            continue;
        }
        let style = match past.event {
            Event::Begin => ink.good(),
            Event::Failed => ink.bad(),
            _ => ratatui::style::Style::new(),
        };
        let (there, back) = (bytes(past.bytes.0 as f64), bytes(past.bytes.1 as f64));
        let text = format!("{:<13}{:<15}{there:>10}{back:>10}", clock(past.time), word(past.event));
        drawn.push(Line::styled(text, style));
    }
    lines(frame, area, drawn);
}

fn clock(time: u64) -> String {
    let at = Timestamp::from_nanosecond(time.into());
    at.map(|at| at.to_zoned(header::zone()).strftime("%H:%M:%S%.3f").to_string()).unwrap_or_default()
}

const fn word(event: Event) -> &'static str {
    match event {
        Event::Begin => "begin",
        Event::Open => "open already",
        Event::Update => "update",
        Event::End => "end",
        Event::Failed => "failed",
        Event::Gap => "gap",
    }
}

fn about(flow: &Flow, number: Number, now: u64) -> Vec<(&'static str, String)> {
    let facts = flow.facts();
    let Process { pid, user, path, thread, container, pod, unit, .. } = &facts.process;
    let named = |name: &Option<String>, at: std::net::SocketAddr| match name {
        Some(name) => format!("{at} ({name})"),
        None => at.to_string(),
    };
    let mut process = flow.process();
    if let (Some(path), Some(_)) = (path, pid) {
        process += &format!("  {path}");
    }
    if let Some(user) = user {
        process += &format!("  user {user}");
    }
    let age = flow.age(now).map_or("?".into(), time);
    let state = if flow.is_over() { format!("{} after {age}", flow.state()) } else { format!("open for {age}") };
    let direction = match flow.direction() {
        "" => String::new(),
        way => format!(", {way}{}", if facts.ends.local { ", both ends on this host" } else { "" }),
    };
    let (there, back) = flow.bytes();
    let mut rows = vec![
        (
            "flow",
            if facts.flow.is_some() { format!("{number:032x}") } else { format!("{} alike", thousands(facts.count)) },
        ),
        ("state", format!("{state}{direction}")),
        ("source", named(&facts.source_name, facts.ends.source)),
        ("destination", named(&facts.destination_name, facts.ends.destination)),
        ("process", process),
        ("bytes", format!("{} there, {} back", thousands(there), thousands(back))),
    ];
    if let Some(seconds) = facts.handshake {
        rows.push(("handshake", time(seconds)));
    }
    for (name, value) in [("thread", thread), ("container", container), ("pod", pod), ("unit", unit)] {
        if let Some(value) = value {
            rows.push((name, value.clone()));
        }
    }
    rows
}
