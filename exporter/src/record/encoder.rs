//! The encoder: a record into the open batch, and the open batch into a sealed one.
//!
//! The open batch is one buffer: room for the envelope, then the records. What does not change (resource, scope) was
//! encoded once; at the seal only two lengths are new, so the envelope is written right before the records and nothing is
//! moved. Within one `ScopeLogs` the schema URL stands before the records: protobuf leaves the order of fields free.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_sdk::Resource;
use prost::{Message, encoding::encoded_len_varint};

use super::{Batch, resource, schema, text, wire};
use crate::{
    capture::WallTime,
    flow::{Begin, BootId, FlowEvent},
};

/// Where the lengths of `ExportLogsServiceRequest.resource_logs` and `ResourceLogs.scope_logs` go: a tag and at most five
/// bytes each.
const LENGTHS: usize = 2 * 6;
/// What a record's head takes: a tag and a length of two bytes, which is right for records from 128 bytes to 16 KiB.
const RECORD_HEAD: usize = 3;
const LOG_RECORDS: u8 = 2;
const SCOPE_LOGS: u8 = 2;
const RESOURCE_LOGS: u8 = 1;
/// The least capacity of a fresh buffer.
const LEAST_CAPACITY: usize = 16 << 10;

/// When a batch is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records in it.
    pub records: u32,
    /// Bytes of it.
    pub bytes: usize,
    /// Age of its first record at a seal by [`Encoder::seal_if_old`].
    pub age: Duration,
}

/// Encodes records.
#[derive(Debug)]
pub struct Encoder {
    limits: Limits,
    boot: BootId,
    event_name_attribute: bool,
    /// Field `resource` of `ResourceLogs`.
    resource: Vec<u8>,
    /// Fields `scope` and `schema_url` of `ScopeLogs`.
    scope: Vec<u8>,
    open: Open,
    text: Text,
}

/// The open batch.
#[derive(Debug, Default)]
struct Open {
    buffer: Vec<u8>,
    records: u32,
    first: u64,
    last: u64,
    opened: Option<u64>,
}

/// Texts that are used more than once in a record; kept for their memory.
#[derive(Debug, Default)]
struct Text {
    source: Vec<u8>,
    destination: Vec<u8>,
    name: Vec<u8>,
    body: Vec<u8>,
}

