//! The real flowtel: arguments and settings go in; its lines, its exit code and the balances it says at its end come out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

pub use crate::balance::{Account, Balance, Losses};
use crate::{
    cgroup::Cgroup,
    machine,
    scene::{Belongings, Scene},
    sys, wait,
};

/// What flowtel says once its programs are attached: from then on it misses nothing.
const READY: &str = "watching TCP connections";
/// How long a start, or an orderly stop without anything to wait for, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// An attribute that every instance is told to add to its Resource.
pub const RESOURCE_ATTRIBUTE: (&str, &str) = ("deployment.environment.name", "integration test");

/// The user that a flowtel which root has started becomes: `flowtel`, where this machine has it, else 65534.
pub fn user() -> u32 {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let flowtel = users.lines().find(|line| line.starts_with("flowtel:"));
    flowtel.and_then(|line| line.split(':').nth(2)?.parse().ok()).unwrap_or(65534)
}

/// How to start flowtel.
pub struct Launch {
    program: PathBuf,
    command: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    uid: Option<u32>,
    stdout: Option<Stdio>,
    cgroup: Option<PathBuf>,
    /// A program, with its arguments, that is to become flowtel.
    through: Vec<String>,
    begins: bool,
}

/// A running flowtel.
pub struct Flowtel {
    child: Child,
    begins: bool,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
    belongings: Arc<Belongings>,
}

/// A line, and when it was read.
#[derive(Debug, Clone)]
pub struct Line {
    /// Without its end.
    pub text: String,
    /// When it came.
    pub at: Instant,
}

type Lines = Arc<Mutex<Vec<Line>>>;

/// A flowtel that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// How long it took from the signal, or from the start where none was sent.
    pub took: Duration,
    /// What it wrote on standard output.
    pub stdout: Vec<Line>,
    /// And on standard error.
    pub stderr: String,
    /// Whether begins alone were told.
    pub begins: bool,
}

// === impl Launch

impl Launch {
    /// As it was built along with this test, telling begins alone and no names.
    ///
    /// # Errors
    /// It was not built.
    pub fn new() -> Result<Self> {
        Ok(Self::everything()?.begins())
    }

    /// As it was built along with this test, telling all that it can tell.
    ///
    /// # Errors
    /// It was not built.
    pub fn everything() -> Result<Self> {
        let test = std::env::current_exe()?;
        // target/PROFILE/deps/TEST
        let beside = test.ancestors().nth(2).map(|profile| profile.join("flowtel"));
        let program = beside.filter(|p| p.is_file());
        let program = program.context("there is no flowtel beside the tests: cargo build -p flowtel makes it")?;
        // Not optimized it may be too slow for what else goes on on this machine, which is not what is tested.
        Ok(Self::of(program).set("capture.rings.flows", "32MiB").set("capture.rings.owners", "32MiB"))
    }

    /// As it was built along with this test, without any setting: for commands that take none.
    ///
    /// # Errors
    /// It was not built.
    pub fn bare() -> Result<Self> {
        Ok(Self::of(Self::everything()?.program))
    }

    /// As it was built for release, if it was, telling begins alone and no names.
    pub fn release() -> Option<Self> {
        Self::optimized().map(Self::begins)
    }

    /// As it was built for release, if it was, telling all that it can tell. `FLOWTEL` names another program.
    pub fn optimized() -> Option<Self> {
        let named = std::env::var_os("FLOWTEL").map(PathBuf::from);
        let program = named.unwrap_or_else(|| machine::target().join("release/flowtel"));
        program.is_file().then(|| Self::of(program))
    }

    /// Telling begins alone, and no names.
    #[must_use]
    pub fn begins(mut self) -> Self {
        self.begins = true;
        self.environment("FLOWTEL_CAPTURE__EVENTS", "begins").environment("FLOWTEL_DNS__ENABLED", "false")
    }

