//! What must have been recorded: connections go in; nothing comes out when there is exactly one record for each side of
//! each, right in every field, and no other record about their addresses.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};

use crate::{
    flowtel::RESOURCE_ATTRIBUTE,
    machine,
    record::{Attributes, Record, Value},
    traffic::Connection,
};

const BEGIN: &str = "flowtel.tcp.flow.begin";
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// How far flowtel's idea of the wall clock may be off: it is measured at each reading of the rings.
const CLOCK_SLACK: u64 = 5_000_000;
/// How long after it happened a fact may be read, on a machine that does much else.
const READ_WITHIN: u64 = 5_000_000_000;

/// Which records belong to the scenario: others may be the whole host's.
#[derive(Debug, Clone)]
pub enum About {
    /// Those with one of these addresses at an end.
    Addresses(Vec<IpAddr>),
    /// Those with one of these ports at an end.
    Ports(Vec<u16>),
}

/// A side of a connection that must have a record.
#[derive(Debug, Clone)]
pub struct Side {
    /// Whether this side initiated it.
    pub outgoing: bool,
    /// The initiator.
    pub source: SocketAddr,
    /// The responder.
    pub destination: SocketAddr,
    /// Whether the record must say that both ends are here; `None` where it may or may not.
    pub local: Option<bool>,
    /// The handshake's duration.
    pub handshake: Handshake,
    /// The process that asked for it.
    pub owner: Option<Owner>,
    /// When it began, at the earliest and at the latest, by the wall clock.
    pub between: (u64, u64),
}

/// What a record must say of the handshake's duration.
#[derive(Debug, Clone, Copy)]
pub enum Handshake {
    /// So many seconds.
    Between(f64, f64),
    /// Nothing.
    Absent,
    /// Nothing, or no more than so many seconds.
    AtMost(f64),
}

/// A process that asked for a connection.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its id, where that can be known here.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
    /// Its thread's name.
    pub thread: String,
}

// === impl About

impl About {
    /// Whether a record is about it.
    pub fn concerns(&self, record: &Record) -> bool {
        let ends: Vec<SocketAddr> = [record.source(), record.destination()].into_iter().flatten().collect();
        // A record that does not even say its ends is everybody's business.
        ends.len() < 2
            || match self {
                Self::Addresses(addresses) => ends.iter().any(|e| addresses.contains(&e.ip())),
                Self::Ports(ports) => ends.iter().any(|e| ports.contains(&e.port())),
            }
    }
}

// === impl Side

impl Side {
    /// The initiator's side of a connection within this host.
    pub fn outgoing(connection: &Connection) -> Self {
        let pid = machine::has_kernel_pids().then(std::process::id);
        Self {
            outgoing: true,
            source: connection.client,
            destination: connection.server,
            local: Some(true),
            handshake: Handshake::Between(1e-9, connection.seconds()),
            owner: Some(Owner { pid, uid: rustix::process::getuid().as_raw(), thread: connection.thread.clone() }),
            between: (connection.before, connection.after),
        }
    }

    /// The responder's.
    pub fn incoming(connection: &Connection) -> Self {
        Self { outgoing: false, owner: None, ..Self::outgoing(connection) }
    }

    /// Both.
    pub fn both(connection: &Connection) -> [Self; 2] {
        [Self::outgoing(connection), Self::incoming(connection)]
    }

    /// Both of each.
    pub fn all<'a>(connections: impl IntoIterator<Item = &'a Connection>) -> Vec<Self> {
        connections.into_iter().flat_map(Self::both).collect()
    }

    /// With this handshake.
    #[must_use]
    pub fn handshake(self, handshake: Handshake) -> Self {
        Self { handshake, ..self }
    }

    /// With this mark of both ends being here.
    #[must_use]
    pub fn local(self, local: Option<bool>) -> Self {
        Self { local, ..self }
    }

    fn key(&self) -> Key {
        (self.outgoing, self.source, self.destination)
    }
}

impl Connection {
    /// Longer than its handshake took.
    fn seconds(&self) -> f64 {
        (self.after.saturating_sub(self.before) + CLOCK_SLACK) as f64 / 1e9
    }
}

