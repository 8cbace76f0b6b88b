//! Processes of their own: what one is to do goes in, its id and what it says come out. They run this same program, which
//! is to call [`main`] first.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    process::{ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, getpid, kill_process};

use crate::{
    expect::Owner,
    hoard,
    listening::{self, NOBODY},
    load,
    netns::Namespace,
    scene::{Belongings, Scene},
    traffic, wait,
};

/// What tells a process that it is one, and what to do.
pub const VARIABLE: &str = "FLOWTEL_TESTS_CHILD";
/// None lives longer, whatever happens to who started it.
const LIFE: Duration = Duration::from_secs(120);
/// But for those of a load, which end with their input.
const LONG_LIFE: Duration = Duration::from_secs(3600);

/// A process.
pub struct Child {
    child: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    belongings: Arc<Belongings>,
}

impl Child {
    /// Starts one in the namespace. `words`: `connect ADDRESS` (says its own address, and ends), `stay ADDRESS` (says it,
    /// and reads nothing), `wait ADDRESS` (waits for a line first), `join ADDRESS` (waits, and stays), `accept` (takes connections on its standard input).
    ///
    /// `listen ADDRESS HOW...`, `take HOW...`, `look`: see [`listening`].
    ///
    /// Without any right: `ask ADDRESS` (connects and asks who its peer is, without end), `churn ADDRESS PER_SECOND`
    /// (connects and closes, without end), `fork ADDRESS N PER_SECOND` (forks processes that connect; says how many).
    ///
    /// `serve IP N` and `load PER_SECOND ADDRESS...`: see [`load`]. `keep IP` and `hoard N ROOM ADDRESS...`: see [`hoard`].
    ///
    /// # Errors
    /// It does not start.
    pub fn start(scene: &Scene, namespace: &Namespace, words: &str, stdin: Option<OwnedFd>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, words).stdout(Stdio::piped()).current_dir("/");
        command.stdin(stdin.map_or_else(Stdio::piped, Stdio::from));
        let mut child = namespace.run("starter", || Ok(command.spawn()?)).context("starting a process")?;
        scene.belongings().add_process(child.id());
        let stdout = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { stdin: child.stdin.take(), child, stdout, belongings: scene.belongings() })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The name of its first thread.
    ///
    /// # Errors
    /// This program has no name.
    pub fn thread() -> Result<String> {
        let program = std::env::current_exe()?;
        let name = program.file_name().context("a name")?.to_string_lossy();
        Ok(name.chars().take(15).collect())
    }

    /// As an owner.
    ///
    /// # Errors
    /// This program has no name.
    pub fn owner(&self, role: &'static str) -> Result<Owner> {
        Ok(Owner::here(&Self::thread()?, role).process(self.id()))
    }

    /// Tells it to go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.stdin.as_mut().context("its input")?.write_all(b"go\n")?)
    }

    /// Ends its input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// It ends instead.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            bail!("a process ended without a word");
        }
        Ok(line.trim().to_owned())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.ended().map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        wait::until("a process's end", Duration::from_secs(10), || Ok(self.child.try_wait()?))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.belongings.forget_process(self.child.id());
        // Gone already, or killed now and waited for: either way nothing is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does what this process was started for, where it is such a one.
pub fn main() -> Option<ExitCode> {
    let words = std::env::var(VARIABLE).ok()?;
    let lasts = ["serve ", "load ", "keep ", "hoard "].iter().any(|verb| words.starts_with(verb));
    let life = if lasts { LONG_LIFE } else { LIFE };
    let limit = std::thread::spawn(move || {
        wait::pause(wait::patient(life));
        kill_process(getpid(), Signal::KILL)
    });
    drop(limit);
    Some(match work(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{words}: {e:#}");
            ExitCode::FAILURE
        }
    })
}

fn work(words: &str) -> Result<()> {
    let (verb, address) = words.split_once(' ').unwrap_or((words, ""));
    if verb == "accept" {
        let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        loop {
            traffic::echo(listener.accept()?.0)?;
        }
    }
    match verb {
        "ask" | "churn" | "fork" => return annoy(verb, address),
        "serve" => return load::serve(address),
        "load" => return load::load(address),
        "keep" => return hoard::keep(address),
        "hoard" => return hoard::hoard(address),
        "listen" => return listening::listen(address),
        "take" => return listening::take(address),
        "look" => return listening::look(),
        _ => {}
    }
    let address: SocketAddr = address.parse()?;
    if matches!(verb, "wait" | "join") {
        std::io::stdin().read_line(&mut String::new())?;
    }
    let stream = TcpStream::connect(address)?;
    writeln!(std::io::stdout(), "{}", stream.local_addr()?)?;
    if matches!(verb, "stay" | "join") {
        wait::pause(wait::patient(LIFE));
    }
    Ok(())
}

/// Does what a process without any right may do, as often as it can.
fn annoy(verb: &str, words: &str) -> Result<()> {
    let mut words = words.split(' ');
    let address: SocketAddr = words.next().context("an address")?.parse()?;
    let mut number = || words.next().unwrap_or_default().parse::<u32>();
    rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(NOBODY))?;
    match verb {
        "ask" => {
            let stream = TcpStream::connect(address)?;
            writeln!(std::io::stdout(), "asking")?;
            loop {
                stream.peer_addr()?;
            }
        }
        "churn" => {
            let wait = Duration::from_secs(1) / number()?.max(1);
            writeln!(std::io::stdout(), "churning")?;
            loop {
                wait::pause(wait);
                let socket = traffic::socket(address, None)?;
                // Without a trace, or the ports run out.
                traffic::reset_at_close(&socket)?;
                rustix::net::connect(&socket, &address)?;
            }
        }
        _ => {
            let (n, per_second) = (number()?, number()?);
            let start = std::time::Instant::now();
            // Two at once: each waits for the end of the process that it made.
            let part = |first: u32| {
                (first..n).step_by(2).try_for_each(|i| {
                    let due = Duration::from_secs_f64(f64::from(i) / f64::from(per_second));
                    if let Some(early) = due.checked_sub(start.elapsed()).filter(|d| !d.is_zero()) {
                        wait::pause(early);
                    }
                    crate::sys::fork_and_connect(address)
                })
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| part(1));
                part(0)?;
                other.join().map_err(|_| std::io::Error::other("a thread panicked"))?
            })?;
            writeln!(std::io::stdout(), "{n} in {:.1?}", start.elapsed())?;
        }
    }
    Ok(())
}
