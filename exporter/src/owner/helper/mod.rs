//! Questions that need a right out, answers in: a small process beside flowtel keeps the two rights that flowtel itself gives up.
//! It reads the executables of other users' processes (CAP_SYS_PTRACE) and opens cgroups by their number
//! (CAP_DAC_READ_SEARCH). It decides nothing, has no network and no configuration, and ends with flowtel.
//!
//! - [`Helper`]: flowtel's end: asks, and waits for the answers;
//! - `serve`: the process;
//! - `wire`: what goes over the socket between them, requests of one size.
//!
//! It is forked before anything is loaded, so it is small and holds nothing of flowtel's. (A thread could not do it: where
//! Landlock holds for a process, none of its threads may look at a process outside, whatever its capabilities.)
//!
//! Without it flowtel goes on as without the two rights. Must never wait long for an answer: one that is late is none.

mod serve;
mod wire;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt},
    process::{Pid, WaitOptions, waitpid},
};
use wire::MOST;
pub(super) use wire::{Answer, Found, Process, Request};

use crate::{
    capture::cgroup,
    config,
    rights::{Plan, State, capabilities},
};

/// How long an answer may take. The helper does what the kernel answers at once; a busy machine may not run it for a while.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long nobody asks after an answer that was late: twice as long after each further one, up to [`LONGEST_REST`]. The capture
/// thread asks, so a helper that was stopped must not hold it up at each connection.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// A running helper. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Helper {
    pid: u32,
    /// The proc file system that it reads.
    proc: PathBuf,
    link: Arc<Mutex<Link>>,
}

#[derive(Debug)]
struct Link {
    /// `None` once it is gone.
    socket: Option<OwnedFd>,
    sequence: u32,
    /// Answers that were asked for ahead.
    ready: HashMap<Request, Answer>,
    buffer: Vec<u8>,
    /// The rest after the next late answer.
    rest: Duration,
    /// Until when nobody asks.
    rests_until: Option<Instant>,
}

// === impl Helper

impl Helper {
    /// Forks it. Only where there is one thread. `None` where nobody wants it, or the start has none of its rights.
    ///
    /// # Errors
    /// The kernel refuses a socket or a process.
    pub fn start(config: &config::Owner, plan: &Plan) -> io::Result<Option<Self>> {
        let kept = capabilities::kept_by_helper();
        let missing = capabilities::missing(&kept);
        if !plan.wants_helper() || missing.len() == kept.len() || !config.executable && !config.container {
            return Ok(None);
        }
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&near, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&near, sockopt::Timeout::Send, Some(PATIENCE))?;
        let ground = serve::Ground::open(&config.proc, cgroup::mount().ok().as_deref(), far)?;
        let parent = rustix::process::getpid();
        // SAFETY: this process has one thread, so no lock is held by another one, and the child may do whatever the parent may.
        // It never returns from here.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(near);
                serve::run(ground, plan, parent)
            }
            child => Ok(Some(Self {
                pid: child.unsigned_abs(),
                proc: config.proc.clone(),
                link: Arc::new(Mutex::new(Link::new(near))),
            })),
        }
    }

    /// Its process id, as flowtel sees it; `None` once it is gone.
    pub fn pid(&self) -> Option<u32> {
        self.link().socket.is_some().then_some(self.pid)
    }

    /// Its rights, once it is at work. `None`: it is gone.
    pub fn state(&self) -> Option<State> {
        // It answers only once it has given up all that it gives up.
        self.ask(Request::Process(self.pid)).and_then(|_| State::of(self.pid))
    }

    /// Whether it reads this proc file system.
    pub(super) fn reads(&self, proc: &Path) -> bool {
        self.proc == proc
    }

    /// Asks for several things at once: what they are asked for later, until the next call of this, is known then.
    pub(super) fn ahead(&self, requests: impl Iterator<Item = Request>) {
        let mut link = self.link();
        link.ready.clear();
        let mut batch = Vec::with_capacity(MOST);
        for request in requests {
            if !batch.contains(&request) {
                batch.push(request);
            }
            if batch.len() == MOST {
                link.ask(&std::mem::take(&mut batch));
            }
        }
        link.ask(&batch);
    }

    /// One answer. `None` where there is no helper any more, or it is late.
    pub(super) fn ask(&self, request: Request) -> Option<Answer> {
        let mut link = self.link();
        if !link.ready.contains_key(&request) {
            link.ask(&[request]);
        }
        link.ready.remove(&request)
    }

    /// The inode number of the network namespace that a process is in.
    pub fn netns(&self, pid: u32) -> Option<u64> {
        match self.ask(Request::Netns(pid)) {
            Some(Ok(Found::Netns(inode))) => Some(inode),
            _ => None,
        }
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Link

impl Link {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            sequence: 0,
            ready: HashMap::new(),
            buffer: vec![0; wire::LONGEST],
            rest: REST,
            rests_until: None,
        }
    }

    /// Has the answers to these put into `ready`.
    fn ask(&mut self, requests: &[Request]) {
        if requests.is_empty() || self.rests_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        match self.exchange(requests) {
            Ok(()) => (self.rest, self.rests_until) = (REST, None),
            // It is late. What it says yet has another number.
            Err(Errno::AGAIN) => {
                self.rests_until = Some(Instant::now() + self.rest);
                self.rest = (self.rest * 2).min(LONGEST_REST);
            }
            Err(Errno::INTR) => {}
            Err(error) => {
                if self.socket.take().is_some() {
                    tracing::error!(
                        %error,
                        "the helper process is gone: executables of other users' processes and new cgroups are no longer named"
                    );
                    // So that it does not stay as a zombie; it may have been somebody else's to wait for.
                    let _ = waitpid(None::<Pid>, WaitOptions::NOHANG);
                }
            }
        }
    }

    fn exchange(&mut self, requests: &[Request]) -> rustix::io::Result<()> {
        let Some(socket) = &self.socket else { return Err(Errno::PIPE) };
        self.sequence = self.sequence.wrapping_add(1);
        send(socket, &wire::encode(self.sequence, requests), SendFlags::NOSIGNAL)?;
        let mut open = requests.len();
        // Each answer may be just in time, and all together late.
        let until = Instant::now() + PATIENCE;
        while open > 0 {
            if Instant::now() >= until {
                return Err(Errno::AGAIN);
            }
            let (length, _) = recv(socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
            if length == 0 {
                return Err(Errno::PIPE);
            }
            let Some((sequence, index, answer)) = self.buffer.get(..length).and_then(wire::decode_answer) else {
                return Err(Errno::PROTO);
            };
            if sequence == self.sequence
                && let Some(request) = requests.get(index)
            {
                self.ready.insert(*request, answer);
                open -= 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_is_late_is_left_alone_for_a_while() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
        sockopt::set_socket_timeout(&near, sockopt::Timeout::Recv, Some(Duration::from_millis(1))).expect("set");
        let mut link = Link::new(near);
        let requests = [Request::Process(1)];
        let asked = || recv(&far, &mut [0; wire::LONGEST][..], RecvFlags::DONTWAIT).is_ok();
        link.ask(&requests);
        assert!(asked() && link.ready.is_empty());
        link.ask(&requests);
        assert!(!asked(), "it is asked again at once");
        link.rests_until = Instant::now().checked_sub(REST);
        link.ask(&requests);
        assert!(asked() && link.rest == 4 * REST && link.socket.is_some());
    }
}
