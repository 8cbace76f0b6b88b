//! What is recorded and what is left out: two flowtels watch the same. One tells everything and is checked record by record;
//! of the other exactly those records must come that a plain reading of its settings keeps.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child::Child,
    collector::Protocol::{Grpc, Http},
    expect::{About, End, Executable, Failure, Owner, Side, exactly_all},
    flowtel::{Balance, Launch},
    netns::Pair,
    record::{Record, Value, decode_lines},
    scene::{Scenario, Scene, skip},
    traffic::{self, Connection, SERVER, Server, burst, connect, dial},
    wait::{patient, pause, wall},
    watching::Watching,
};

use crate::{
    Story,
    failed::{HOPEFUL, fail, outgoing},
    names::{A, Container, Data, PTR, Resolver, also, udp},
    over,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "selecting: rules about addresses and ports: the first that matches decides on begin, end and failure",
        120,
        places,
    ),
    Scenario::new("selecting: rules that all include: nothing else of the whole host is recorded", 120, only),
    Scenario::new("selecting: rules about a thread, with its direction and its user", 120, threads),
    Scenario::new("selecting: a flow whose begin was told keeps its end, whoever took it meanwhile", 120, |s| {
        late(s, "taker")
    }),
    Scenario::new(
        "selecting: a flow whose begin was left out has no end either, whoever took it meanwhile",
        120,
        |s| late(s, SERVER),
    ),
    Scenario::new("selecting: rules about a container and its cgroup", 120, contained),
    Scenario::new("selecting: events by their names: what was not asked for is counted apart", 120, named),
    Scenario::new("selecting: begins alone, by their name in Tracee, are not watched to their end", 120, begins),
    Scenario::new("selecting: a sample by flow id: begin and end together, and all that failed", 120, sampled),
    Scenario::new("selecting: groups of attributes, as a collector gets them", 120, groups),
    Scenario::new("selecting: names of reverse look-ups, where no other is known", 120, reverse),
];

const WEB: u16 = 7443;
const SHELL: u16 = 7022;
const CLOSED: u16 = 7999;

/// What a flowtel beside the one that tells everything did.
struct Beside {
    /// Its records about the scenario's addresses.
    told: Vec<Record>,
    /// All that it told.
    total: usize,
    /// How many of the scenario's records it left out.
    left_out: i128,
    balance: Balance,
}

