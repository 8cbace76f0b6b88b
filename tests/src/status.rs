//! What a running flowtel says of itself: its status socket, its admin address and its service manager's socket are asked;
//! JSON, texts and messages come out.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::wait::{self, patient};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The status that a flowtel gives at its socket.
///
/// # Errors
/// Nobody answers, or not with JSON.
pub fn ask(socket: &Path) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).context("the status socket")?;
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut json = String::new();
    stream.read_to_string(&mut json)?;
    serde_json::from_str(&json).with_context(|| json.clone())
}

/// A number of a status by its path, such as `/records/total`.
///
/// # Errors
/// There is none.
pub fn number(status: &Value, path: &str) -> Result<u64> {
    status.pointer(path).and_then(Value::as_u64).with_context(|| format!("there is no {path} in {status}"))
}

/// The status code and the whole answer to a GET.
///
/// # Errors
/// Nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).context("the admin address")?;
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.with_context(|| answer.clone())?, answer))
}

/// What a service manager hears.
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    /// One that listens in this directory.
    ///
    /// # Errors
    /// No socket can be made there.
    pub fn start(directory: &Path) -> Result<Self> {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        // As systemd's: whoever it started may tell it something.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, heard: Vec::new() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until a message has this line, and returns all of that message. What came before is passed over.
    ///
    /// # Errors
    /// None comes.
    pub fn hears(&mut self, line: &str) -> Result<String> {
        wait::until(line, PATIENCE, || {
            self.listen();
            let at = self.heard.iter().position(|message| message.lines().any(|l| l == line));
            Ok(at.map(|at| self.heard.drain(..=at).next_back().unwrap_or_default()))
        })
        .with_context(|| format!("heard instead: {:?}", self.heard))
    }

    /// Waits until for `time` no message has had this line.
    ///
    /// # Errors
    /// They don't end.
    pub fn hears_no_more(&mut self, line: &str, time: Duration) -> Result<()> {
        wait::until(&format!("the end of {line}"), PATIENCE * 3, || {
            self.listen();
            self.heard.clear();
            wait::pause(time);
            self.listen();
            Ok((!self.heard.iter().any(|message| message.lines().any(|l| l == line))).then_some(()))
        })
    }

    /// All that came and was not passed over.
    pub fn rest(&mut self) -> &[String] {
        self.listen();
        &self.heard
    }

    fn listen(&mut self) {
        let mut message = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut message) {
            self.heard.push(String::from_utf8_lossy(&message[..n]).into_owned());
        }
    }
}
