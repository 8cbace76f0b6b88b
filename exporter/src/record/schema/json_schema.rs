//! The schema as a JSON Schema (draft 2020-12) of one log record in OTLP/JSON, and an example of each event.

use serde_json::{Map, Value, json};

use super::{
    ATTRIBUTES, Attribute, INFO, INFO_TEXT, SCHEMA_URL, WARN, WARN_TEXT,
    events::{self, EVENTS, Presence},
    values,
};

/// JSON Schema of `LogRecord` (opentelemetry/proto/logs/v1/logs.proto), one alternative for each event.
pub fn json_schema() -> Value {
    let alternatives: Vec<Value> = EVENTS.iter().map(|event| of_event(event.name, event.brief)).collect();
    let attributes: Map<_, _> =
        ATTRIBUTES.iter().map(|attribute| (attribute.name.into(), of_attribute(attribute))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("{SCHEMA_URL}/log-record.json"),
        "title": "A log record of flowtel, in OTLP/JSON",
        "type": "object",
        "required": ["eventName", "timeUnixNano", "observedTimeUnixNano", "severityNumber", "body", "attributes"],
        "properties": {
            "timeUnixNano": { "type": "string", "pattern": "^[0-9]+$" },
            "observedTimeUnixNano": { "type": "string", "pattern": "^[0-9]+$" },
            "severityNumber": { "enum": [INFO, WARN] },
            "severityText": { "enum": [INFO_TEXT, WARN_TEXT] },
            "body": { "type": "object", "required": ["stringValue"], "properties": { "stringValue": { "type": "string" } } },
        },
        "oneOf": alternatives,
        "$defs": attributes,
    })
}

fn of_event(name: &str, brief: &str) -> Value {
    let items: Vec<Value> = events::attributes(name)
        .map(|(attribute, _)| json!({ "$ref": format!("#/$defs/{}", attribute.name) }))
        .collect();
    let needed: Vec<Value> = events::attributes(name)
        .filter(|(_, presence)| *presence == Presence::Always)
        .map(|(attribute, _)| json!({ "contains": { "properties": { "key": { "const": attribute.name } }, "required": ["key"] } }))
        .collect();
    json!({
        "description": brief,
        "properties": {
            "eventName": { "const": name },
            "attributes": { "type": "array", "items": { "oneOf": items }, "allOf": needed },
        },
    })
}

fn of_attribute(attribute: &Attribute) -> Value {
    let value = match attribute.kind {
        "int" => json!({ "intValue": { "type": ["string", "integer"], "pattern": "^-?[0-9]+$" } }),
        "double" => json!({ "doubleValue": { "type": ["number", "string"] } }),
        "bool" => json!({ "boolValue": { "type": "boolean" } }),
        "string[]" => json!({ "arrayValue": { "type": "object", "properties": { "values": { "type": "array", "items": {
            "type": "object", "properties": { "stringValue": { "type": "string" } }, "required": ["stringValue"] } } } } }),
        _ => match values::values(attribute.name) {
            Some(values) => json!({ "stringValue": { "enum": values } }),
            None => json!({ "stringValue": { "type": "string" } }),
        },
    };
    let field = value.as_object().and_then(|value| value.keys().next().cloned()).unwrap_or_default();
    json!({
        "description": attribute.meaning,
        "properties": {
            "key": { "const": attribute.name },
            "value": { "type": "object", "properties": value, "required": [field], "additionalProperties": false },
        },
        "required": ["key", "value"],
        "additionalProperties": false,
    })
}

/// A record of each event, with every attribute that it can have and an example of each value: one ExportLogsServiceRequest.
pub fn example() -> Value {
    let records: Vec<Value> = EVENTS.iter().map(|event| record(event.name, event.brief)).collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "flowtel" } }] },
        "scopeLogs": [{ "scope": { "name": super::SCOPE, "version": env!("CARGO_PKG_VERSION") }, "logRecords": records, "schemaUrl": SCHEMA_URL }],
    }] })
}

fn record(event: &str, brief: &str) -> Value {
    let attributes: Vec<Value> = events::attributes(event)
        .map(|(attribute, _)| json!({ "key": attribute.name, "value": Value::Object(example_of(attribute, event)) }))
        .collect();
    let (severity, text) =
        if [super::FAILED, super::GAP].contains(&event) { (WARN, WARN_TEXT) } else { (INFO, INFO_TEXT) };
    json!({
        "timeUnixNano": "1763806800123456789", "observedTimeUnixNano": "1763806800133456789",
        "severityNumber": severity, "severityText": text, "eventName": event,
        "body": { "stringValue": brief }, "attributes": attributes,
    })
}

fn example_of(attribute: &Attribute, event: &str) -> Map<String, Value> {
    let example = if attribute.name == super::EVENT_NAME { event } else { attribute.example };
    let (field, value) = match attribute.kind {
        "int" => ("intValue", Value::from(example)),
        "double" => ("doubleValue", example.parse::<f64>().map_or(Value::Null, Value::from)),
        "bool" => ("boolValue", Value::from(example == "true")),
        "string[]" => {
            let texts: Vec<String> = serde_json::from_str(example).unwrap_or_default();
            let values: Vec<Value> = texts.into_iter().map(|text| json!({ "stringValue": text })).collect();
            ("arrayValue", json!({ "values": values }))
        }
        _ => ("stringValue", Value::from(example)),
    };
    Map::from_iter([(field.to_owned(), value)])
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

    use super::*;

    #[test]
    fn the_file_in_schema_is_what_the_code_says() {
        let file = include_str!("../../../../schema/log-record.schema.json");
        assert!(file == format!("{:#}\n", json_schema()), "out of date: make docs");
    }

    #[test]
    fn the_example_is_a_request_that_receivers_read() {
        let request: ExportLogsServiceRequest = serde_json::from_value(example()).expect("OTLP/JSON");
        let records = &request.resource_logs[0].scope_logs[0].log_records;
        assert_eq!(records.len(), EVENTS.len());
        assert!(records.iter().flat_map(|record| &record.attributes).all(|attribute| attribute.value.is_some()));
    }
}
