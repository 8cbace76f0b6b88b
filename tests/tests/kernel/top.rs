//! `flowtel tail` and `flowtel top`: what they show of a flowtel that runs, of this host and of a capture; and what becomes of
//! a reader that does not read.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use flowtel_tests::{
    collector::Protocol::Http,
    flowtel::{Flowtel, Launch},
    netns::Pair,
    scene::{Scenario, Scene, skip},
    status,
    traffic::{self, Server, burst, connect, dial},
    wait::{patient, pause, until},
    watching::Watching,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario::new("tail: begins and ends of the running flowtel, those that its rules keep, to its end", 90, tail),
    Scenario::new("tail: hashed addresses stay hashed, and rules find what records say", 60, hidden),
    Scenario::new(
        "tail: a reader that does not read is dropped and told how much it missed; no record is lost",
        120,
        deaf,
    ),
    Scenario::new("tail: another user may not look, and without a flowtel there is nothing to look at", 60, refused),
    Scenario::new(
        "top: attached to a running flowtel in a terminal (tmux): open flows, ends, freeze, SIGTERM",
        120,
        attached,
    ),
    Scenario::new("top: by itself, where no flowtel runs (tmux): bytes of open flows, rights given up", 120, alone),
    Scenario::new("top: a capture, in its own time (tmux)", 90, replayed),
];

const PATIENCE: Duration = Duration::from_secs(20);

fn socket(scene: &Scene) -> PathBuf {
    scene.directory().join("top.sock")
}

fn launch(scene: &Scene) -> Result<Launch> {
    Ok(Launch::everything()?.set("telemetry.status.socket", &socket(scene).display().to_string()))
}

/// A reader of the running flowtel.
fn reader(scene: &Scene, rules: &[&str]) -> Result<Flowtel> {
    let words = rules.iter().fold(Launch::bare()?.command("tail"), |launch, word| launch.argument(word));
    let words = words.set("telemetry.status.socket", &socket(scene).display().to_string());
    words.argument("--output").argument("ndjson").spawn(scene)
}

/// Waits until so many look on.
fn seated(scene: &Scene, readers: usize) -> Result<()> {
    until("the readers", PATIENCE, || {
        let place = scene.directory().to_str().context("a path")?;
        // flowtel's ends of their connections, in /proc/net/unix: state 03, and the name that its socket was made by.
        let table = fs::read_to_string("/proc/net/unix")?;
        let connected =
            table.lines().filter(|line| line.contains(place) && line.split_whitespace().nth(5) == Some("03"));
        Ok((connected.count() >= readers).then_some(()))
    })
}

fn records(reader: &Flowtel) -> Result<Vec<Value>> {
    reader.stdout().iter().map(|line| serde_json::from_str(&line.text).with_context(|| line.text.clone())).collect()
}

fn is(record: &Value, event: &str, port: u16) -> bool {
    record["event.name"].as_str().is_some_and(|name| name.ends_with(event)) && record["destination.port"] == port
}

fn tail(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let other = Server::start(&net.server, (net.server_v4, 0))?;
    let watching = Watching::with(scene, Http, launch(scene)?)?;
    let port = server.address.port();
    let all = reader(scene, &[])?;
    let some = reader(scene, &["--include", &format!("port={port} direction=outgoing"), "--events", "begins"])?;
    seated(scene, 2)?;
    net.client.run("client", || {
        for address in [server.address, other.address] {
            drop(dial(address)?);
        }
        Ok(())
    })?;
    let both =
        |records: &[Value], port| ["begin", "end"].iter().all(|event| records.iter().any(|r| is(r, event, port)));
    until("begins and ends", PATIENCE, || {
        let records = records(&all)?;
        Ok((both(&records, port) && both(&records, other.address.port())).then_some(()))
    })?;
    // What it got is what the collector got.
    let shown = records(&all)?;
    let mine = |records: &[Value]| records.iter().filter(|r| r["destination.port"] == port).count();
    watching.finish()?;
    for reader in [&all, &some] {
        until("the end", PATIENCE, || Ok(reader.says("flowtel has stopped").then_some(())))?;
    }
    ensure!(mine(&shown) == 4, "begin and end of both sides: {shown:?}");
    let some = records(&some)?;
    let begins = some.iter().filter(|record| is(record, "begin", port)).count();
    ensure!(begins == 1 && some.iter().all(|r| r["event.name"] == "flowtel.gap" || is(r, "begin", port)), "{some:?}");
    Ok(())
}

