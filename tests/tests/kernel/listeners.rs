//! Who took a connection, where several could have: each row has processes of its own, and none is named that did not.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child::Child,
    collector::Protocol::Grpc,
    expect::{About, End, Owner, Side, exactly_all},
    flowtel::Launch,
    listening::NOBODY,
    machine,
    netns::{Namespace, Pair, joined},
    scene::{Scenario, Scene},
    traffic::{self, Connection, connect, dial, dial_on, finish},
    wait::{patient, pause, wall},
    watching::Watching,
};
use rustix::net;

use crate::{lived, open::found, over};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "a port with many listeners, by address and by family: the one that took a connection owns it",
        60,
        many,
    ),
    Scenario::new("who only bound a listener's port, and a user's 17,000 binds, own nothing", 60, binders),
    Scenario::new(
        "SO_REUSEPORT: workers that accept after 300 ms each own what they take, from the begin on",
        60,
        workers,
    ),
    Scenario::new("a worker that accepts late: the end names it, and says whom the begin named", 60, late),
    Scenario::new("a worker that accepts without an address: the master that listens is named", 60, forked),
    Scenario::new("listen() without bind() has an owner, or none where the kernel does not tell", 60, unbound),
    Scenario::new(
        "a listener whose process has left it to another is nobody's; after an exec it is the process's",
        60,
        left,
    ),
    Scenario::new("a port that another process listens on after the first one's end is the second one's", 60, again),
    Scenario::new("an onlooker's getpeername() changes no owner", 60, onlooker),
    Scenario::new("listeners older than flowtel: each its own, one that two processes hold is nobody's", 60, older),
];

/// A process that listens, and where.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(scene: &Scene, namespace: &Namespace, at: impl Into<SocketAddr>, how: &str) -> Result<Self> {
        let at = at.into();
        let mut child = Child::start(scene, namespace, format!("listen {at} {how}").trim(), None)?;
        let address = child.line()?.parse()?;
        Ok(Self { child, address })
    }

    fn at(&self, address: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(address.into(), self.address.port())
    }

    fn owner(&self, role: &'static str) -> Result<Owner> {
        self.child.owner(role)
    }
}

/// A connection to `to`, whose incoming side `whose` says the owner of: both sides, ended.
fn talk(net: &Pair, to: SocketAddr, whose: impl FnOnce(Side) -> Side) -> Result<[Side; 2]> {
    let connection = net.client.run("client", || dial(to))?;
    let end = End::fin([1, 1], (connection.before, over(net)?));
    // Until its begin was told: whoever listens is named only if it is still there then.
    pause(patient(Duration::from_millis(150)));
    Ok([Side::outgoing(&connection), whose(Side::incoming(&connection))].map(|side| side.ended(end.clone())))
}

/// And the listener `server` takes it.
fn listened(net: &Pair, to: SocketAddr, server: &Server) -> Result<[Side; 2]> {
    let owner = server.owner("listener")?;
    talk(net, to, |side| side.owned(Some(owner)))
}

fn told(scene: &Scene, happen: impl FnOnce(&Pair) -> Result<Vec<Side>>) -> Result<()> {
    lived(scene, Grpc, |net| Ok((happen(net)?, Vec::new()))).map(drop)
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn many(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let (v4, v6) = (IpAddr::from(net.server_v4), IpAddr::from(net.server_v6));
        // Of two listeners on one port the second one binds last, and takes nothing of the first one's.
        let pairs = [
            // Two addresses, as dnsmasq and systemd-resolved have them.
            (v4, "", IpAddr::from(net.loopback), "", [Some(0), None]),
            // Two families.
            (ANY, "", ANY6, "v6only", [Some(0), Some(1)]),
            // An address and all of them, by either family.
            (v4, "reuseport", ANY6, "reuseport", [Some(0), Some(1)]),
            (v6, "reuseport", ANY6, "reuseport", [Some(1), Some(0)]),
        ];
        let mut sides = Vec::new();
        for (first, how, second, how_2, takers) in pairs {
            let first = Server::start(scene, &net.server, (first, 0), how)?;
            let second = Server::start(scene, &net.server, (second, first.address.port()), how_2)?;
            for (address, taker) in [v4, v6].into_iter().zip(takers) {
                let Some(taker) = taker.map(|taker| [&first, &second][taker]) else { continue };
                sides.extend(listened(net, taker.at(address), taker)?);
            }
        }
        Ok(sides)
    })
}

fn binders(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let server = Server::start(scene, &net.server, (net.server_v4, 0), "")?;
        let port = server.address.port();
        let mut gone = Server::start(scene, &net.server, (net.loopback, port), "bind nobody")?;
        gone.child.go()?;
        ensure!(gone.child.ended()?.success());
        let _stays = Server::start(scene, &net.server, (Ipv4Addr::LOCALHOST, port), "bind nobody")?;
        let mut user = Server::start(scene, &net.server, (Ipv4Addr::LOCALHOST, 0), "nobody binds=17000")?;
        ensure!(user.child.line()? == "bound");
        let theirs = user.owner("listener")?;
        ensure!(Owner { uid: NOBODY, ..theirs }.uid == NOBODY);
        Ok(listened(net, server.address, &server)?.into())
    })
}

