//! Where and when: network namespaces, names that hold in one of them only, link-local addresses, cgroups of version 1, a
//! clock and a host name that differ from the kernel's.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    child::Child,
    collector::Protocol::{Grpc, Http},
    flowtel::Launch,
    machine,
    netns::{Namespace, Pair},
    record::{Record, Value},
    scene::{Scenario, Scene, skip},
    traffic::{self, SERVER, Server, dial},
    wait::{patient, pause, until, wall},
    watching::Watching,
};

use crate::{
    names::{A, Data, Resolver, message, udp},
    over,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("namespaces: each record has its own, and the host's is marked", 60, namespaces),
    Scenario::new("namespaces: an unprivileged user's own is told apart from the host's", 60, unprivileged),
    Scenario::new("names of one namespace label no flow of another, whatever the addresses", 60, apart),
    Scenario::new("names that another cgroup or user asked for say so", 60, |scene| fallback(scene, true)),
    Scenario::new("names that another cgroup or user asked for are not given where that is off", 60, |scene| {
        fallback(scene, false)
    }),
    Scenario::new("names: at another port, and of an answer of 4,000 bytes", 60, ports),
    Scenario::new("names: a flood of questions pushes out its own socket's alone, and they are counted", 60, flood),
    Scenario::new("link-local addresses carry their interface", 60, link_local),
    Scenario::new("containers of cgroup version 1 are found by their processes", 60, version_1),
    Scenario::new("in a time namespace that is behind all stamps are right", 60, |scene| time_namespace(scene, -60)),
    Scenario::new("in a time namespace that is ahead all stamps are right", 60, |scene| time_namespace(scene, 3600)),
    Scenario::new("SIGHUP: the host's new name is in what follows", 60, renamed),
];

const NAME: &str = "www.flowtel.example";

/// What a namespace's file says.
fn inode(namespace: &Namespace) -> Result<i64> {
    namespace.run("looker", || Ok(i64::try_from(fs::metadata("/proc/thread-self/ns/net")?.ino())?))
}

/// The records of a connection to this address, of one side.
fn of_side<'r>(records: &'r [Record], to: SocketAddr, direction: &str) -> Vec<&'r Record> {
    let is = |r: &&Record| r.destination() == Some(to) && r.text("flowtel.flow.direction") == direction;
    records.iter().filter(is).collect()
}

/// Where a record says that it happened: inode number, and whether that is the host's.
fn place(record: &Record) -> (Option<i64>, Option<bool>) {
    let host = match record.attributes.get("flowtel.netns.host") {
        Some(Value::Bool(host)) => Some(*host),
        _ => None,
    };
    (record.int("flowtel.netns.inode"), host)
}

/// Skips the scenario where the kernel says no inode numbers.
fn needs_types() -> Result<()> {
    if machine::tells_types() {
        Ok(())
    } else {
        Err(skip("this kernel has no BTF: cookies are told, no inode numbers"))
    }
}

fn namespaces(scene: &Scene) -> Result<()> {
    needs_types()?;
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    net.client.run("client", || dial(server.address))?;
    // In the namespace of this process, and refused there: the kernel itself answers.
    let here = traffic::listen((net.loopback, 0).into(), None, |_| Ok(()))?;
    let (here, listener) = (here.local_addr()?, here);
    let client = std::net::TcpStream::connect(here)?;
    drop((listener.accept()?, client));
    drop(listener);
    ensure!(std::net::TcpStream::connect(here).is_err(), "a closed port took a connection");
    // One that has no name, is made after flowtel's start, and is gone a moment later; its other end answers for a closed port.
    let loopback = net.loopback;
    let (late, last, closed) = flowtel_tests::netns::joined(std::thread::spawn(move || in_own(loopback)).join())?;
    over(&net)?;
    let told = watching.finish()?.records;
    let host = i64::try_from(machine::host_namespace()?)?;
    let own = i64::try_from(fs::metadata("/proc/self/ns/net")?.ino())?;
    for (to, direction, is, n) in [
        (server.address, "outgoing", inode(&net.client)?, 2),
        (server.address, "incoming", inode(&net.server)?, 2),
        (last, "outgoing", late, 2),
        (last, "incoming", late, 2),
        (closed, "outgoing", late, 1),
        (closed, "incoming", late, 1),
        (here, "outgoing", own, 3),
        (here, "incoming", own, 3),
    ] {
        let records = of_side(&told, to, direction);
        ensure!(records.len() == n, "{direction} to {to}: {} records instead of {n}", records.len());
        for record in records {
            ensure!(place(record) == (Some(is), Some(is == host)), "{direction} to {to}: not in {is}: {record:#?}");
        }
    }
    Ok(())
}

