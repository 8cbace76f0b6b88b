//! What clients say first over TLS (`capture.tls`): names, protocols, versions and fingerprints, of hellos however they come.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::Grpc,
    expect::About,
    flowtel::Launch,
    netns::Pair,
    record::{Record, Value},
    scene::{Scenario, Scene, skip},
    sys,
    traffic::{self, Server},
    wait::{patient, pause},
    watching::{Told, Watching},
};

use crate::{life::Talk, over};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "tls: name, protocols, versions and fingerprint, by IPv4 and IPv6, on both sides, with the owner",
        60,
        said,
    ),
    Scenario::new("tls: a hello with large keys, cut into segments by the network or by its sender, is whole", 60, cut),
    Scenario::new("tls: a hello whose rest never comes has its name and no fingerprint", 60, partial),
    Scenario::new("tls: a hello that completes the handshake (TCP_DEFER_ACCEPT) is the new socket's", 60, deferred),
    Scenario::new("tls: what is no hello, or comes later, makes no record", 60, others),
    Scenario::new("tls: with updates too, and by rules for flows", 60, with_updates_and_rules),
    Scenario::new("tls: without capture.tls there are none, and the programs for them are not attached", 60, off),
    Scenario::new("tls: what openssl says is what it was told to say", 60, openssl),
];

const HELLO: &str = "flowtel.tls.client_hello";
const NAME: &str = "www.example.com";
/// Of [`hello`] without more, as tshark 4.4 computes it.
const JA4: &str = "t13d0305h2_5559582ccdc4_7a92526c31dc";
const TCP_DEFER_ACCEPT: i32 = 9;

/// A ClientHello for [`NAME`], with so many more bytes.
fn hello(more: usize) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let mut extensions = vec![
        (0x2a2a_u16, vec![]),
        (0, with_length(&[&[0][..], &with_length(b"WWW.Example.COM")].concat())),
        (16, with_length(b"\x02h2\x08http/1.1")),
        (43, vec![6, 0x3a, 0x3a, 3, 4, 3, 3]),
        (13, with_length(&[4, 3, 8, 4])),
        (51, vec![0; 40]),
    ];
    if more > 0 {
        extensions.push((0x6399, vec![1; more]));
    }
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &with_length(content)].concat())
        .collect();
    let ciphers = [0x1a, 0x1a, 0x13, 1, 0x13, 2, 0xc0, 0x2b];
    let body =
        [&[3, 3][..], &[7; 32], &[32], &[9; 32], &with_length(&ciphers), &[1, 0], &with_length(&extensions)].concat();
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

fn launch() -> Result<Launch> {
    Ok(Launch::everything()?.set("capture.tls", "true"))
}

fn about(net: &Pair, told: &Told) -> Vec<Record> {
    let about = About::Addresses(net.addresses());
    told.records.iter().filter(|r| about.concerns(r)).cloned().collect()
}

/// The hellos of the connection from this client.
fn of(records: &[Record], client: SocketAddr) -> Vec<&Record> {
    records.iter().filter(|r| r.event_name == HELLO && r.source() == Some(client)).collect()
}

