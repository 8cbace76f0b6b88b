//! Ways in which two ends reach each other: versions of IP, headers, loopback, address translation.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use flowtel_tests::{
    collector::Protocol::{self, Grpc, Http},
    expect::{About, Owner, Side, exactly},
    flowtel::Launch,
    netns::Pair,
    scene::{Scenario, Scene, skip},
    sys,
    traffic::{self, SERVER, Server, dial, dial_on},
    wait::wall,
    watching::Watching,
};
use rustix::fd::OwnedFd;

use crate::watched;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("IPv4, to a collector by gRPC", 60, |s| ipv4(s, Grpc, "none")),
    Scenario::new("IPv4, to a collector by HTTP", 60, |s| ipv4(s, Http, "none")),
    Scenario::new("IPv4, to a collector by gRPC with gzip", 60, |s| ipv4(s, Grpc, "gzip")),
    Scenario::new("IPv4, to a collector by HTTP with gzip", 60, |s| ipv4(s, Http, "gzip")),
    Scenario::new("IPv4, to a collector by gRPC with zstd", 60, |s| ipv4(s, Grpc, "zstd")),
    Scenario::new("IPv4, to a collector by HTTP with zstd", 60, |s| ipv4(s, Http, "zstd")),
    Scenario::new("IPv6", 60, ipv6),
    Scenario::new("IPv4 between dual-stack sockets has dotted addresses", 60, dual_stack),
    Scenario::new("IPv6 with extension headers on every segment", 60, extension_headers),
    Scenario::new("loopback by IPv4 has two sides", 60, loopback_v4),
    Scenario::new("loopback by IPv6 has two sides", 60, loopback_v6),
    Scenario::new("a host's own address, by IPv6, has two sides", 60, own_address),
    Scenario::new("address translation on the client's host: each side says what its application sees", 60, translated),
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

fn ipv6(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let server = Server::start(&net.server, (net.server_v6, 0))?;
        Ok(Side::all([&net.client.run("client over six", || dial(server.address))?]))
    })
    .map(drop)
}

fn dual_stack(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        // An AF_INET6 listener on all addresses, and an AF_INET6 socket that asks for ::ffff:192.0.2.x.
        let server = Server::start(&net.server, (Ipv6Addr::UNSPECIFIED, 0))?;
        let to = server.at(net.server_v4.to_ipv6_mapped());
        let mapped = net.client.run("mapped", || dial(to))?;
        // A plain client of the same listener.
        let plain = net.client.run("plain", || dial(server.at(net.server_v4)))?;
        Ok(Side::all([&mapped, &plain]))
    })
    .map(drop)
}

/// Hop-by-hop and destination options that say nothing: a next-header byte, a length of 0 (8 bytes), and PadN.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn sticky_options(socket: &OwnedFd) -> Result<()> {
    for option in [libc::IPV6_HOPOPTS, libc::IPV6_DSTOPTS] {
        sys::set_option(socket, libc::IPPROTO_IPV6, option, &PADDING)
            .map_err(|e| skip(format!("this kernel takes no sticky IPv6 options: {e}")))?;
    }
    Ok(())
}

fn extension_headers(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        // On both ends, so that the answer to the SYN has them too.
        let server = Server::with(&net.server, (net.server_v6, 0), None, sticky_options)?;
        let connection = net.client.run("optional", || {
            let socket = traffic::socket(server.address, None)?;
            sticky_options(&socket)?;
            dial_on(socket, server.address)
        })?;
        Ok(Side::all([&connection]))
    })
    .map(drop)
}

fn loopback_v4(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.loopback, 0))?;
        // From an address that nobody else uses either.
        let connection = net.server.run("inside", || {
            let socket = traffic::socket(server.address, None)?;
            rustix::net::bind(&socket, &SocketAddr::from((net.loopback, 0)))?;
            dial_on(socket, server.address)
        })?;
        Ok(Side::all([&connection]))
    })
    .map(drop)
}

fn loopback_v6(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let watching = Watching::start(scene, Http)?;
    let server = Server::start(&net.server, (Ipv6Addr::LOCALHOST, 0))?;
    let connection = net.server.run("inside", || dial(server.address))?;
    let told = watching.finish()?;
    // The address is everybody's.
    let about = About::Endpoints(vec![server.address, connection.client]);
    exactly(&told.records, &about, &Side::both(&connection))
}

fn own_address(scene: &Scene) -> Result<()> {
    watched(scene, Grpc, |net| {
        let server = Server::start(&net.server, (net.server_v6, 0))?;
        Ok(Side::all([&net.server.run("inside", || dial(server.address))?]))
    })
    .map(drop)
}

fn translated(scene: &Scene) -> Result<()> {
    watched(scene, Http, |net| {
        let listener = net.server.run(SERVER, || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
        let real = listener.local_addr()?;
        let [asked, translated] = net.spare;
        let (asked_port, real_port, real_ip) = (7040, real.port(), real.ip());
        // As kube-proxy does it: the destination is exchanged on the way out, then the source.
        net.client.nft(&format!(
            "add table ip nat
            add chain ip nat out {{ type nat hook output priority -100 ; }}
            add chain ip nat post {{ type nat hook postrouting priority 100 ; }}
            add rule ip nat out ip daddr {asked} tcp dport {asked_port} dnat to {real_ip}:{real_port}
            add rule ip nat post ip daddr {real_ip} tcp dport {real_port} snat to {translated}"
        ))?;
        net.client.ip(&format!("addr add {translated}/24 dev {}", flowtel_tests::netns::WIRE))?;
        net.server.neighbour(translated.into(), &net.client.hardware_address()?)?;

        let to = SocketAddr::from((asked, asked_port));
        let (mut connection, stream) = net.client.run("translated", || {
            let socket = traffic::socket(to, None)?;
            rustix::net::bind(&socket, &SocketAddr::from((net.client_v4, 0)))?;
            traffic::connect(socket, to)
        })?;
        let (accepted, peer) = listener.accept().context("accepting")?;
        connection.after = wall();
        drop((stream, accepted));
        assert_eq!(peer.ip(), Ipv4Addr::from(translated.octets()));
        // Each side is right for its host; that they belong together can't be seen from their addresses.
        let outgoing = Side::outgoing(&connection).local(None);
        let incoming = Side { source: peer, destination: real, ..Side::incoming(&connection).local(None) };
        let incoming = incoming.accepted(Owner::here("scenario", "acceptor"), Owner::here(SERVER, "listener"));
        Ok(vec![outgoing, incoming])
    })
    .map(drop)
}
