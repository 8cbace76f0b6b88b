//! Other BPF programs at the places of flowtel's: what they take away, and what is reported all the same.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    cgroup,
    collector::Protocol::Grpc,
    expect::{About, End, Side, exactly_all},
    flowtel::Launch,
    hoard::Hoard,
    machine,
    netns::Pair,
    record::Record,
    rival::{ACTIVE_ESTABLISHED, PASSIVE_ESTABLISHED, RTT_FLAG, Rival},
    scene::{Scenario, Scene, skip},
    traffic::{Server, dial},
    wait::until,
    watching::Watching,
};
use rustix::process::Signal;

use crate::{
    names::{A, Data, Resolver, udp},
    over,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("a program that rewrites where queries go, before flowtel's: names all the same", 60, |scene| {
        names(scene, Comes::Before)
    }),
    Scenario::new("a program that rewrites where queries go, after flowtel's: names all the same", 60, |scene| {
        names(scene, Comes::After)
    }),
    Scenario::new("a program that sets sockets' flags, before flowtel's: begins and ends all the same", 60, |scene| {
        round_trips(scene, Comes::Before)
    }),
    Scenario::new(
        "a program that sets sockets' flags, after flowtel's, to see round trips: begins and ends all the same",
        60,
        |scene| round_trips(scene, Comes::After),
    ),
    Scenario::new(
        "a program that takes the ends away: told within seconds by its id, found by the audit, and over when it is gone",
        120,
        |scene| deaf(scene, true),
    ),
    Scenario::new("a program that takes the ends away: told without rights, with where to look", 120, |scene| {
        deaf(scene, false)
    }),
    Scenario::new("ends that a full ring lost come back, each once, and the gap says how many", 120, lost_ends),
];

/// When a rival is attached, and runs.
#[derive(Clone, Copy, PartialEq)]
enum Comes {
    Before,
    After,
}

/// Starts flowtel, and a rival before or after it.
fn beside(scene: &Scene, comes: Comes, rival: impl Fn(&Path) -> Result<Rival>) -> Result<(Watching, Rival)> {
    let root = cgroup::root().ok_or_else(|| skip("no cgroup v2 file system"))?;
    let start = || Watching::with(scene, Grpc, Launch::everything()?);
    Ok(match comes {
        Comes::Before => {
            let rival = rival(&root)?;
            (start()?, rival)
        }
        Comes::After => (start()?, rival(&root)?),
    })
}

/// The callbacks at which programs set flags, as a rule.
const ESTABLISHED: [i32; 2] = [ACTIVE_ESTABLISHED, PASSIVE_ESTABLISHED];

fn names(scene: &Scene, comes: Comes) -> Result<()> {
    let net = Pair::new(scene)?;
    let (watching, rival) = beside(scene, comes, |root| Rival::rewrites(root, net.spare[0], net.server_v4))?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let nameserver = udp(&net.server, (net.server_v4, 53).into())?;
    let resolver = Resolver::new(&net, nameserver, SocketAddr::from((net.spare[0], 53)), false)?;
    let name = "service.flowtel.example";
    resolver.resolve(41, name, A, &[(name, Data::Address(net.server_v4.into()))])?;
    let connection = net.client.run("client", || dial(server.address))?;
    let end = End::fin([1, 1], (connection.before, over(&net)?));
    // What was asked in the client's namespace says nothing in the server's.
    let sides = Side::both(&connection).map(|side| {
        let side = side.ended(end.clone());
        if side.outgoing { side.named(&[name]) } else { side }
    });
    drop(rival);
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &[])
}

fn round_trips(scene: &Scene, comes: Comes) -> Result<()> {
    let net = Pair::new(scene)?;
    let (watching, rival) = beside(scene, comes, |root| Rival::sets_flags(root, ESTABLISHED, RTT_FLAG))?;
    let listed = watching.flowtel.says(&format!("cgroup_sock_ops id {} ", rival.id()?));
    ensure!(listed == (comes == Comes::Before), "{}", watching.flowtel.stderr());
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let mut sides = Vec::new();
    for _ in 0..5 {
        let connection = net.client.run("client", || dial(server.address))?;
        let end = End::fin([1, 1], (connection.before, over(&net)?));
        sides.extend(Side::both(&connection).map(|side| side.ended(end.clone())));
    }
    drop(rival);
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &[])
}

const REASON: &str = "flowtel.flow.end.reason";
const RECOVERED: &str = "flowtel.gap.recovered";

/// Records of ends: how many flows they stand for, those whose reason is there and those without it.
fn ends(records: &[Record], about: &About) -> Result<[i64; 2]> {
    let mut ends = [0, 0];
    for end in records.iter().filter(|r| r.event_name.ends_with(".end") && about.concerns(r)) {
        let unseen = !end.attributes.contains_key(REASON);
        ends[usize::from(unseen)] += end.int("flowtel.fold.count").unwrap_or(1);
        for key in ["flowtel.flow.duration", "flowtel.source.bytes", "flowtel.source.packets", "flowtel.tcp.rtt"] {
            ensure!(!(unseen && end.attributes.contains_key(key)), "an unseen end with {key}: {end:#?}");
        }
    }
    Ok(ends)
}

