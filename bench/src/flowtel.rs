//! The real flowtel, as a process: started, watched from outside, stopped.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::OnceLock,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{bpf::Program, ending::with_us};

/// What its log says once it watches.
const READY: &str = "watching TCP connections";

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Begins only, with the process that the kernel's event tells.
    Begins,
    /// Begins and ends, names, executables and places: the default.
    All,
}

impl Mode {
    /// Records a connection, both ends.
    pub fn records(self) -> f64 {
        if self == Self::Begins { 2.0 } else { 4.0 }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        if self == Self::Begins { "begins alone" } else { "everything" }
    }
}

/// What this run measures; [`Mode::All`] unless it was set.
pub static MODE: OnceLock<Mode> = OnceLock::new();

/// What this run measures.
pub fn mode() -> Mode {
    MODE.get().copied().unwrap_or(Mode::All)
}

/// A running flowtel.
#[derive(Debug)]
pub struct Flowtel {
    child: Child,
    log: Option<JoinHandle<String>>,
}

/// Where its records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Otlp { endpoint: String, protocol: &'static str },
    Null,
    Pipe,
}

/// The release binary: beside this one.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("flowtel");
    if path.is_file() { Ok(path) } else { bail!("{} is missing: cargo build --release -p flowtel", path.display()) }
}

// === impl Flowtel

impl Flowtel {
    /// Starts it at the root of the cgroup tree, and returns when it watches.
    pub fn start(binary: &Path, output: &Output) -> Result<Self> {
        Self::with(binary, output, &[])
    }

    /// The same with settings of its own, each `key=value`.
    pub fn with(binary: &Path, output: &Output, settings: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        // Nothing of the surroundings may change what is measured.
        command
            .env_clear()
            .env("FLOWTEL_LOG__BALANCE", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match output {
            Output::Otlp { endpoint, protocol } => {
                command.args(["--output", "otlp", "--endpoint", endpoint, "--protocol", protocol]);
                command.args(["--compression", "none"]);
            }
            Output::Null => {
                command.args(["--output", "json"]);
            }
            Output::Pipe => {
                command.args(["--output", "json"]).stdout(Stdio::piped());
            }
        }
        if mode() == Mode::Begins {
            for setting in [
                "capture.events=begins",
                "dns.enabled=false",
                "owner.acceptor=false",
                "owner.executable=false",
                "owner.container=false",
            ] {
                command.args(["--set", setting]);
            }
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = with_us(&mut command).spawn().with_context(|| format!("starting {}", binary.display()))?;
        let mut log = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut said = String::new();
        while !said.contains(READY) {
            if log.read_line(&mut said)? == 0 {
                bail!("flowtel does not start: {said}");
            }
        }
        let log = std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = log.read_to_string(&mut rest);
            rest
        });
        Ok(Self { child, log: Some(log) })
    }

    /// The reading end of its standard output, where that is a pipe.
    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("standard output is no pipe")
    }

    /// CPU time of all its threads so far, user and system.
    pub fn cpu(&self) -> Result<Duration> {
        // The clock of a process (clock_getcpuclockid(3); CPUCLOCK_SCHED is 2 in include/linux/posix-timers_types.h).
        let clock = (!self.child.id() as i32) << 3 | 2;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec that the kernel fills.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(std::io::Error::last_os_error()).context("reading flowtel's CPU clock");
        }
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// CPU time so far of its threads whose name starts so.
    pub fn thread_cpu(&self, name: &str) -> Result<Duration> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.starts_with(name) {
                // Nanoseconds on a CPU come first (Documentation/scheduler/sched-stats.rst).
                let stat = fs::read_to_string(task.join("schedstat"))?;
                sum += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(sum))
    }

    /// A size of /proc/PID/status, in MiB.
    pub fn memory(&self, key: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).context("no such size")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Its loaded programs. (Only its own: another flowtel may run on this machine.)
    pub fn programs(&self) -> Result<Vec<Program>> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))? {
            // A descriptor may be gone by now.
            let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
            ids.extend(text.lines().filter_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
        }
        ids.into_iter().map(|id| Program::by_id(id).context("opening a program of flowtel")).collect()
    }

    /// Asks it to stop, waits, and returns what it said since it was ready.
    pub fn stop(mut self) -> Result<String> {
        // SAFETY: a signal to our own child, which was not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait()?;
        let said = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        if status.success() { Ok(said) } else { bail!("flowtel ended with {status}: {said}") }
    }
}

impl Drop for Flowtel {
    fn drop(&mut self) {
        // Nothing happens where it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