fn workers(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let mut servers = vec![Server::start(scene, &net.server, (net.server_v4, 0), "reuseport named after=300")?];
        let address = servers[0].address;
        for _ in 1..4 {
            servers.push(Server::start(scene, &net.server, address, "reuseport named after=300")?);
        }
        let before = wall();
        let made = (0..12).map(|i| net.client.spawn(&format!("client-{i}"), move || dial(address)));
        let made = made.collect::<Result<Vec<_>>>()?;
        let made = made.into_iter().map(|thread| joined(thread.join())).collect::<Result<Vec<_>>>()?;
        let end = End::fin([1, 1], (before, over(net)?));
        // Until each process was looked at.
        pause(patient(Duration::from_millis(150)));
        let mut sides = Vec::new();
        for server in &mut servers {
            server.child.kill()?;
            let (acceptor, listener) = (server.owner("acceptor")?, server.owner("listener")?);
            while let Ok(peer) = server.child.line() {
                let peer: SocketAddr = peer.parse()?;
                let connection = made.iter().find(|made| made.client == peer).context("a client that is none")?;
                let incoming = Side::incoming(connection).accepted_late(acceptor.clone(), Some(listener.clone()));
                sides.extend([Side::outgoing(connection), incoming].map(|side| side.ended(end.clone())));
            }
        }
        ensure!(sides.len() == 24, "{} sides", sides.len());
        Ok(sides)
    })
}

/// A listener of this process's, in the thread `master`.
fn master(net: &Pair) -> Result<(TcpListener, SocketAddr)> {
    let address = (net.server_v4, 0).into();
    let listener = net.server.run("master", || traffic::listen(address, None, |_| Ok(())))?;
    let to = listener.local_addr()?;
    Ok((listener, to))
}

fn late(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let (listener, to) = master(net)?;
        let mut worker = Child::start(scene, &net.server, "take named after=300", Some(listener.into()))?;
        let (acceptor, master) = (worker.owner("acceptor")?, Owner::here("master", "listener"));
        let sides = talk(net, to, |side| side.accepted_late(acceptor, Some(master)))?;
        worker.line()?;
        Ok(sides.into())
    })
}

fn forked(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let (listener, to) = master(net)?;
        let _worker = Child::start(scene, &net.server, "take", Some(listener.into()))?;
        Ok(talk(net, to, |side| side.bound_by("master"))?.into())
    })
}

fn unbound(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        // The kernel picks the port; another process has bound the same one at another address, and listens.
        let server = Server::start(scene, &net.server, (ANY, 0), "unbound")?;
        let owner = machine::tells_listeners().then(|| server.owner("listener")).transpose()?;
        Ok(talk(net, server.at(net.server_v4), |side| side.owned(owner))?.into())
    })
}

fn left(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let mut leaver = Server::start(scene, &net.server, (net.server_v4, 0), "leave")?;
        ensure!(leaver.child.ended()?.success());
        let mut sides = Vec::from(talk(net, leaver.address, |side| side.owned(None))?);
        let changed = Server::start(scene, &net.server, (net.server_v4, 0), "exec")?;
        sides.extend(listened(net, changed.address, &changed)?);
        Ok(sides)
    })
}

fn again(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let mut first = Server::start(scene, &net.server, (net.server_v4, 0), "")?;
        let mut sides = Vec::from(listened(net, first.address, &first)?);
        first.child.kill()?;
        let second = Server::start(scene, &net.server, first.address, "")?;
        sides.extend(listened(net, second.address, &second)?);
        Ok(sides)
    })
}

fn onlooker(scene: &Scene) -> Result<()> {
    told(scene, |net| {
        let (listener, to) = master(net)?;
        let (connection, stream) = net.client.run("client", || connect(traffic::socket(to, None)?, to))?;
        let taken = net::accept(&listener)?;
        // Its begin was told.
        pause(patient(Duration::from_millis(300)));
        let mut looker = Child::start(scene, &net.server, "look", Some(taken.try_clone()?))?;
        ensure!(looker.line()? == connection.client.to_string());
        ensure!(looker.ended()?.success());
        drop(taken);
        let connection = Connection { after: wall(), ..connection };
        finish(stream)?;
        let end = End::fin([0, 0], (connection.before, over(net)?));
        let sides = [Side::outgoing(&connection), Side::incoming(&connection).bound_by("master")];
        Ok(sides.map(|side| side.ended(end.clone())).into())
    })
}

fn older(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let own = Server::start(scene, &net.server, (net.server_v4, 0), "")?;
    let at_loopback = Server::start(scene, &net.server, own.at(net.loopback), "")?;
    let (listener, shared) = master(&net)?;
    let _worker = Child::start(scene, &net.server, "take", Some(listener.try_clone()?.into()))?;
    let gone = Server::start(scene, &net.server, (net.server_v4, 0), "")?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    found(&watching.flowtel)?;
    let mut sides = Vec::new();
    for server in [&own, &at_loopback] {
        let owner = server.owner("listener")?.found();
        let (from, address) =
            if server.address == own.address { (&net.client, net.client_v4) } else { (&net.server, net.loopback) };
        let connection = from.run("client", || {
            let socket = traffic::socket(server.address, None)?;
            net::bind(&socket, &SocketAddr::from((address, 0)))?;
            dial_on(socket, server.address)
        })?;
        let end = End::fin([1, 1], (connection.before, over(&net)?));
        let both = [Side::outgoing(&connection), Side::incoming(&connection).owned(Some(owner))];
        sides.extend(both.map(|side| side.ended(end.clone())));
    }
    sides.extend(talk(&net, shared, |side| side.owned(None))?);
    // A port of one from before that another process has now.
    let address = gone.address;
    drop(gone);
    let next = Server::start(scene, &net.server, address, "")?;
    sides.extend(listened(&net, address, &next)?);
    let told = watching.finish()?;
    exactly_all(&told.records, &About::Addresses(net.addresses()), &sides, &[])
}