    /// The program in another place.
    pub fn of(program: PathBuf) -> Self {
        let (key, value) = RESOURCE_ATTRIBUTE;
        // Nothing of the caller's: what he has set for his own collector is not meant for this one.
        let environment = vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("OTEL_RESOURCE_ATTRIBUTES".into(), format!("{key}={value}")),
            // The default is one path for all that run at once.
            ("FLOWTEL_TELEMETRY__STATUS__SOCKET".into(), String::new()),
            ("FLOWTEL_LOG__BALANCE".into(), "true".into()),
        ];
        Self {
            program,
            command: None,
            arguments: Vec::new(),
            environment,
            uid: None,
            stdout: None,
            cgroup: None,
            through: Vec::new(),
            begins: false,
        }
    }

    /// The program.
    pub fn program(&self) -> &PathBuf {
        &self.program
    }

    /// With this command instead of none.
    #[must_use]
    pub fn command(mut self, command: &str) -> Self {
        self.command = Some(command.into());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn set(self, key: &str, value: &str) -> Self {
        self.argument("--set").argument(&format!("{key}={value}"))
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As another user.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Started by these words: a program that becomes flowtel, and its arguments.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// In this cgroup, watching it and nothing else. (Its self-test needs it to see itself.)
    #[must_use]
    pub fn within(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.processes());
        self.set("capture.cgroup", &cgroup.path().display().to_string())
    }

    /// In this cgroup, whatever it watches.
    #[must_use]
    pub fn inside(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.processes());
        self
    }

    /// With this standard output, which is then not read here.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Starts it and waits until it watches.
    ///
    /// # Errors
    /// It ends instead, or is not ready in time.
    pub fn start(self, scene: &Scene) -> Result<Flowtel> {
        let mut flowtel = self.spawn(scene)?;
        let ready = wait::until("flowtel to watch", PATIENCE, || {
            if flowtel.says(READY) {
                return Ok(Some(()));
            }
            match flowtel.child.try_wait()? {
                Some(status) => bail!("flowtel ended at once ({status}): {}", flowtel.stderr()),
                None => Ok(None),
            }
        });
        ready.with_context(|| flowtel.stderr())?;
        Ok(flowtel)
    }

    /// Starts it and waits until it has ended by itself.
    ///
    /// # Errors
    /// It can't be started, or does not end.
    pub fn to_end(self, scene: &Scene) -> Result<Ended> {
        let start = Instant::now();
        self.spawn(scene)?.ended(start, PATIENCE)
    }

    /// Starts it and waits for nothing: for commands that ask another flowtel.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(self, scene: &Scene) -> Result<Flowtel> {
        let mut command = match self.through.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(&self.command)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped)).current_dir("/");
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        sys::die_with_me(&mut command);
        if let Some(processes) = &self.cgroup {
            sys::begin_in(&mut command, File::options().write(true).open(processes)?);
        }
        let mut child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        scene.belongings().add_process(child.id());
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(read(pipe, Arc::clone(&stdout))?);
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(read(pipe, Arc::clone(&stderr))?);
        }
        Ok(Flowtel { child, begins: self.begins, stdout, stderr, readers, belongings: scene.belongings() })
    }
}

fn read(pipe: impl Read + Send + 'static, lines: Lines) -> Result<JoinHandle<()>> {
    Ok(thread::Builder::new().name("reader".into()).spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).into_owned();
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(Line { text, at: Instant::now() });
        }
    })?)
}

// === impl Flowtel

impl Flowtel {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote on standard output so far.
    pub fn stdout(&self) -> Vec<Line> {
        self.stdout_from(0)
    }

