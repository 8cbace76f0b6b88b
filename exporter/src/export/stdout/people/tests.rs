//! What people see, at several widths.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use textwrap::core::display_width;

use super::*;

/// A Sunday, 10:00:00.123 UTC.
const START: u64 = 1_795_341_600_123_456_789;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn string(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn double(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

fn names(key: &str, name: &str) -> KeyValue {
    let name = AnyValue { value: Some(Value::StringValue(name.into())) };
    attribute(key, Value::ArrayValue(ArrayValue { values: vec![name] }))
}

fn record(event: &str, after: u64, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: START + after,
        event_name: format!("flowtel.tcp.flow.{event}"),
        attributes,
        ..LogRecord::default()
    }
}

/// Source, destination, direction and process.
fn flow(source: (&str, i64), destination: (&str, i64), direction: &str, process: (&str, i64)) -> Vec<KeyValue> {
    vec![
        string("source.address", source.0),
        int("source.port", source.1),
        string("destination.address", destination.0),
        int("destination.port", destination.1),
        string("flowtel.flow.direction", direction),
        string("process.executable.name", process.0),
        int("process.pid", process.1),
    ]
}

fn curl() -> Vec<KeyValue> {
    let flow = flow(("10.0.0.5", 43210), ("2001:db8::1", 443), "outgoing", ("curl", 1234));
    [flow, vec![names("flowtel.destination.dns.names", "example.com")]].concat()
}

fn records() -> Vec<LogRecord> {
    let local = flow(("127.0.0.1", 50_000), ("127.0.0.1", 5432), "incoming", ("postgres", 812));
    let local_names =
        vec![names("flowtel.source.dns.names", "localhost"), names("flowtel.destination.dns.names", "localhost")];
    let long = flow(
        ("2001:db8:1f:2a03:8c5a:11ff:fe2d:9", 61_234),
        ("fd00:1234:5678:9abc:def0:1234:5678:9abc", 8443),
        "outgoing",
        ("a-program-with-a-long-name", 4_194_303),
    );
    let folded = vec![
        string("source.address", "203.0.113.9"),
        string("destination.address", "10.0.0.5"),
        int("destination.port", 22),
        string("flowtel.flow.direction", "incoming"),
        int("flowtel.fold.count", 1830),
        string("error.type", "refused"),
    ];
    let gap =
        "gap: 7 events lost at kernel for flows_ring_full, since 2026-11-22T09:59:58.000Z: the ring of flows was full";
    let body = AnyValue { value: Some(Value::StringValue(gap.into())) };
    vec![
        record("begin", 0, [curl(), vec![double("flowtel.tcp.handshake.duration", 0.0125)]].concat()),
        record("open", 1_000_000, [local, local_names].concat()),
        record(
            "end",
            1_300_000_000,
            [
                curl(),
                vec![
                    int("flowtel.source.bytes", 1234),
                    int("flowtel.destination.bytes", 3_400_000),
                    double("flowtel.flow.duration", 1.3),
                    string("flowtel.flow.end.reason", "fin"),
                ],
            ]
            .concat(),
        ),
        record("failed", 1_400_000_000, [long, vec![string("error.type", "timed_out")]].concat()),
        record("failed", 1_450_000_000, folded),
        LogRecord { event_name: "flowtel.gap".into(), body: Some(body), ..record("gap", 1_500_000_000, vec![]) },
    ]
}

fn shown(place: Place, width: usize, colour: bool, records: Vec<LogRecord>) -> String {
    let zone = TimeZone::fixed(jiff::tz::offset(-5));
    let mut people = People { colour, place, zone, header: None, layout: Layout::fit(width) };
    let mut lines: Vec<_> = records.iter().map(|record| people.line(record)).collect();
    lines.sort_by_key(|line| line.at);
    let mut out = Vec::new();
    people.write(lines, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn on_a_terminal_of_80_columns() {
    insta::assert_snapshot!(shown(Place::Terminal, 80, false, records()));
}

#[test]
fn on_a_terminal_of_120_columns() {
    insta::assert_snapshot!(shown(Place::Terminal, 120, false, records()));
}

#[test]
fn on_a_terminal_of_200_columns() {
    insta::assert_snapshot!(shown(Place::Terminal, 200, false, records()));
}

#[test]
fn in_a_pipe() {
    insta::assert_snapshot!(shown(Place::Pipe, 80, false, records()));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [60, 72, 80, 81, 100, 132, 200, 400] {
        for line in shown(Place::Terminal, width, false, records()).lines() {
            assert!(display_width(line) <= width, "{width}: {line}");
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for place in [Place::Terminal, Place::Pipe] {
        let coloured = shown(place, 80, true, records());
        assert!(coloured.contains("\x1b["));
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), shown(place, 80, false, records()));
    }
}

#[test]
fn no_name_can_act_on_the_terminal() {
    for key in ["process.executable.name", "source.address", "error.type", "flowtel.flow.end.reason"] {
        let mut record = record("end", 0, curl());
        record.attributes.retain(|attribute| attribute.key != key);
        record.attributes.insert(0, string(key, "\x1b]0;owned\x07\n\u{202e}"));
        record.event_name = "x.\x1b[2J".into();
        for place in [Place::Terminal, Place::Pipe] {
            let text = shown(place, 200, false, vec![record.clone()]);
            let whole = text.contains(r"\x1b]0;owned\x07\n\u{202e}");
            assert!(whole || place == Place::Terminal, "{key}: {text}");
            assert!(!text.chars().any(|c| c != '\n' && crate::escape::acts(c)), "{text}");
        }
    }
}

#[test]
fn a_new_day_and_another_width_have_a_new_header() {
    let day = 24 * 3600 * 1_000_000_000;
    let text = shown(Place::Terminal, 80, false, vec![record("begin", 0, curl()), record("end", day, curl())]);
    let days: Vec<_> = text.lines().filter(|line| line.contains("2026")).collect();
    assert_eq!(days, ["Sunday, 22 November 2026, UTC-05:00", "Monday, 23 November 2026, UTC-05:00"]);
}

#[test]
fn lines_are_in_the_order_of_time() {
    let mut records = records();
    records.reverse();
    assert_eq!(shown(Place::Pipe, 80, false, records), shown(Place::Pipe, 80, false, self::records()));
}

#[test]
fn a_time_out_of_range_is_shown_as_a_number() {
    let record = LogRecord { time_unix_nano: u64::MAX, ..LogRecord::default() };
    assert!(!shown(Place::Terminal, 80, false, vec![record]).is_empty());
}
