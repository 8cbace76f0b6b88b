//! A socket at a path of this host: a path goes in, a listener comes out, and the path is free again when it is dropped.
//!
//! It comes to its path by a rename, with its mode and group: there is no moment at which others could connect, and one
//! that a killed flowtel left behind is replaced. One that is listened at is left alone: it is another flowtel's. Must never
//! wait for whoever that is.

use std::{
    fmt,
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use super::access::Access;
use rustix::{
    fs::{Gid, chown},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

/// A path with a socket of ours. Dropped, it is taken away.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode: should the path be another's by now, it stays.
    identity: (u64, u64),
}

/// What a connect() that does not wait has found.
#[derive(Debug)]
pub(super) enum Found {
    /// A listener that has room for one more.
    Open(OwnedFd),
    /// A listener whose queue is full.
    Full,
    /// None.
    Nobody(io::Error),
}

/// Connects to the socket at `path`, and waits for nobody.
pub(super) fn find(path: &Path) -> Found {
    let connected = || -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    match connected() {
        Ok(socket) => Found::Open(socket),
        Err(Errno::AGAIN) => Found::Full,
        Err(e) => Found::Nobody(e.into()),
    }
}

impl Place {
    /// Puts a socket at the path, for those that `access` names. It doesn't block, as tokio wants it.
    pub fn take(path: &Path, access: Access) -> io::Result<(UnixListener, Self)> {
        let other = |text: &str| io::Error::new(io::ErrorKind::AddrInUse, text.to_owned());
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(other("something that is no socket is there")),
            Ok(_) if !matches!(find(path), Found::Nobody(_)) => return Err(other("another flowtel listens there")),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Shorter than the path itself may be: sockets' paths are. Two sockets may share a directory.
        let aside = path.with_file_name(format!(".{}", std::process::id()));
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&aside)?;
        listener.set_nonblocking(true)?;
        let placed = fs::set_permissions(&aside, Permissions::from_mode(0o600))
            .map(|()| open_to(&aside, access))
            .and_then(|()| fs::symlink_metadata(&aside))
            .and_then(|meta| fs::rename(&aside, path).map(|()| (meta.dev(), meta.ino())));
        match placed {
            Ok(identity) => Ok((listener, Self { path: path.to_owned(), identity })),
            Err(e) => {
                // It is of no use there; the error that led here is the one to tell.
                let _ = fs::remove_file(&aside);
                Err(e)
            }
        }
    }
}

/// Lets the group connect, where there is one. Who may ask is decided at each connection; this keeps all others from even
/// standing in the queue.
fn open_to(path: &Path, access: Access) {
    let Some(group) = access.group else { return };
    // In this order: no other group is let in between.
    let opened = chown(path, None, Some(Gid::from_raw(group)))
        .map_err(io::Error::from)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o660)));
    if let Err(error) = opened {
        tracing::warn!(
            path = %path.display(),
            group,
            %error,
            "the socket can't be given to the group telemetry.group: only root and flowtel's own user may ask"
        );
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Access = Access { group: None };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn what_a_killed_flowtel_left_behind_is_replaced_and_what_is_no_socket_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "nobody took it away");
        drop(Place::take(&path, OWN).expect("replaced"));
        fs::write(&path, "precious").expect("a file");
        assert!(Place::take(&path, OWN).is_err());
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn a_listener_whose_queue_is_full_holds_nobody_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let _deaf = UnixListener::bind(&path).expect("a socket");
        let mut waiting = Vec::new();
        loop {
            match find(&path) {
                Found::Open(one) => waiting.push(one),
                Found::Full => break,
                Found::Nobody(e) => panic!("somebody listens: {e}"),
            }
        }
        let taken = tokio::task::spawn_blocking(move || Place::take(&path, OWN).map(drop));
        let taken = tokio::time::timeout(std::time::Duration::from_secs(5), taken).await;
        let error = taken.expect("it did not wait").expect("no panic").expect_err("it is another's");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn the_group_may_connect_and_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let (_listener, place) = Place::take(&path, OWN).expect("it can be made");
        assert_eq!(mode(&path), 0o600);
        drop(place);
        assert!(!path.exists());
        let own = rustix::process::getegid().as_raw();
        let (_listener, _place) = Place::take(&path, Access { group: Some(own) }).expect("it can be made");
        assert_eq!((mode(&path), fs::metadata(&path).expect("there").gid()), (0o660, own));
    }
}
