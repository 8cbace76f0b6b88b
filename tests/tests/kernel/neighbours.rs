//! Users of the same host who mean harm: they stand at the admin address and at the sockets, and want to be told what is not
//! theirs.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol,
    expect::Failure,
    flowtel::Launch,
    forge::{ACK, RST, Segment, send_as_kernel},
    netns::Pair,
    ports,
    scene::{Scenario, Scene, skip},
    status::get,
    wait::{patient, wall},
    watching::Watching,
};
use rustix::process::Signal;

use crate::{
    failed::{closed_port, fail, outgoing},
    lived,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("400 half heads at the admin address keep nobody from health and metrics", 60, half_heads),
    Scenario::new("flowtel status says of a stopped flowtel that it is stopped, in time", 60, stopped),
    Scenario::new("RSTs of a process's raw socket are no refusals of the kernel's", 60, forged_refusals),
    Scenario::new("a storm of one cgroup past its budget is a count, and no attempt of it is missing", 60, storm),
    Scenario::new("root and the group may ask at both sockets, and other users may not", 60, groups),
];

/// A user and a group that no host has.
const STRANGER: &str = "64123";
const GROUP: &str = "64124";

fn sockets(scene: &Scene) -> (PathBuf, PathBuf) {
    (scene.directory().join("run/status.sock"), scene.directory().join("run/admin.sock"))
}

fn launch(scene: &Scene) -> Result<Launch> {
    let (status, admin) = sockets(scene);
    let launch = Launch::new()?.set("telemetry.status.socket", &status.display().to_string());
    Ok(launch.set("telemetry.admin.socket", &admin.display().to_string()).set("telemetry.group", GROUP))
}

fn half_heads(scene: &Scene) -> Result<()> {
    let [port] = ports::free()?;
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let flowtel = launch(scene)?.set("telemetry.admin.address", &address.to_string()).start(scene)?;
    let mut strangers = Vec::new();
    for _ in 0..400 {
        let mut stranger = TcpStream::connect(address)?;
        stranger.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc")?;
        strangers.push(stranger);
    }
    let before = Instant::now();
    for path in ["/healthz", "/readyz", "/metrics"] {
        ensure!(get(address, path)?.0 == 200, "{path}");
    }
    ensure!(before.elapsed() < patient(Duration::from_secs(4)), "three answers took {:?}", before.elapsed());
    flowtel.stop()?.balance()?;
    Ok(())
}

fn forged_refusals(scene: &Scene) -> Result<()> {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(skip("this kernel does not say where its sockets' members lie: they can't be told apart"));
    }
    lived(scene, Protocol::Http, |net| {
        let from = SocketAddr::from((net.client_v4, 7331));
        let closed = closed_port(net, net.server_v4)?;
        // One that is true: by a SYN and the kernel's answer.
        let between =
            net.client.run("hopeful", || Ok((fail(from, closed, 0, ErrorKind::ConnectionRefused)?.1, wall())))?;
        let mine = outgoing(from, closed, "refused", 1, between);
        let theirs = Failure { outgoing: false, owner: None, ..mine.clone() };
        let forged = |port| Segment {
            source: SocketAddrV4::new(net.server_v4, port),
            destination: SocketAddrV4::new(net.client_v4, 40_000),
            sequence: 0,
            acknowledgement: 1,
            flags: RST | ACK,
            payload: 0,
        };
        net.server.run("forger", || send_as_kernel(&[forged(22), forged(23), forged(443)]))?;
        Ok((Vec::new(), vec![mine, theirs]))
    })
    .map(drop)
}

