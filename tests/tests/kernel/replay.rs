//! What flowtel tells of live connections, and what it makes of a capture of them, is the same.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener},
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::Grpc,
    expect::About,
    flowtel::Launch,
    netns::Pair,
    record::{Record, decode_lines},
    scene::{Scenario, Scene},
    sniffer::Sniffer,
    sys,
    traffic::{self, Server, connect, dial, exchange, finish, reset_at_close},
    watching::Watching,
};
use rustix::net;

use crate::over;

/// All of them.
pub const ALL: &[Scenario] = &[Scenario::new(
    "a capture of live connections is replayed: the same begins, ends and failures, to the byte",
    180,
    captured,
)];

fn captured(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let sniffer = Sniffer::start(&net.client)?;
    connections(&net)?;
    over(&net)?;
    let capture = sniffer.stop()?;
    let live = watching.finish()?.records;
    let about = About::Addresses(net.addresses());
    let live: Vec<_> = live.into_iter().filter(|record| about.concerns(record)).collect();

    let file = scene.directory().join("live.pcap");
    fs::write(&file, capture)?;
    let file = file.to_str().context("a path")?;
    let sides = [
        ("outgoing", [IpAddr::from(net.client_v4), net.client_v6.into()]),
        ("incoming", [net.server_v4.into(), net.server_v6.into()]),
    ];
    for (direction, local) in sides {
        let mut launch = Launch::everything()?.command("replay").argument(file);
        for address in local {
            launch = launch.argument("--local").argument(&address.to_string());
        }
        let ended = launch.to_end(scene)?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        let replayed = decode_lines(ended.stdout.iter().map(|line| line.text.as_str()))?;
        // Of attempts the asked side tells only what IPv4 lets it see.
        let wanted = |record: &&Record| {
            record.text("flowtel.flow.direction") == direction
                && (direction == "outgoing" || record.event_name != "flowtel.tcp.flow.failed")
        };
        let told = |records: &[Record]| {
            let mut told: Vec<_> = records.iter().filter(wanted).map(essence).collect();
            told.sort();
            told
        };
        let (there, here) = (told(&live), told(&replayed));
        let missing: Vec<_> = there.iter().filter(|told| !here.contains(told)).collect();
        let more: Vec<_> = here.iter().filter(|told| !there.contains(told)).collect();
        ensure!(
            there == here,
            "{direction}: {} live, {} replayed; live only: {missing:#?}; replayed only: {more:#?}; {}",
            there.len(),
            here.len(),
            ended.stderr
        );
        ensure!(there.len() >= 2 * 49, "only {} records", there.len());
    }
    Ok(())
}

/// What both must agree on.
fn essence(record: &Record) -> (String, String, Vec<String>) {
    let texts = ["flowtel.flow.direction", "flowtel.flow.end.reason", "error.type", "network.type"];
    let numbers = ["flowtel.source.bytes", "flowtel.destination.bytes", "flowtel.tcp.attempts"];
    let ends = [record.source(), record.destination()].map(|end| format!("{end:?}"));
    let texts = texts.map(|key| format!("{key}={}", record.text(key)));
    let numbers = numbers.map(|key| format!("{key}={:?}", record.int(key)));
    let rest = ends.into_iter().chain(texts).chain(numbers).collect();
    (record.text("flowtel.flow.community_id").into(), record.event_name.clone(), rest)
}

/// 49 connections and 3 attempts, all from the client to the server.
fn connections(net: &Pair) -> Result<()> {
    // First, so that there are later packets, which show that nothing answered.
    net.client.run("silence", || {
        let silent = SocketAddr::from((net.nobody_there, 7101));
        let socket = traffic::socket(silent, None)?;
        sys::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, &1i32.to_ne_bytes())?;
        ensure!(net::connect(&socket, &silent).is_err(), "nobody took a connection");
        Ok(())
    })?;
    for to in [IpAddr::from(net.server_v4), net.server_v6.into()] {
        let server = Server::start(&net.server, SocketAddr::new(to, 0))?;
        net.client.run("talker", || {
            for _ in 0..20 {
                dial(server.address)?;
            }
            for n in [1, 1000, 30_000] {
                let (_, mut stream) = connect(traffic::socket(server.address, None)?, server.address)?;
                stream.write_all(&vec![b'x'; n])?;
                stream.read_exact(&mut vec![0; n])?;
                finish(stream)?;
            }
            let (_, stream) = connect(traffic::socket(server.address, None)?, server.address)?;
            exchange(&stream)?;
            reset_at_close(&stream)?;
            drop(stream);
            Ok(())
        })?;
        let closed = net.server.run("closed", || Ok(TcpListener::bind((to, 0))?.local_addr()?))?;
        net.client.run("refused", || {
            ensure!(net::connect(traffic::socket(closed, None)?, &closed).is_err(), "a closed port took a connection");
            Ok(())
        })?;
    }
    // One half first: the server sends after the client's end.
    let listener = net.server.run("halves", || traffic::listen((net.server_v4, 0).into(), None, |_| Ok(())))?;
    let to = listener.local_addr()?;
    let (_, mut client) = net.client.run("halves", || connect(traffic::socket(to, None)?, to))?;
    let (mut server, _) = listener.accept()?;
    client.write_all(&[b'x'; 77])?;
    client.shutdown(Shutdown::Write)?;
    server.read_to_end(&mut Vec::new())?;
    server.write_all(&[b'y'; 5000])?;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    drop(client);
    Ok(())
}