impl Encoder {
    /// An encoder whose batches all say `resource`.
    pub fn new(resource: &Resource, boot: BootId, event_name_attribute: bool, limits: Limits) -> Self {
        let mut encoded = Vec::new();
        wire::bytes(&mut encoded, 1, &resource::encode(resource));
        let scope = InstrumentationScope {
            name: schema::SCOPE.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let mut scope_fields = Vec::new();
        wire::bytes(&mut scope_fields, 1, &scope.encode_to_vec());
        wire::bytes(&mut scope_fields, 3, schema::SCHEMA_URL.as_bytes());
        let mut encoder = Self {
            limits,
            boot,
            event_name_attribute,
            resource: encoded,
            scope: scope_fields,
            open: Open::default(),
            text: Text::default(),
        };
        encoder.open = encoder.fresh(LEAST_CAPACITY);
        encoder
    }

    /// Appends the record of `event`. Returns a batch when this record filled it, or when there was
    /// no room for it in the open one.
    pub fn write(&mut self, event: &FlowEvent) -> Option<Batch> {
        let start = self.open.buffer.len();
        let FlowEvent::Begin(begin) = event;
        self.begin(begin);
        let full = self.open.buffer.len() > self.limits.bytes && self.open.records > 0;
        let sealed = full.then(|| self.seal_before(start)).flatten();
        self.open.add(begin.wall.0, begin.observed.0);
        sealed.or_else(|| (self.open.records >= self.limits.records).then(|| self.seal()).flatten())
    }

    /// Seals the open batch, if there is a record in it.
    pub fn seal(&mut self) -> Option<Batch> {
        self.seal_before(self.open.buffer.len())
    }

    /// Seals the open batch if its first record was read at least [`Limits::age`] before `now`, or if the clock was set
    /// back meanwhile.
    pub fn seal_if_old(&mut self, now: WallTime) -> Option<Batch> {
        let opened = self.open.opened?;
        let old = now.0 < opened || u128::from(now.0 - opened) >= self.limits.age.as_nanos();
        old.then(|| self.seal()).flatten()
    }

    /// Bytes before the first record.
    fn room(&self) -> usize {
        LENGTHS + self.resource.len() + self.scope.len()
    }

    fn fresh(&self, capacity: usize) -> Open {
        let mut buffer = Vec::with_capacity(capacity.max(LEAST_CAPACITY));
        buffer.resize(self.room(), 0);
        Open { buffer, ..Open::default() }
    }

    /// Seals what lies before `end`; what lies after opens the next batch.
    fn seal_before(&mut self, end: usize) -> Option<Batch> {
        if self.open.records == 0 {
            return None;
        }
        // The next batch is likely as large as this one; the eighth is for its records being a little larger.
        let mut next = self.fresh(end + end / 8);
        next.buffer.extend_from_slice(&self.open.buffer[end..]);
        let mut sealed = std::mem::replace(&mut self.open, next);
        sealed.buffer.truncate(end);

        let room = self.room();
        let records = sealed.buffer.len() - room;
        let scope_logs = self.scope.len() + records;
        let resource_logs = self.resource.len() + 1 + encoded_len_varint(scope_logs as u64) + scope_logs;
        let mut envelope = Vec::with_capacity(room);
        wire::head(&mut envelope, RESOURCE_LOGS, resource_logs);
        envelope.extend_from_slice(&self.resource);
        wire::head(&mut envelope, SCOPE_LOGS, scope_logs);
        envelope.extend_from_slice(&self.scope);
        let start = room - envelope.len();
        sealed.buffer[start..room].copy_from_slice(&envelope);
        Some(Batch {
            bytes: Bytes::from(sealed.buffer).slice(start..),
            records: sealed.records,
            first: sealed.first,
            last: sealed.last,
        })
    }

    fn begin(&mut self, begin: &Begin) {
        let Self { open: Open { buffer: out, .. }, text, boot, event_name_attribute, .. } = self;
        text.set(begin);
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD]);

        wire::fixed64(out, wire::log_record::TIME, begin.wall.0);
        wire::fixed64(out, wire::log_record::OBSERVED_TIME, begin.observed.0);
        wire::varint(out, wire::log_record::SEVERITY_NUMBER, schema::INFO as u64);
        wire::bytes(out, wire::log_record::SEVERITY_TEXT, schema::INFO_TEXT.as_bytes());
        wire::bytes(out, wire::log_record::EVENT_NAME, schema::BEGIN.as_bytes());
        wire::any_string(out, wire::log_record::BODY, &text.body);

        if *event_name_attribute {
            wire::string_attribute(out, schema::EVENT_NAME, schema::BEGIN.as_bytes());
        }
        wire::string_attribute(out, schema::UID, &hex(uid(boot, begin)));
        wire::string_attribute(out, schema::FLOW_ID, &hex(begin.id.0));
        wire::string_attribute(out, schema::COMMUNITY_ID, &begin.community_id.text());
        wire::string_attribute(out, schema::DIRECTION, begin.direction.as_str().as_bytes());
        if begin.local {
            wire::bool_attribute(out, schema::LOCAL, true);
        }
        wire::string_attribute(out, schema::SOURCE_ADDRESS, &text.source);
        wire::int_attribute(out, schema::SOURCE_PORT, begin.source.port().into());
        wire::string_attribute(out, schema::DESTINATION_ADDRESS, &text.destination);
        wire::int_attribute(out, schema::DESTINATION_PORT, begin.destination.port().into());
        wire::string_attribute(out, schema::TRANSPORT, b"tcp");
        wire::string_attribute(out, schema::NETWORK_TYPE, if begin.source.is_ipv4() { b"ipv4" } else { b"ipv6" });
        if let Some(handshake) = begin.handshake {
            wire::double_attribute(out, schema::HANDSHAKE, handshake.as_secs_f64());
        }
        if let Some(connector) = &begin.connector {
            wire::int_attribute(out, schema::PID, connector.pid.into());
            wire::int_attribute(out, schema::USER_ID, connector.uid.into());
            wire::string_attribute(out, schema::THREAD_NAME, &text.name);
            wire::string_attribute(out, schema::PROCESS_ROLE, b"connector");
        }
        close_record(out, start);
    }
}

