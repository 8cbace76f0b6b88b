//! The tabs, and the table below them: the columns that fit, the rows around the selected one.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Ink, bytes, lines, rate};
use crate::{
    view::top::{
        App, Tab,
        model::{
            SECOND,
            flow::Flow,
            groups::{Group, Kind},
        },
        rows::{RowId, Sort},
    },
    words::{cell, cut, shorten, shorten_process, thousands, time},
};

/// A column.
struct Column {
    title: &'static str,
    /// Its width; 0: it takes a share of what is left.
    width: usize,
    right: bool,
    sort: Option<Sort>,
    /// Terminals that are narrower leave it out.
    from: usize,
}

const fn column(title: &'static str, width: usize, right: bool, sort: Option<Sort>, from: usize) -> Column {
    Column { title, width, right, sort, from }
}

const FLOWS: &[Column] = &[
    column("AGE", 7, true, Some(Sort::Age), 0),
    column("DIR", 3, false, None, 0),
    column("PROCESS", 0, false, Some(Sort::Name), 0),
    column("SOURCE", 0, false, None, 120),
    column("DESTINATION", 0, false, Some(Sort::Destination), 0),
    column("CONTAINER", 12, false, None, 150),
    column("THERE/s", 7, true, Some(Sort::Rate), 0),
    column("BACK/s", 6, true, Some(Sort::Rate), 0),
    column("BYTES", 6, true, Some(Sort::Bytes), 90),
    column("HANDSH", 7, true, Some(Sort::Handshake), 0),
    column("STATE", 9, false, Some(Sort::State), 0),
];

const GROUPS: &[Column] = &[
    column("NAME", 0, false, Some(Sort::Name), 0),
    column("OPEN", 6, true, Some(Sort::Open), 0),
    column("NEW/s", 6, true, Some(Sort::New), 0),
    column("FAIL/s", 6, true, Some(Sort::Failed), 0),
    column("FAILED", 7, true, None, 100),
    column("THERE/s", 7, true, Some(Sort::Rate), 0),
    column("BACK/s", 6, true, Some(Sort::Rate), 0),
    column("BYTES", 6, true, Some(Sort::Bytes), 0),
    column("HANDSH", 7, true, Some(Sort::Handshake), 0),
];

/// The tabs, the order, the filter.
pub(super) fn tabs(frame: &mut Frame<'_>, area: Rect, app: &App, ink: Ink) {
    let mut line = Line::default();
    for (at, tab) in Tab::ALL.into_iter().enumerate() {
        let style = if tab == app.tab { Ink::reversed() } else { Style::new() };
        line.push_span(Span::styled(format!(" {} {} ", at + 1, tab.name()), style));
    }
    let mut about = Vec::new();
    if let Some((kind, name)) = &app.focus {
        about.push(format!("{} {name}", word(*kind)));
    }
    if !app.filter.is_empty() {
        about.push(format!("filter {}", app.filter));
    }
    if app.all && app.tab == Tab::Flows {
        about.push("ended ones too".into());
    }
    about.push(format!("by {}{}", app.sorted_by().name(), if app.reversed { ", reversed" } else { "" }));
    let room = usize::from(area.width).saturating_sub(line.width() + 2);
    line.push_span(Span::raw("  "));
    let style = if app.filter.is_empty() && app.focus.is_none() { Ink::faint() } else { ink.accent() };
    line.push_span(Span::styled(cut(&about.join(", "), room), style));
    lines(frame, area, vec![line]);
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Process => "process",
        Kind::Destination => "to",
        Kind::Container => "container",
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, ink: Ink) {
    let width = usize::from(area.width);
    let columns = columns(app.tab, width);
    app.room = usize::from(area.height).saturating_sub(1).max(1);
    let rows = app.rows();
    let at = app.selection(&rows);
    app.place = at.unwrap_or(0);
    // The selected row is on the page.
    let first = app.place / app.room * app.room;
    let head: Vec<_> = columns.iter().map(|(column, _)| column.title.to_owned()).collect();
    let mut drawn = vec![line(&columns, &head, Ink::strong(), Some(app.sorted_by()))];
    for (place, row) in rows.iter().enumerate().skip(first).take(app.room) {
        let (cells, style) = match row {
            RowId::Flow(number) => match app.model.flow(*number) {
                Some(flow) => (flow_cells(flow, app.model.now(), &columns), flow_style(flow, app, ink)),
                None => continue,
            },
            RowId::Group(kind, name) => match app.model.groups(*kind).find(|(is, _)| is == name) {
                Some((name, group)) => (group_cells(name, group, app.model.now(), &columns), Style::new()),
                None => continue,
            },
        };
        let style = if Some(place) == at && app.selected.is_some() { Ink::reversed() } else { style };
        drawn.push(line(&columns, &cells, style, None));
    }
    if rows.is_empty() {
        drawn.push(Line::styled(nothing(app), Ink::faint()));
    }
    lines(frame, area, drawn);
}

