//! A request in, a line for people per record out. Names of processes and hosts come from outside: their control
//! characters are escaped, or they could act on the terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};

use crate::export::text::printable;

/// The most characters of one name.
const NAME: usize = 255;

/// Adds a line per record to `out`.
pub(super) fn write(request: &ExportLogsServiceRequest, colour: bool, out: &mut Vec<u8>) {
    let zone = TimeZone::system();
    let records = request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records);
    for record in records {
        out.extend_from_slice(line(record, &zone, colour).as_bytes());
        out.push(b'\n');
    }
}

fn line(record: &LogRecord, zone: &TimeZone, colour: bool) -> String {
    let style = |style: Style| if colour { style } else { Style::new() };
    let dim = style(Style::new().dimmed());
    let mut out = String::with_capacity(160);
    // Writing to a String can't fail.
    let _ = write!(out, "{dim}{}{dim:#} ", time(record, zone));
    let word = record.event_name.rsplit('.').next().unwrap_or_default();
    let event = style(event_style(word));
    let _ = write!(out, "{event}{}{event:#}", printable(word, NAME));

    let fields = Fields(record);
    let (Some(source), Some(destination)) = (fields.place("source"), fields.place("destination")) else {
        // No flow: a gap, or a record of another kind. Its body is made for people.
        if let Some(body) = record.body.as_ref().and_then(text) {
            let body = body.strip_prefix(&format!("{word}: ")).unwrap_or(body);
            let _ = write!(out, " {}", printable(body, 1000));
        }
        return out;
    };
    let arrow = match fields.text("flowtel.flow.direction") {
        Some("outgoing") => " →",
        Some("incoming") => " ←",
        _ => "",
    };
    let _ = write!(out, "{arrow} {source} -> {destination}");
    if let Some(process) = fields.process() {
        let _ = write!(out, " {process}");
    }
    if let Some(count) = fields.int("flowtel.fold.count") {
        let _ = write!(out, " {count} times");
    }
    if let Some(reason) = fields.text("flowtel.flow.end.reason").or_else(|| fields.text("error.type")) {
        let _ = write!(out, " {}", printable(reason, NAME));
    }
    if let Some(handshake) = fields.number("flowtel.tcp.handshake.duration") {
        let _ = write!(out, " {dim}handshake {:.3} ms{dim:#}", handshake * 1e3);
    }
    if let Some(duration) = fields.number("flowtel.flow.duration") {
        let _ = write!(out, " {dim}after {duration:.3} s{dim:#}");
    }
    // What of it is new, of a flow that goes on.
    if word == "update"
        && let [Some(there), Some(back)] =
            ["flowtel.delta.source.bytes", "flowtel.delta.destination.bytes"].map(|key| fields.int(key))
    {
        let _ = write!(out, " {dim}{there:+} bytes there, {back:+} back{dim:#}");
    }
    out
}

fn event_style(word: &str) -> Style {
    match word {
        "begin" => AnsiColor::Green.on_default().bold(),
        "end" => AnsiColor::Blue.on_default(),
        "failed" => AnsiColor::Red.on_default().bold(),
        "gap" => AnsiColor::Yellow.on_default().bold(),
        _ => Style::new().bold(),
    }
}

/// Local time to the millisecond.
fn time(record: &LogRecord, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(record.time_unix_nano.into()) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => record.time_unix_nano.to_string(),
    }
}

/// A record's attributes by their names in the schema.
struct Fields<'a>(&'a LogRecord);

// === impl Fields

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a AnyValue> {
        self.0.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(text)
    }

    fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)?.value {
            Some(Value::IntValue(v)) => Some(v),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)?.value {
            Some(Value::DoubleValue(v)) => Some(v),
            _ => None,
        }
    }

    /// `address:port (name)` of one side.
    fn place(&self, side: &str) -> Option<String> {
        let mut out = printable(self.text(&format!("{side}.address"))?, NAME);
        if out.contains(':') {
            out = format!("[{out}]");
        }
        if let Some(port) = self.int(&format!("{side}.port")) {
            let _ = write!(out, ":{port}");
        }
        if let Some(AnyValue { value: Some(Value::ArrayValue(names)) }) = self.get(&format!("flowtel.{side}.dns.names"))
            && let Some(name) = names.values.first().and_then(text)
        {
            let _ = write!(out, " ({})", printable(name, NAME));
        }
        Some(out)
    }

    /// `name[pid]` of the owner.
    fn process(&self) -> Option<String> {
        let name = self.text("process.executable.name").or_else(|| self.text("thread.name"));
        let name = name.map(|name| printable(name, NAME));
        match (name, self.int("process.pid")) {
            (None, None) => None,
            (Some(name), None) => Some(name),
            (name, Some(pid)) => Some(format!("{}[{pid}]", name.unwrap_or_default())),
        }
    }
}

