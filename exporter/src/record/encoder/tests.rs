use std::net::IpAddr;

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use proptest::{prelude::*, strategy::ValueTree as _};

use super::*;
use crate::{
    capture::KernelTime,
    config,
    flow::{CommunityId, Connector, Direction, FlowId},
};

const BOOT: BootId = BootId::new([3; 16]);

fn encoder(limits: Limits) -> Encoder {
    let host = resource::Host { name: "host".into(), id: Some("0123456789abcdef0123456789abcdef".into()) };
    Encoder::new(&resource::build(&config::Record::default(), &host), BOOT, true, limits)
}

const WIDE: Limits = Limits { records: 10_000, bytes: 1 << 20, age: Duration::from_secs(1) };

/// What a record should say, built as a tree from the schema's words and not from the encoder's.
fn expected(begin: &Begin) -> LogRecord {
    let text = |s: &str| AnyValue { value: Some(Value::StringValue(s.to_owned())) };
    let int = |i: i64| AnyValue { value: Some(Value::IntValue(i)) };
    let show = |e: &SocketAddr| e.to_string();
    let direction = match begin.direction {
        Direction::Outgoing => "outgoing",
        Direction::Incoming => "incoming",
    };
    let mut uid = begin.id.0.to_be_bytes().to_vec();
    uid.extend(begin.time.0.to_be_bytes());
    uid.extend(b"flowtel.tcp.flow.begin");
    let mut attributes = vec![
        ("event.name", text("flowtel.tcp.flow.begin")),
        ("log.record.uid", text(&format!("{:032x}", BOOT.hash(&uid)))),
        ("flowtel.flow.id", text(&format!("{:032x}", begin.id.0))),
        ("flowtel.flow.community_id", text(&String::from_utf8_lossy(&begin.community_id.text()))),
        ("flowtel.flow.direction", text(direction)),
    ];
    if begin.local {
        attributes.push(("flowtel.flow.local", AnyValue { value: Some(Value::BoolValue(true)) }));
    }
    attributes.extend([
        ("source.address", text(&begin.source.ip().to_string())),
        ("source.port", int(begin.source.port().into())),
        ("destination.address", text(&begin.destination.ip().to_string())),
        ("destination.port", int(begin.destination.port().into())),
        ("network.transport", text("tcp")),
        ("network.type", text(if begin.source.ip().is_ipv4() { "ipv4" } else { "ipv6" })),
    ]);
    if let Some(d) = begin.handshake {
        attributes
            .push(("flowtel.tcp.handshake.duration", AnyValue { value: Some(Value::DoubleValue(d.as_secs_f64())) }));
    }
    let mut body = format!("{direction} tcp {} -> {}", show(&begin.source), show(&begin.destination));
    if let Some(c) = &begin.connector {
        let name = String::from_utf8_lossy(c.name()).into_owned();
        attributes.extend([
            ("process.pid", int(c.pid.into())),
            ("process.user.id", int(c.uid.into())),
            ("thread.name", text(&name)),
            ("flowtel.process.role", text("connector")),
        ]);
        let shown: String =
            name.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect();
        body += &format!(" {shown}[{}]", c.pid);
    }
    LogRecord {
        time_unix_nano: begin.wall.0,
        observed_time_unix_nano: begin.observed.0,
        severity_number: 9,
        severity_text: "INFO".into(),
        event_name: "flowtel.tcp.flow.begin".into(),
        body: Some(text(&body)),
        attributes: attributes
            .into_iter()
            .map(|(key, value)| KeyValue { key: key.into(), value: Some(value), ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

fn begins() -> impl Strategy<Value = Begin> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    let connector =
        (any::<u32>(), any::<u32>(), any::<[u8; 16]>()).prop_map(|(pid, uid, comm)| Connector { pid, uid, comm });
    (
        (ip.clone(), any::<u16>(), ip, any::<u16>()),
        (any::<u128>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>(), any::<bool>()),
        prop::option::of(any::<u32>().prop_map(|n| Duration::from_nanos(n.into()))),
        prop::option::of(connector),
    )
        .prop_map(|((a, ap, b, bp), (id, time, wall, observed, local, outgoing), handshake, connector)| {
            let (source, destination) = (SocketAddr::new(a, ap), SocketAddr::new(b, bp));
            Begin {
                id: FlowId(id),
                community_id: CommunityId::tcp(source, destination),
                time: KernelTime(time),
                wall: WallTime(wall),
                observed: WallTime(observed),
                source,
                destination,
                direction: if outgoing { Direction::Outgoing } else { Direction::Incoming },
                local,
                handshake,
                connector,
            }
        })
}

fn decode(batch: &Batch) -> (Vec<LogRecord>, ExportLogsServiceRequest) {
    let request = ExportLogsServiceRequest::decode(batch.bytes.clone()).expect("a sealed batch is valid protobuf");
    assert_eq!(request.resource_logs.len(), 1);
    assert_eq!(request.resource_logs[0].scope_logs.len(), 1);
    (request.resource_logs[0].scope_logs[0].log_records.clone(), request)
}

proptest! {
    #[test]
    fn every_record_decodes_to_what_the_schema_says(events in prop::collection::vec(begins(), 1..20)) {
        let mut encoder = encoder(WIDE);
        for begin in &events {
            prop_assert_eq!(encoder.write(&FlowEvent::Begin(begin.clone())), None);
        }
        let batch = encoder.seal().expect("records were written");
        let (records, request) = decode(&batch);
        prop_assert_eq!(batch.records as usize, events.len());
        prop_assert_eq!(Some(batch.first), events.iter().map(|b| b.wall.0).min());
        prop_assert_eq!(Some(batch.last), events.iter().map(|b| b.wall.0).max());
        for (record, begin) in records.iter().zip(&events) {
            prop_assert_eq!(record, &expected(begin));
        }
        let scope = &request.resource_logs[0].scope_logs[0];
        prop_assert_eq!(scope.schema_url.as_str(), schema::SCHEMA_URL);
        prop_assert_eq!(scope.scope.as_ref().map(|s| s.name.as_str()), Some("flowtel"));
        prop_assert!(request.resource_logs[0].resource.as_ref().is_some_and(|r| r.attributes.len() >= 7));
        prop_assert_eq!(encoder.seal(), None);
    }

    #[test]
    fn limits_cut_the_stream_into_batches_and_lose_nothing(
        events in prop::collection::vec(begins(), 1..60),
        most in 1u32..20,
        kib in 2usize..16,
    ) {
        let mut encoder = encoder(Limits { records: most, bytes: kib << 10, age: Duration::from_secs(1) });
        let mut batches = Vec::new();
        for begin in &events {
            batches.extend(encoder.write(&FlowEvent::Begin(begin.clone())));
        }
        batches.extend(encoder.seal());
        let mut all = Vec::new();
        for batch in &batches {
            prop_assert!(batch.records <= most);
            prop_assert!(batch.bytes.len() <= kib << 10 || batch.records == 1);
            let (records, _) = decode(batch);
            prop_assert_eq!(records.len(), batch.records as usize);
            all.extend(records);
        }
        let wanted: Vec<LogRecord> = events.iter().map(expected).collect();
        prop_assert_eq!(all, wanted);
    }
}

#[test]
fn the_age_of_the_first_record_seals_a_batch_and_so_does_a_clock_that_was_set_back() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let begin = begins().new_tree(&mut runner).expect("a value").current();
    let second = 1_000_000_000;
    let at = |observed| FlowEvent::Begin(Begin { observed: WallTime(observed), ..begin.clone() });
    let mut encoder = encoder(WIDE);
    assert!(encoder.seal_if_old(WallTime(u64::MAX)).is_none(), "nothing to seal");
    encoder.write(&at(10 * second));
    encoder.write(&at(11 * second - 2));
    assert!(encoder.seal_if_old(WallTime(11 * second - 1)).is_none());
    assert_eq!(encoder.seal_if_old(WallTime(11 * second)).map(|b| b.records), Some(2));
    encoder.write(&at(10 * second));
    assert!(encoder.seal_if_old(WallTime(9 * second)).is_some());
}
