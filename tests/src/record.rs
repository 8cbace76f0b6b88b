//! OTLP/JSON in, typed records out. Written against the OTLP specification, with nothing of flowtel's own code: what
//! flowtel gets wrong is not got wrong here in the same way. Unknown fields are errors, so that nothing goes unchecked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value as Json};

/// A log record with what it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Who reports.
    pub resource: Arc<Attributes>,
    /// Name, version and schema URL of the scope.
    pub scope: Arc<Scope>,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Likewise.
    pub observed: u64,
    /// 1–24.
    pub severity: i64,
    /// Its name.
    pub severity_text: String,
    /// The field of that name.
    pub event_name: String,
    /// A string.
    pub body: String,
    /// By name.
    pub attributes: Attributes,
}

/// An address and a port, as far as they are told.
pub type End = (Option<IpAddr>, Option<u16>);

/// Attributes by name.
pub type Attributes = BTreeMap<String, Value>;

/// What a `ScopeLogs` says of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Of the attributes' names.
    pub schema_url: String,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Int(i64),
    /// A number.
    Double(f64),
    /// A truth.
    Bool(bool),
    /// Strings.
    Texts(Vec<String>),
}

/// Decodes lines, each an `ExportLogsServiceRequest`.
///
/// # Errors
/// A line is none.
pub fn decode_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for line in lines {
        let json: Json = serde_json::from_str(line).with_context(|| format!("no JSON: {line:.200}"))?;
        request(json, &mut records).with_context(|| format!("in {line:.2000}"))?;
    }
    Ok(records)
}

impl Record {
    /// A string attribute; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        match self.attributes.get(key) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// An integer attribute.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.attributes.get(key) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// A fractional attribute.
    pub fn double(&self, key: &str) -> Option<f64> {
        match self.attributes.get(key) {
            Some(Value::Double(n)) => Some(*n),
            _ => None,
        }
    }

    /// The address and the port of `source` or `destination`, as far as they are told.
    pub fn end(&self, end: &str) -> End {
        let port = self.int(&format!("{end}.port")).and_then(|port| u16::try_from(port).ok());
        (self.text(&format!("{end}.address")).parse().ok(), port)
    }

    /// The initiator's endpoint.
    pub fn source(&self) -> Option<SocketAddr> {
        self.endpoint("source")
    }

    /// The responder's endpoint.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.endpoint("destination")
    }

    fn endpoint(&self, end: &str) -> Option<SocketAddr> {
        let (address, port) = self.end(end);
        Some(SocketAddr::new(address?, port?))
    }
}

/// An object whose members are taken out one by one; none may be left over.
struct Object(Map<String, Json>);

impl Object {
    fn of(json: Json) -> Result<Self> {
        match json {
            Json::Object(map) => Ok(Self(map)),
            other => bail!("no object: {other}"),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<Json>> {
        match self.0.remove(key) {
            None => Ok(Vec::new()),
            Some(Json::Array(list)) => Ok(list),
            Some(other) => bail!("{key} is no list: {other}"),
        }
    }

    fn object(&mut self, key: &str) -> Result<Self> {
        Self::of(self.0.remove(key).unwrap_or_else(|| Json::Object(Map::new()))).with_context(|| key.to_owned())
    }

    fn text(&mut self, key: &str) -> Result<String> {
        match self.0.remove(key) {
            None => Ok(String::new()),
            Some(Json::String(text)) => Ok(text),
            Some(other) => bail!("{key} is no string: {other}"),
        }
    }

    /// 64-bit integers are strings in OTLP/JSON.
    fn nanoseconds(&mut self, key: &str) -> Result<u64> {
        let text = self.text(key)?;
        text.parse().with_context(|| format!("{key} is no time: {text:?}"))
    }

    fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "fields that nobody expects: {:?}", self.0);
        Ok(())
    }
}

fn request(json: Json, records: &mut Vec<Record>) -> Result<()> {
    let mut request = Object::of(json)?;
    for resource_logs in request.list("resourceLogs")? {
        let mut resource_logs = Object::of(resource_logs)?;
        let mut resource = resource_logs.object("resource")?;
        let resource_attributes = Arc::new(attributes(resource.list("attributes")?)?);
        resource.end()?;
        for scope_logs in resource_logs.list("scopeLogs")? {
            let mut scope_logs = Object::of(scope_logs)?;
            let mut scope = scope_logs.object("scope")?;
            let scope_record = Arc::new(Scope {
                name: scope.text("name")?,
                version: scope.text("version")?,
                schema_url: scope_logs.text("schemaUrl")?,
            });
            scope.end()?;
            for record in scope_logs.list("logRecords")? {
                records.push(log_record(record, &resource_attributes, &scope_record)?);
            }
            scope_logs.end()?;
        }
        ensure!(
            resource_logs.text("schemaUrl")?.is_empty(),
            "the Resource's attributes have a schema URL of their own"
        );
        resource_logs.end()?;
    }
    request.end()
}

fn log_record(json: Json, resource: &Arc<Attributes>, scope: &Arc<Scope>) -> Result<Record> {
    let mut record = Object::of(json)?;
    for id in ["traceId", "spanId"] {
        ensure!(record.text(id)?.is_empty(), "a record with a {id}");
    }
    let Value::Text(body) = value(record.object("body")?)? else { bail!("a body that is no string") };
    let out = Record {
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
        time: record.nanoseconds("timeUnixNano")?,
        observed: record.nanoseconds("observedTimeUnixNano")?,
        severity: record.0.remove("severityNumber").and_then(|n| n.as_i64()).context("a severity that is no number")?,
        severity_text: record.text("severityText")?,
        event_name: record.text("eventName")?,
        body,
        attributes: attributes(record.list("attributes")?)?,
    };
    record.end()?;
    Ok(out)
}

fn attributes(list: Vec<Json>) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for entry in list {
        let mut entry = Object::of(entry)?;
        let key = entry.text("key")?;
        let value = value(entry.object("value")?).with_context(|| key.clone())?;
        entry.end()?;
        ensure!(attributes.insert(key.clone(), value).is_none(), "{key} stands there twice");
    }
    Ok(attributes)
}

fn value(object: Object) -> Result<Value> {
    let mut members = object.0.into_iter();
    let (Some((kind, json)), None) = (members.next(), members.next()) else { bail!("a value has one kind") };
    Ok(match (kind.as_str(), json) {
        ("stringValue", Json::String(text)) => Value::Text(text),
        ("intValue", Json::String(text)) => Value::Int(text.parse()?),
        ("doubleValue", Json::Number(number)) => Value::Double(number.as_f64().context("a double")?),
        ("boolValue", Json::Bool(truth)) => Value::Bool(truth),
        ("arrayValue", json) => {
            let mut array = Object::of(json)?;
            let texts = array.list("values")?.into_iter().map(|json| match value(Object::of(json)?)? {
                Value::Text(text) => Ok(text),
                other => bail!("{other:?} in a list of strings"),
            });
            let texts = texts.collect::<Result<_>>()?;
            array.end()?;
            Value::Texts(texts)
        }
        (kind, json) => bail!("a {kind} of {json}"),
    })
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
