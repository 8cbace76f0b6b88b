//! The transcoder against prost's and serde's reading of the same bytes.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::escape::acts;

/// The JSON of these bytes.
fn json(bytes: &[u8]) -> io::Result<String> {
    let mut out = Vec::new();
    Transcoder::default().write(bytes, &mut out, &mut |_| Ok(()))?;
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, v: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value(v)), ..KeyValue::default() }
}

fn of_records(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope { name: "flowtel".into(), ..InstrumentationScope::default() };
    let scope_logs = ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() };
    let resource =
        Resource { attributes: vec![attribute("host.name", Value::StringValue("a".into()))], ..Resource::default() };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn begin() -> LogRecord {
    let names = ArrayValue { values: vec![value(Value::StringValue("example.com".into()))] };
    LogRecord {
        time_unix_nano: 1_795_341_600_123_456_789,
        observed_time_unix_nano: 1_795_341_600_200_000_000,
        severity_number: 9,
        severity_text: "INFO".into(),
        event_name: "flowtel.tcp.flow.begin".into(),
        body: Some(value(Value::StringValue("outgoing \"tcp\"\n".into()))),
        attributes: vec![
            attribute("destination.port", Value::IntValue(443)),
            attribute("flowtel.flow.local", Value::BoolValue(false)),
            attribute("flowtel.tcp.handshake.duration", Value::DoubleValue(0.0125)),
            attribute("flowtel.destination.dns.names", Value::ArrayValue(names)),
        ],
        ..LogRecord::default()
    }
}

#[test]
fn follows_the_rules_of_otlp_json() {
    let expected = concat!(
        r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"a"}}]},"#,
        r#""scopeLogs":[{"scope":{"name":"flowtel"},"logRecords":[{"timeUnixNano":"1795341600123456789","#,
        r#""severityNumber":9,"severityText":"INFO","body":{"stringValue":"outgoing \"tcp\"\n"},"attributes":["#,
        r#"{"key":"destination.port","value":{"intValue":"443"}},"#,
        r#"{"key":"flowtel.flow.local","value":{"boolValue":false}},"#,
        r#"{"key":"flowtel.tcp.handshake.duration","value":{"doubleValue":0.0125}},"#,
        r#"{"key":"flowtel.destination.dns.names","value":{"arrayValue":{"values":[{"stringValue":"example.com"}]}}}"#,
        r#"],"observedTimeUnixNano":"1795341600200000000","eventName":"flowtel.tcp.flow.begin"}]}]}]}"#,
    );
    assert_eq!(json(&of_records(vec![begin()]).encode_to_vec()).unwrap(), expected);
}

