//! What must have been recorded: connections go in; nothing comes out when there is exactly one record for each event of
//! each side, right in every field, and no other record about their addresses.

mod causes;
mod wanted;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};

use crate::{
    flowtel::RESOURCE_ATTRIBUTE,
    machine,
    record::{Attributes, End as Place, Record, Value},
    wait,
};
pub use wanted::{About, End, Executable, Failure, Handshake, Names, Owner, Side};

const BEGIN: &str = "flowtel.tcp.flow.begin";
const OPEN: &str = "flowtel.tcp.flow.open";
const END: &str = "flowtel.tcp.flow.end";
const FAILED: &str = "flowtel.tcp.flow.failed";
const SCHEMA_URL: &str = "https://github.com/flowtel/flowtel/schemas/2.0.0";
/// How far flowtel's idea of the wall clock may be off: it is measured at each reading of the rings.
const CLOCK_SLACK: u64 = 5_000_000;
/// How long after it happened a fact may be read, on a machine that does much else.
const READ_WITHIN: Duration = Duration::from_secs(5);

// === impl Side

impl Side {
    fn key(&self, event: &'static str) -> Key {
        let place = |end: SocketAddr| (Some(end.ip()), Some(end.port()));
        (event.into(), self.outgoing, place(self.source), place(self.destination))
    }
}

/// Event, whether outgoing, source, destination.
type Key = (String, bool, Place, Place);

/// Checks that the records about the scenario are exactly the begins and ends of `sides`, each whole and right.
///
/// # Errors
/// One is missing, is there although it should not be, or is wrong.
pub fn exactly(records: &[Record], about: &About, sides: &[Side]) -> Result<()> {
    exactly_all(records, about, sides, &[])
}

/// As [`exactly`], with attempts that failed.
///
/// # Errors
/// One is missing, is there although it should not be, or is wrong.
pub fn exactly_all(records: &[Record], about: &About, sides: &[Side], failures: &[Failure]) -> Result<()> {
    let mut found: BTreeMap<Key, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|r| about.concerns(r)) {
        let outgoing = match record.text("flowtel.flow.direction") {
            "outgoing" => true,
            "incoming" => false,
            other => bail!("the direction {other:?}: {record:#?}"),
        };
        let key = (record.event_name.clone(), outgoing, record.end("source"), record.end("destination"));
        found.entry(key).or_default().push(record);
    }
    let mut wanted: BTreeMap<Key, Vec<Expected<'_>>> = BTreeMap::new();
    for side in sides {
        let first = if side.older.is_some() { OPEN } else { BEGIN };
        wanted.entry(side.key(first)).or_default().push(Expected::begin(side));
        if let Some(end) = &side.end {
            wanted.entry(side.key(END)).or_default().push(Expected::end(side, end));
        }
    }
    for failure in failures {
        let key = (FAILED.into(), failure.outgoing, failure.source, failure.destination);
        wanted.entry(key).or_default().push(Expected::failed(failure));
    }
    let mut differences = Vec::new();
    for key in found.keys().chain(wanted.keys().filter(|k| !found.contains_key(k))) {
        let (is, should) = (found.get(key).map_or(0, Vec::len), wanted.get(key).map_or(0, Vec::len));
        if is != should {
            let (event, outgoing, source, destination) = key;
            let way = if *outgoing { "outgoing" } else { "incoming" };
            let bodies = found.get(key).map(|records| records.iter().map(|r| &r.body).collect::<Vec<_>>());
            let bodies = bodies.unwrap_or_default();
            differences.push(format!(
                "{event} {way} {source:?} -> {destination:?}: {is} records instead of {should} {bodies:?}"
            ));
        }
    }
    if !differences.is_empty() {
        let total = differences.len();
        differences.truncate(20);
        bail!("{total} differences:\n  {}", differences.join("\n  "));
    }
    let mut begins: BTreeMap<_, Vec<&Record>> = BTreeMap::new();
    let mut wanted: Vec<_> = wanted.into_iter().collect();
    // Begins, and what was open, stand before ends.
    wanted.sort_by_key(|((event, ..), _)| event == END);
    for (key, mut expected) in wanted {
        let mut records = found.remove(&key).unwrap_or_default();
        records.sort_by_key(|r| r.time);
        expected.sort_by_key(|e| e.between.0);
        let (event, way, source, destination) = key;
        let flow = (way, source, destination);
        for (i, (record, expected)) in records.iter().zip(expected).enumerate() {
            let begin = (event == END).then(|| begins.get(&flow).and_then(|begins| begins.get(i))).flatten();
            whole(record, &expected, begin.copied())
                .with_context(|| format!("expected {expected:#?}\nfound {record:#?}\nafter {begin:#?}"))?;
        }
        if event == BEGIN || event == OPEN {
            begins.insert(flow, records);
        }
    }
    Ok(())
}

