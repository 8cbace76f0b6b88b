//! Other BPF programs at the places of flowtel's: what they take away, and what is reported all the same.

use std::{net::SocketAddr, path::Path};

use anyhow::{Result, ensure};
use flowtel_tests::{
    cgroup,
    collector::Protocol::Grpc,
    expect::{About, End, Side, exactly_all},
    flowtel::Launch,
    netns::Pair,
    rival::{ACTIVE_ESTABLISHED, PASSIVE_ESTABLISHED, RTT_FLAG, Rival},
    scene::{Scenario, Scene, skip},
    traffic::{Server, dial},
    watching::Watching,
};

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
    let sides = Side::both(&connection).map(|side| side.ended(end.clone()).named(&[name]));
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