#[test]
fn an_empty_request_says_that_it_is_one_of_logs() {
    assert_eq!(json(&[]).unwrap(), r#"{"resourceLogs":[]}"#);
}

#[test]
fn ids_are_hexadecimal_and_odd_numbers_are_words() {
    let record = LogRecord {
        trace_id: vec![0xab; 16],
        attributes: vec![
            attribute("a", Value::DoubleValue(f64::NAN)),
            attribute("b", Value::DoubleValue(f64::NEG_INFINITY)),
            attribute("c", Value::DoubleValue(f64::INFINITY)),
            attribute("d", Value::BytesValue(vec![1, 2, 255])),
            attribute("e", Value::IntValue(i64::MIN)),
        ],
        ..LogRecord::default()
    };
    let mut out = Vec::new();
    super::record(&record.encode_to_vec(), &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["traceId"], "ab".repeat(16));
    let values: Vec<String> = (0..5).map(|i| json["attributes"][i]["value"].to_string()).collect();
    assert_eq!(
        values,
        [
            r#"{"doubleValue":"NaN"}"#,
            r#"{"doubleValue":"-Infinity"}"#,
            r#"{"doubleValue":"Infinity"}"#,
            r#"{"bytesValue":"AQL/"}"#,
            r#"{"intValue":"-9223372036854775808"}"#,
        ]
    );
}

#[test]
fn names_of_processes_and_servers_can_not_end_a_line_or_turn_it() {
    let mut record = begin();
    let name = "a\u{2028}b\u{2029}c\u{202e}d\u{2066}e\u{9b}f\u{7f}\u{1b}\r\n\t\u{0}\"\\ grüße 漢字 \u{10ffff}";
    record.attributes.push(attribute("process.executable.name", Value::StringValue(name.into())));
    let request = of_records(vec![record]);
    let line = json(&request.encode_to_vec()).unwrap();
    assert!(
        line.contains("a\\u2028b\\u2029c\\u202ed\\u2066e\\u009bf\\u007f\\u001b\\r\\n\\t\\u0000\\\"\\\\ grüße 漢字")
    );
    assert!(!line.chars().any(acts));
    assert_eq!(serde_json::from_str::<ExportLogsServiceRequest>(&line).unwrap(), request);
}

#[test]
fn what_is_no_request_is_refused() {
    let whole = of_records(vec![begin()]).encode_to_vec();
    assert!((1..whole.len()).all(|len| json(&whole[..len]).is_err()));
    let at = whole.windows(7).position(|w| w == b"flowtel").unwrap();
    let mut wrong = whole;
    wrong[at] = 0xff;
    assert_eq!(json(&wrong).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn values_without_end_within_values_are_refused() {
    let nested = |depth| {
        let mut inner = value(Value::BoolValue(true));
        for _ in 0..depth {
            inner = value(Value::ArrayValue(ArrayValue { values: vec![inner] }));
        }
        let record = LogRecord { body: Some(inner), ..LogRecord::default() };
        json(&of_records(vec![record]).encode_to_vec())
    };
    let read: ExportLogsServiceRequest = serde_json::from_str(&nested(23).unwrap()).unwrap();
    assert_eq!(read.resource_logs.len(), 1);
    assert!(nested(24).unwrap_err().to_string().contains("24 deep"));
    assert!(nested(45).is_err());
}

#[test]
fn a_large_request_is_handed_on_in_pieces_which_together_are_its_line() {
    let request = of_records(vec![begin(); 2000]).encode_to_vec();
    let (mut out, mut pieces) = (Vec::new(), Vec::new());
    Transcoder::default()
        .write(&request, &mut out, &mut |piece| {
            pieces.push(std::mem::take(piece));
            Ok(())
        })
        .unwrap();
    assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() < PIECE + 4096));
    let mut all = pieces.concat();
    all.extend(out);
    assert_eq!(String::from_utf8(all).unwrap(), json(&request).unwrap());
}

#[test]
fn a_flat_record_has_its_attributes_under_their_own_names() {
    let mut record = begin();
    record.attributes.push(attribute("event.name", Value::StringValue("flowtel.tcp.flow.begin".into())));
    record.attributes.push(attribute("odd", Value::DoubleValue(f64::NAN)));
    let mut out = Vec::new();
    flat(&of_records(vec![record, begin()]).encode_to_vec(), &mut out, &mut |_| Ok(())).unwrap();
    let text = String::from_utf8(out).unwrap();
    let expected = concat!(
        r#"{"timestamp":"2026-11-22T10:00:00.123456789Z","observed_timestamp":"2026-11-22T10:00:00.200000000Z","#,
        r#""event.name":"flowtel.tcp.flow.begin","severity_text":"INFO","body":"outgoing \"tcp\"\n","#,
        r#""destination.port":443,"flowtel.flow.local":false,"flowtel.tcp.handshake.duration":0.0125,"#,
        r#""flowtel.destination.dns.names":["example.com"],"odd":"NaN"}"#,
    );
    assert_eq!(text.lines().next(), Some(expected));
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn another_resource_is_not_taken_for_the_last_one() {
    let mut transcoder = Transcoder::default();
    let mut line = |host: &str| {
        let mut request = of_records(vec![]);
        let resource = request.resource_logs[0].resource.as_mut().unwrap();
        resource.attributes[0] = attribute("host.name", Value::StringValue(host.into()));
        let mut out = Vec::new();
        transcoder.write(&request.encode_to_vec(), &mut out, &mut |_| Ok(())).unwrap();
        String::from_utf8(out).unwrap()
    };
    for host in ["a", "b", "b", "a"] {
        assert!(line(host).contains(&format!(r#"{{"stringValue":"{host}"}}"#)));
    }
}

// === against the readers

fn any() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        any_text().prop_map(|v| Some(Value::StringValue(v))),
        prop::bool::ANY.prop_map(|v| Some(Value::BoolValue(v))),
        prop::num::i64::ANY.prop_map(|v| Some(Value::IntValue(v))),
        prop::num::f64::ANY.prop_filter("as serde_json reads it", reads_back).prop_map(|v| Some(Value::DoubleValue(v))),
        vec(prop::num::u8::ANY, 0..20).prop_map(|v| Some(Value::BytesValue(v))),
    ];
    leaf.prop_map(|value| AnyValue { value }).prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            vec((any_text(), option::of(inner)), 0..4).prop_map(|pairs| {
                let pair = |(key, value)| KeyValue { key, value, ..KeyValue::default() };
                let values = pairs.into_iter().map(pair).collect();
                AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

/// Whether serde_json, whose reader is the fast one that may be a digit off, reads this number as it was.
fn reads_back(v: &f64) -> bool {
    !v.is_finite()
        || serde_json::from_str::<f64>(&serde_json::to_string(v).expect("a number")).is_ok_and(|read| read == *v)
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "[ -~]{120,140}",
        "[\\x00-\\x20\"\\\\\u{7f}-\u{a0}\u{61c}\u{200e}\u{2028}-\u{202e}\u{2066}a漢]{0,9}"
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (any_text(), option::of(any()));
    vec(pair.prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }), 0..5)
}

prop_compose! {
    fn log_record()(
        (time_unix_nano, observed_time_unix_nano) in (prop::num::u64::ANY, prop::num::u64::ANY),
        severity_number in prop_oneof![Just(0), Just(9), prop::num::i32::ANY],
        (severity_text, event_name) in (any_text(), any_text()),
        (body, attributes) in (option::of(any()), attributes()),
        (dropped_attributes_count, flags) in (prop_oneof![Just(0), prop::num::u32::ANY], prop::num::u32::ANY),
        (trace_id, span_id) in (vec(prop::num::u8::ANY, 0..17), vec(prop::num::u8::ANY, 0..9)),
    ) -> LogRecord {
        LogRecord {
            time_unix_nano, observed_time_unix_nano, severity_number, severity_text, event_name, body, attributes,
            dropped_attributes_count, flags, trace_id, span_id,
        }
    }
}

fn scope_logs() -> impl Strategy<Value = ScopeLogs> {
    let scope = (any_text(), any_text(), attributes(), prop::num::u32::ANY);
    let scope = scope.prop_map(|(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
        name,
        version,
        attributes,
        dropped_attributes_count,
    });
    (option::of(scope), vec(log_record(), 0..3), any_text()).prop_map(|(scope, log_records, schema_url)| ScopeLogs {
        scope,
        log_records,
        schema_url,
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let entity = (any_text(), any_text(), vec(any_text(), 0..3), vec(any_text(), 0..3));
    let entity = entity.prop_map(|(schema_url, r#type, id_keys, description_keys)| EntityRef {
        schema_url,
        r#type,
        id_keys,
        description_keys,
    });
    (attributes(), prop::num::u32::ANY, vec(entity, 0..3)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    )
}

fn resource_logs() -> impl Strategy<Value = ResourceLogs> {
    (option::of(resource()), vec(scope_logs(), 0..3), any_text())
        .prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url })
}

/// Puts the names of numbers that JSON has none for out of the way: opentelemetry-proto's reader doesn't know them, the
/// collector's does. Returns how many there were.
fn without_names(json: &mut serde_json::Value) -> usize {
    match json {
        serde_json::Value::Object(fields) => {
            let named = fields.get("doubleValue").is_some_and(serde_json::Value::is_string);
            if named {
                fields.remove("doubleValue");
            }
            usize::from(named) + fields.values_mut().map(without_names).sum::<usize>()
        }
        serde_json::Value::Array(values) => values.iter_mut().map(without_names).sum(),
        _ => 0,
    }
}

/// The same in the request: values that are no finite number become values of no type.
fn without_odd_numbers(request: &mut ExportLogsServiceRequest) -> usize {
    fn any(value: &mut AnyValue) -> usize {
        match &mut value.value {
            Some(Value::DoubleValue(v)) if !v.is_finite() => {
                value.value = None;
                1
            }
            Some(Value::ArrayValue(list)) => list.values.iter_mut().map(any).sum(),
            Some(Value::KvlistValue(list)) => pairs(&mut list.values),
            _ => 0,
        }
    }
    fn pairs(values: &mut [KeyValue]) -> usize {
        values.iter_mut().filter_map(|pair| pair.value.as_mut()).map(any).sum()
    }
    let mut odd = 0;
    for logs in &mut request.resource_logs {
        odd += logs.resource.as_mut().map_or(0, |resource| pairs(&mut resource.attributes));
        for logs in &mut logs.scope_logs {
            odd += logs.scope.as_mut().map_or(0, |scope| pairs(&mut scope.attributes));
            for record in &mut logs.log_records {
                odd += record.body.as_mut().map_or(0, any) + pairs(&mut record.attributes);
            }
        }
    }
    odd
}

/// What serde reads in the JSON of `bytes` is what prost reads in `bytes`.
fn both_readers_agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let line = json(bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert!(!line.chars().any(acts), "{line:?}");
    let mut json: serde_json::Value = serde_json::from_str(&line).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let mut request = ExportLogsServiceRequest::decode(bytes).expect("prost reads it");
    prop_assert_eq!(without_names(&mut json), without_odd_numbers(&mut request));
    let read: ExportLogsServiceRequest =
        serde_json::from_value(json).map_err(|e| TestCaseError::fail(format!("{e}: {line}")))?;
    prop_assert_eq!(read, request);
    Ok(())
}

/// A field with bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

proptest! {
    #[test]
    fn a_number_is_written_with_all_its_digits(value in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
        let mut out = Vec::new();
        super::text::double(value, &mut out).unwrap();
        let read: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
        prop_assert_eq!(read.to_bits(), value.to_bits());
    }

    #[test]
    fn serde_reads_in_the_json_what_prost_reads_in_the_bytes(logs in vec(resource_logs(), 0..3)) {
        both_readers_agree(&ExportLogsServiceRequest { resource_logs: logs }.encode_to_vec())?;
    }

    /// Two encodings one after the other are an encoding of both together, whatever the message.
    #[test]
    fn fields_that_come_again_count_as_prost_counts_them(
        a in resource_logs(), b in resource_logs(),
        (c, d) in (log_record(), log_record()), (e, f) in (scope_logs(), scope_logs()),
    ) {
        let record = [c.encode_to_vec(), d.encode_to_vec()].concat();
        let scope = [e.encode_to_vec(), field(2, &record), f.encode_to_vec()].concat();
        let logs = [a.encode_to_vec(), field(2, &scope), b.encode_to_vec()].concat();
        both_readers_agree(&[field(1, &logs), field(1, &field(2, &field(2, &record)))].concat())?;
    }

    /// Fields of a newer OTLP are left out.
    #[test]
    fn unknown_fields_change_nothing(record in log_record(), number in 13u8..16, extra in vec(prop::num::u8::ANY, 0..5)) {
        let with = [record.encode_to_vec(), field(number, &extra)].concat();
        let request = |record: &[u8]| field(1, &field(2, &field(2, record)));
        prop_assert_eq!(json(&request(&with)).unwrap(), json(&request(&record.encode_to_vec())).unwrap());
        let with = [field(number, &extra), request(&record.encode_to_vec())].concat();
        prop_assert_eq!(json(&with).unwrap(), json(&request(&record.encode_to_vec())).unwrap());
    }

    /// A flat record is JSON, whatever is in it.
    #[test]
    fn flat_records_are_a_line_of_json_each(records in vec(log_record(), 0..4)) {
        let mut out = Vec::new();
        flat(&of_records(records.clone()).encode_to_vec(), &mut out, &mut |_| Ok(())).unwrap();
        let text = String::from_utf8(out).unwrap();
        prop_assert!(!text.chars().any(|c| c != '\n' && acts(c)));
        let read: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(read.len(), records.len());
    }

    #[test]
    fn any_bytes_are_json_or_an_error(bytes in vec(prop::num::u8::ANY, 0..60)) {
        if json(&bytes).is_ok() {
            both_readers_agree(&bytes)?;
        }
    }
}
