//! The encoder: a record into the open batch, and the open batch into a sealed one.
//!
//! The open batch is one buffer: room for the envelope, then the records. What does not change (resource, scope) was
//! encoded once; at the seal only two lengths are new, so the envelope is written right before the records and nothing is
//! moved. Within one `ScopeLogs` the schema URL stands before the records: protobuf leaves the order of fields free.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_sdk::Resource;
use prost::{Message, encoding::encoded_len_varint};

use super::{
    Batch, Form,
    buffers::Buffers,
    groups,
    owners::{Encoded, Owners},
    pairs::{self, Pairs},
    privacy::{Ids, Policy, Rewriter},
    resource, schema,
    spaces::{self, Spaces},
    text,
    wire::{self, array_attribute, constant_attribute},
};
use crate::{
    capture::WallTime,
    dns::Names,
    enrich::Enriched,
    flow::{
        BootId, Cause, EndReason, Evidence, FailReason, FlowEvent, FlowId, Fold, Stamp, Traffic, What, community_id,
    },
    netns::is_link_local,
    tls::Hello,
};

mod fixed;
mod gap;

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
    /// What tells this observer's records from another's ([`super::Observer::record_salt`]).
    salt: u128,
    form: Form,
    /// Field `resource` of `ResourceLogs`.
    resource: Vec<u8>,
    /// Fields `scope` and `schema_url` of `ScopeLogs`.
    scope: Vec<u8>,
    open: Open,
    buffers: Buffers,
    owners: Owners,
    pairs: Pairs,
    spaces: Spaces,
    /// What changes records before they are counted, where the settings ask for it.
    privacy: Option<Box<Rewriter>>,
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

impl Encoder {
    /// An encoder of records in this form, whose batches all say `resource`. `salt` is the observer's.
    pub fn new(resource: &Resource, (boot, salt): (BootId, u128), form: Form, limits: Limits) -> Self {
        let mut encoded = Vec::new();
        wire::bytes(&mut encoded, 1, &resource::encode(resource));
        let scope = InstrumentationScope {
            name: schema::SCOPE.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        };
        let mut scope_fields = Vec::new();
        wire::bytes(&mut scope_fields, 1, &scope.encode_to_vec());
        wire::bytes(&mut scope_fields, 3, form.schema_url().as_bytes());
        Self::empty(encoded, scope_fields, (boot, salt), form, limits)
    }

    fn empty(resource: Vec<u8>, scope: Vec<u8>, (boot, salt): (BootId, u128), form: Form, limits: Limits) -> Self {
        let mut encoder = Self {
            limits,
            boot,
            salt,
            form,
            resource,
            scope,
            open: Open::default(),
            buffers: Buffers::default(),
            owners: Owners::new(form),
            pairs: Pairs::default(),
            spaces: Spaces::default(),
            privacy: None,
        };
        encoder.open = encoder.fresh(LEAST_CAPACITY);
        encoder
    }

    /// Another one whose records are the same, byte for byte.
    #[must_use]
    pub fn beside(&self, limits: Limits) -> Self {
        Self::empty(self.resource.clone(), self.scope.clone(), (self.boot, self.salt), self.form, limits)
            .with_privacy(self.policy().cloned())
    }

    /// The same, whose records are what this policy makes of them.
    #[must_use]
    pub fn with_privacy(mut self, policy: Option<Arc<Policy>>) -> Self {
        self.privacy = policy.map(|policy| Box::new(Rewriter::new(policy)));
        self
    }

