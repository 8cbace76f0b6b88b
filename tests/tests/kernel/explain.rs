//! `flowtel explain`: what it says of a flow that is open, and of records in a file.

use std::{fs, net::TcpStream, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::Http,
    flowtel::Launch,
    netns::Pair,
    record::Record,
    scene::{Scenario, Scene},
    traffic::{self, Server, connect},
    wait::until,
    watching::Watching,
};

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "explain: an open flow by asking the running flowtel, a record by reading it, and neither of another's",
        60,
        explain,
    ),
    Scenario::new(
        "explain: an open flow whose ids are hashed is found by the id in its record, and stays hidden",
        60,
        hidden,
    ),
];

fn run(scene: &Scene, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(Launch::bare()?.program());
    command.env_clear().arg("explain").args(arguments).arg("--set").arg(socket(scene));
    let output = command.output()?;
    // Lines are wrapped for people: words are compared.
    let words = |bytes| String::from_utf8(bytes).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok((output.status.code(), words(output.stdout)?, words(output.stderr)?))
}

fn socket(scene: &Scene) -> String {
    format!("telemetry.status.socket={}", scene.directory().join("explain.sock").display())
}

/// Opens a connection, and waits for the record of its begin.
fn begun(net: &Pair, server: &Server, watching: &Watching) -> Result<(TcpStream, Record)> {
    let open = || {
        let socket = traffic::socket(server.address, None)?;
        let (_, stream) = connect(socket, server.address)?;
        let local = stream.local_addr()?;
        Ok((stream, local))
    };
    let (connection, local) = net.client.run("asker", open)?;
    let begin = until("the begin", Duration::from_secs(20), || {
        let records = watching.collector.records()?;
        let mine = |r: &&Record| {
            r.int("source.port") == Some(local.port().into()) && r.text("flowtel.flow.direction") == "outgoing"
        };
        Ok(records.iter().find(mine).cloned())
    })?;
    Ok((connection, begin))
}

fn hidden(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let launch = Launch::everything()?
        .argument("--set")
        .argument(&socket(scene))
        .environment("FLOWTEL_RECORD__HASH__KEY", "0123456789abcdef")
        .set("record.hash.attributes", "addresses,names");
    let watching = Watching::with(scene, Http, launch)?;
    let (connection, begin) = begun(&net, &server, &watching)?;
    let id = begin.text("flowtel.flow.id").to_owned();
    let (code, text, error) = run(scene, &[&id])?;
    ensure!(code == Some(0), "{code:?}: {error}");
    ensure!(text.starts_with(&format!("open of flow {id}")) && text.contains("hmac-"), "{text}");
    let shown = [net.client_v4, net.server_v4].iter().any(|address| text.contains(&address.to_string()));
    ensure!(!shown, "{text}");
    drop(connection);
    watching.finish()?;
    Ok(())
}

fn explain(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let (key, path) = socket(scene).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).context("a pair")?;
    let watching = Watching::with(scene, Http, Launch::everything()?.set(&key, &path))?;
    let (connection, begin) = begun(&net, &server, &watching)?;
    let id = begin.text("flowtel.flow.id").to_owned();
    let (code, text, error) = run(scene, &[&id])?;
    ensure!(code == Some(0), "{code:?}: {error}");
    let process = format!("process: {}. The process called connect()", begin.int("process.pid").unwrap_or_default());
    ensure!(text.starts_with(&format!("open of flow {id}")) && text.contains(&process), "{text}");
    ensure!(text.contains("container: not in this record. The process's cgroup is in no container"), "{text}");

    let other = "0123456789abcdef0123456789abcdef";
    let (code, _, error) = run(scene, &[other])?;
    ensure!(
        code == Some(69) && error.contains("no flow 0123456789abcdef0123456789abcdef is open"),
        "{code:?}: {error}"
    );

    drop(connection);
    let file = watching.collector.output();
    let ended = |text: &str| text.matches(&id).count() >= 2;
    until("the end", Duration::from_secs(20), || Ok(ended(&fs::read_to_string(&file)?).then_some(())))?;
    watching.finish()?;
    let file = file.display().to_string();
    let (code, text, error) = run(scene, &["--record", &file, &id])?;
    ensure!(code == Some(0), "{code:?}: {error}");
    ensure!(text.contains("flowtel.tcp.flow.begin of flow") && text.contains("flowtel.tcp.flow.end of flow"), "{text}");
    ensure!(text.contains("cause of the end: fin."), "{text}");
    let (code, _, error) = run(scene, &["--record", &file, other])?;
    ensure!(code == Some(65) && error.contains("holds no record of flow"), "{code:?}: {error}");
    Ok(())
}
