//! Records that tests look at: a life, an older flow that goes on, a container's, a failure from outside, a gap.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

/// A Sunday, 10:00:00 UTC.
pub const START: u64 = 1_795_341_600_000_000_000;

pub fn string(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

pub fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

pub fn double(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

pub fn names(key: &str, name: &str) -> KeyValue {
    let name = AnyValue { value: Some(Value::StringValue(name.into())) };
    attribute(key, Value::ArrayValue(ArrayValue { values: vec![name] }))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A flow's own attributes.
pub struct Sample {
    pub id: u128,
    pub source: (&'static str, i64),
    pub destination: (&'static str, i64),
    pub outgoing: bool,
    pub process: (&'static str, i64),
    pub more: Vec<KeyValue>,
}

impl Sample {
    /// The record of an event of it, so many milliseconds after the start.
    pub fn record(&self, event: &str, after: u64, more: Vec<KeyValue>) -> LogRecord {
        let Self { id, source, destination, outgoing, process, more: own } = self;
        let mut attributes = vec![
            string("flowtel.flow.id", &format!("{id:032x}")),
            string("flowtel.flow.direction", if *outgoing { "outgoing" } else { "incoming" }),
            string("source.address", source.0),
            int("source.port", source.1),
            string("destination.address", destination.0),
            int("destination.port", destination.1),
            int("process.pid", process.1),
            string("process.executable.name", process.0),
            string("process.executable.path", &format!("/usr/bin/{}", process.0)),
        ];
        attributes.extend(own.iter().cloned());
        attributes.extend(more);
        let event_name = format!("flowtel.tcp.flow.{event}");
        LogRecord { time_unix_nano: START + after * 1_000_000, event_name, attributes, ..LogRecord::default() }
    }
}

pub fn curl() -> Sample {
    Sample {
        id: 1,
        source: ("10.0.0.5", 43210),
        destination: ("93.184.216.34", 443),
        outgoing: true,
        process: ("curl", 1234),
        more: vec![names("flowtel.destination.dns.names", "example.com"), int("process.real_user.id", 1000)],
    }
}

pub fn postgres() -> Sample {
    Sample {
        id: 2,
        source: ("127.0.0.1", 50_000),
        destination: ("127.0.0.1", 5432),
        outgoing: false,
        process: ("postgres", 812),
        more: vec![
            KeyValue {
                key: "flowtel.flow.local".into(),
                value: Some(AnyValue { value: Some(Value::BoolValue(true)) }),
                ..KeyValue::default()
            },
            string("flowtel.systemd.unit", "postgresql.service"),
        ],
    }
}

pub fn api() -> Sample {
    Sample {
        id: 3,
        source: ("2001:db8::9", 61_234),
        destination: ("fd00::1", 8443),
        outgoing: true,
        process: ("api", 4_194_303),
        more: vec![string("container.id", "4f2c9ab4")],
    }
}

pub fn gap(after: u64) -> LogRecord {
    let text =
        "gap: 7 events lost at kernel for flows_ring_full, since 2026-11-22T09:59:58.000Z: the ring of flows was full";
    let body = AnyValue { value: Some(Value::StringValue(text.into())) };
    LogRecord {
        time_unix_nano: START + after * 1_000_000,
        event_name: "flowtel.gap".into(),
        body: Some(body),
        ..LogRecord::default()
    }
}

/// Bytes of the source and the destination.
pub fn bytes(there: i64, back: i64) -> Vec<KeyValue> {
    vec![int("flowtel.source.bytes", there), int("flowtel.destination.bytes", back)]
}

pub fn new_bytes(there: i64, back: i64) -> Vec<KeyValue> {
    vec![int("flowtel.delta.source.bytes", there), int("flowtel.delta.destination.bytes", back)]
}

pub fn records() -> Vec<LogRecord> {
    let scan = Sample {
        id: 4,
        source: ("203.0.113.9", 40_000),
        destination: ("10.0.0.5", 22),
        outgoing: false,
        process: ("sshd", 700),
        more: vec![string("error.type", "refused"), int("flowtel.fold.count", 1830)],
    };
    let mut scan = scan.record("failed", 1400, vec![]);
    scan.attributes.retain(|a| !matches!(a.key.as_str(), "flowtel.flow.id" | "source.port"));
    let update = [bytes(2_000_000, 9_000), new_bytes(1_500_000, 3_000), vec![double("flowtel.flow.duration", 61.0)]];
    let end =
        [bytes(1234, 3_400_000), vec![double("flowtel.flow.duration", 1.3), string("flowtel.flow.end.reason", "fin")]];
    vec![
        curl().record("begin", 0, vec![double("flowtel.tcp.handshake.duration", 0.0125)]),
        postgres().record("open", 1, vec![]),
        api().record("begin", 600, vec![double("flowtel.tcp.handshake.duration", 0.25)]),
        postgres().record("update", 1200, update.concat()),
        curl().record("end", 1300, end.concat()),
        scan,
        gap(1500),
        LogRecord { event_name: "another.kind".into(), ..gap(1600) },
    ]
}

/// All of them in a request.
pub fn request() -> Bytes {
    of(records())
}

pub fn of(log_records: Vec<LogRecord>) -> Bytes {
    let resource = Resource { attributes: vec![string("host.name", "web-1")], ..Resource::default() };
    let scope_logs = vec![ScopeLogs { log_records, schema_url: "u".into(), ..ScopeLogs::default() }];
    let logs = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into()
}