fn hidden(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let launch = launch(scene)?
        .environment("FLOWTEL_RECORD__HASH__KEY", "0123456789abcdef")
        .set("record.hash.attributes", "addresses,names");
    let watching = Watching::with(scene, Http, launch)?;
    let port = server.address.port();
    let reader = reader(scene, &["--include", &format!("port={port}")])?;
    seated(scene, 1)?;
    net.client.run("client", || dial(server.address).map(drop))?;
    until("both begins", PATIENCE, || {
        Ok((records(&reader)?.iter().filter(|record| is(record, "begin", port)).count() == 2).then_some(()))
    })?;
    let text: String = reader.stdout().into_iter().map(|line| line.text).collect();
    let shown = [net.client_v4, net.server_v4].iter().any(|address| text.contains(&address.to_string()));
    ensure!(text.contains("hmac-") && !shown, "{text}");
    watching.finish()?;
    Ok(())
}

fn deaf(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let watching = Watching::with(scene, Http, launch(scene)?)?;
    let mut deaf = UnixStream::connect(socket(scene))?;
    deaf.write_all(b"tail\n")?;
    seated(scene, 1)?;
    // More than the socket holds: it stands still from here on.
    let (mut connections, threads) = (0, 4);
    let full = || -> Result<bool> {
        let status = status::ask(&socket(scene))?;
        Ok(status::number(&status, "/records/total")? > 3000)
    };
    until("much", PATIENCE * 2, || {
        burst(&net.client, server.address, threads, 500)?;
        connections += 500;
        Ok(full()?.then_some(()))
    })?;
    // It is dropped after five seconds in which it took nothing.
    pause(patient(Duration::from_secs(8)));
    deaf.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut bytes = Vec::new();
    deaf.read_to_end(&mut bytes)?;
    let last = bytes.len().checked_sub(13).context("a frame")?;
    ensure!(bytes[last..last + 5] == *b"D\x08\0\0\0", "the last frame says that it was dropped: {:?}", &bytes[last..]);
    let missed = u64::from_le_bytes(bytes[last + 5..].try_into()?);
    ensure!(missed > 0, "{missed} were missed of {connections} connections");
    // The collector has all of it.
    watching.finish()?;
    Ok(())
}

fn refused(scene: &Scene) -> Result<()> {
    let tail = |uid: Option<u32>| -> Result<(Option<i32>, String)> {
        let socket = socket(scene).display().to_string();
        let launch = Launch::bare()?.command("tail").set("telemetry.status.socket", &socket);
        let ended = uid.into_iter().fold(launch, Launch::user).to_end(scene)?;
        Ok((ended.status.code(), ended.stderr))
    };
    let (code, error) = tail(None)?;
    ensure!(code == Some(69) && error.contains("no flowtel answers at"), "{code:?}: {error}");
    let watching = Watching::with(scene, Http, launch(scene)?)?;
    let (code, error) = tail(Some(1))?;
    ensure!(code == Some(77) && error.contains("is for root, flowtel's own user and the group"), "{code:?}: {error}");
    watching.finish()?;
    Ok(())
}

/// A terminal of its own, 80 by 24.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs flowtel with these words in it. When it ends, its code is shown.
    fn run(scene: &Scene, words: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let there = Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success());
        if !there {
            return Err(skip("tmux is missing"));
        }
        let terminal = Self { socket: scene.directory().join("tmux.sock") };
        let program = Launch::bare()?.program().display().to_string();
        let set = format!("telemetry.status.socket={}", socket(scene).display());
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let line =
            format!("'{program}' top {} --set '{set}'; echo \"code $?\"; stty -a; exec sleep 1000", words.join(" "));
        let mut command = terminal.tmux();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"]);
        for (name, value) in environment {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        let output = command.arg(line).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
        command.arg("-S").arg(&self.socket);
        command
    }

    fn screen(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.tmux().args(["capture-pane", "-p"]).output()?.stdout).into_owned())
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux().arg("send-keys").args(keys).output()?;
        Ok(())
    }

    /// Waits until the screen has these words.
    fn shows(&self, words: &str) -> Result<String> {
        let shown = until(words, PATIENCE, || {
            let screen = self.screen()?;
            Ok(screen.contains(words).then_some(screen))
        });
        shown.with_context(|| self.screen().unwrap_or_default())
    }

    /// The flowtel that runs in it.
    fn process(&self) -> Result<i32> {
        until("flowtel's process", PATIENCE, || {
            let shell = self.tmux().args(["display-message", "-p", "#{pane_pid}"]).output()?.stdout;
            let shell = String::from_utf8_lossy(&shell).trim().to_owned();
            let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
            Ok(children.split_whitespace().next().and_then(|pid| pid.parse().ok()))
        })
    }

    /// Ends flowtel by this and checks that the terminal is as it was.
    fn ends(&self, code: u8) -> Result<()> {
        let screen = self.shows(&format!("code {code}"))?;
        // stty's last lines come after the code.
        let screen = self.shows(" echo ").unwrap_or(screen);
        let cooked = screen.contains(" echo ") && screen.contains(" icanon");
        ensure!(!screen.contains("flowtel top  ") && !screen.contains("panicked") && cooked, "{screen}");
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.tmux().arg("kill-server").output();
    }
}