/// A record that must be there.
#[derive(Debug)]
struct Expected<'a> {
    event: &'static str,
    outgoing: bool,
    source: Place,
    destination: Place,
    local: Option<bool>,
    owners: Vec<&'a Owner>,
    names: Names,
    between: (u64, u64),
    what: What<'a>,
}

#[derive(Debug)]
enum What<'a> {
    Begin(Handshake),
    Open,
    /// And whether its begin was told.
    End(&'a End, bool),
    Failed(&'a Failure),
}

impl<'a> Expected<'a> {
    fn begin(side: &'a Side) -> Self {
        let (_, outgoing, source, destination) = side.key(BEGIN);
        let (event, between, what) = match side.older {
            Some(between) => (OPEN, between, What::Open),
            None => (BEGIN, side.between, What::Begin(side.handshake)),
        };
        Self {
            event,
            outgoing,
            source,
            destination,
            local: side.local,
            owners: match &side.begun {
                Some(owner) => owner.iter().collect(),
                None => side.owner.iter().chain(&side.instead).collect(),
            },
            names: side.names.clone(),
            between,
            what,
        }
    }

    fn end(side: &'a Side, end: &'a End) -> Self {
        // By then it was accepted, if ever; where that came late, some kernels can't tell it.
        let late = side.instead.iter().filter(|_| !machine::tells_calls());
        let owners = side.owner.iter().chain(late).collect();
        Self {
            event: END,
            owners,
            between: end.between,
            what: What::End(end, side.older.is_none()),
            ..Self::begin(side)
        }
    }

    fn failed(failure: &'a Failure) -> Self {
        Self {
            event: FAILED,
            outgoing: failure.outgoing,
            source: failure.source,
            destination: failure.destination,
            local: failure.local,
            owners: failure.owner.iter().collect(),
            names: Names::default(),
            between: failure.between,
            what: What::Failed(failure),
        }
    }
}

/// Checks every field of a record.
fn whole(record: &Record, expected: &Expected<'_>, begin: Option<&Record>) -> Result<()> {
    let severity = if expected.event == FAILED { (13, "WARN") } else { (9, "INFO") };
    same("event_name", record.event_name.as_str(), expected.event)?;
    same("severity", (record.severity, record.severity_text.as_str()), severity)?;
    let (earliest, latest) = expected.between;
    let off = |at: u64| (record.time as i64 - at as i64) as f64 / 1e6;
    ensure!(record.time + CLOCK_SLACK >= earliest, "it is told to have happened {} ms too early", -off(earliest));
    ensure!(record.time <= latest + CLOCK_SLACK, "it is told to have happened {} ms too late", off(latest));
    ensure!(record.observed >= record.time, "it was observed before it happened");
    let within = wait::patient(READ_WITHIN).as_nanos() + u128::from(latest - earliest);
    ensure!(u128::from(record.observed - record.time) < within, "it was observed far too late");
    let thread = record.text("thread.name");
    let owner = expected.owners.iter().find(|o| (o.thread.as_str(), o.role) == (thread, record.text(ROLE)));
    let owner = owner.or(expected.owners.first()).copied();
    body(record, expected, owner)?;
    scope(record)?;
    resource(record)?;
    attributes(record, expected, owner, begin)
}

const ROLE: &str = "flowtel.process.role";

fn body(record: &Record, expected: &Expected<'_>, owner: Option<&Owner>) -> Result<()> {
    let end = |(address, port): Place| match (address, port) {
        (None, _) => "?".to_owned(),
        (Some(address), None) => address.to_string(),
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
    };
    let way = if expected.outgoing { "outgoing" } else { "incoming" };
    let mut body = format!("{way} tcp {} -> {}", end(expected.source), end(expected.destination));
    if let Some(name) = expected.names.destination.as_ref().and_then(|(names, _)| names.first()) {
        body.push_str(&format!(" ({name})"));
    }
    if let Some(owner) = owner {
        let pid = record.int("process.pid").context("no process.pid")?;
        let name = record.text("process.executable.name");
        body.push_str(&format!(" {}[{pid}]", if name.is_empty() { &owner.thread } else { name }));
    }
    match &expected.what {
        What::Begin(_) => {}
        What::Open => body.push_str(" open"),
        What::End(End { reason: "", .. }, _) => body.push_str(" ended"),
        What::End(end, _) => body.push_str(&format!(" ended: {}", end.reason)),
        What::Failed(Failure { fold: None, error, .. }) => body.push_str(&format!(" failed: {error}")),
        What::Failed(Failure { fold: Some((count, ports)), error, .. }) => {
            body.push_str(&format!(" failed {count} times at {ports} ports: {error}"));
        }
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

fn attributes(record: &Record, expected: &Expected<'_>, owner: Option<&Owner>, begin: Option<&Record>) -> Result<()> {
    let mut is = record.attributes.clone();
    let folded = matches!(expected.what, What::Failed(Failure { fold: Some(_), .. }));
    let ids: &[_] = if folded { &["log.record.uid"] } else { &["flowtel.flow.id", "log.record.uid"] };
    for id in ids {
        match is.remove(*id) {
            Some(Value::Text(id)) if is_id(&id) => {}
            other => bail!("{id} is {other:?}"),
        }
    }
    if let Some(begin) = begin {
        let ids = [record, begin].map(|record| record.text("flowtel.flow.id"));
        ensure!(ids[0] == ids[1], "begin and end have different ids");
    }
    match &expected.what {
        What::Begin(handshake) => begun(&mut is, *handshake)?,
        What::Open => {}
        What::End(end, begun) => ended(&mut is, record, end, begin, *begun)?,
        What::Failed(failure) => failed(&mut is, failure)?,
    }
    let text = |value: &dyn fmt::Display| Value::Text(value.to_string());
    let mut should = Attributes::from(
        [
            ("flowtel.flow.direction", text(if expected.outgoing { &"outgoing" } else { &"incoming" })),
            ("network.transport", text(&"tcp")),
            (
                "network.type",
                text(if expected.destination.0.is_some_and(|ip| ip.is_ipv4()) { &"ipv4" } else { &"ipv6" }),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    for (end, (address, port)) in [("source", expected.source), ("destination", expected.destination)] {
        should.extend(address.map(|address| (format!("{end}.address"), text(&address))));
        should.extend(port.map(|port| (format!("{end}.port"), Value::Int(port.into()))));
    }
    if let ((Some(a), Some(b)), (Some(c), Some(d))) = (expected.source, expected.destination) {
        let id = community_id(SocketAddr::new(a, b), SocketAddr::new(c, d));
        should.insert("flowtel.flow.community_id".into(), Value::Text(id));
    }
    match expected.local {
        // Where the ends are told more than 10 ms apart, as on an emulated machine, flowtel does not know it.
        Some(true) if wait::is_slow() && !is.contains_key("flowtel.flow.local") => {}
        Some(true) => drop(should.insert("flowtel.flow.local".into(), Value::Bool(true))),
        Some(false) => {}
        None => match is.remove("flowtel.flow.local") {
            None | Some(Value::Bool(true)) => {}
            Some(other) => bail!("flowtel.flow.local is {other:?}"),
        },
    }
    if let Some(owner) = owner {
        owned(&mut is, &mut should, owner);
        // Where the begin named another process the end says so.
        let pid = |record: Option<&Record>| record.and_then(|record| record.int("process.pid"));
        if let Some(named) = pid(begin).filter(|named| Some(*named) != pid(Some(record))) {
            should.insert("flowtel.process.begin.pid".into(), Value::Int(named));
        }
    }
    for (end, names) in [("source", &expected.names.source), ("destination", &expected.names.destination)] {
        let Some((names, state)) = names else { continue };
        should.insert(format!("flowtel.{end}.dns.names"), Value::Texts(names.clone()));
        should.insert(format!("flowtel.{end}.dns.state"), state.as_str().into());
        // All that the scenarios run is of one user and one cgroup.
        let origin = if state == "static" { "static" } else { "own" };
        should.insert(format!("flowtel.{end}.dns.origin"), origin.into());
        if state != "static" {
            match is.remove(&format!("flowtel.{end}.dns.age")) {
                Some(Value::Double(age)) if (0.0..60.0).contains(&age) => {}
                other => bail!("the names' age is {other:?}"),
            }
        }
    }
    namespace(&mut is)?;
    same("the attributes", &is, &should)
}

/// Takes out which network namespace the record is of: it must be told, and be the host's where it is.
fn namespace(is: &mut Attributes) -> Result<()> {
    let found = ["inode", "host", "cookie"].map(|part| is.remove(&format!("flowtel.netns.{part}")));
    let right = match &found {
        [Some(Value::Int(inode)), Some(Value::Bool(host)), None] => {
            *host == (machine::host_namespace()? == u64::try_from(*inode)?)
        }
        // Without types only cookies are known of other namespaces than flowtel's own and those that it read at its start.
        // Before SO_NETNS_COOKIE (Linux 5.14) a flowtel that takes over may not know them of what happened before its start; the
        // room `whereabouts` proves that they are known otherwise.
        [None, Some(Value::Bool(false)), Some(Value::Int(cookie))] => {
            *cookie > 0 && !(machine::tells_types() && machine::is_at_least((5, 14)))
        }
        [None, None, None] => !machine::tells_namespaces() && !machine::tells_types(),
        _ => false,
    };
    ensure!(right, "the network namespace is {found:?}");
    Ok(())
}

fn begun(is: &mut Attributes, should: Handshake) -> Result<()> {
    let handshake = match is.remove("flowtel.tcp.handshake.duration") {
        None => None,
        Some(Value::Double(seconds)) => Some(seconds),
        Some(other) => bail!("the handshake's duration is {other:?}"),
    };
    let right = match (should, handshake) {
        (Handshake::Absent | Handshake::AtMost(_), None) => true,
        (Handshake::Between(least, most), Some(is)) => (least..=most).contains(&is),
        (Handshake::AtMost(most), Some(is)) => is > 0.0 && is <= most,
        _ => false,
    };
    ensure!(right, "the handshake's duration is {handshake:?}, not {should:?}");
    Ok(())
}

fn ended(is: &mut Attributes, record: &Record, end: &End, begin: Option<&Record>, begun: bool) -> Result<()> {
    same("the reason", record.text("flowtel.flow.end.reason"), end.reason)?;
    is.remove("flowtel.flow.end.reason");
    causes::of_end(is, end, begun)?;
    // Bytes are exact everywhere; a machine that is slow enough repeats segments.
    let repeats = if wait::is_slow() { 20 } else { 0 };
    let [sent, received] = [0, 1].map(|i| *end.packets[i].start()..=*end.packets[i].end() + repeats);
    let counts = [
        ("flowtel.source.bytes", &end.bytes[0]),
        ("flowtel.destination.bytes", &end.bytes[1]),
        ("flowtel.source.packets", &sent),
        ("flowtel.destination.packets", &received),
        ("flowtel.tcp.retransmits", &(*end.retransmits.start()..=*end.retransmits.end() + repeats)),
    ];
    counts.into_iter().skip(if end.counted { 0 } else { 2 }).try_for_each(|(key, range)| within(is, key, range))?;
    match is.remove("flowtel.tcp.rtt") {
        Some(Value::Double(rtt)) if rtt > 0.0 && (rtt < 1.0 || wait::is_slow()) => {}
        None if !end.rtt => {}
        other => bail!("the round trip time is {other:?}"),
    }
    let begin = begin.context("an end without a begin")?;
    if !begun {
        return same("the duration", is.remove("flowtel.flow.duration"), None);
    }
    match is.remove("flowtel.flow.duration") {
        Some(Value::Double(seconds)) => {
            // Each of the two was timed by its own measurement of the wall clock.
            let off = seconds - (record.time as f64 - begin.time as f64) / 1e9;
            ensure!(
                seconds >= 0.0 && off.abs() < 2e-9 * CLOCK_SLACK as f64,
                "a duration of {seconds} s is {off} s off"
            );
        }
        other => bail!("the duration is {other:?}"),
    }
    Ok(())
}

fn failed(is: &mut Attributes, failure: &Failure) -> Result<()> {
    same("the error", is.remove("error.type"), Some(failure.error.into()))?;
    causes::of_failure(is, failure)?;
    within(is, "flowtel.tcp.attempts", &failure.attempts)?;
    if let Some((count, ports)) = failure.fold {
        within(is, "flowtel.fold.count", &(count..=count))?;
        within(is, "flowtel.fold.destination.ports", &(ports..=ports))?;
        match is.remove("flowtel.fold.duration") {
            Some(Value::Double(seconds)) if seconds > 0.0 && seconds <= 1.1 => {}
            other => bail!("the time of those folded is {other:?}"),
        }
    }
    Ok(())
}

fn within(is: &mut Attributes, key: &str, range: &RangeInclusive<i64>) -> Result<()> {
    match is.remove(key) {
        Some(Value::Int(n)) if range.contains(&n) => Ok(()),
        other => bail!("{key} is {other:?}, not {range:?}"),
    }
}

fn owned(is: &mut Attributes, should: &mut Attributes, owner: &Owner) {
    match owner.pid {
        Some(pid) => drop(should.insert("process.pid".into(), Value::Int(pid.into()))),
        None => drop(is.remove("process.pid")),
    }
    should.insert("process.real_user.id".into(), Value::Int(owner.uid.into()));
    should.insert("thread.name".into(), owner.thread.as_str().into());
    should.insert(ROLE.into(), owner.role.into());
    should.insert("flowtel.process.source".into(), owner.source.into());
    let (path, must) = match &owner.executable {
        Executable::Is(path) => (path, true),
        Executable::May(path) => (path, is.contains_key("process.executable.path")),
    };
    if must {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        should.insert("process.executable.name".into(), Value::from(&*name));
        should.insert("process.executable.path".into(), Value::from(&*path.to_string_lossy()));
    }
    // What is known beside it is checked where it is known what it must be.
    BESIDE.iter().for_each(|key| drop(is.remove(*key)));
    match &owner.container {
        Some(id) => drop(should.insert("container.id".into(), id.as_str().into())),
        None if machine::in_root_cgroup() => {}
        // Whatever the path of this process's cgroup says: that is read by its own tests.
        None => ["container.id", "k8s.pod.uid", "flowtel.systemd.unit"].iter().for_each(|key| drop(is.remove(*key))),
    }
}

/// What is told of a process beside its executable.
const BESIDE: [&str; 8] = [
    "flowtel.process.executable.source",
    "flowtel.process.executable.state",
    "flowtel.process.executable.device",
    "flowtel.process.executable.inode",
    "process.creation.time",
    "process.parent_pid",
    "flowtel.process.parent.executable.name",
    "flowtel.process.parent.executable.path",
];

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