type Key = (bool, SocketAddr, SocketAddr);

/// Checks that the records about the scenario are exactly those of `sides`, each whole and right.
///
/// # Errors
/// One is missing, is there although it should not be, or is wrong.
pub fn exactly(records: &[Record], about: &About, sides: &[Side]) -> Result<()> {
    let mut found: BTreeMap<Key, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|r| about.concerns(r)) {
        let outgoing = match record.text("flowtel.flow.direction") {
            "outgoing" => true,
            "incoming" => false,
            other => bail!("the direction {other:?}: {record:#?}"),
        };
        let (Some(source), Some(destination)) = (record.source(), record.destination()) else {
            bail!("a record without its ends: {record:#?}");
        };
        found.entry((outgoing, source, destination)).or_default().push(record);
    }
    let mut wanted: BTreeMap<Key, Vec<&Side>> = BTreeMap::new();
    for side in sides {
        wanted.entry(side.key()).or_default().push(side);
    }
    let mut differences = Vec::new();
    for key in found.keys().chain(wanted.keys().filter(|k| !found.contains_key(k))) {
        let (is, should) = (found.get(key).map_or(0, Vec::len), wanted.get(key).map_or(0, Vec::len));
        if is != should {
            let (outgoing, source, destination) = key;
            let way = if *outgoing { "outgoing" } else { "incoming" };
            differences.push(format!("{way} {source} -> {destination}: {is} records instead of {should}"));
        }
    }
    if !differences.is_empty() {
        let total = differences.len();
        differences.truncate(20);
        bail!("{total} differences:\n  {}", differences.join("\n  "));
    }
    for (key, mut sides) in wanted {
        let mut records = found.remove(&key).unwrap_or_default();
        records.sort_by_key(|r| r.time);
        sides.sort_by_key(|s| s.between.0);
        for (record, side) in records.into_iter().zip(sides) {
            whole(record, side).with_context(|| format!("expected {side:#?}\nfound {record:#?}"))?;
        }
    }
    Ok(())
}

/// Checks every field of a record.
fn whole(record: &Record, side: &Side) -> Result<()> {
    same("event_name", record.event_name.as_str(), BEGIN)?;
    same("severity", (record.severity, record.severity_text.as_str()), (9, "INFO"))?;
    let (earliest, latest) = side.between;
    ensure!(record.time + CLOCK_SLACK >= earliest, "it is told to have begun too early");
    ensure!(record.time <= latest + CLOCK_SLACK, "it is told to have begun too late");
    ensure!(record.observed >= record.time, "it was observed before it happened");
    ensure!(record.observed - record.time < READ_WITHIN + (latest - earliest), "it was observed far too late");
    body(record, side)?;
    scope(record)?;
    resource(record)?;
    attributes(record, side)
}

fn body(record: &Record, side: &Side) -> Result<()> {
    let way = if side.outgoing { "outgoing" } else { "incoming" };
    let mut body = format!("{way} tcp {} -> {}", side.source, side.destination);
    if let Some(owner) = &side.owner {
        let pid = record.attributes.get("process.pid");
        let Some(Value::Int(pid)) = pid else { bail!("no process.pid") };
        body.push_str(&format!(" {}[{pid}]", owner.thread));
    }
    same("body", record.body.as_str(), body.as_str())
}

fn scope(record: &Record) -> Result<()> {
    same("scope", record.scope.name.as_str(), "flowtel")?;
    same("scope version", record.scope.version.as_str(), env!("CARGO_PKG_VERSION"))?;
    same("schema_url", record.scope.schema_url.as_str(), SCHEMA_URL)
}