    /// The policy that its records follow.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.privacy.as_ref().map(|privacy| privacy.policy())
    }

    /// The form of its records.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Appends the record of `event`. Returns a batch when this record filled it, or when there was no room for it in the
    /// open one.
    pub fn write(&mut self, enriched: &Enriched<'_>) -> Option<Batch> {
        let start = self.open.buffer.len();
        self.record(enriched);
        self.written(start, &enriched.event.at)
    }

    /// Counts the record that was written from `start` on.
    fn written(&mut self, start: usize, at: &Stamp) -> Option<Batch> {
        let full = self.open.buffer.len() > self.limits.bytes && self.open.records > 0;
        let sealed = full.then(|| self.seal_before(start)).flatten();
        self.open.add(at.wall.0, at.observed.0);
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

    /// Whether there is no record in the open batch.
    pub fn is_empty(&self) -> bool {
        self.open.records == 0
    }

    /// Gives back memory that has not been needed since the last call. To be called now and then.
    pub fn rest(&mut self) {
        self.buffers.rest();
    }

    /// Bytes before the first record.
    fn room(&self) -> usize {
        LENGTHS + self.resource.len() + self.scope.len()
    }

    fn fresh(&mut self, capacity: usize) -> Open {
        let mut buffer = self.buffers.take(capacity.max(LEAST_CAPACITY));
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
        let bytes = Bytes::from(sealed.buffer).slice(start..);
        self.buffers.lend(&bytes);
        Some(Batch { bytes, records: sealed.records, first: sealed.first, last: sealed.last })
    }

    fn record(&mut self, enriched: &Enriched<'_>) {
        let event = enriched.event;
        let Self { open: Open { buffer: out, .. }, owners, pairs, spaces, privacy, boot, salt, form, .. } = self;
        let groups = form.groups;
        let FlowEvent { at, flow, what } = event;
        let owner = owners.of(enriched);
        let pair = pairs.of(flow);
        let texts = (pair.is_none() || !groups.is_empty())
            .then(|| [flow.source, flow.destination].map(|end| text::Address::new(end.ip())));
        let start = out.len();
        match what {
            What::Begin { .. } => fixed::begin(out, at),
            What::End { .. } | What::Vanished => fixed::end(out, at),
            What::Open => front(out, at, schema::INFO, schema::INFO_TEXT, schema::OPEN),
            What::Update { .. } => front(out, at, schema::INFO, schema::INFO_TEXT, schema::UPDATE),
            What::ClientHello { .. } => front(out, at, schema::INFO, schema::INFO_TEXT, schema::CLIENT_HELLO),
            What::Failed { .. } => front(out, at, schema::WARN, schema::WARN_TEXT, schema::FAILED),
        }
        let body_start = wire::open_string(out, wire::log_record::BODY);
        if let Some(pair) = pair {
            pair.source_words.write(out);
            text::port(out, flow.source.port());
            pair.destination_words.write(out);
        } else if let Some([source, destination]) = &texts {
            pairs::source_words(out, flow, source);
            pairs::source_port_words(out, flow);
            pairs::destination_words(out, flow, destination);
        }
        body(out, enriched, owner);
        wire::close_string(out, body_start);

        if form.event_name_attribute {
            match what {
                What::Begin { .. } => constant_attribute!(out, schema::EVENT_NAME, schema::BEGIN),
                What::End { .. } | What::Vanished => {
                    constant_attribute!(out, schema::EVENT_NAME, schema::END);
                }
                What::Open => constant_attribute!(out, schema::EVENT_NAME, schema::OPEN),
                What::Update { .. } => constant_attribute!(out, schema::EVENT_NAME, schema::UPDATE),
                What::ClientHello { .. } => constant_attribute!(out, schema::EVENT_NAME, schema::CLIENT_HELLO),
                What::Failed { .. } => constant_attribute!(out, schema::EVENT_NAME, schema::FAILED),
            }
        }
        if let (Some(id), Some(connection)) = (flow.id, flow.community_id) {
            fixed::ids(out, uid(boot, event) ^ *salt, id, connection);
        } else {
            array_attribute!(out, schema::UID, text::hex(uid(boot, event) ^ *salt), 32);
            if let Some(id) = flow.id {
                array_attribute!(out, schema::FLOW_ID, text::hex(id.0), 32);
            }
            if let Some(id) = flow.community_id {
                array_attribute!(out, schema::COMMUNITY_ID, id.text(), community_id::TEXT_LEN);
            }
        }
        if let Some(pair) = pair {
            pair.before_port.write(out);
            wire::int_attribute(out, schema::SOURCE_PORT, flow.source.port().into());
            pair.after_port.write(out);
        } else if let Some([source, destination]) = &texts {
            pairs::before_port(out, flow, source);
            pairs::port(out, schema::SOURCE_PORT, &flow.source);
            pairs::after_port(out, flow, destination);
        }
        if let Some(tunnel) = flow.tunnel {
            wire::string_attribute(out, schema::TUNNEL, tunnel.as_str().as_bytes());
        }
        if flow.interface != 0 && (is_link_local(flow.source.ip()) || is_link_local(flow.destination.ip())) {
            spaces::interface(out, enriched.interface.as_deref(), flow.interface);
        }
        if let Some(namespace) = &enriched.netns {
            out.extend_from_slice(spaces.of(namespace));
        }
        if let What::Begin { handshake: Some(handshake) } = what {
            wire::double_attribute(out, schema::HANDSHAKE, handshake.as_secs_f64());
        }
        if let Some(owner) = owner {
            out.extend_from_slice(&owner.attributes);
        }
        names(out, SOURCE_NAMES, enriched.source_names.as_ref());
        names(out, DESTINATION_NAMES, enriched.destination_names.as_ref());
        match what {
            What::Begin { .. } | What::Open | What::Vanished => {}
            What::Update { duration, traffic } if enriched.fold.is_none() => end(out, None, *duration, traffic),
            // A sum of totals would count the same bytes again and again.
            What::Update { traffic, .. } => delta(out, traffic),
            What::ClientHello { hello: said } => hello(out, said),
            What::End { cause, duration, traffic } => end(out, *cause, *duration, traffic),
            What::Failed { cause, attempts, fold } => failed(out, *cause, *attempts, fold.as_ref()),
        }
        if let Some(fold) = &enriched.fold {
            folded(out, fold);
        }
        if !groups.is_empty()
            && let Some([source, destination]) = &texts
        {
            groups::write(out, groups, enriched, source.as_bytes(), destination.as_bytes());
        }
        if let Some(privacy) = privacy {
            let ids = Ids { flow: id_of(boot, event).0, record: uid(boot, event) ^ *salt };
            privacy.rewrite(out, start + RECORD_HEAD, ids, |out| ending(out, enriched));
        }
        close_record(out, start);
    }
}