fn storm(scene: &Scene) -> Result<()> {
    const ATTEMPTS: u16 = 500;
    let net = Pair::new(scene)?;
    let launch = Launch::everything()?.set("overload.cgroup_rate", "1").set("overload.cgroup_burst", "20");
    let Watching { flowtel, mut collector } = Watching::with(scene, Protocol::Http, launch)?;
    net.client.run("storm", || {
        let attempt = |i| {
            let (from, to) = ((net.client_v4, 12_000 + i).into(), (net.server_v4, 8000 + i).into());
            fail(from, to, 0, ErrorKind::ConnectionRefused).map(drop)
        };
        (0..ATTEMPTS).try_for_each(attempt)
    })?;
    let balance = flowtel.stop()?.balance()?;
    collector.stop()?;
    let told = collector.records()?;
    let mine = told.iter().filter(|record| {
        record.body.starts_with("outgoing ") && record.text("source.address") == net.client_v4.to_string()
    });
    let (mut records, mut attempts, mut ports) = (0, 0, 0);
    for record in mine {
        records += 1;
        attempts += record.int("flowtel.fold.count").unwrap_or(1);
        ports += record.int("flowtel.fold.destination.ports").unwrap_or(1);
    }

    ensure!(attempts == i64::from(ATTEMPTS) && ports == attempts, "{attempts} attempts at {ports} ports");
    ensure!(records < 100, "{records} records, though 40 or so are within the budget");
    ensure!(balance.records.part("folded") > 0, "nothing was folded");
    Ok(())
}

/// `flowtel status`, asked by this user with this further group.
fn asks(scene: &Scene, who: Option<(&str, Option<&str>)>) -> Result<Output> {
    let program = Launch::new()?.program().clone();
    let mut command = match who {
        None => Command::new(&program),
        Some(who) => as_user(who, &program),
    };
    command.env_clear().arg("status");
    command.arg("--set").arg(format!("telemetry.status.socket={}", sockets(scene).0.display()));
    Ok(command.output()?)
}

fn as_user((user, group): (&str, Option<&str>), program: &Path) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
    match group {
        None => command.arg("--clear-groups"),
        Some(group) => command.arg(format!("--groups={group}")),
    };
    command.arg(program);
    command
}

fn stopped(scene: &Scene) -> Result<()> {
    let flowtel = launch(scene)?.start(scene)?;
    flowtel.signal(Signal::STOP)?;
    let before = Instant::now();
    let asked = asks(scene, None);
    flowtel.signal(Signal::CONT)?;
    let asked = asked?;
    let error = String::from_utf8_lossy(&asked.stderr);
    ensure!(asked.status.code() == Some(69), "{:?}: {error}", asked.status);
    ensure!(error.contains(&format!("flowtel is stopped: process {}", flowtel.pid())), "{error}");
    ensure!(before.elapsed() < patient(Duration::from_secs(8)), "it took {:?}", before.elapsed());
    ensure!(asks(scene, None)?.status.success(), "it goes on");
    flowtel.stop()?.balance()?;
    Ok(())
}

fn groups(scene: &Scene) -> Result<()> {
    let flowtel = launch(scene)?.start(scene)?;
    let (status, admin) = sockets(scene);
    fs::set_permissions(scene.directory(), fs::Permissions::from_mode(0o755))?;
    let answers = |who| -> Result<(Option<i32>, bool)> {
        let health = match who {
            None => Command::new("/usr/bin/curl"),
            Some(who) => as_user(who, Path::new("/usr/bin/curl")),
        };
        let mut health = health;
        health.arg("--silent").arg("--unix-socket").arg(&admin).arg("http://localhost/healthz");
        Ok((asks(scene, who)?.status.code(), health.output().context("curl")?.stdout == b"ok\n"))
    };
    let member = Some((STRANGER, Some(GROUP)));
    let stranger = Some((STRANGER, None));
    ensure!(answers(None)? == (Some(0), true), "root: {:?}", answers(None)?);
    ensure!(answers(member)? == (Some(0), true), "a member: {:?}", answers(member)?);
    ensure!(answers(stranger)? == (Some(77), false), "a stranger: {:?}", answers(stranger)?);
    // Whatever somebody does to the mode: the kernel's word counts.
    for socket in [&status, &admin] {
        fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
    }
    ensure!(answers(stranger)? == (Some(77), false), "a stranger, with the mode open: {:?}", answers(stranger)?);
    ensure!(answers(member)? == (Some(0), true), "a member: {:?}", answers(member)?);
    flowtel.stop()?.balance()?;
    Ok(())
}