fn resource(record: &Record) -> Result<()> {
    let mut attributes = (*record.resource).clone();
    let instance = match attributes.remove("service.instance.id") {
        Some(Value::Text(id)) => id,
        other => bail!("service.instance.id is {other:?}"),
    };
    let version = instance.split('-').nth(2).and_then(|group| group.chars().next());
    ensure!(instance.len() == 36 && version == Some('5'), "service.instance.id is no UUID of version 5: {instance}");
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut expected = Attributes::from(
        [
            ("service.name", "flowtel"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("host.name", &rustix::system::uname().nodename().to_string_lossy()),
            ("host.arch", arch),
            ("os.type", "linux"),
            RESOURCE_ATTRIBUTE,
        ]
        .map(|(key, value)| (key.to_owned(), Value::from(value))),
    );
    if let Some(id) = fs::read_to_string("/etc/machine-id").ok().filter(|id| id.trim().len() == 32) {
        expected.insert("host.id".into(), id.trim().into());
    }
    same("the Resource", &attributes, &expected)
}

fn attributes(record: &Record, side: &Side) -> Result<()> {
    let mut attributes = record.attributes.clone();
    for id in ["flowtel.flow.id", "log.record.uid"] {
        match attributes.remove(id) {
            Some(Value::Text(id)) if is_id(&id) => {}
            other => bail!("{id} is {other:?}"),
        }
    }
    let handshake = match attributes.remove("flowtel.tcp.handshake.duration") {
        None => None,
        Some(Value::Double(seconds)) => Some(seconds),
        Some(other) => bail!("the handshake's duration is {other:?}"),
    };
    let right = match (side.handshake, handshake) {
        (Handshake::Absent | Handshake::AtMost(_), None) => true,
        (Handshake::Between(least, most), Some(is)) => (least..=most).contains(&is),
        (Handshake::AtMost(most), Some(is)) => is > 0.0 && is <= most,
        _ => false,
    };
    ensure!(right, "the handshake's duration is {handshake:?}, not {:?}", side.handshake);

    let text = |value: &dyn fmt::Display| Value::Text(value.to_string());
    let (source, destination) = (side.source, side.destination);
    let mut expected = Attributes::from(
        [
            ("event.name", text(&BEGIN)),
            ("flowtel.flow.community_id", Value::Text(community_id(source, destination))),
            ("flowtel.flow.direction", text(if side.outgoing { &"outgoing" } else { &"incoming" })),
            ("source.address", text(&source.ip())),
            ("source.port", Value::Int(source.port().into())),
            ("destination.address", text(&destination.ip())),
            ("destination.port", Value::Int(destination.port().into())),
            ("network.transport", text(&"tcp")),
            ("network.type", text(if source.is_ipv4() { &"ipv4" } else { &"ipv6" })),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    match side.local {
        Some(true) => drop(expected.insert("flowtel.flow.local".into(), Value::Bool(true))),
        Some(false) => {}
        None => match attributes.remove("flowtel.flow.local") {
            None | Some(Value::Bool(true)) => {}
            Some(other) => bail!("flowtel.flow.local is {other:?}"),
        },
    }
    if let Some(owner) = &side.owner {
        match owner.pid {
            Some(pid) => drop(expected.insert("process.pid".into(), Value::Int(pid.into()))),
            None => drop(attributes.remove("process.pid")),
        }
        expected.insert("process.user.id".into(), Value::Int(owner.uid.into()));
        expected.insert("thread.name".into(), owner.thread.as_str().into());
        expected.insert("flowtel.process.role".into(), "connector".into());
    }
    same("the attributes", &attributes, &expected)
}

fn same<T: PartialEq + fmt::Debug>(what: &str, is: T, should: T) -> Result<()> {
    ensure!(is == should, "{what}: {is:#?} instead of {should:#?}");
    Ok(())
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Community ID version 1, seed 0, as its specification words it.
fn community_id(a: SocketAddr, b: SocketAddr) -> String {
    let wire = |end: SocketAddr| {
        let address = match end.ip() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        (address, end.port().to_be_bytes())
    };
    let (first, second) = if wire(a) < wire(b) { (wire(a), wire(b)) } else { (wire(b), wire(a)) };
    let mut hash = Sha1::new();
    hash.update([0, 0]);
    hash.update(first.0);
    hash.update(second.0);
    hash.update([6, 0]);
    hash.update(first.1);
    hash.update(second.1);
    format!("1:{}", BASE64_STANDARD.encode(hash.finalize()))
}