/// `looks`: flowtel keeps the rights by which it can list programs later.
fn deaf(scene: &Scene, looks: bool) -> Result<()> {
    let net = Pair::new(scene)?;
    let about = About::Addresses(net.addresses());
    let launch = Launch::everything()?.set("capture.audit", "1s");
    let launch = if looks { launch.set("security.drop", "false") } else { launch };
    let watching = Watching::with(scene, Grpc, launch)?;
    let root = cgroup::root().ok_or_else(|| skip("no cgroup v2 file system"))?;
    let rival = Rival::sets_flags(&root, ESTABLISHED, 0)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    for _ in 0..5 {
        net.client.run("client", || dial(server.address))?;
    }
    if !machine::tells_namespaces() {
        // Nobody tells where a flow is, and none of these was seen while it lived: nothing may be concluded.
        drop(rival);
        let told = watching.finish()?;
        ensure!(ends(&told.records, &about)? == [0, 0], "an end of which nothing can be known");
        return Ok(());
    }
    let warning = if looks {
        format!("suspects: cgroup_sock_ops id {} ", rival.id()?)
    } else {
        "flowtel can't look now (it has given up the right to)".into()
    };
    until("the warning", Duration::from_secs(30), || Ok(watching.flowtel.says(&warning).then_some(())))
        .with_context(|| watching.flowtel.stderr())?;
    until("the ends", Duration::from_secs(60), || {
        Ok((ends(&watching.collector.records()?, &about)? == [0, 10]).then_some(()))
    })?;
    ensure!(!watching.flowtel.says("were refused"), "it looks all the same: {}", watching.flowtel.stderr());
    drop(rival);
    until("the end of it", Duration::from_secs(30), || {
        Ok(watching.flowtel.says("ends of connections are reported again").then_some(()))
    })
    .with_context(|| watching.flowtel.stderr())?;
    net.client.run("client", || dial(server.address))?;
    over(&net)?;
    let told = watching.finish_with_losses()?;
    ensure!(ends(&told.records, &about)? == [2, 10], "ends: {:?}", ends(&told.records, &about)?);
    let gaps = told.gaps()?;
    let key = ("kernel".to_owned(), "callbacks_taken".to_owned());
    ensure!(gaps.len() == 1 && gaps.get(&key).is_some_and(|n| *n >= 10), "gaps: {gaps:?}");
    Ok(())
}

fn lost_ends(scene: &Scene) -> Result<()> {
    const CONNECTIONS: usize = 1500;
    let net = Pair::new(scene)?;
    let about = About::Addresses(net.addresses());
    let launch = Launch::everything()?.set("capture.rings.flows", "256KiB");
    let watching = Watching::with(scene, Grpc, launch)?;
    let hoard = Hoard::open(scene, &net, net.server_v4.into(), CONNECTIONS, CONNECTIONS)?;
    let begun = |records: &[Record]| {
        let begins = records.iter().filter(|r| r.event_name.ends_with(".begin") && about.concerns(r));
        begins.map(|r| r.int("flowtel.fold.count").unwrap_or(1)).sum::<i64>()
    };
    let all = 2 * i64::try_from(hoard.made)?;
    until("the begins", Duration::from_secs(30), || Ok((begun(&watching.collector.records()?) == all).then_some(())))?;
    // Nobody reads the ring while they end.
    watching.flowtel.signal(Signal::STOP)?;
    hoard.close()?;
    over(&net)?;
    watching.flowtel.signal(Signal::CONT)?;
    if !machine::tells_namespaces() {
        let told = watching.finish_with_losses()?;
        ensure!(ends(&told.records, &about)?[1] == 0, "an end of which nothing can be known");
        return Ok(());
    }
    // What is folded is told after a while.
    until("all ends", Duration::from_secs(90), || {
        let [seen, unseen] = ends(&watching.collector.records()?, &about)?;
        Ok((seen + unseen == all).then_some(()))
    })
    .with_context(|| watching.flowtel.stderr())?;
    let told = watching.finish_with_losses()?;
    let [seen, unseen] = ends(&told.records, &about)?;
    ensure!(seen + unseen == all && unseen > 100, "{seen} ends seen and {unseen} unseen of {all}");
    let back: i64 = told.records.iter().filter_map(|r| r.int(RECOVERED)).sum();
    ensure!(back == unseen, "the gaps say that {back} came back, and {unseen} did");
    let gaps = told.gaps()?;
    ensure!(!gaps.contains_key(&("kernel".into(), "callbacks_taken".into())), "gaps: {gaps:?}");
    Ok(())
}