// === impl Open

impl Open {
    fn add(&mut self, time: u64, observed: u64) {
        self.first = if self.records == 0 { time } else { self.first.min(time) };
        self.last = self.last.max(time);
        self.opened.get_or_insert(observed);
        self.records += 1;
    }
}

// === impl Text

impl Text {
    /// Sets the texts of a record.
    fn set(&mut self, begin: &Begin) {
        for text in [&mut self.source, &mut self.destination, &mut self.name, &mut self.body] {
            text.clear();
        }
        text::ip(&mut self.source, begin.source.ip());
        text::ip(&mut self.destination, begin.destination.ip());
        self.body.extend_from_slice(begin.direction.as_str().as_bytes());
        self.body.extend_from_slice(b" tcp ");
        endpoint(&mut self.body, &self.source, &begin.source);
        self.body.extend_from_slice(b" -> ");
        endpoint(&mut self.body, &self.destination, &begin.destination);
        if let Some(connector) = &begin.connector {
            self.body.push(b' ');
            let name = connector.name();
            if name.iter().all(|b| matches!(b, b' '..=b'~')) {
                self.name.extend_from_slice(name);
                self.body.extend_from_slice(name);
            } else {
                let name = String::from_utf8_lossy(name);
                self.name.extend_from_slice(name.as_bytes());
                self.body.extend_from_slice(escaped(&name).as_bytes());
            }
            self.body.push(b'[');
            text::decimal(&mut self.body, connector.pid);
            self.body.push(b']');
        }
    }
}

/// `address:port`, with IPv6 addresses in brackets (RFC 3986, 3.2.2).
fn endpoint(out: &mut Vec<u8>, address: &[u8], end: &SocketAddr) {
    if end.is_ipv4() {
        out.extend_from_slice(address);
    } else {
        out.push(b'[');
        out.extend_from_slice(address);
        out.push(b']');
    }
    out.push(b':');
    text::decimal(out, end.port().into());
}

/// `text` with its control characters escaped: a body is shown on terminals.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Id of the record itself: the same for a copy, and for nothing else.
fn uid(boot: &BootId, begin: &Begin) -> u128 {
    let mut bytes = [0; 16 + 8 + schema::BEGIN.len()];
    bytes[..16].copy_from_slice(&begin.id.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&begin.time.0.to_be_bytes());
    bytes[24..].copy_from_slice(schema::BEGIN.as_bytes());
    boot.hash(&bytes)
}

/// 32 hex digits.
fn hex(id: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 32];
    for (i, byte) in id.to_be_bytes().into_iter().enumerate() {
        out[2 * i] = DIGITS[usize::from(byte >> 4)];
        out[2 * i + 1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// Writes the head of the record that starts at `start` and ends the buffer.
fn close_record(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start - RECORD_HEAD;
    if (0x80..0x4000).contains(&len) {
        out[start..start + RECORD_HEAD].copy_from_slice(&[LOG_RECORDS << 3 | 2, len as u8 | 0x80, (len >> 7) as u8]);
    } else {
        let mut head = Vec::with_capacity(8);
        wire::head(&mut head, LOG_RECORDS, len);
        out.splice(start..start + RECORD_HEAD, head);
    }
}

#[cfg(test)]
mod tests;
