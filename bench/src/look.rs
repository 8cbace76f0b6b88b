//! What it costs that somebody looks on: flowtel with a reader at its status socket, as `flowtel top` is one, in turns with the
//! same flowtel without; and `flowtel top` itself on a terminal, at a steady rate.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    ending::with_us,
    flowtel::{Flowtel, Output},
    load,
    namespaces::Namespaces,
    numbers::{pause, spread},
    sink::Sink,
};

/// From start to rest, and from the last connection to the last delivery.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections a second over loopback while `top` is watched: two flows each, 1,000 flows a second.
const RATE: u32 = 500;
/// How long.
const WATCHED: Duration = Duration::from_secs(20);

/// Measures, and returns the text.
pub fn measure(binary: &Path, connections: usize, pairs: usize) -> Result<String> {
    let agent = agent(binary, connections, pairs)?;
    // What was measured already is said, whatever becomes of the screen.
    Ok(screen(binary)
        .map_or_else(|error| format!("{agent}\nflowtel top: {error:#}"), |screen| format!("{agent}\n{screen}")))
}

/// Where a flowtel's status socket is. Dropped, its directory is removed.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("flowtel-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    fn setting(&self) -> String {
        format!("telemetry.status.socket={}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.0.join("status.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left of it is in /tmp.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// CPU of flowtel a connection, µs, without a reader and with one.
fn agent(binary: &Path, connections: usize, pairs: usize) -> Result<String> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
        for looks in order {
            let cost = run(binary, connections, looks)?;
            if looks { with.push(cost) } else { without.push(cost) }
        }
    }
    let more: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
    Ok(format!(
        "| | agent, µs CPU a connection |\n|---|---|\n| nobody looks on | {} |\n| a reader as `flowtel top` | {} |\n| more | {} |\n",
        spread(&without, 2),
        spread(&with, 2),
        spread(&more, 2),
    ))
}

fn run(binary: &Path, connections: usize, looks: bool) -> Result<f64> {
    let mut sink = Sink::start()?;
    let namespaces = Namespaces::new()?;
    let place = Place::new()?;
    let output = Output::Otlp { endpoint: sink.endpoint(), protocol: "http/protobuf" };
    let flowtel = Flowtel::with(binary, &output, &[&place.setting()])?;
    pause(SETTLE);
    let reader = if looks { Some(read(&place.socket())?) } else { None };
    pause(SETTLE);
    let before = flowtel.cpu()?;
    load::run(&namespaces, connections)?;
    pause(SETTLE);
    let cpu = flowtel.cpu()?.saturating_sub(before);
    flowtel.stop()?;
    if let Some(reader) = reader {
        let bytes = reader.join().map_err(|_panic| anyhow::anyhow!("the reader panicked"))??;
        ensure!(bytes > connections * 1000, "the reader got {bytes} bytes: it did not see all");
    }
    let got = sink.got()?;
    ensure!(got.is_exact(connections), "not exact: {got:?}");
    Ok(cpu.as_secs_f64() * 1e6 / connections as f64)
}

/// Reads all that there is to see. Returns how many bytes that were.
fn read(socket: &Path) -> Result<thread::JoinHandle<std::io::Result<usize>>> {
    let mut stream = UnixStream::connect(socket).context("the status socket")?;
    stream.write_all(b"top\n")?;
    Ok(thread::spawn(move || {
        let (mut piece, mut bytes) = (vec![0; 256 << 10], 0);
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(bytes),
                n => bytes += n,
            }
        }
    }))
}

/// CPU of `flowtel top` on a terminal of 80 by 24.
fn screen(binary: &Path) -> Result<String> {
    let place = Place::new()?;
    let flowtel = Flowtel::with(binary, &Output::Null, &[&place.setting()])?;
    let (master, slave) = terminal()?;
    let mut command = Command::new(binary);
    command.env_clear().env("TERM", "xterm-256color").args(["top", "--set", &place.setting()]);
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let mut top = Stopped(with_us(&mut command).spawn()?);
    // It holds the terminal's other end, too.
    drop(command);
    let mut master = File::from(master);
    // Somebody takes what is drawn, until the terminal is closed.
    let drawn = thread::spawn(move || {
        let (mut piece, mut bytes) = (vec![0; 64 << 10], 0);
        while let Ok(n @ 1..) = master.read(&mut piece) {
            bytes += n;
        }
        bytes
    });
    pause(SETTLE);
    let (listener, start) = (TcpListener::bind("127.0.0.1:0")?, Instant::now());
    let before = cpu(top.0.id())?;
    let mut made = 0;
    while start.elapsed() < WATCHED {
        let client = TcpStream::connect(listener.local_addr()?)?;
        drop(listener.accept()?);
        drop(client);
        made += 1;
        pause((Duration::from_secs(1) * made / RATE).saturating_sub(start.elapsed()));
    }
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu(top.0.id())?.saturating_sub(before).as_secs_f64());
    let memory = fs::read_to_string(format!("/proc/{}/status", top.0.id()))?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
    // SAFETY: a signal to our own child, which was not waited for yet.
    unsafe { libc::kill(top.0.id() as i32, libc::SIGTERM) };
    let status = top.0.wait()?;
    ensure!(status.success(), "flowtel top ended with {status}");
    flowtel.stop()?;
    let bytes = drawn.join().unwrap_or_default();
    Ok(format!(
        "`flowtel top`, 80 x 24, {:.0} connections a second over loopback ({:.0} flows, {:.0} records): {:.2} % of a CPU, {memory} \
         resident, {:.1} kB/s drawn",
        f64::from(made) / took,
        f64::from(made) * 2.0 / took,
        f64::from(made) * 4.0 / took,
        100.0 * cpu / took,
        bytes as f64 / 1000.0 / took,
    ))
}

/// Dropped, it is killed.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // Nothing happens where it was waited for already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both ends of a terminal of 80 by 24.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are written, `size` is read; a name and settings are not asked for.
    if unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), &raw const size) } != 0 {
        return Err(std::io::Error::last_os_error()).context("making a terminal");
    }
    // SAFETY: both are open, and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) })
}

/// CPU time of all threads of a process so far (Documentation/scheduler/sched-stats.rst).
fn cpu(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}
