//! What takes long, or means something only with the optimized program.

use std::time::Instant;

use anyhow::{Result, ensure};
use flowtel_tests::{
    collector::Protocol::Grpc,
    expect::{About, Handshake, Side, exactly},
    flowtel::Launch,
    netns::Pair,
    scene::{Scenario, Scene, skip},
    traffic::{Server, burst},
    watching::Watching,
};

/// All of them.
pub const ALL: &[Scenario] =
    &[Scenario::new("forty thousand connections at full speed: each told once", 180, forty_thousand)];

const THREADS: usize = 4;
const EACH: usize = 10_000;

/// The optimized flowtel, where slow ones were asked for.
fn optimized(launch: Option<Launch>) -> Result<Launch> {
    if std::env::var("FLOWTEL_TESTS").as_deref() != Ok("slow") {
        return Err(skip("slow: set FLOWTEL_TESTS=slow"));
    }
    launch.ok_or_else(|| skip("no optimized flowtel: cargo build --release -p flowtel"))
}

/// Two namespaces with as many ports as there are, and none kept back.
fn wide(scene: &Scene) -> Result<Pair> {
    let net = Pair::new(scene)?;
    net.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
    net.client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    Ok(net)
}

fn forty_thousand(scene: &Scene) -> Result<()> {
    let launch = optimized(Launch::release())?;
    let net = wide(scene)?;
    let watching = Watching::with(scene, Grpc, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 1000))?;
    let start = Instant::now();
    let connections = burst(&net.client, server.address, THREADS, EACH)?;
    let took = start.elapsed();
    let told = watching.finish()?;
    ensure!(connections.len() == THREADS * EACH, "not all were made");
    let sides: Vec<_> = connections
        .iter()
        .flat_map(|c| {
            // A busy machine may repeat a segment.
            let most = Handshake::AtMost((c.after - c.before) as f64 / 1e9);
            [Side::outgoing(c), Side::incoming(c).handshake(most)].map(|side| side.local(None))
        })
        .collect();
    exactly(&told.records, &About::Addresses(net.addresses()), &sides)?;
    let rate = connections.len() as f64 / took.as_secs_f64();
    eprintln!("{} connections in {took:.1?}, {rate:.0} a second: all told, both sides", connections.len());
    Ok(())
}