/// What comes before the body.
fn front(out: &mut Vec<u8>, at: &Stamp, severity: i32, severity_text: &str, name: &str) {
    out.extend_from_slice(&[0; RECORD_HEAD]);
    wire::fixed64(out, wire::log_record::TIME, at.wall.0);
    wire::fixed64(out, wire::log_record::OBSERVED_TIME, at.observed.0);
    wire::varint(out, wire::log_record::SEVERITY_NUMBER, severity as u64);
    wire::bytes(out, wire::log_record::SEVERITY_TEXT, severity_text.as_bytes());
    wire::bytes(out, wire::log_record::EVENT_NAME, name.as_bytes());
}

/// Keys of names, their state, who learned them, and their age.
const SOURCE_NAMES: [&str; 4] =
    [schema::SOURCE_NAMES, schema::SOURCE_NAMES_STATE, schema::SOURCE_NAMES_ORIGIN, schema::SOURCE_NAMES_AGE];
const DESTINATION_NAMES: [&str; 4] = [
    schema::DESTINATION_NAMES,
    schema::DESTINATION_NAMES_STATE,
    schema::DESTINATION_NAMES_ORIGIN,
    schema::DESTINATION_NAMES_AGE,
];

fn names(out: &mut Vec<u8>, [list, state, origin, age]: [&str; 4], names: Option<&Names<'_>>) {
    let Some(names) = names else { return };
    wire::strings_attribute(out, list, names.as_slice());
    wire::string_attribute(out, state, names.state.as_str().as_bytes());
    if let Some(who) = names.origin {
        wire::string_attribute(out, origin, who.as_str().as_bytes());
    }
    if let Some(seconds) = names.age {
        wire::double_attribute(out, age, seconds.as_secs_f64());
    }
}

