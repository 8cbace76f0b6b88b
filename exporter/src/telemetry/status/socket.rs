//! The socket of `flowtel status`: whoever connects and is root or flowtel's own user gets one [`Status`] as JSON, and the
//! connection is closed. Nothing is read.
//!
//! The socket comes to its path by a rename, with its mode: there is no moment at which others could connect, and one that
//! a killed flowtel left behind is replaced. One that still answers is left alone: it is another flowtel's.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Read as _},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::geteuid;
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::Status;
use crate::telemetry::instance::Instance;

/// Answers at once; more wait in the kernel.
const CONNECTIONS: usize = 8;
/// How long an answer may take to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer has.
const MAX_ANSWER: u64 = 1 << 20;

/// A socket that is at its path, not answered at yet. Dropped, it is taken away.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    place: Place,
}

/// The server. It ends when this is dropped, and the socket is taken away.
#[derive(Debug)]
pub(crate) struct Server {
    task: JoinHandle<()>,
    _place: Place,
}

/// A path with a socket of ours.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Device and inode: should the path be another's by now, it stays.
    identity: (u64, u64),
}

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
    /// Only root and flowtel's own user may.
    #[error("{} (telemetry.status.socket) is for root and flowtel's own user: sudo flowtel status", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
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

// === impl Listening

impl Listening {
    /// Puts a socket at the path. Has to be called on tokio.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let other = |text: &str| io::Error::new(io::ErrorKind::AddrInUse, text.to_owned());
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(other("something that is no socket is there")),
            Ok(_) if BlockingStream::connect(path).is_ok() => return Err(other("another flowtel answers there")),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Shorter than the path itself may be: sockets' paths are.
        let aside = path.with_file_name(format!(".{}", std::process::id()));
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&aside)?;
        let place = fs::set_permissions(&aside, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&aside))
            .and_then(|meta| fs::rename(&aside, path).map(|()| (meta.dev(), meta.ino())));
        match place {
            Ok(identity) => Ok(Self { listener, place: Place { path: path.to_owned(), identity } }),
            Err(e) => {
                // It is of no use there; the error that led here is the one to tell.
                let _ = fs::remove_file(&aside);
                Err(e)
            }
        }
    }

    /// Begins to answer. Has to be called on tokio.
    pub(crate) fn serve(self, instance: Arc<Instance>) -> Server {
        Server { task: tokio::spawn(serve(self.listener, instance)), _place: self.place }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if ours {
            // A socket that stays behind is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn serve(listener: UnixListener, instance: Arc<Instance>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Fails only when it is closed, which nobody does.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let instance = Arc::clone(&instance);
                tokio::spawn(async move {
                    let _permit = permit;
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &instance)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the status socket can't take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, instance: &Instance) -> io::Result<()> {
    // The mode of the socket says the same; this holds whatever somebody does to that.
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Ok(());
    }
    let status = {
        let _fresh = instance.refresh().await;
        Status::of(instance)
    };
    let json = serde_json::to_vec(&status)?;
    stream.write_all(&json).await?;
    stream.shutdown().await
}

/// Asks the flowtel behind a socket.
///
/// # Errors
/// Nobody answers, or nothing that is understood.
pub fn ask(path: &Path) -> Result<Status, AskError> {
    let stream = BlockingStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Forbidden { path: path.to_owned() },
        _ => AskError::Nobody { path: path.to_owned(), source },
    })?;
    let wrong = |why: String| AskError::Answer { path: path.to_owned(), why };
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| wrong(e.to_string()))?;
    let mut json = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut json).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::tests::instance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_status_comes_out_as_it_went_in_and_the_socket_is_taken_away_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sub/status.sock");
        let server = Listening::at(&path).expect("it can be made").serve(Arc::new(instance()));
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        let status = ask(&path).expect("it answers");
        assert_eq!((status.pid, status.records.parts[0].count), (std::process::id(), 5));
        assert_eq!(Listening::at(&path).expect_err("somebody is there").kind(), io::ErrorKind::AddrInUse);
        drop(server);
        assert!(!path.exists() && fs::read_dir(directory.path().join("sub")).expect("it stays").count() == 0);
        assert!(matches!(ask(&path), Err(AskError::Nobody { .. })));
    }

    #[tokio::test]
    async fn what_a_killed_flowtel_left_behind_is_replaced_and_what_is_no_socket_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "nobody took it away");
        drop(Listening::at(&path).expect("replaced"));
        fs::write(&path, "precious").expect("a file");
        assert!(Listening::at(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn an_answer_that_is_none_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            use std::io::Write as _;
            for answer in ["", "{\"version\":", "[1]"] {
                let (mut stream, _) = listener.accept().expect("a client");
                stream.write_all(answer.as_bytes()).expect("it reads");
            }
        });
        for _ in 0..3 {
            assert!(matches!(ask(&path), Err(AskError::Answer { .. })));
        }
        server.join().expect("it ended");
    }
}