/// Makes a namespace for the calling thread, and a connection in it, and asks for one at a closed port: its inode number, and
/// where both went.
fn in_own(loopback: Ipv4Addr) -> Result<(i64, SocketAddr, SocketAddr)> {
    // SAFETY: only this thread's descriptors and namespaces would be unshared, and of those the network's alone.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
    ensure!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success(), "no loopback");
    let listener = std::net::TcpListener::bind((loopback, 0))?;
    let to = listener.local_addr()?;
    let client = std::net::TcpStream::connect(to)?;
    drop(client);
    drop(listener.accept()?);
    let closed = SocketAddr::from((loopback, 9));
    ensure!(std::net::TcpStream::connect(closed).is_err(), "a closed port took a connection");
    Ok((i64::try_from(fs::metadata("/proc/thread-self/ns/net")?.ino())?, to, closed))
}

fn unprivileged(scene: &Scene) -> Result<()> {
    needs_types()?;
    let watching = Watching::with(scene, Http, Launch::everything()?)?;
    // Any address may be given to what one owns.
    let script =
        "ip link set lo up && ip addr add 198.51.100.77/32 dev lo && readlink /proc/self/ns/net && exec \"$0\"";
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "unshare", "-U", "-n", "-r"])
        .args(["sh", "-c", script])
        // It ends with an error: nobody listens there.
        .arg(std::env::current_exe()?)
        .env("FLOWTEL_TESTS_CHILD", "stay 198.51.100.77:9")
        .stderr(Stdio::null())
        .output()
        .map_err(|e| skip(format!("setpriv can't be run: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let inode = text.trim().strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).map(str::parse::<i64>);
    let Some(Ok(inode)) = inode else { return Err(skip("users may not make namespaces here")) };
    pause(Duration::from_millis(100));
    let told = watching.finish()?.records;
    let to = SocketAddr::from(([198, 51, 100, 77], 9));
    let mut records = of_side(&told, to, "outgoing");
    records.extend(of_side(&told, to, "incoming"));
    ensure!(!records.is_empty(), "the attempt is not told");
    for record in records {
        ensure!(place(record) == (Some(inode), Some(false)), "not in {inode}: {record:#?}");
    }
    Ok(())
}

fn apart(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    // The server's namespace has the same addresses on its loopback interface, and a name server of its own.
    let liar = SocketAddr::from((net.server_v4, 53));
    let server_side = udp(&net.server, liar)?;
    let lie =
        Resolver { client: udp(&net.server, "0.0.0.0:0".parse()?)?, ..Resolver::new(&net, server_side, liar, false)? };
    lie.resolve(1, "bank.flowtel.example", A, &[("bank.flowtel.example", Data::Address(net.server_v4.into()))])?;
    // Nobody in the client's namespace has asked.
    net.client.run("client", || dial(server.address))?;
    // And in its own it holds.
    net.server.run("inside", || dial(server.address))?;
    over(&net)?;
    let told = watching.finish()?.records;
    let names = |record: &Record| record.attributes.get("flowtel.destination.dns.names").cloned();
    let mut inside = 0;
    for record in told.iter().filter(|r| r.destination() == Some(server.address)) {
        let is_client = record.end("source").0 == Some(IpAddr::from(net.client_v4));
        let from_outside = is_client && record.text("flowtel.flow.direction") == "outgoing";
        let wanted = (!from_outside).then(|| Value::Texts(vec!["bank.flowtel.example".into()]));
        ensure!(names(record) == wanted, "{wanted:?}: {record:#?}");
        inside += usize::from(!from_outside);
    }
    ensure!(inside == 6, "{inside} records of the server's namespace");
    Ok(())
}

fn fallback(scene: &Scene, fallback: bool) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("dns.fallback", if fallback { "true" } else { "false" });
    let watching = Watching::with(scene, Grpc, launch)?;
    let to = SocketAddr::from((net.server_v4, 53));
    let resolver = Resolver::new(&net, udp(&net.server, to)?, to, true)?;
    resolver.resolve(1, NAME, A, &[(NAME, Data::Address(net.server_v4.into()))])?;
    let own = Server::start(&net.server, (net.server_v4, 0))?;
    net.client.run("client", || dial(own.address))?;
    let others = traffic_of_others(scene, &net)?;
    over(&net)?;
    let told = watching.finish()?.records;
    let origin = |record: &&Record| record.text("flowtel.destination.dns.origin").to_owned();
    let mine: Vec<_> = of_side(&told, own.address, "outgoing").iter().map(origin).collect();
    ensure!(mine == ["own", "own"], "of the cgroup that asked: {mine:?}");
    for to in others {
        let theirs: Vec<_> = of_side(&told, to, "outgoing").iter().map(origin).collect();
        let wanted = if fallback { ["other", "other"] } else { ["", ""] };
        ensure!(theirs == wanted, "of one that did not ask: {theirs:?}");
    }
    Ok(())
}

/// Connections of a process in another cgroup, and of one of another user; where they went.
fn traffic_of_others(scene: &Scene, net: &Pair) -> Result<Vec<SocketAddr>> {
    let mut to = Vec::new();
    let container = crate::names::Container::new()?;
    let listener = net.server.run(SERVER, || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
    let mut child = Child::start(scene, &net.client, &format!("wait {}", listener.local_addr()?), None)?;
    fs::write(container.inner.join("cgroup.procs"), child.id().to_string())
        .map_err(|e| skip(format!("processes can't be moved to a cgroup here: {e}")))?;
    child.go()?;
    drop(listener.accept()?);
    ensure!(child.ended()?.success(), "the client failed");
    to.push(listener.local_addr()?);
    let listener = net.server.run(SERVER, || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
    let mut child = Child::start(scene, &net.client, &format!("ask {}", listener.local_addr()?), None)?;
    let taken = listener.accept()?;
    ensure!(child.line()? == "asking");
    child.kill()?;
    drop(taken);
    to.push(listener.local_addr()?);
    Ok(to)
}

fn ports(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("dns.ports", "[5300, 53]");
    let watching = Watching::with(scene, Http, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let [second, _] = net.spare;
    crate::names::also(&net, second)?;
    let other = Server::start(&net.server, (second, 0))?;
    for (port, connected, name, address) in
        [(5300, true, "near.flowtel.example", net.server_v4), (53, false, "far.flowtel.example", second)]
    {
        let to = SocketAddr::from((net.server_v4, port));
        let resolver = Resolver::new(&net, udp(&net.server, to)?, to, connected)?;
        let (_, from) = resolver.ask(7, name, A)?;
        // Addresses that nobody connects to come first; the last one counts, 4,000 bytes on.
        let filler: Vec<Ipv4Addr> = (0..100).map(|n| Ipv4Addr::new(198, 18, 0, n)).collect();
        let mut answers: Vec<_> = filler.iter().map(|ip| (name, Data::Address((*ip).into()))).collect();
        answers.push((name, Data::Address(address.into())));
        let answer = message(7, 0x8180, (name, A), &answers);
        ensure!((3000..=4096).contains(&answer.len()), "an answer of {} bytes", answer.len());
        resolver.server.send_to(&answer, from)?;
        let mut buffer = [0; 8192];
        ensure!(resolver.client.recv(&mut buffer)? == answer.len());
    }
    net.client.run("client", || dial(server.address))?;
    net.client.run("client", || dial(other.address))?;
    over(&net)?;
    let told = watching.finish()?.records;
    for (to, name) in [(server.address, "near.flowtel.example"), (other.address, "far.flowtel.example")] {
        for record in of_side(&told, to, "outgoing") {
            let names = record.attributes.get("flowtel.destination.dns.names");
            ensure!(names == Some(&Value::Texts(vec![name.into()])), "not {name}: {record:#?}");
        }
    }
    Ok(())
}

fn flood(scene: &Scene) -> Result<()> {
    /// More than any table of the kernel side ever held.
    const FLOOD: u16 = 20_000;
    /// How many of one socket may be open.
    const PENDING: i128 = 16;
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let to = SocketAddr::from((net.server_v4, 53));
    let resolver = Resolver::new(&net, udp(&net.server, to)?, to, true)?;
    let (_, from) = resolver.ask(7, NAME, A)?;
    // Nobody reads, nobody answers.
    let sink = udp(&net.server, (net.server_v4, 0).into())?;
    let flooding = udp(&net.client, "0.0.0.0:0".parse()?)?;
    for id in 0..FLOOD {
        flooding.send_to(&message(id, 0x0100, ("flood.flowtel.example", A), &[]), (net.server_v4, 53))?;
    }
    drop(sink);
    resolver.server.send_to(&message(7, 0x8180, (NAME, A), &[(NAME, Data::Address(net.server_v4.into()))]), from)?;
    resolver.client.recv(&mut [0; 512])?;
    net.client.run("client", || dial(server.address))?;
    over(&net)?;
    let told = watching.finish_with_losses()?;
    for record in of_side(&told.records, server.address, "outgoing") {
        let names = record.attributes.get("flowtel.destination.dns.names");
        ensure!(names == Some(&Value::Texts(vec![NAME.into()])), "the name was pushed out: {record:#?}");
    }
    let gaps = told.gaps()?;
    let pushed = gaps.get(&("kernel".into(), "queries_pushed_out".into())).copied().unwrap_or_default();
    ensure!(pushed == i128::from(FLOOD) - PENDING, "{pushed} questions are told to be pushed out: {gaps:?}");
    Ok(())
}

fn link_local(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    for (namespace, address) in [(&net.client, "fe80::c"), (&net.server, "fe80::5")] {
        namespace.ip(&format!("addr add {address}/64 dev {WIRE} nodad"))?;
    }
    let watching = Watching::with(scene, Http, Launch::everything()?)?;
    let index = |namespace: &Namespace| -> Result<u32> {
        let list = namespace.ip(&format!("-o link show {WIRE}"))?;
        list.split(':').next().context("an index")?.trim().parse().context("an index")
    };
    let (here, there) = (index(&net.client)?, index(&net.server)?);
    // Processes that live in these namespaces: then the name can be had, else the index is told.
    let at = std::net::SocketAddrV6::new("fe80::5".parse()?, 0, 0, there);
    let listener = net.server.run(SERVER, || traffic::listen(at.into(), None, |_| Ok(())))?;
    let port = listener.local_addr()?.port();
    let mut child = Child::start(scene, &net.client, &format!("join [fe80::5%{here}]:{port}"), None)?;
    child.go()?;
    let (taken, _) = listener.accept()?;
    child.line()?;
    pause(patient(Duration::from_millis(200)));
    child.kill()?;
    drop((taken, listener));
    let refused = std::net::SocketAddrV6::new("fe80::5".parse()?, 9, 0, here);
    ensure!(net.client.run("client", || Ok(std::net::TcpStream::connect(refused).is_err()))?);
    over(&net)?;
    let told = watching.finish()?.records;
    let to = |port: u16| SocketAddr::from((std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5), port));
    let begun = of_side(&told, to(port), "outgoing");
    ensure!(!begun.is_empty(), "nothing is told");
    let known = machine::tells_types();
    for record in begun.iter().filter(|record| record.event_name.ends_with("begin")) {
        let name = if known { WIRE } else { "" };
        ensure!(record.text("network.interface.name") == name, "no name: {record:#?}");
    }
    // This process's threads are in other namespaces than it is: so the name is no one's to say, but for what was just
    // known of the same interface.
    for (to, direction, index) in [(to(port), "incoming", there), (to(9), "outgoing", here)] {
        let records = of_side(&told, to, direction);
        ensure!(!records.is_empty(), "nothing {direction} is told of {to}");
        for record in records {
            let (name, number) = (record.text("network.interface.name"), record.int("flowtel.interface.index"));
            let right =
                (name, number) == ("", Some(index.into())) || direction == "outgoing" && (name, number) == (WIRE, None);
            ensure!(right, "not {index}: {record:#?}");
        }
    }
    Ok(())
}

/// The wire's name at both ends.
const WIRE: &str = flowtel_tests::netns::WIRE;

/// A cgroup of version 1, which goes with this.
struct Old(PathBuf);

impl Drop for Old {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

fn version_1(scene: &Scene) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        let plain = options.split(',').any(|option| matches!(option, "pids" | "freezer" | "name=systemd"));
        (kind == "cgroup" && plain).then(|| PathBuf::from(path))
    });
    let mount = mount.ok_or_else(|| skip("no hierarchy of cgroup version 1"))?;
    let id = format!("{:064x}", u64::from(std::process::id()) << 8 | 1);
    let path = mount.join(format!("flowtel-test-{}", std::process::id())).join(&id);
    fs::create_dir_all(&path).map_err(|e| skip(format!("cgroups can't be made here: {e}")))?;
    let old = Old(path);
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let listener = net.server.run(SERVER, || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
    let to = listener.local_addr()?;
    let mut child = Child::start(scene, &net.client, &format!("join {to}"), None)?;
    fs::write(old.0.join("cgroup.procs"), child.id().to_string())
        .map_err(|e| skip(format!("processes can't be moved to a cgroup here: {e}")))?;
    child.go()?;
    let (taken, _) = listener.accept()?;
    child.line()?;
    // The list is read when the event is: a moment later.
    pause(patient(Duration::from_millis(300)));
    child.kill()?;
    drop((taken, listener));
    over(&net)?;
    let told = watching.finish()?.records;
    let records = of_side(&told, to, "outgoing");
    ensure!(records.len() == 2, "{} records", records.len());
    for record in records {
        ensure!(record.text("container.id") == id, "not in {id}: {record:#?}");
    }
    ensure!(of_side(&told, to, "incoming").iter().all(|record| record.text("container.id").is_empty()));
    Ok(())
}

fn time_namespace(scene: &Scene, offset: i64) -> Result<()> {
    let words = ["unshare", "-T", &format!("--boottime={offset}"), "--"];
    let works = Command::new(words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return Err(skip("no time namespace can be made here"));
    }
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.through(&words);
    let watching = Watching::with(scene, Http, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let before = wall();
    net.client.run("client", || dial(server.address))?;
    let after = over(&net)?;
    let told = watching.finish()?.records;
    let records: Vec<_> = told.iter().filter(|r| r.destination() == Some(server.address)).collect();
    ensure!(records.len() == 4, "{} records", records.len());
    for record in records {
        let right = record.time + 5_000_000 >= before && record.time <= after + 5_000_000;
        ensure!(right, "{} is not between {before} and {after}: {record:#?}", record.time);
        let named = !machine::has_kernel_pids() || !record.text("process.executable.name").is_empty();
        ensure!(named, "when its process began was not understood: {record:#?}");
    }
    Ok(())
}

fn renamed(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.through(&["unshare", "-u", "--"]);
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    net.client.run("client", || dial(server.address))?;
    over(&net)?;
    let pid = watching.flowtel.pid();
    let status = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--uts", "hostname", "renamed.flowtel.example"])
        .status()
        .map_err(|e| skip(format!("nsenter can't be run: {e}")))?;
    ensure!(status.success(), "the host was not renamed");
    // What was seen is to be a record before.
    pause(Duration::from_millis(500));
    watching.flowtel.signal(rustix::process::Signal::HUP)?;
    until("the new name", Duration::from_secs(5), || {
        Ok(watching.flowtel.says("this host has another name").then_some(()))
    })?;
    pause(Duration::from_millis(200));
    let later = Server::start(&net.server, (net.server_v4, 0))?;
    net.client.run("client", || dial(later.address))?;
    over(&net)?;
    let told = watching.finish()?.records;
    let host = |to: SocketAddr| -> Vec<_> {
        let records = told.iter().filter(|r| r.destination() == Some(to));
        records.map(|r| r.resource.get("host.name").cloned()).collect()
    };
    let new = Some(Value::from("renamed.flowtel.example"));
    let (before, after) = (host(server.address), host(later.address));
    ensure!(before.len() == 4 && before.iter().all(|name| *name != new), "before: {before:?}");
    ensure!(after.len() == 4 && after.iter().all(|name| *name == new), "after: {after:?}");
    Ok(())
}