fn end(out: &mut Vec<u8>, cause: Option<Cause<EndReason>>, duration: Option<Duration>, traffic: &Traffic) {
    if let Some(duration) = duration {
        wire::double_attribute(out, schema::DURATION, duration.as_secs_f64());
    }
    if let Some(Cause { reason, source }) = cause {
        match reason {
            EndReason::Fin => constant_attribute!(out, schema::END_REASON, EndReason::Fin.as_str()),
            _ => wire::string_attribute(out, schema::END_REASON, reason.as_str().as_bytes()),
        }
        cause_source(out, source);
    }
    if traffic.counted {
        wire::int_attribute(out, schema::SOURCE_BYTES, traffic.source_bytes);
        wire::int_attribute(out, schema::DESTINATION_BYTES, traffic.destination_bytes);
    }
    wire::int_attribute(out, schema::SOURCE_PACKETS, traffic.source_segments.into());
    wire::int_attribute(out, schema::DESTINATION_PACKETS, traffic.destination_segments.into());
    wire::int_attribute(out, schema::RETRANSMITS, traffic.retransmits.into());
    if let Some(rtt) = traffic.rtt {
        wire::double_attribute(out, schema::RTT, rtt.as_secs_f64());
    }
    delta(out, traffic);
}

/// What passed since that was told last.
fn delta(out: &mut Vec<u8>, traffic: &Traffic) {
    let Some(delta) = &traffic.delta else { return };
    // A number below zero is ten bytes with the sign in the last (protobuf, int64).
    let mut number = |key, value: i64| wire::int_attribute(out, key, value.cast_unsigned());
    if traffic.counted {
        number(schema::DELTA_SOURCE_BYTES, delta.source_bytes);
        number(schema::DELTA_DESTINATION_BYTES, delta.destination_bytes);
    }
    number(schema::DELTA_SOURCE_PACKETS, delta.source_segments.into());
    number(schema::DELTA_DESTINATION_PACKETS, delta.destination_segments.into());
    number(schema::DELTA_RETRANSMITS, delta.retransmits.into());
}

/// What a client said first over TLS.
fn hello(out: &mut Vec<u8>, hello: &Hello) {
    let list = |out: &mut Vec<u8>, key, values: &[String]| {
        if !values.is_empty() {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            wire::strings_attribute(out, key, &values);
        }
    };
    if let Some(name) = &hello.server_name {
        wire::string_attribute(out, schema::TLS_SERVER_NAME, name.as_bytes());
    }
    list(out, schema::TLS_PROTOCOLS, &hello.protocols);
    list(out, schema::TLS_VERSIONS, &hello.versions);
    if let Some(ja4) = &hello.ja4 {
        wire::string_attribute(out, schema::TLS_JA4, ja4.as_str().as_bytes());
    }
    if hello.ech {
        wire::bool_attribute(out, schema::TLS_ECH, true);
    }
    if !hello.whole {
        wire::bool_attribute(out, schema::TLS_PARTIAL, true);
    }
}

/// How a cause is known; those of a `fin` are constants.
#[inline(always)]
fn cause_source(out: &mut Vec<u8>, source: Option<Evidence>) {
    match source {
        Some(Evidence::State) => constant_attribute!(out, schema::CAUSE_SOURCE, Evidence::State.as_str()),
        Some(Evidence::Segment) => constant_attribute!(out, schema::CAUSE_SOURCE, Evidence::Segment.as_str()),
        Some(source) => wire::string_attribute(out, schema::CAUSE_SOURCE, source.as_str().as_bytes()),
        None => {}
    }
}

fn failed(out: &mut Vec<u8>, cause: Cause<FailReason>, attempts: u32, fold: Option<&Fold>) {
    wire::string_attribute(out, schema::ERROR_TYPE, cause.reason.as_str().as_bytes());
    cause_source(out, cause.source);
    wire::int_attribute(out, schema::ATTEMPTS, attempts.into());
    if let Some(fold) = fold {
        folded(out, fold);
    }
}