    /// What it wrote on standard output from line `from` on.
    pub fn stdout_from(&self, from: usize) -> Vec<Line> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).get(from..).unwrap_or_default().to_vec()
    }

    /// What it wrote on standard error so far.
    pub fn stderr(&self) -> String {
        let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|l| l.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Whether it said so on standard error.
    pub fn says(&self, words: &str) -> bool {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|l| l.text.contains(words))
    }

    /// How much memory it has, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// The id of its thread of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn thread(&self, name: &str) -> Result<u32> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let task = task?;
            if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
                return task.file_name().to_string_lossy().parse().context("a thread's id");
            }
        }
        bail!("there is no thread {name}")
    }

    /// Its open descriptors by what they are of, without directories in /proc: of processes that had connections it keeps
    /// up to 256, to name their executables, so their number says how busy the host is.
    ///
    /// # Errors
    /// It is gone.
    pub fn descriptors(&self) -> Result<BTreeMap<String, usize>> {
        let mut kinds = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            // One may be closed by now.
            let Ok(to) = std::fs::read_link(entry?.path()) else { continue };
            // socket:[123] is of one kind with socket:[124].
            let kind: String = to.to_string_lossy().chars().filter(|c| !c.is_ascii_digit()).collect();
            if kind != "/proc/" {
                *kinds.entry(kind).or_default() += 1;
            }
        }
        Ok(kinds)
    }

    /// How much CPU all its threads have used.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may have anything in it; utime and stime are fields 14 and 15, in ticks of 10 ms.
        let fields = stat.rsplit_once(')').context("no name")?.1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|n| n.parse().unwrap_or(0)).sum();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, signal).context("signalling flowtel")
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// It is gone already, or does not go.
    pub fn kill(self) -> Result<Ended> {
        let start = Instant::now();
        self.signal(Signal::KILL)?;
        self.ended(start, PATIENCE)
    }

    /// Stops it by SIGINT.
    ///
    /// # Errors
    /// It does not end within the time that it gives its receiver, and twice as long again for a busy machine.
    pub fn stop(self) -> Result<Ended> {
        self.stop_within(3 * PATIENCE)
    }

    /// Stops it by SIGINT.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn stop_within(self, limit: Duration) -> Result<Ended> {
        let start = Instant::now();
        self.signal(Signal::INT)?;
        self.ended(start, limit)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within `limit`.
    pub fn ended(mut self, start: Instant, limit: Duration) -> Result<Ended> {
        let status = wait::until("flowtel's end", limit, || Ok(self.child.try_wait()?));
        let status = status.with_context(|| self.stderr())?;
        let took = start.elapsed();
        self.belongings.forget_process(self.pid());
        for reader in self.readers.drain(..) {
            reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        }
        Ok(Ended { status, took, stdout: self.stdout(), stderr: self.stderr(), begins: self.begins })
    }
}

impl Drop for Flowtel {
    fn drop(&mut self) {
        self.belongings.forget_process(self.child.id());
        // Gone already, or killed now and waited for: either way nothing is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether no kind of descriptor has become more, as [`Flowtel::descriptors`] tells them. Of sockets two may have: the
/// connection to a receiver is made at the first request, and one that asks for the status may just be closing.
pub fn no_more(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> bool {
    after.iter().all(|(kind, n)| {
        let may = if kind.starts_with("socket:") { 2 } else { 0 };
        *n <= before.get(kind).copied().unwrap_or_default() + may
    })
}

// === impl Ended

impl Ended {
    /// The balances. Checks that they add up, and that it ended with 0, or with 1 where records were lost.
    ///
    /// # Errors
    /// It ended otherwise, or they don't.
    pub fn balance(&self) -> Result<Balance> {
        let lost = self.stderr.contains(" records were not delivered");
        ensure!(self.status.code() == Some(lost.into()), "flowtel ended with {}: {}", self.status, self.stderr);
        let balance = Balance::read(&self.stderr).with_context(|| self.stderr.clone())?;
        balance.adds_up(self.begins).with_context(|| self.stderr.clone())?;
        Ok(balance)
    }

    /// As [`Self::balance`], and nothing was lost.
    ///
    /// # Errors
    /// Something was.
    pub fn lossless(&self) -> Result<Balance> {
        let balance = self.balance()?;
        ensure!(self.status.code() == Some(0), "flowtel ended with {}: {}", self.status, self.stderr);
        for (kind, account) in &balance.kernel {
            for loss in ["evicted", "ring full", "rate limited"] {
                ensure!(account.part(loss) == 0, "{kind}: {account}");
            }
        }
        // What was left out as it was asked to be is not lost.
        let parts = ["delivered", "filtered", "sampled out"].map(|part| balance.records.part(part));
        let all = balance.records.total + balance.records.carried;
        ensure!(balance.losses.is_none(), "losses: {:?}", balance.losses);
        ensure!(all == parts.iter().sum(), "records: {}; flowtel says: {}", balance.records, self.stderr);
        Ok(balance)
    }
}