fn nothing(app: &App) -> &'static str {
    match (app.filter.is_empty() && app.focus.is_none(), app.tab) {
        (false, _) => "nothing matches",
        (true, Tab::Flows) => "no open flows",
        (true, Tab::Groups(_)) => "no flows so far",
    }
}

/// The columns that fit, with their widths.
fn columns(tab: Tab, width: usize) -> Vec<(&'static Column, usize)> {
    let all = if tab == Tab::Flows { FLOWS } else { GROUPS };
    let shown: Vec<_> = all.iter().filter(|column| column.from <= width).collect();
    let fixed: usize = shown.iter().map(|column| column.width).sum::<usize>() + shown.len() - 1;
    let open: Vec<_> = shown.iter().filter(|column| column.width == 0).map(|column| share(column)).collect();
    let (parts, mut room) = (open.iter().sum::<usize>().max(1), width.saturating_sub(fixed));
    let each = room;
    let last = shown.iter().rposition(|column| column.width == 0);
    let widths = shown.into_iter().enumerate().map(|(at, column)| {
        if column.width > 0 {
            return (column, column.width);
        }
        let width = if Some(at) == last { room } else { each * share(column) / parts };
        room = room.saturating_sub(width);
        (column, width)
    });
    widths.collect()
}

/// How much of what is left a column takes.
fn share(column: &Column) -> usize {
    if column.title == "DESTINATION" { 3 } else { 2 }
}

fn line(columns: &[(&Column, usize)], cells: &[String], style: Style, sorted: Option<Sort>) -> Line<'static> {
    let mut spans = Vec::with_capacity(2 * columns.len());
    for ((column, width), text) in columns.iter().zip(cells) {
        let text = if column.right {
            let text = shorten(text, *width);
            format!("{}{text}", " ".repeat(width.saturating_sub(textwrap::core::display_width(&text))))
        } else {
            cell(text, *width)
        };
        let marked = sorted.is_some() && column.sort == sorted;
        let own = if marked { style.add_modifier(ratatui::style::Modifier::UNDERLINED) } else { style };
        spans.push(Span::styled(text, own));
        spans.push(Span::styled(" ", style));
    }
    spans.pop();
    Line::from(spans)
}

fn flow_style(flow: &Flow, app: &App, ink: Ink) -> Style {
    let fresh = flow.began().is_some_and(|began| began.saturating_add(2 * SECOND) > app.model.now());
    match flow.facts().event {
        crate::view::facts::Event::Failed => ink.bad(),
        _ if flow.is_over() => Ink::faint(),
        _ if fresh => ink.good(),
        _ => Style::new(),
    }
}

fn flow_cells(flow: &Flow, now: u64, columns: &[(&Column, usize)]) -> Vec<String> {
    let (there, back) = flow.rate();
    let one = |(column, width): &(&Column, usize)| match column.title {
        "AGE" if flow.facts().count > 1 => format!("{}×", flow.facts().count),
        "AGE" => flow.age(now).map(short_time).unwrap_or_default(),
        "DIR" => flow.direction().to_owned(),
        "PROCESS" => shorten_process(&flow.process(), *width),
        "SOURCE" => flow.source(),
        "DESTINATION" => flow.destination(),
        "CONTAINER" => flow.container(),
        "THERE/s" => bytes(there),
        "BACK/s" => bytes(back),
        "BYTES" => bytes(flow.bytes().0 as f64 + flow.bytes().1 as f64),
        "HANDSH" => flow.facts().handshake.map(short_time).unwrap_or_default(),
        _ => flow.state().to_owned(),
    };
    columns.iter().map(one).collect()
}

fn group_cells(name: &str, group: &Group, now: u64, columns: &[(&Column, usize)]) -> Vec<String> {
    let (rates, total) = (group.sums.rates(now), group.sums.total());
    let one = |(column, _): &(&Column, usize)| match column.title {
        "NAME" => name.to_owned(),
        "OPEN" => thousands(group.open),
        "NEW/s" => rate(rates.begun),
        "FAIL/s" => rate(rates.failed),
        "FAILED" => thousands(total.failed),
        "THERE/s" => bytes(rates.there),
        "BACK/s" => bytes(rates.back),
        "BYTES" => bytes(total.there as f64 + total.back as f64),
        _ => group.sums.handshake(50).map(short_time).unwrap_or_default(),
    };
    columns.iter().map(one).collect()
}

/// A time without the blank before its unit.
fn short_time(seconds: f64) -> String {
    time(seconds).replace(' ', "")
}
