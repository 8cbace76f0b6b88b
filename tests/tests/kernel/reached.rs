//! Ways in which two ends reach each other.

use anyhow::Result;
use flowtel_tests::{
    collector::Protocol,
    expect::{About, Side, exactly},
    flowtel::Launch,
    netns::Pair,
    scene::{Scenario, Scene},
    traffic::{Server, dial},
    watching::Watching,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "an IPv4 connection is told to a collector by gRPC",
        limit: 60,
        run: |scene| ipv4(scene, Protocol::Grpc, "none"),
    },
    Scenario {
        name: "an IPv4 connection is told to a collector by HTTP",
        limit: 60,
        run: |scene| ipv4(scene, Protocol::Http, "none"),
    },
    Scenario {
        name: "an IPv4 connection is told to a collector by gRPC with gzip",
        limit: 60,
        run: |scene| ipv4(scene, Protocol::Grpc, "gzip"),
    },
    Scenario {
        name: "an IPv4 connection is told to a collector by HTTP with gzip",
        limit: 60,
        run: |scene| ipv4(scene, Protocol::Http, "gzip"),
    },
];

fn ipv4(scene: &Scene, protocol: Protocol, compression: &str) -> Result<()> {
    let net = Pair::new(scene)?;
    let launch = Launch::new()?.environment("OTEL_EXPORTER_OTLP_COMPRESSION", compression);
    let watching = Watching::with(scene, protocol, launch)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let connection = net.client.run("client", || dial(server.address))?;
    let told = watching.finish()?;
    exactly(&told.records, &About::Addresses(net.addresses()), &Side::both(&connection))
}
