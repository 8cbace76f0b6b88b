//! The bytes of a request in, its records as values out. All texts were chosen by others: they are escaped and bounded here,
//! once, so that what is behind this can show them.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message;

use crate::{
    export::printable,
    flow::Direction,
    record::schema,
    select::{Ends, Who},
};

/// The most characters of one text.
const MOST: usize = 255;

/// An `ExportLogsServiceRequest` whose records are not decoded yet (opentelemetry/proto/collector/logs/v1/logs_service.proto).
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Its `ResourceLogs`.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceLogs>,
}

/// `ResourceLogs` of such a request.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceLogs {
    /// The resource, as it is.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub resource: Option<Bytes>,
    /// Its `ScopeLogs`.
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeLogs>,
    /// The schema of the resource.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `ScopeLogs` of such a request.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeLogs {
    /// The scope, as it is.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub scope: Option<Bytes>,
    /// The records, as they are.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub records: Vec<Bytes>,
    /// The schema of the records.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A flow began.
    Begin,
    /// A flow was open already.
    Open,
    /// What a flow has moved so far.
    Update,
    /// A flow ended.
    End,
    /// An attempt failed.
    Failed,
    /// Something is missing.
    Gap,
}

/// A record.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What happened.
    pub event: Event,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// The flow's id.
    pub flow: Option<u128>,
    /// Both ends and the side.
    pub ends: Ends,
    /// Names of both ends.
    pub source_name: Option<String>,
    /// The same of the destination.
    pub destination_name: Option<String>,
    /// The process.
    pub process: Process,
    /// The handshake's time, in seconds.
    pub handshake: Option<f64>,
    /// Since the begin, in seconds.
    pub duration: Option<f64>,
    /// Bytes that the source sent, and that the destination sent, so far.
    pub bytes: Option<(u64, u64)>,
    /// What of it is new since the last update.
    pub new_bytes: Option<(u64, u64)>,
    /// Why it failed, or ended.
    pub reason: Option<String>,
    /// How many alike this record stands for.
    pub count: u64,
    /// The line of a gap.
    pub body: Option<String>,
}

/// The process of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Option<u32>,
    /// Its user.
    pub user: Option<u32>,
    /// Base name of its executable.
    pub name: Option<String>,
    /// Path of it.
    pub path: Option<String>,
    /// Name of its thread.
    pub thread: Option<String>,
    /// Id of its container.
    pub container: Option<String>,
    /// Uid of its pod.
    pub pod: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
}

/// The records of a request, as they are.
///
/// # Errors
/// It is no request.
pub fn records(request: &Bytes) -> Result<impl Iterator<Item = Bytes>, prost::DecodeError> {
    let request = Request::decode(request.clone())?;
    Ok(request.resources.into_iter().flat_map(|resource| resource.scopes).flat_map(|scope| scope.records))
}

// === impl Facts

impl Facts {
    /// What a record says; `None`: it is no record of flowtel's.
    pub fn of(record: &LogRecord) -> Option<Self> {
        let event = match record.event_name.as_str() {
            schema::BEGIN => Event::Begin,
            schema::OPEN => Event::Open,
            schema::UPDATE => Event::Update,
            schema::END => Event::End,
            schema::FAILED => Event::Failed,
            schema::GAP => Event::Gap,
            _ => return None,
        };
        let mut facts = Self {
            event,
            time: record.time_unix_nano,
            flow: None,
            ends: Ends { source: UNKNOWN, destination: UNKNOWN, direction: None, local: false },
            source_name: None,
            destination_name: None,
            process: Process::default(),
            handshake: None,
            duration: None,
            bytes: None,
            new_bytes: None,
            reason: None,
            count: 1,
            body: None,
        };
        if event == Event::Gap {
            facts.body = record.body.as_ref().and_then(text).map(|body| printable(body, 1000));
            return Some(facts);
        }
        let (mut bytes, mut new) = ([None; 2], [None; 2]);
        for pair in &record.attributes {
            if let Some(value) = &pair.value {
                facts.take(&pair.key, value, &mut bytes, &mut new);
            }
        }
        let both = |[there, back]: [Option<u64>; 2]| there.zip(back);
        (facts.bytes, facts.new_bytes) = (both(bytes), both(new));
        Some(facts)
    }

