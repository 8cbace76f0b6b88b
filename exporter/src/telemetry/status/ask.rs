//! The asking side of the status socket: a path goes in, a [`Status`] or the reason why there is none comes out, in bounded
//! time. Who answers may be stopped, slow, of another version, or no flowtel at all.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::net::sockopt::socket_peercred;
use serde::de::DeserializeOwned;

use super::{
    Status,
    request::{FlowAnswer, Request},
};
use crate::{
    flow::FlowId,
    telemetry::place::{Found, find},
};

/// How long an answer may take, from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing may come until it is looked whether the other side is stopped.
const LOOK: Duration = Duration::from_millis(500);
/// More than any answer has.
const MAX_ANSWER: usize = 1 << 20;

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no socket, or nobody behind it.
    #[error("no flowtel answers at {} (telemetry.status.socket): {source}; is it running, and with this configuration?", path.display())]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// What connect() said.
        source: io::Error,
    },
    /// Only root, flowtel's own user and a group may.
    #[error("{} (telemetry.status.socket) is for root, flowtel's own user and the group telemetry.group; try again with sudo", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The process is stopped.
    #[error("flowtel is stopped: process {pid} took no notice of the question at {} (telemetry.status.socket); it was sent SIGSTOP, or is held by a debugger: kill -CONT {pid}", path.display())]
    Stopped {
        /// The socket.
        path: PathBuf,
        /// The process that listens there.
        pid: u32,
    },
    /// Nothing came, or not to its end.
    #[error("flowtel does not answer at {} (telemetry.status.socket): {why}", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What happened instead.
        why: String,
    },
    /// What answers is no flowtel, or one of another version.
    #[error("what answers at {} (telemetry.status.socket) is not understood: {why}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Asks the flowtel behind a socket how it is doing.
///
/// # Errors
/// Nobody answers in time, or nothing that is understood.
pub fn ask(path: &Path) -> Result<Status, AskError> {
    exchange(path, Request::Status)
}

/// Asks the flowtel behind a socket for what it knows of an open flow.
///
/// # Errors
/// As for [`ask`].
pub fn ask_flow(path: &Path, id: FlowId) -> Result<FlowAnswer, AskError> {
    exchange(path, Request::Flow(id))
}

fn exchange<T: DeserializeOwned>(path: &Path, request: Request) -> Result<T, AskError> {
    let at = || path.to_owned();
    let wrong = |why: String| AskError::Answer { path: at(), why };
    let stream = connect(path)?;
    let listener = socket_peercred(&stream).ok().map(|peer| peer.pid.as_raw_nonzero().get().unsigned_abs());
    // Who hangs up now refuses: the empty answer says so.
    let _ = (&stream).write_all(request.to_string().as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let json = read(stream, listener).map_err(|silence| match (silence, listener) {
        (Silence::Stopped, Some(pid)) => AskError::Stopped { path: at(), pid },
        (Silence::Stopped | Silence::TooLong, pid) => {
            let who = pid.map_or(String::new(), |pid| format!(" from process {pid}"));
            AskError::Silent { path: at(), why: format!("no whole answer{who} within {} s", PATIENCE.as_secs()) }
        }
        (Silence::Failed(e), _) => wrong(e.to_string()),
    })?;
    if json.is_empty() {
        // It hung up before it said anything: that is how others than those are refused.
        return Err(AskError::Forbidden { path: at() });
    }
    serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))
}

/// Connects to the socket.
pub(super) fn connect(path: &Path) -> Result<UnixStream, AskError> {
    let at = || path.to_owned();
    match find(path) {
        Found::Open(socket) => Ok(UnixStream::from(socket)),
        Found::Full => {
            let why = "so many wait there that no one more can; it is stopped or overloaded".into();
            Err(AskError::Silent { path: at(), why })
        }
        Found::Nobody(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(AskError::Forbidden { path: at() })
        }
        Found::Nobody(source) => Err(AskError::Nobody { path: at(), source }),
    }
}

/// Why there is no answer.
enum Silence {
    Stopped,
    TooLong,
    Failed(io::Error),
}

fn read(mut stream: UnixStream, listener: Option<u32>) -> Result<Vec<u8>, Silence> {
    stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK))).map_err(Silence::Failed)?;
    let until = Instant::now() + PATIENCE;
    let (mut json, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(json),
            Ok(n) if json.len() + n > MAX_ANSWER => {
                return Err(Silence::Failed(io::Error::other(format!("it has more than {MAX_ANSWER} bytes"))));
            }
            Ok(n) => json.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if listener.is_some_and(is_stopped) {
                    return Err(Silence::Stopped);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Silence::Failed(e)),
        }
        if Instant::now() >= until {
            return Err(Silence::TooLong);
        }
    }
}

/// Whether the process is stopped, by a signal or a debugger: the letter behind the name in /proc/PID/stat (proc(5)).
fn is_stopped(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // A name may hold anything, brackets too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, process::Command};

    use super::*;

    fn pause(milliseconds: u64) {
        std::thread::park_timeout(Duration::from_millis(milliseconds));
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let answers = ["{\"version\":".to_owned(), "[1]".into(), "x".repeat(2 * MAX_ANSWER)];
        let server = std::thread::spawn(move || {
            for answer in ["".to_owned()].iter().chain(&answers) {
                let (mut stream, _) = listener.accept().expect("a client");
                // Whoever reads too much of it hangs up.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        assert!(matches!(ask(&path), Err(AskError::Forbidden { .. })), "to hang up is to refuse");
        for _ in 0..3 {
            assert!(matches!(ask(&path), Err(AskError::Answer { .. })));
        }
        server.join().expect("it ended");
    }

    #[test]
    fn who_never_ends_and_whose_queue_is_full_is_given_up_in_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let drip = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            while stream.write_all(b" ").is_ok() {
                pause(100);
            }
            listener
        });
        let before = Instant::now();
        assert!(matches!(ask(&path), Err(AskError::Silent { .. })));
        let _deaf = drip.join().expect("it ended");
        let mut waiting = Vec::new();
        while let Found::Open(one) = find(&path) {
            waiting.push(one);
        }
        assert!(matches!(ask(&path), Err(AskError::Silent { .. })));
        assert!(before.elapsed() < PATIENCE * 4);
    }

    #[test]
    fn a_stopped_process_is_known() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("it is everywhere");
        let pid = child.id();
        let signal = |signal| {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, signal).expect("it is ours");
        };
        assert!(!is_stopped(pid));
        signal(rustix::process::Signal::STOP);
        let until = Instant::now() + PATIENCE;
        while !is_stopped(pid) && Instant::now() < until {
            pause(10);
        }
        assert!(is_stopped(pid));
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        assert!(!is_stopped(pid));
    }
}
