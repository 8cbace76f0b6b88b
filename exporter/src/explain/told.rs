//! Lines of JSON in, records as names and texts out. A line is what flowtel or a collector writes (OTLP/JSON, one request a
//! line), or one record as a store gives it back: an object with its attributes inside or beside each other.
//!
//! Whoever wrote the file is not trusted: sizes are bounded, and nothing in it can make this fail otherwise than by a reason.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};
use serde_json::Value as Json;

use crate::record::schema::{self, knowledge::Facts};

/// The longest line that is read: larger than any request of flowtel.
const MOST_LINE: u64 = 64 << 20;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `flowtel.tcp.flow.begin` and so on.
    pub event: String,
    /// Its line for people; empty where it was not given.
    pub body: String,
    /// It is open, and this is what the running flowtel knows of it. Not a record that was made.
    pub open: bool,
    /// Attributes as texts; lists with commas between.
    attributes: BTreeMap<String, String>,
}

/// Why a file of records can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// A line.
    #[error("line {line}: {why}; expected OTLP/JSON, one request a line, or one record a line as a JSON object")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads records, and gives each to `take`.
///
/// # Errors
/// The file can't be read, or a line of it is no record of flowtel.
pub fn read(mut input: impl BufRead, mut take: impl FnMut(Told)) -> Result<(), ReadError> {
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        // Borrowed for one line: the limit is a line's.
        let mut limited = io::Read::take(&mut input, MOST_LINE);
        if limited.read_line(&mut text)? == 0 {
            break;
        }
        if text.len() as u64 >= MOST_LINE {
            return Err(ReadError::Line { line, why: format!("it is longer than {MOST_LINE} bytes") });
        }
        if text.trim().is_empty() {
            continue;
        }
        of_line(&text).map_err(|why| ReadError::Line { line, why })?.into_iter().for_each(&mut take);
    }
    Ok(())
}

fn of_line(line: &str) -> Result<Vec<Told>, String> {
    let json: Json = serde_json::from_str(line).map_err(|e| format!("it is no JSON: {e}"))?;
    let Json::Object(object) = json else { return Err("it is no JSON object".into()) };
    if object.contains_key("resourceLogs") {
        let request: ExportLogsServiceRequest =
            serde_json::from_str(line).map_err(|e| format!("it is no OTLP/JSON request: {e}"))?;
        return Ok(of_request(request));
    }
    Told::of_object(&object).map(|told| vec![told]).ok_or_else(|| "it has no event of flowtel".into())
}

/// The records of a request, flowtel's alone.
pub fn of_request(request: ExportLogsServiceRequest) -> Vec<Told> {
    let scopes = request.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
    let records = scopes.flat_map(|logs| logs.log_records).map(Told::of_record);
    records.filter(|told| told.event.starts_with("flowtel.")).collect()
}

// === impl Told

impl Told {
    fn of_record(record: LogRecord) -> Self {
        let attributes: BTreeMap<_, _> =
            record.attributes.iter().map(|a| (a.key.clone(), text(a.value.as_ref()))).collect();
        let event = if record.event_name.is_empty() {
            attributes.get(schema::EVENT_NAME).cloned().unwrap_or_default()
        } else {
            record.event_name
        };
        Self { event, body: text(record.body.as_ref()), open: false, attributes }
    }

    /// A record as Elasticsearch, Loki and others give it back: attributes under `attributes` or not, dots or underscores.
    fn of_object(object: &serde_json::Map<String, Json>) -> Option<Self> {
        let mut attributes = BTreeMap::new();
        flatten("", object, &mut attributes);
        let find = |names: &[&str]| names.iter().find_map(|name| attributes.get(*name).cloned());
        let event =
            find(&["event_name", "eventName", "event.name", "event.action"]).filter(|e| e.starts_with("flowtel."))?;
        let body = find(&["body.text", "body", "message", "line"]).unwrap_or_default();
        Some(Self { event, body, open: false, attributes })
    }

    /// What the running flowtel knows of an open flow: of its begin, unless it is `older` than flowtel.
    #[must_use]
    pub fn still_open(self, older: bool) -> Self {
        let event = if older { schema::OPEN } else { schema::BEGIN };
        Self { event: event.into(), open: true, ..self }
    }

    /// The flow's id.
    pub fn flow_id(&self) -> Option<&str> {
        self.get(schema::FLOW_ID)
    }

    /// Its first line: the event, and its own words.
    pub fn title(&self) -> String {
        let of = self.flow_id().map(|id| format!(" of flow {id}")).unwrap_or_default();
        let separator = if self.body.is_empty() { "" } else { ": " };
        let what = if self.open { "open" } else { &self.event };
        format!("{what}{of}{separator}{}", self.body)
    }

    /// How old the answer is that a list of names comes from.
    pub(super) fn age_of(&self, names: &str) -> Option<&str> {
        match names {
            schema::SOURCE_NAMES => self.get(schema::SOURCE_NAMES_AGE),
            schema::DESTINATION_NAMES => self.get(schema::DESTINATION_NAMES_AGE),
            _ => None,
        }
    }
}

impl Facts for Told {
    fn event(&self) -> &str {
        self.event.rsplit('.').next().unwrap_or_default()
    }

    fn get(&self, attribute: &str) -> Option<&str> {
        let found = self.attributes.get(attribute);
        // Loki's structured metadata has underscores for dots.
        found.or_else(|| self.attributes.get(&attribute.replace('.', "_"))).map(String::as_str)
    }
}

/// Members of an object, and of the objects in it, by their names with dots between; `attributes.` is left out.
fn flatten(before: &str, object: &serde_json::Map<String, Json>, into: &mut BTreeMap<String, String>) {
    for (name, value) in object {
        let key = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        match value {
            // serde_json has its own limit of depth.
            Json::Object(inner)
                if before.is_empty() && matches!(name.as_str(), "attributes" | "_source" | "stream") =>
            {
                flatten("", inner, into);
            }
            Json::Object(inner) => flatten(&key, inner, into),
            Json::Null => {}
            Json::String(text) => drop(into.insert(key, text.clone())),
            Json::Array(values) => {
                let texts: Vec<_> =
                    values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
                into.insert(key, texts.join(", "));
            }
            other => drop(into.insert(key, other.to_string())),
        }
    }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(n)) => n.to_string(),
        Some(Value::DoubleValue(n)) => n.to_string(),
        Some(Value::BoolValue(b)) => b.to_string(),
        Some(Value::ArrayValue(list)) => {
            list.values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}