/// Has a flowtel with other arguments watch beside one that tells everything, and checks that it told exactly those records
/// which `keeps` says.
fn beside(
    scene: &Scene,
    net: &Pair,
    launch: Launch,
    happen: impl FnOnce(&Pair) -> Result<Story>,
    keeps: impl Fn(&Record) -> bool,
) -> Result<Beside> {
    let all = Watching::with(scene, Http, Launch::everything()?)?;
    let other = launch.argument("--format=json").start(scene)?;
    let (sides, failures) = happen(net)?;
    over(net)?;
    // Long enough for either to read the last of it.
    pause(Duration::from_millis(300));
    let all = all.finish()?;
    let about = About::Addresses(net.addresses());
    exactly_all(&all.records, &about, &sides, &failures)?;
    // Two of them, a collector and whatever else this machine does: the order of the end matters, not how long it takes.
    let ended = other.stop_within(Duration::from_secs(40))?;
    let balance = ended.lossless()?;
    let lines: Vec<_> = ended.stdout.iter().map(|line| line.text.as_str()).collect();
    let records = decode_lines(lines)?;
    ensure!(i128::try_from(records.len())? == balance.records.part("delivered"), "{}", balance.records);
    let total = records.len();
    let told: Vec<Record> = records.into_iter().filter(|record| about.concerns(record)).collect();
    let of = |records: Vec<&Record>| records.into_iter().map(who).collect::<BTreeSet<String>>();
    let ours: Vec<_> = all.records.iter().filter(|record| about.concerns(record)).collect();
    let wanted = of(ours.iter().copied().filter(|record| keeps(record)).collect());
    let is = of(told.iter().collect());
    ensure!(is.len() == told.len(), "a record is there twice");
    let (missing, more): (Vec<_>, Vec<_>) = (wanted.difference(&is).collect(), is.difference(&wanted).collect());
    ensure!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\ntoo many: {more:#?}\n{}", ended.stderr);
    let left_out = i128::try_from(ours.len() - told.len())?;
    Ok(Beside { told, total, left_out, balance })
}

/// The condition that keeps the other flowtel from telling of the whole host, which may be busy.
fn ours(net: &Pair) -> String {
    format!("addr={}", net.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// What is the same in both flowtels' records: all but what depends on when each one's programs ran.
fn who(record: &Record) -> String {
    let refused = record.event_name == "flowtel.tcp.flow.failed";
    let id = if refused { "" } else { record.text("flowtel.flow.id") };
    let (way, source, destination) =
        (record.text("flowtel.flow.direction"), record.end("source"), record.end("destination"));
    format!("{} {way} {source:?} {destination:?} {id}", record.event_name)
}

/// Connects, and tells both sides to their ends.
fn dialled(net: &Pair, thread: &str, to: SocketAddr) -> Result<[Side; 2]> {
    let connection = net.client.run(thread, || dial(to))?;
    let end = End::fin([1, 1], (connection.before, over(net)?));
    Ok(Side::both(&connection).map(|side| side.ended(end.clone())))
}

/// An attempt at a closed port: both sides' failures.
fn refused(net: &Pair, to: SocketAddr) -> Result<[Failure; 2]> {
    let from = SocketAddr::from((net.client_v4, 7301));
    let between = net.client.run(HOPEFUL, || {
        let (_, before) = fail(from, to, 0, std::io::ErrorKind::ConnectionRefused)?;
        Ok((before, wall()))
    })?;
    let mine = outgoing(from, to, "refused", 1, between);
    let theirs = Failure { outgoing: false, owner: None, ..mine.clone() };
    Ok([mine, theirs])
}

/// Connections to two ports of two addresses by IPv4, to one by IPv6, and a refused attempt.
fn several(net: &Pair) -> Result<Story> {
    let other = net.spare[0];
    also(net, other)?;
    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let _servers = [Server::start(&net.server, (any, WEB))?, Server::start(&net.server, (any, SHELL))?];
    let _six = Server::start(&net.server, (net.server_v6, SHELL))?;
    let mut sides = Vec::new();
    for to in [(net.server_v4, WEB), (net.server_v4, SHELL), (other, WEB), (other, SHELL)] {
        sides.extend(dialled(net, "client", to.into())?);
    }
    sides.extend(dialled(net, "client", (net.server_v6, SHELL).into())?);
    Ok((sides, refused(net, (net.server_v4, CLOSED).into())?.into()))
}

fn places(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let (server, six) = (net.server_v4, net.server_v6);
    let launch = Launch::everything()?
        .argument("--include")
        .argument(&format!("dst={server} port={WEB},7999-8000 direction=outgoing"))
        .argument("--exclude")
        .argument(&format!("addr={server}"))
        .argument(&format!("--exclude=destination={six}/128 source_port=1-65535 local=true"))
        .argument(&format!("--include={}", ours(&net)))
        .set("capture.filter_default", "exclude");
    let kept = |record: &Record| {
        let (address, port) = record.end("destination");
        let outgoing = record.text("flowtel.flow.direction") == "outgoing";
        match address {
            Some(ip) if ip == IpAddr::from(server) => outgoing && matches!(port, Some(WEB | CLOSED)),
            Some(ip) => ip != IpAddr::from(six),
            None => true,
        }
    };
    let Beside { told, total, left_out, balance } = beside(scene, &net, launch, several, kept)?;
    // Of the server's: three sides to their ends, and the failure that it saw; the two sides by IPv6.
    ensure!(left_out == 3 * 2 + 1 + 2 * 2, "{left_out} left out");
    ensure!(total == told.len() && balance.records.part("filtered") >= left_out, "{}", balance.records);
    Ok(())
}

fn only(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let rules = format!("[{{ action = \"include\", address = \"{}\", destination_port = {SHELL} }}]", net.server_v4);
    let launch = Launch::everything()?.environment("FLOWTEL_CAPTURE__FILTER", &rules);
    let kept = |record: &Record| record.end("destination") == (Some(net.server_v4.into()), Some(SHELL));
    let Beside { told, total, left_out, balance } = beside(scene, &net, launch, several, kept)?;
    ensure!(told.len() == 4 && total == 4, "{} of {total} records", told.len());
    ensure!(balance.records.part("filtered") >= left_out && left_out == 18, "{left_out}, {}", balance.records);
    Ok(())
}

fn threads(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let uid = rustix::process::getuid().as_raw();
    let rules = [
        format!("include process=shy* user={uid} direction=incoming"),
        format!("exclude addr={} process=shy*,nobody user={uid}", net.client_v4),
        format!("include {}", ours(&net)),
    ];
    let launch =
        Launch::everything()?.set("capture.filter", &rules.join("; ")).set("capture.filter_default", "exclude");
    let happen = |net: &Pair| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let mut sides = Vec::new();
        for thread in ["shy one", "bold one"] {
            sides.extend(dialled(net, thread, server.address)?);
        }
        Ok((sides, Vec::new()))
    };
    let Beside { left_out, balance, .. } =
        beside(scene, &net, launch, happen, |record| record.text("thread.name") != "shy one")?;
    ensure!(left_out == 2 && balance.records.part("filtered") >= 2, "{}", balance.records);
    Ok(())
}

/// Nobody accepts until the begin was told with the listener's name; then another thread does.
fn late(scene: &Scene, excluded: &str) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.argument("--exclude");
    let launch = launch.argument(&format!("process={excluded} direction=incoming addr={}", net.server_v4));
    let launch = launch.argument(&format!("--include={}", ours(&net))).set("capture.filter_default", "exclude");
    let happen = |net: &Pair| {
        let address = (net.server_v4, 0).into();
        let listener = net.server.run(SERVER, || traffic::listen(address, None, |_| Ok(())))?;
        let to = listener.local_addr()?;
        let (mut connection, stream) = net.client.run("client", || connect(traffic::socket(to, None)?, to))?;
        pause(patient(Duration::from_millis(400)));
        connection.after = wall();
        let (server, _) = net.server.run("taker", || Ok(listener.accept()?))?;
        let closing = wall();
        drop(stream);
        drop(server);
        let end = End::fin([0, 0], (closing, over(net)?));
        let taker = Owner::here("taker", "acceptor");
        let sides =
            [Side::outgoing(&connection), Side::incoming(&connection).accepted(taker, Owner::here(SERVER, "listener"))];
        Ok((sides.map(|side| side.ended(end.clone())).into(), Vec::new()))
    };
    let left = excluded == SERVER;
    let Beside { left_out, balance, .. } =
        beside(scene, &net, launch, happen, |record| !left || record.text("flowtel.flow.direction") == "outgoing")?;
    let filtered = if left { 2 } else { 0 };
    ensure!(left_out == filtered && balance.records.part("filtered") >= filtered, "{}", balance.records);
    Ok(())
}

fn contained(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let container = Container::new()?;
    let cgroup = container.inner.file_name().context("a cgroup's name")?.to_string_lossy().into_owned();
    let rules = format!(
        "exclude container={} cgroup=*/{cgroup} direction=outgoing; include container=* addr={}; include {}",
        container.id,
        net.client_v4,
        ours(&net)
    );
    let launch = Launch::everything()?.set("capture.filter", &rules).set("capture.filter_default", "exclude");
    let id = container.id.clone();
    let happen = |net: &Pair| {
        let address = (net.server_v4, 0).into();
        let listener = net.server.run(SERVER, || traffic::listen(address, None, |_| Ok(())))?;
        let (to, before) = (listener.local_addr()?, wall());
        let mut child = Child::start(scene, &net.client, &format!("wait {to}"), None)?;
        fs::write(container.inner.join("cgroup.procs"), child.id().to_string())
            .map_err(|e| skip(format!("processes can't be moved to a cgroup here: {e}")))?;
        child.go()?;
        let (server, client) = net.server.run("taker", || Ok(listener.accept()?))?;
        ensure!(child.line()? == client.to_string());
        ensure!(child.ended()?.success(), "the client failed");
        drop(server);
        let connection = Connection { client, server: to, thread: Child::thread()?, before, after: wall() };
        let end = End::fin([0, 0], (before, over(net)?));
        let executable = Executable::May(std::env::current_exe()?);
        let owner = Owner { container: Some(container.id.clone()), executable, ..child.owner("connector")? };
        let outgoing = Side::outgoing(&connection).owned(Some(owner));
        let taker = Owner::here("taker", "acceptor");
        let incoming = Side::incoming(&connection).accepted(taker, Owner::here(SERVER, "listener"));
        // The cgroup's path is read when a record is written: a moment later than its event.
        pause(Duration::from_millis(300));
        Ok(([outgoing, incoming].map(|side| side.ended(end.clone())).into(), Vec::new()))
    };
    let Beside { left_out, balance, .. } =
        beside(scene, &net, launch, happen, |record| record.text("container.id") != id)?;
    ensure!(left_out == 2 && balance.records.part("filtered") >= 2, "{}", balance.records);
    Ok(())
}

fn named(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let events = "[\"flowtel.tcp.flow.end\", \"flowtel.tcp.flow.failed\"]";
    let launch = Launch::everything()?.environment("FLOWTEL_CAPTURE__EVENTS", events);
    let launch = launch.argument(&format!("--include={}", ours(&net)));
    let Beside { left_out, balance, .. } =
        beside(scene, &net, launch, several, |record| record.event_name != "flowtel.tcp.flow.begin")?;
    let events = balance.events.context("events that were not asked for are not accounted for")?;
    ensure!(left_out == 10 && events.part("not selected") >= left_out, "{left_out} left out, {events}");
    Ok(())
}

fn begins(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("capture.events", "net_flow_tcp_begin");
    let launch = launch.argument(&format!("--include={}", ours(&net)));
    let Beside { left_out, balance, .. } =
        beside(scene, &net, launch, several, |record| record.event_name == "flowtel.tcp.flow.begin")?;
    ensure!(left_out == 10 + 2, "{left_out} left out");
    // The kernel told of ends no more than it must.
    let ends = ["close", "fin", "reset"].map(|kind| balance.kernel.get(kind).map_or(0, |account| account.total));
    ensure!(ends == [0; 3], "the kernel side told of ends: {ends:?}");
    Ok(())
}

fn sampled(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("capture.sample", "0.25");
    let launch = launch.argument(&format!("--include={}", ours(&net)));
    let happen = |net: &Pair| {
        let server = Server::start(&net.server, (net.server_v4, 0))?;
        let before = wall();
        let connections = burst(&net.client, server.address, 4, 20)?;
        let end = End::fin([1, 1], (before, over(net)?));
        let sides = Side::all(&connections).into_iter().map(|side| side.ended(end.clone())).collect();
        Ok((sides, refused(net, (net.server_v4, CLOSED).into())?.into()))
    };
    let drawn = |record: &Record| {
        let first = record.text("flowtel.flow.id").get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        record.event_name == "flowtel.tcp.flow.failed" || first.is_some_and(|first| first < 1 << 62)
    };
    let Beside { told, left_out, balance, .. } = beside(scene, &net, launch, happen, drawn)?;
    let ids = |event: &str| -> BTreeSet<_> {
        told.iter().filter(|r| r.event_name == event).map(|r| r.text("flowtel.flow.id").to_owned()).collect()
    };
    let begun = ids("flowtel.tcp.flow.begin");
    ensure!(begun == ids("flowtel.tcp.flow.end"), "begins and ends of different flows");
    // 160 drawn with one chance in four: fewer or more than these come once in millions of boots.
    ensure!((10..80).contains(&begun.len()), "{} of 160 flows", begun.len());
    ensure!(left_out > 0 && balance.records.part("sampled out") == left_out, "{left_out}, {}", balance.records);
    let ratio = told.first().and_then(|record| record.resource.get("flowtel.sample.ratio"));
    ensure!(ratio == Some(&Value::Double(0.25)), "the Resource says {ratio:?}");
    Ok(())
}

fn groups(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("record.groups", "client_server,tracee");
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = SocketAddr::from((net.server_v4, 53));
    let resolver = Resolver::new(&net, udp(&net.server, to)?, to, true)?;
    let mut sides = Vec::from(dialled(&net, "client", server.address)?);
    let name = "groups.flowtel.example";
    resolver.resolve(41, name, A, &[(name, Data::Address(net.server_v4.into()))])?;
    sides.extend(
        dialled(&net, "client", server.address)?.map(|side| if side.outgoing { side.named(&[name]) } else { side }),
    );
    let failures = refused(&net, (net.server_v4, CLOSED).into())?;
    let mut told = watching.finish()?;
    let about = About::Addresses(net.addresses());
    for record in told.records.iter_mut().filter(|record| about.concerns(record)) {
        let all = record.attributes.clone();
        let mut same = |group: &str, usual: &str, otherwise: Option<Value>| {
            let (is, should) = (record.attributes.remove(group), all.get(usual).cloned().or(otherwise));
            ensure!(is.is_some() && is == should, "{group} is {is:?}, and {usual} is {should:?}");
            Ok(())
        };
        for (usual, client_server, tracee) in [
            ("source.address", "client.address", "src"),
            ("source.port", "client.port", "src_port"),
            ("destination.address", "server.address", "dst"),
            ("destination.port", "server.port", "dst_port"),
        ] {
            same(client_server, usual, None)?;
            same(tracee, usual, None)?;
        }
        same("conn_direction", "flowtel.flow.direction", None)?;
        let empty = || Some(Value::Texts(Vec::new()));
        same("src_dns", "flowtel.source.dns.names", empty())?;
        same("dst_dns", "flowtel.destination.dns.names", empty())?;
    }
    // The failure came after the answer, so it has the name too; all else is as ever.
    let [mine, theirs] = failures;
    let mut unnamed = told.records;
    for record in unnamed.iter_mut().filter(|record| about.concerns(record) && record.event_name.ends_with("failed")) {
        record.attributes.retain(|key, _| !key.starts_with("flowtel.destination.dns."));
        record.body = record.body.replace(&format!(" ({name})"), "");
    }
    exactly_all(&unnamed, &about, &sides, &[mine, theirs])
}

fn reverse(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let [second, third] = net.spare;
    also(&net, second)?;
    also(&net, third)?;
    let launch = Launch::everything()?.set("dns.reverse", "observed");
    let happen = |net: &Pair| {
        let server = Server::start(&net.server, (Ipv4Addr::UNSPECIFIED, 0))?;
        let to = SocketAddr::from((net.server_v4, 53));
        let resolver = Resolver::new(net, udp(&net.server, to)?, to, false)?;
        let question = |of: Ipv4Addr| {
            let [a, b, c, d] = of.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        };
        for (id, of, name) in [(51, net.server_v4, "one.flowtel.example"), (52, second, "two.flowtel.example")] {
            let asked = question(of);
            resolver.resolve(id, &asked, PTR, &[(&asked, Data::Pointer(name))])?;
        }
        let name = "www.flowtel.example";
        resolver.resolve(53, name, A, &[(name, Data::Address(second.into()))])?;
        let told = |sides: [Side; 2], name: &str, state: &str| {
            sides.map(|mut side| {
                // What was asked in the client's namespace says nothing in the server's.
                if side.outgoing {
                    side.names.destination = Some((vec![name.to_owned()], state.to_owned()));
                }
                side
            })
        };
        let mut sides = Vec::new();
        sides.extend(told(dialled(net, "client", server.at(net.server_v4))?, "one.flowtel.example", "reverse"));
        sides.extend(told(dialled(net, "client", server.at(second))?, name, "fresh"));
        sides.extend(dialled(net, "client", server.at(third))?);
        Ok::<Story, anyhow::Error>((sides, Vec::new()))
    };
    let watching = Watching::with(scene, Http, launch)?;
    let (sides, failures) = happen(&net)?;
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &failures)
}