fn text(value: &AnyValue) -> Option<&str> {
    match &value.value {
        Some(Value::StringValue(v)) => Some(v),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValue};

    use super::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn string(key: &str, value: &str) -> KeyValue {
        attribute(key, Value::StringValue(value.into()))
    }

    fn begin() -> LogRecord {
        let name = AnyValue { value: Some(Value::StringValue("example.com".into())) };
        LogRecord {
            time_unix_nano: 1_795_341_600_123_456_789,
            event_name: "flowtel.tcp.flow.begin".into(),
            attributes: vec![
                string("source.address", "10.0.0.5"),
                attribute("source.port", Value::IntValue(43210)),
                string("destination.address", "2001:db8::1"),
                attribute("destination.port", Value::IntValue(443)),
                string("flowtel.flow.direction", "outgoing"),
                attribute("flowtel.destination.dns.names", Value::ArrayValue(ArrayValue { values: vec![name] })),
                string("thread.name", "curl"),
                attribute("process.pid", Value::IntValue(1234)),
                attribute("flowtel.tcp.handshake.duration", Value::DoubleValue(0.0125)),
            ],
            ..LogRecord::default()
        }
    }

    #[test]
    fn a_begin_is_one_line_that_a_person_can_read() {
        assert_eq!(
            line(&begin(), &TimeZone::UTC, false),
            "2026-11-22 10:00:00.123 begin → 10.0.0.5:43210 -> [2001:db8::1]:443 (example.com) curl[1234] \
             handshake 12.500 ms"
        );
    }

    #[test]
    fn an_update_shows_what_of_it_is_new() {
        let mut update = begin();
        update.event_name = "flowtel.tcp.flow.update".into();
        update.attributes.pop();
        update.attributes.extend([
            attribute("flowtel.flow.duration", Value::DoubleValue(300.25)),
            attribute("flowtel.delta.source.bytes", Value::IntValue(1234)),
            attribute("flowtel.delta.destination.bytes", Value::IntValue(0)),
        ]);
        assert_eq!(
            line(&update, &TimeZone::UTC, false),
            "2026-11-22 10:00:00.123 update → 10.0.0.5:43210 -> [2001:db8::1]:443 (example.com) curl[1234] \
             after 300.250 s +1234 bytes there, +0 back"
        );
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = line(&begin(), &TimeZone::UTC, true);
        assert!(coloured.contains("\x1b["));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), line(&begin(), &TimeZone::UTC, false));
    }

    #[test]
    fn a_process_name_can_not_act_on_the_terminal() {
        let mut record = begin();
        record.attributes.insert(0, string("process.executable.name", "\x1b]0;owned\x07\n"));
        let line = line(&record, &TimeZone::UTC, false);
        assert!(line.contains(r"\x1b]0;owned\x07"), "{line}");
        assert!(!line.chars().any(char::is_control), "{line}");
    }

    #[test]
    fn what_is_no_flow_shows_its_body() {
        let body = AnyValue { value: Some(Value::StringValue("gap: 7 events lost at kernel".into())) };
        let gap = LogRecord { event_name: "flowtel.gap".into(), body: Some(body), ..LogRecord::default() };
        assert_eq!(line(&gap, &TimeZone::UTC, false), "1970-01-01 00:00:00.000 gap 7 events lost at kernel");
    }

    #[test]
    fn a_time_out_of_range_is_shown_as_a_number() {
        let record = LogRecord { time_unix_nano: u64::MAX, ..LogRecord::default() };
        assert!(!line(&record, &TimeZone::UTC, false).is_empty());
    }
}
