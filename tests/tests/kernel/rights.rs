//! What flowtel needs, what it says when that is missing, and what it leaves behind.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::{
        Collector,
        Protocol::{Grpc, Http},
    },
    expect::{About, Side, exactly},
    flowtel::{Ended, Launch},
    netns::Pair,
    objects,
    scene::{Scenario, Scene},
    traffic::{Server, dial},
    wait::until,
    watching::Watching,
};
use rustix::process::Signal;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "another user than root: exit code 77, what is missing and what helps, nothing left behind",
        60,
        nobody,
    ),
    Scenario::new("check succeeds with a collector by gRPC and by HTTP", 60, check_holds),
    Scenario::new("check names a closed endpoint: exit code 69", 60, check_fails),
    Scenario::new("a port that takes no OTLP is told by check: exit code 69", 60, check_other),
    Scenario::new("kill -9 leaves no program attached, and the next flowtel works", 60, killed),
];

/// Somebody without any right.
const NOBODY: u32 = 65534;

/// Waits until no program of flowtel's is there that nobody holds. (Those of a process that just ended go a moment
/// later.)
fn nothing_left() -> Result<()> {
    until("programs without a process to go", Duration::from_secs(5), || {
        Ok(objects::orphans()?.is_empty().then_some(()))
    })
}

fn nobody(scene: &Scene) -> Result<()> {
    // Where everybody may run it.
    let program = scene.directory().join("flowtel");
    fs::copy(Launch::new()?.program(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(scene.directory(), fs::Permissions::from_mode(0o755))?;
    for command in ["run", "check"] {
        let ended = Launch::of(program.clone()).command(command).user(NOBODY).to_end(scene)?;
        ensure!(ended.status.code() == Some(77), "{command} ended with {}: {}", ended.status, ended.stderr);
        let said = ended.stdout.iter().map(|l| l.text.as_str()).collect::<Vec<_>>().join("\n") + &ended.stderr;
        for words in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "sudo flowtel"] {
            ensure!(said.contains(words), "{command} does not speak of {words}: {said}");
        }
    }
    nothing_left()
}

fn check(scene: &Scene, launch: Launch, code: i32, words: &str) -> Result<Ended> {
    let ended = launch.command("check").to_end(scene)?;
    let said = ended.stdout.iter().map(|l| l.text.as_str()).collect::<Vec<_>>().join("\n");
    ensure!(ended.status.code() == Some(code), "check ended with {}: {said} {}", ended.status, ended.stderr);
    ensure!(said.contains(words), "check does not say {words:?}: {said}");
    Ok(ended)
}

fn check_holds(scene: &Scene) -> Result<()> {
    let mut collector = Collector::start(scene)?;
    for protocol in [Grpc, Http] {
        check(scene, collector.receive_from(Launch::new()?, protocol), 0, "takes OTLP")?;
    }
    collector.stop()?;
    ensure!(collector.records()?.is_empty(), "check sent records");
    nothing_left()
}

fn check_fails(scene: &Scene) -> Result<()> {
    let collector = Collector::prepare(scene)?;
    for protocol in [Grpc, Http] {
        check(scene, collector.receive_from(Launch::new()?, protocol), 69, "FAIL output")?;
    }
    Ok(())
}

fn check_other(scene: &Scene) -> Result<()> {
    // A port that takes connections and says nothing sensible.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("nonsense".into()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The other end may be gone already.
            let _ = std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n");
        }
    })?;
    for protocol in ["grpc", "http/protobuf"] {
        let launch = Launch::new()?
            .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
            .environment("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        check(scene, launch, 69, "FAIL output")?;
    }
    Ok(())
}

fn killed(scene: &Scene) -> Result<()> {
    let flowtel = Launch::new()?.start(scene)?;
    let links = objects::links_of(flowtel.pid())?;
    ensure!(links.len() >= 4, "flowtel holds {} links, which is not what it attaches by", links.len());
    ensure!(objects::links()?.is_superset(&links), "the kernel does not list the links that flowtel holds");
    flowtel.signal(Signal::KILL)?;
    let ended = flowtel.ended(Instant::now(), Duration::from_secs(5))?;
    ensure!(ended.status.code().is_none(), "it ended with {}", ended.status);
    until("its links to go", Duration::from_secs(5), || Ok(objects::links()?.is_disjoint(&links).then_some(())))?;
    nothing_left()?;

    let net = Pair::new(scene)?;
    let watching = Watching::start(scene, Grpc)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let connection = net.client.run("client", || dial(server.address))?;
    let told = watching.finish()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &Side::both(&connection))
}