fn attached(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let watching = Watching::with(scene, Http, launch(scene)?)?;
    let open = || -> Result<_> { Ok(connect(traffic::socket(server.address, None)?, server.address)?.1) };
    // One that is open before anybody looks.
    let first = net.client.run("client", open)?;
    let port = server.address.port().to_string();
    let terminal = Terminal::run(scene, &["--include", &format!("port={port} direction=outgoing")], &[])?;
    let screen = terminal.shows("open 1 ")?;
    let pid = format!("process {}", watching.flowtel.pid());
    ensure!(screen.contains("attached to flowtel") && screen.contains(&pid), "{screen}");
    let row = |line: &str| line.contains(&port) && line.trim_end().ends_with("open");
    ensure!(screen.lines().any(row), "{screen}");
    let second = net.client.run("client", open)?;
    terminal.shows("open 2 ")?;
    // No second attachment: it has no programs.
    let top = terminal.process()?;
    let descriptors = fs::read_dir(format!("/proc/{top}/fd"))?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    ensure!(!descriptors.into_iter().any(|to| to.to_string_lossy().contains("bpf")), "it has programs of its own");
    terminal.keys(&["Space"])?;
    terminal.shows("FROZEN")?;
    drop(first);
    drop(second);
    terminal.keys(&["Space"])?;
    let screen = terminal.shows("open 0 ")?;
    ensure!(screen.contains("fin"), "{screen}");
    terminal.keys(&["2"])?;
    terminal.shows("FAIL/s")?;
    terminal.tmux().args(["resize-window", "-x", "120", "-y", "40"]).output()?;
    terminal.shows("last minute")?;
    kill_process(Pid::from_raw(top).context("a process id")?, Signal::TERM)?;
    terminal.ends(0)?;
    watching.finish()?;
    Ok(())
}

fn alone(scene: &Scene) -> Result<()> {
    let net = Pair::new(scene)?;
    let server = Server::start(&net.server, (net.server_v4, 0))?;
    let terminal = Terminal::run(scene, &[], &[("NO_COLOR", "1")])?;
    terminal.shows("this host, by itself")?;
    let stream = net.client.run("client", || {
        let (_, stream) = connect(traffic::socket(server.address, None)?, server.address)?;
        Ok(stream)
    })?;
    terminal.keys(&["/"])?;
    terminal.keys(&["-l", &format!("port={} direction=outgoing", server.address.port())])?;
    terminal.keys(&["Enter"])?;
    terminal.shows("open 1 ")?;
    // An open flow's bytes are seen while it is open.
    until("bytes", PATIENCE, || {
        traffic::exchange(&stream)?;
        let screen = terminal.screen()?;
        Ok((!screen.contains("there 0B/s")).then_some(()))
    })?;
    let colours = terminal.tmux().args(["capture-pane", "-p", "-e"]).output()?.stdout;
    let colours = String::from_utf8_lossy(&colours).into_owned();
    let coloured = (30..=37).chain(90..=97).any(|n| colours.contains(&format!("\x1b[{n}m")));
    ensure!(!coloured, "NO_COLOR is set: {colours}");
    let rights = fs::read_to_string(format!("/proc/{}/status", terminal.process()?))?;
    let none =
        rights.lines().find(|line| line.starts_with("CapEff:")).is_some_and(|line| line.ends_with("0000000000000000"));
    ensure!(none, "{rights}");
    terminal.keys(&["q"])?;
    terminal.ends(0)
}

fn replayed(scene: &Scene) -> Result<()> {
    let capture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/pcap/loopback.pcap");
    let capture = fs::canonicalize(&capture).with_context(|| capture.display().to_string())?;
    let terminal = Terminal::run(scene, &["--replay", &capture.display().to_string(), "--speed", "0"], &[])?;
    terminal.shows("the capture ends here")?;
    terminal.keys(&["e"])?;
    let screen = terminal.shows("ended ones too")?;
    ensure!(screen.contains("replay of"), "{screen}");
    terminal.keys(&["C-c"])?;
    terminal.ends(0)?;
    drop(terminal);
    // Whoever closes the terminal's window ends it, too.
    let terminal = Terminal::run(scene, &["--replay", &capture.display().to_string()], &[])?;
    terminal.shows("replay of")?;
    let top = terminal.process()?;
    drop(terminal);
    until("top to end with its terminal", PATIENCE, || Ok((!fs::exists(format!("/proc/{top}"))?).then_some(())))
}
