//! A request in, a line for people per record out. Names of processes and hosts come from outside: their control characters
//! are escaped, or they could act on the terminal.
//!
//! On a terminal lines have columns that fit its width, under a header with the date and the zone. Elsewhere (`| grep`, a file)
//! nothing is shortened, and each line has its whole time.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use opentelemetry_proto::tonic::{collector::logs::v1::ExportLogsServiceRequest, logs::v1::LogRecord};

use crate::{
    export::text::printable,
    words::{cell, shorten, shorten_process},
};

mod detail;
mod fields;
mod layout;
mod order;
#[cfg(test)]
mod tests;

use fields::{Fields, NAME};
use layout::{ARROW, DIRECTION, EVENT, Layout, TIME};
pub(super) use order::{HOLD, Held};

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::export) enum Place {
    /// To a terminal, whose width is asked each time.
    Terminal,
    /// Elsewhere.
    Pipe,
}

/// Writes lines for people.
#[derive(Debug)]
pub(super) struct People {
    colour: bool,
    place: Place,
    zone: TimeZone,
    /// What the last header said.
    header: Option<String>,
    layout: Layout,
}

// === impl People

impl People {
    pub(super) fn new(colour: bool, place: Place) -> Self {
        Self { colour, place, zone: TimeZone::system(), header: None, layout: Layout::fit(80) }
    }

    /// A line for each record, with its time, in the order of time.
    pub(super) fn lines(&mut self, request: &ExportLogsServiceRequest) -> Vec<Line> {
        if self.place == Place::Terminal {
            self.layout = Layout::fit(width());
        }
        let records = request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records);
        let mut lines: Vec<_> = records.map(|record| self.line(record)).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }

    /// Adds lines to `out`, and where it has to be a header before them.
    pub(super) fn write(&mut self, lines: impl IntoIterator<Item = Line>, out: &mut Vec<u8>) {
        for line in lines {
            if self.place == Place::Terminal {
                let header = self.header_for(line.at);
                if self.header.as_ref() != Some(&header) {
                    let bold = self.style(Style::new().bold());
                    out.extend_from_slice(format!("{bold}{header}{bold:#}\n").as_bytes());
                    self.header = Some(header);
                }
            }
            out.extend_from_slice(line.text.as_bytes());
            out.push(b'\n');
        }
    }

    /// The header, and before it the day: where either changes, it comes again.
    fn header_for(&self, at: u64) -> String {
        let day = self.local(at).map(|time| time.strftime("%A, %-d %B %Y, UTC%:z").to_string()).unwrap_or_default();
        let Layout { source, destination, process, .. } = self.layout;
        format!(
            "{day}\n{} {} {} {}{ARROW}{} {} detail",
            cell("time", TIME),
            cell("event", EVENT),
            cell("dir", DIRECTION),
            cell("source", source),
            cell("destination", destination),
            cell("process", process),
        )
    }

    fn line(&self, record: &LogRecord) -> Line {
        let text = match self.place {
            Place::Terminal => self.columns(record),
            Place::Pipe => self.whole(record),
        };
        Line { at: record.time_unix_nano, text }
    }

    /// A line in columns.
    fn columns(&self, record: &LogRecord) -> String {
        let fields = Fields(record);
        let word = fields.event();
        let style = self.style(event_style(word));
        let time = match self.local(record.time_unix_nano) {
            Some(time) => time.strftime("%H:%M:%S%.3f").to_string(),
            None => record.time_unix_nano.to_string(),
        };
        let event = cell(&printable(word, NAME), EVENT);
        let head = format!("{} {style}{event}{style:#} ", cell(&time, TIME));
        let layout = self.layout;
        let (Some(source), Some(destination)) = (fields.place("source"), fields.place("destination")) else {
            return head + &beside(&other(&fields, word), layout.line - TIME - EVENT - 2);
        };
        let process = fields.process().unwrap_or_default();
        let detail = detail::of(&fields, layout.detail);
        let mut line = format!(
            "{head}{} {}{ARROW}{} {} {}",
            cell(fields.direction(), DIRECTION),
            cell(&source.shorter(layout.source), layout.source),
            cell(&destination.short(), layout.destination),
            cell(&shorten_process(&process, layout.process), layout.process),
            shorten(&detail, layout.detail),
        );
        line.truncate(line.trim_end().len());
        line
    }

    /// A line that says everything, for files and programs.
    fn whole(&self, record: &LogRecord) -> String {
        let fields = Fields(record);
        let word = fields.event();
        let style = self.style(event_style(word));
        let time = match self.local(record.time_unix_nano) {
            Some(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            None => record.time_unix_nano.to_string(),
        };
        let mut out = String::with_capacity(160);
        let event = cell(&printable(word, NAME), EVENT);
        // Writing to a String can't fail.
        let _ = write!(out, "{time} {style}{event}{style:#} ");
        let (Some(source), Some(destination)) = (fields.place("source"), fields.place("destination")) else {
            out += &other(&fields, word);
            return out;
        };
        let direction = cell(fields.direction(), DIRECTION);
        let _ = write!(out, "{direction} {}{ARROW}{}", source.whole(), destination.whole());
        for more in [fields.process().unwrap_or_default(), detail::of(&fields, usize::MAX)] {
            if !more.is_empty() {
                let _ = write!(out, "  {more}");
            }
        }
        out
    }

    fn local(&self, nanoseconds: u64) -> Option<Zoned> {
        let time = Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }

    fn style(&self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }
}

/// A finished line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When it happened, in nanoseconds since 1970.
    pub(super) at: u64,
    text: String,
}

/// Colours that can be read on a dark and on a light ground. What is ordinary has none.
fn event_style(word: &str) -> Style {
    match word {
        "begin" => AnsiColor::Green.on_default(),
        "failed" => AnsiColor::Red.on_default().bold(),
        "gap" => AnsiColor::Magenta.on_default().bold(),
        _ => Style::new(),
    }
}

/// No flow: a gap, or a record of another kind. Its body is made for people.
fn other(fields: &Fields<'_>, word: &str) -> String {
    let body = fields.body().unwrap_or_default();
    printable(body.strip_prefix(&format!("{word}: ")).unwrap_or(body), 1000)
}

/// A text that may take several lines, the further ones under its first.
fn beside(text: &str, width: usize) -> String {
    let indent = " ".repeat(TIME + EVENT + 2);
    textwrap::wrap(text, width.max(20)).join(&format!("\n{indent}"))
}

/// Columns of the terminal; 80 where it doesn't say.
fn width() -> usize {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => 80,
    }
}