fn folded(out: &mut Vec<u8>, fold: &Fold) {
    wire::int_attribute(out, schema::FOLD_COUNT, fold.count);
    wire::double_attribute(out, schema::FOLD_DURATION, fold.duration.as_secs_f64());
    wire::int_attribute(out, schema::FOLD_PORTS, fold.destination_ports.into());
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

/// What a record says in words behind the two endpoints.
#[inline(always)]
fn body(out: &mut Vec<u8>, enriched: &Enriched<'_>, owner: Option<&Encoded>) {
    if let Some(name) = enriched.destination_names.as_ref().and_then(|names| names.as_slice().first()) {
        out.extend_from_slice(b" (");
        // Names of the DNS are escaped already; those of the hosts file are somebody else's words.
        text::shown(out, name);
        out.push(b')');
    }
    if let Some(owner) = owner {
        out.extend_from_slice(&owner.body);
    }
    ending(out, enriched);
}

/// What a body ends with: what happened, where its first words do not say it.
#[inline(always)]
fn ending(out: &mut Vec<u8>, enriched: &Enriched<'_>) {
    let what = &enriched.event.what;
    match what {
        What::Begin { .. } if enriched.fold.is_none() => {}
        What::End { cause: Some(Cause { reason: EndReason::Fin, .. }), .. } if enriched.fold.is_none() => {
            out.extend_from_slice(b" ended: fin")
        }
        _ => outcome(out, what, enriched.fold.as_ref()),
    }
}

/// How it ended, or failed.
fn outcome(body: &mut Vec<u8>, what: &What, fold: Option<&Fold>) {
    let (word, reason, fold) = match what {
        What::Begin { .. } if fold.is_none() => return,
        What::Begin { .. } => (" began", None, fold),
        What::Open => (" open", None, fold),
        What::Update { .. } => (" still open", None, fold),
        What::ClientHello { .. } => (" said TLS hello", None, fold),
        What::End { cause, .. } => (" ended", cause.map(|cause| cause.reason.as_str()), fold),
        What::Vanished => (" ended unseen", None, fold),
        What::Failed { cause, fold, .. } => (" failed", Some(cause.reason.as_str()), fold.as_ref()),
    };
    body.extend_from_slice(word.as_bytes());
    if let Some(fold) = fold {
        let ports = fold.destination_ports;
        let times = if ports > 1 {
            format!(" {} times at {ports} ports", fold.count)
        } else {
            format!(" {} times", fold.count)
        };
        body.extend_from_slice(times.as_bytes());
    }
    if let Some(reason) = reason {
        body.extend_from_slice(b": ");
        body.extend_from_slice(reason.as_bytes());
    }
    if let (What::Update { traffic, .. }, None) = (what, fold)
        && traffic.counted
    {
        let Traffic { source_bytes, destination_bytes, .. } = traffic;
        let passed = format!(": {source_bytes} bytes there, {destination_bytes} back");
        body.extend_from_slice(passed.as_bytes());
    }
}

/// Id of the record itself: the same for a copy, and for nothing else. Without a flow's id the endpoints stand for it.
///
/// A flow's id is a keyed hash of 128 bits, so two flows' records differ as their ids do; one flow's differ in the event or
/// in its time, which are but the lower 72 bits: nothing is to be hashed once more.
fn uid(boot: &BootId, event: &FlowEvent) -> u128 {
    let id = id_of(boot, event);
    let what = match event.what {
        What::Begin { .. } => 1,
        What::Open => 2,
        What::End { .. } | What::Vanished => 3,
        What::Failed { .. } => 4,
        What::Update { .. } => 5,
        What::ClientHello { .. } => 6,
    };
    id.0 ^ (u128::from(event.at.time.0) << 8 | what)
}

/// The flow's id, or what stands for it.
fn id_of(boot: &BootId, event: &FlowEvent) -> FlowId {
    event.flow.id.unwrap_or_else(|| FlowId::new(boot, 0, event.flow.source, event.flow.destination))
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