    /// What the bytes of a record say.
    pub fn of_bytes(record: &Bytes) -> Option<Self> {
        Self::of(&LogRecord::decode(record.clone()).ok()?)
    }

    fn take(&mut self, key: &str, value: &AnyValue, bytes: &mut [Option<u64>; 2], new: &mut [Option<u64>; 2]) {
        let string = || text(value).map(|text| printable(text, MOST));
        let address = || text(value)?.parse::<IpAddr>().ok();
        let small = || int(value).and_then(|number| u32::try_from(number).ok());
        let port = || int(value).and_then(|number| u16::try_from(number).ok());
        let Self { ends, process, .. } = self;
        match key {
            schema::FLOW_ID => self.flow = text(value).and_then(|id| u128::from_str_radix(id, 16).ok()),
            schema::DIRECTION => {
                ends.direction = match text(value) {
                    Some("outgoing") => Some(Direction::Outgoing),
                    Some("incoming") => Some(Direction::Incoming),
                    _ => None,
                }
            }
            schema::LOCAL => ends.local = matches!(value.value, Some(Value::BoolValue(true))),
            // A hashed one is no address: it stands as the name.
            schema::SOURCE_ADDRESS => match address() {
                Some(ip) => ends.source.set_ip(ip),
                None => self.source_name = string(),
            },
            schema::DESTINATION_ADDRESS => match address() {
                Some(ip) => ends.destination.set_ip(ip),
                None => self.destination_name = string(),
            },
            schema::SOURCE_PORT => ends.source.set_port(port().unwrap_or(0)),
            schema::DESTINATION_PORT => ends.destination.set_port(port().unwrap_or(0)),
            schema::SOURCE_NAMES => self.source_name = first(value).or(self.source_name.take()),
            schema::DESTINATION_NAMES => self.destination_name = first(value).or(self.destination_name.take()),
            schema::PID => process.pid = small(),
            schema::USER_ID => process.user = small(),
            schema::EXECUTABLE_NAME => process.name = string(),
            schema::EXECUTABLE_PATH => process.path = string(),
            schema::THREAD_NAME => process.thread = string(),
            schema::CONTAINER_ID => process.container = string(),
            schema::POD_UID => process.pod = string(),
            schema::UNIT => process.unit = string(),
            schema::HANDSHAKE => self.handshake = number(value),
            schema::DURATION => self.duration = number(value),
            schema::SOURCE_BYTES => bytes[0] = unsigned(value),
            schema::DESTINATION_BYTES => bytes[1] = unsigned(value),
            schema::DELTA_SOURCE_BYTES => new[0] = unsigned(value),
            schema::DELTA_DESTINATION_BYTES => new[1] = unsigned(value),
            schema::ERROR_TYPE | schema::END_REASON => self.reason = string(),
            schema::FOLD_COUNT => self.count = unsigned(value).unwrap_or(1).max(1),
            _ => {}
        }
    }

    /// What rules ask of its process.
    pub fn who(&self) -> Who<'_> {
        let Process { pid, user, name, path, thread, container, .. } = &self.process;
        Who {
            path: path.as_deref(),
            name: name.as_deref(),
            thread: thread.as_deref().map(Cow::Borrowed),
            pid: *pid,
            user: *user,
            cgroup: None,
            container: container.as_deref(),
        }
    }
}

/// Stands for an end that is not known.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn text(value: &AnyValue) -> Option<&str> {
    match &value.value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn int(value: &AnyValue) -> Option<i64> {
    match value.value {
        Some(Value::IntValue(number)) => Some(number),
        _ => None,
    }
}

fn unsigned(value: &AnyValue) -> Option<u64> {
    int(value).and_then(|number| number.try_into().ok())
}

fn number(value: &AnyValue) -> Option<f64> {
    match value.value {
        Some(Value::DoubleValue(number)) => Some(number).filter(|n| n.is_finite() && *n >= 0.0),
        _ => None,
    }
}

/// The first name of a list. An address that is this host's own says it by itself.
fn first(value: &AnyValue) -> Option<String> {
    match &value.value {
        Some(Value::ArrayValue(names)) => names.values.first().and_then(text).map(|name| printable(name, MOST)),
        _ => None,
    }
}