fn list<'a>(record: &'a Record, key: &str) -> Vec<&'a str> {
    match record.attributes.get(key) {
        Some(Value::Texts(values)) => values.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whole, and what [`hello`] says.
fn right(record: &Record) -> Result<()> {
    let whole = record.text("flowtel.tls.server_name") == NAME
        && list(record, "flowtel.tls.protocols") == ["h2", "http/1.1"]
        && list(record, "flowtel.tls.versions") == ["1.3", "1.2"]
        && record.text("flowtel.tls.ja4").starts_with("t13d03")
        && ["flowtel.tls.partial", "flowtel.tls.ech"].iter().all(|key| !record.attributes.contains_key(*key));
    ensure!(whole, "{record:#?}");
    Ok(())
}

/// Sends these pieces one after the other, each in a segment of its own, and has the server read all.
fn say(talk: &Talk, pieces: &[&[u8]]) -> Result<()> {
    for piece in pieces {
        (&talk.client).write_all(piece)?;
        (&talk.server).read_exact(&mut vec![0; piece.len()])?;
        pause(Duration::from_millis(20));
    }
    Ok(())
}

fn close(talk: Talk) -> Result<()> {
    drop(talk.client);
    crate::life::end_of(&talk.server)
}

/// Begins a connection, says these pieces and closes it. Returns the client's end.
fn talk(net: &Pair, to: IpAddr, pieces: &[&[u8]]) -> Result<SocketAddr> {
    let talk = Talk::begin(net, to)?;
    say(&talk, pieces)?;
    let client = talk.connection.client;
    close(talk)?;
    Ok(client)
}

/// The hellos that both sides of each client's connection told.
fn told_by_both(records: &[Record], clients: Vec<SocketAddr>) -> Result<Vec<&Record>> {
    let mut all = Vec::new();
    for client in clients {
        let hellos = of(records, client);
        ensure!(hellos.len() == 2, "both sides: {records:#?}");
        all.extend(hellos);
    }
    Ok(all)
}

fn said(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let to: [IpAddr; 2] = [net.server_v4.into(), net.server_v6.into()];
    let clients = to.iter().map(|to| talk(&net, *to, &[&hello(0)])).collect::<Result<_>>()?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for hello in told_by_both(&records, clients)? {
        right(hello)?;
        ensure!(hello.text("flowtel.tls.ja4") == JA4, "{hello:#?}");
        ensure!(hello.severity == 9 && hello.body.ends_with(" said TLS hello"), "{hello:#?}");
        let same = |r: &&Record| {
            r.text("flowtel.flow.id") == hello.text("flowtel.flow.id")
                && r.text("flowtel.flow.direction") == hello.text("flowtel.flow.direction")
        };
        let flow: Vec<_> = records.iter().filter(same).collect();
        let named = |end: &str| flow.iter().find(|r| r.event_name.ends_with(end)).copied().context("no such record");
        let (begin, end) = (named(".begin")?, named(".end")?);
        ensure!(flow.len() == 3 && begin.time <= hello.time && hello.time <= end.time, "{flow:#?}");
        ensure!(hello.int("process.pid") == end.int("process.pid"), "{flow:#?}");
        ensure!(hello.int("process.pid").is_some(), "{hello:#?}");
    }
    let account = told.balance.kernel.get("hello").context("hellos are counted")?;
    ensure!(account.total >= 4, "{account:?}");
    Ok(())
}

fn cut(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let large = hello(1800);
    let stories = [vec![&large[..]], vec![&large[..1], &large[1..900], &large[900..]], vec![&large[..7], &large[7..]]];
    let clients = stories.iter().map(|pieces| talk(&net, net.server_v4.into(), pieces)).collect::<Result<_>>()?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    told_by_both(&records, clients)?.into_iter().try_for_each(right)
}

fn partial(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let bytes = hello(1800);
    let huge = hello(6000);
    let pieces = [&bytes[..1000], &huge[..]];
    let clients = pieces.iter().map(|piece| talk(&net, net.server_v4.into(), &[piece])).collect::<Result<_>>()?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for hello in told_by_both(&records, clients)? {
        let part = hello.text("flowtel.tls.server_name") == NAME
            && hello.attributes.contains_key("flowtel.tls.partial")
            && !hello.attributes.contains_key("flowtel.tls.ja4");
        ensure!(part, "{hello:#?}");
    }
    Ok(())
}

fn deferred(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let mut clients = Vec::new();
    for (to, bytes) in
        [(IpAddr::from(net.server_v4), hello(0)), (net.server_v6.into(), hello(0)), (net.server_v4.into(), hello(1800))]
    {
        let server = Server::with(&net.server, (to, 0), None, |socket| {
            Ok(sys::set_option(socket, libc::IPPROTO_TCP, TCP_DEFER_ACCEPT, &5i32.to_ne_bytes())?)
        })?;
        let (connection, stream) =
            net.client.run("client", || traffic::connect(traffic::socket(server.address, None)?, server.address))?;
        // The server forgets the acknowledgement that carries nothing: what comes next completes the handshake.
        pause(Duration::from_micros(300_100));
        echo(&stream, &bytes)?;
        clients.push(connection.client);
        traffic::finish(stream)?;
    }
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for hello in told_by_both(&records, clients)? {
        right(hello)?;
        let begin = |r: &&Record| {
            r.event_name.ends_with(".begin")
                && r.text("flowtel.flow.id") == hello.text("flowtel.flow.id")
                && r.text("flowtel.flow.direction") == hello.text("flowtel.flow.direction")
        };
        let begin = records.iter().find(begin).context("no begin of the same flow")?;
        ensure!(begin.time <= hello.time, "{begin:#?} {hello:#?}");
    }
    Ok(())
}

/// Sends bytes to a server that sends back what it gets.
fn echo(mut stream: &TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    stream.set_read_timeout(Some(patient(Duration::from_secs(10))))?;
    stream.read_exact(&mut vec![0; bytes.len()])?;
    Ok(())
}

fn others(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let hello = hello(0);
    let server_hello = [22, 3, 3, 0, 6, 2, 0, 0, 2, 3, 3];
    let stories: [&[&[u8]]; 4] =
        [&[b"GET / HTTP/1.1\r\n\r\n", &hello], &[&server_hello], &[&[22]], &[b"EHLO x\r\n", b"STARTTLS\r\n", &hello]];
    for pieces in stories {
        talk(&net, net.server_v4.into(), pieces)?;
    }
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    ensure!(!records.iter().any(|r| r.event_name == HELLO), "{records:#?}");
    ensure!(records.iter().filter(|r| r.event_name.ends_with(".end")).count() == 8, "{records:#?}");
    Ok(())
}

fn with_updates_and_rules(scene: &Scene) -> Result<()> {
    let watching = Watching::with(
        scene,
        Grpc,
        launch()?.set("flow.update", "1s").set("capture.filter", r#"["include direction=outgoing"]"#),
    )?;
    let net = Pair::new(scene)?;
    let talk = Talk::begin(&net, net.server_v4)?;
    say(&talk, &[&hello(0)])?;
    for _ in 0..12 {
        talk.up(100)?;
        pause(Duration::from_millis(150));
    }
    let client = talk.connection.client;
    close(talk)?;
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    let hellos = of(&records, client);
    ensure!(hellos.len() == 1 && hellos[0].text("flowtel.flow.direction") == "outgoing", "{records:#?}");
    right(hellos[0])?;
    ensure!(records.iter().any(|r| r.event_name.ends_with(".update")), "{records:#?}");
    Ok(())
}

fn off(scene: &Scene) -> Result<()> {
    let watching = Watching::with(scene, Grpc, Launch::everything()?)?;
    let net = Pair::new(scene)?;
    let talk = Talk::begin(&net, net.server_v4)?;
    say(&talk, &[&hello(0)])?;
    let attached = flowtel_tests::objects::programs_of(watching.flowtel.pid())?;
    close(talk)?;
    over(&net)?;
    let told = watching.finish()?;
    ensure!(!attached.is_empty() && !attached.iter().any(|name| name.contains("_tls")), "{attached:?}");
    ensure!(!about(&net, &told).iter().any(|r| r.event_name == HELLO), "{:#?}", told.records);
    let account = told.balance.kernel.get("hello");
    ensure!(account.is_none_or(|account| account.total == 0), "{account:?}");
    Ok(())
}

fn openssl(scene: &Scene) -> Result<()> {
    let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(skip("there is no openssl here"));
    }
    let watching = Watching::with(scene, Grpc, launch()?)?;
    let net = Pair::new(scene)?;
    let talks = [
        (
            &["-servername", "tls13.example.org", "-alpn", "h2", "-tls1_3"][..],
            "tls13.example.org",
            &["h2"][..],
            &["1.3"][..],
            "t13d",
        ),
        (&["-servername", "tls12.example.org", "-tls1_2"], "tls12.example.org", &[], &["1.2"], "t12d"),
        (
            &["-noservername", "-min_protocol", "TLSv1.2", "-alpn", "http/1.1"],
            "",
            &["http/1.1"],
            &["1.3", "1.2"],
            "t13i",
        ),
    ];
    let mut expected = Vec::new();
    for (options, name, protocols, versions, start) in talks {
        let server = Server::with(&net.server, (net.server_v4, 0), None, |_| Ok(()))?;
        let to = server.address.to_string();
        // The server sends the hello back, which is no answer: openssl gives up.
        net.client.run("openssl", || {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &to]).args(options);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            Ok(())
        })?;
        expected.push((server.address, name, protocols, versions, start));
    }
    over(&net)?;
    let told = watching.finish()?;
    let records = about(&net, &told);
    for (server, name, protocols, versions, start) in expected {
        let is = |r: &&Record| r.event_name == HELLO && r.destination() == Some(server);
        let hellos: Vec<_> = records.iter().filter(is).collect();
        ensure!(hellos.len() == 2, "{records:#?}");
        for hello in hellos {
            let right = hello.text("flowtel.tls.server_name") == name
                && list(hello, "flowtel.tls.protocols") == protocols
                && list(hello, "flowtel.tls.versions") == versions
                && hello.text("flowtel.tls.ja4").starts_with(start);
            ensure!(right, "{hello:#?}");
        }
    }
    Ok(())
}
