//! A request in, its OTLP/JSON out (OTLP specification, "JSON Protobuf Encoding"): keys in lowerCamelCase, 64-bit
//! integers as strings, enums as numbers, trace and span ids in hexadecimal, bytes in base64. The collector's
//! `otlpjsonfile` receiver reads such lines.
//!
//! The serialization that opentelemetry-proto brings is right in these points, but writes every empty field of every
//! record: a third of the line. Empty fields are left out here, as protobuf's JSON mapping does.

use base64::{Engine, prelude::BASE64_STANDARD};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

use flowtel::escape::write_json;

/// Adds `request` to `out`, without a line's end. No text in it acts on a terminal, or reads as the end of a line.
pub fn write(request: &ExportLogsServiceRequest, out: &mut Vec<u8>) -> serde_json::Result<()> {
    write_json(out, &Json(request))
}

/// A message as OTLP/JSON.
struct Json<'a, T>(&'a T);

/// A repeated field.
struct List<'a, T>(&'a [T]);

/// The fields of a message, the empty ones left out.
struct Fields<M>(M);

impl<M: SerializeMap> Fields<M> {
    fn put<T: Serialize>(&mut self, key: &'static str, value: T) -> Result<(), M::Error> {
        self.0.serialize_entry(key, &value)
    }

    fn message<'a, T>(&mut self, key: &'static str, value: Option<&'a T>) -> Result<(), M::Error>
    where
        Json<'a, T>: Serialize,
    {
        value.map_or(Ok(()), |value| self.put(key, Json(value)))
    }

    fn list<'a, T>(&mut self, key: &'static str, values: &'a [T]) -> Result<(), M::Error>
    where
        Json<'a, T>: Serialize,
    {
        if values.is_empty() { Ok(()) } else { self.put(key, List(values)) }
    }

    fn text(&mut self, key: &'static str, value: &str) -> Result<(), M::Error> {
        if value.is_empty() { Ok(()) } else { self.put(key, value) }
    }

    fn number(&mut self, key: &'static str, value: i64) -> Result<(), M::Error> {
        if value == 0 { Ok(()) } else { self.put(key, value) }
    }

    fn number_as_text(&mut self, key: &'static str, value: u64) -> Result<(), M::Error> {
        if value == 0 { Ok(()) } else { self.put(key, AsText(value)) }
    }

    fn hex(&mut self, key: &'static str, value: &[u8]) -> Result<(), M::Error> {
        if value.is_empty() {
            return Ok(());
        }
        self.put(key, value.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

/// A number between quotes.
struct AsText<T>(T);

impl<T: std::fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'a, T> Serialize for List<'a, T>
where
    Json<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|value| seq.serialize_element(&Json(value)))?;
        seq.end()
    }
}

/// Implements Serialize for a message by its fields.
macro_rules! message {
    ($type:ty, |$message:ident, $fields:ident| $body:block) => {
        impl Serialize for Json<'_, $type> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let $message = self.0;
                let mut $fields = Fields(s.serialize_map(None)?);
                $body
                $fields.0.end()
            }
        }
    };
}

message!(ExportLogsServiceRequest, |m, fields| {
    // Its one field is there even when empty: readers look for it to tell logs from traces and metrics.
    fields.put("resourceLogs", List(&m.resource_logs))?;
});

message!(ResourceLogs, |m, fields| {
    fields.message("resource", m.resource.as_ref())?;
    fields.list("scopeLogs", &m.scope_logs)?;
    fields.text("schemaUrl", &m.schema_url)?;
});

message!(Resource, |m, fields| {
    fields.list("attributes", &m.attributes)?;
    fields.number("droppedAttributesCount", m.dropped_attributes_count.into())?;
    fields.list("entityRefs", &m.entity_refs)?;
});

message!(EntityRef, |m, fields| {
    fields.text("schemaUrl", &m.schema_url)?;
    fields.text("type", &m.r#type)?;
    if !m.id_keys.is_empty() {
        fields.put("idKeys", &m.id_keys)?;
    }
    if !m.description_keys.is_empty() {
        fields.put("descriptionKeys", &m.description_keys)?;
    }
});

message!(ScopeLogs, |m, fields| {
    fields.message("scope", m.scope.as_ref())?;
    fields.list("logRecords", &m.log_records)?;
    fields.text("schemaUrl", &m.schema_url)?;
});

message!(InstrumentationScope, |m, fields| {
    fields.text("name", &m.name)?;
    fields.text("version", &m.version)?;
    fields.list("attributes", &m.attributes)?;
    fields.number("droppedAttributesCount", m.dropped_attributes_count.into())?;
});

message!(LogRecord, |m, fields| {
    fields.number_as_text("timeUnixNano", m.time_unix_nano)?;
    fields.number_as_text("observedTimeUnixNano", m.observed_time_unix_nano)?;
    fields.number("severityNumber", m.severity_number.into())?;
    fields.text("severityText", &m.severity_text)?;
    fields.text("eventName", &m.event_name)?;
    fields.message("body", m.body.as_ref())?;
    fields.list("attributes", &m.attributes)?;
    fields.number("droppedAttributesCount", m.dropped_attributes_count.into())?;
    fields.number("flags", m.flags.into())?;
    fields.hex("traceId", &m.trace_id)?;
    fields.hex("spanId", &m.span_id)?;
});

message!(KeyValue, |m, fields| {
    fields.put("key", &m.key)?;
    fields.message("value", m.value.as_ref())?;
});

message!(ArrayValue, |m, fields| {
    fields.list("values", &m.values)?;
});

message!(KeyValueList, |m, fields| {
    fields.list("values", &m.values)?;
});

message!(AnyValue, |m, fields| {
    // A value that is set is written even when it is empty or 0: which one is set is its type.
    match &m.value {
        None => {}
        Some(Value::StringValue(v)) => fields.put("stringValue", v)?,
        Some(Value::BoolValue(v)) => fields.put("boolValue", v)?,
        Some(Value::IntValue(v)) => fields.put("intValue", AsText(v))?,
        Some(Value::DoubleValue(v)) if v.is_finite() => fields.put("doubleValue", v)?,
        Some(Value::DoubleValue(v)) if v.is_nan() => fields.put("doubleValue", "NaN")?,
        Some(Value::DoubleValue(v)) => fields.put("doubleValue", if *v > 0.0 { "Infinity" } else { "-Infinity" })?,
        Some(Value::ArrayValue(v)) => fields.put("arrayValue", Json(v))?,
        Some(Value::KvlistValue(v)) => fields.put("kvlistValue", Json(v))?,
        Some(Value::BytesValue(v)) => fields.put("bytesValue", BASE64_STANDARD.encode(v))?,
        Some(Value::StringValueStrindex(v)) => fields.put("stringValueStrindex", v)?,
    }
});
