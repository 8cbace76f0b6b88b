//! The looking side of the status socket: a path goes in; frames come out as they arrive, until the flowtel behind it ends it.
//! Who answers may be stopped, slow, of another version, or no flowtel at all.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::BytesMut;

use super::{
    ask::{self, AskError, connect},
    frame::Frame,
    request::Request,
};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A connection to a running flowtel.
#[derive(Debug)]
pub struct Attached {
    stream: UnixStream,
    path: PathBuf,
    came: BytesMut,
    /// Something was understood already.
    greeted: bool,
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// A frame.
    Frame(Frame),
    /// Nothing, as long as it was waited for.
    Nothing,
    /// The end: the flowtel is gone.
    Gone,
}

/// Attaches to the flowtel behind a socket, to see what `request` asks for.
///
/// # Errors
/// Nobody is there, or this user may not.
pub fn attach(path: &Path, request: Request) -> Result<Attached, AskError> {
    let stream = connect(path)?;
    let failed = |e: io::Error| AskError::Answer { path: path.to_owned(), why: e.to_string() };
    stream.set_nonblocking(false).map_err(failed)?;
    // Who hangs up now refuses: the empty answer says so.
    let _ = (&stream).write_all(request.to_string().as_bytes());
    Ok(Attached { stream, path: path.to_owned(), came: BytesMut::new(), greeted: false })
}

// === impl Attached

impl Attached {
    /// The next frame, waited for as long as this.
    ///
    /// # Errors
    /// What came is no frame; or it hung up before it said anything.
    pub fn next(&mut self, wait: Duration) -> Result<Came, AskError> {
        let wrong = |path: &Path, e: io::Error| AskError::Answer { path: path.to_owned(), why: e.to_string() };
        let wait = wait.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait)).map_err(|e| wrong(&self.path, e))?;
        let mut piece = [0; PIECE];
        loop {
            if let Some(frame) = Frame::take(&mut self.came).map_err(|e| wrong(&self.path, e))? {
                self.greeted = true;
                return Ok(Came::Frame(frame));
            }
            match self.stream.read(&mut piece) {
                Ok(0) if self.greeted => return Ok(Came::Gone),
                Ok(0) => return Err(self.refused()),
                Ok(n) => self.came.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Came::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Came::Nothing),
                // It ended with something unread: that is its end all the same.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset && self.greeted => return Ok(Came::Gone),
                Err(e) => return Err(wrong(&self.path, e)),
            }
        }
    }

    /// Why it hung up at once. One that answers to other questions is of another version.
    fn refused(&self) -> AskError {
        match ask::ask(&self.path) {
            Err(error) => error,
            Ok(status) => AskError::Answer {
                path: self.path.clone(),
                why: format!(
                    "flowtel {} runs there, which shows no records; restart it after an upgrade",
                    status.version
                ),
            },
        }
    }
}
