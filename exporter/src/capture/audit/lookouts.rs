//! Ways into the network namespaces that there were at the start: one socket each, which answers about its namespace whatever
//! becomes of flowtel's rights. An open one keeps its namespace alive, so those of others are given up with their last socket.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
};

use netlink_packet_sock_diag::inet::StateFlags;

use super::{Asked, Look, Part, Sockets};
use crate::capture::{
    Error, rights,
    snapshot::{BUFFER, Diag, namespaces},
};

/// One for each namespace, flowtel's own first.
#[derive(Debug)]
pub struct Lookouts {
    all: Vec<Option<Lookout>>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Lookout {
    diag: Diag,
    /// The namespace's cookie.
    netns: u64,
}

/// Lookouts in the making.
#[derive(Debug)]
pub struct Pending(Receiver<io::Result<Lookouts>>);

// === impl Pending

impl Pending {
    /// They, once they are there; `None` in it: there are none.
    pub fn poll(&self) -> Option<Option<Lookouts>> {
        match self.0.try_recv() {
            Ok(Ok(lookouts)) => Some(Some(lookouts)),
            Ok(Err(e)) => {
                tracing::warn!(
                    "open flows are not audited (capture.audit): the kernel's list of sockets can't be read: {e}"
                );
                Some(None)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }
}

// === impl Lookouts

impl Lookouts {
    /// Starts a thread that opens one for each namespace, as far as its rights go; `proc` shows the host's processes. Where
    /// the programs can't tell a flow's namespace (before Linux 6.1) there is one for flowtel's own alone.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(proc: PathBuf) -> Result<Pending, Error> {
        let (done, pending) = sync_channel(1);
        thread::Builder::new()
            .name("flowtel-lookouts".into())
            .spawn(move || {
                // Nobody waits any more: flowtel stops.
                let _ = done.send(open(&proc));
            })
            .map_err(|source| Error::System { what: "starting the audit's thread", source })?;
        Ok(Pending(pending))
    }

    /// Of these namespaces.
    pub fn new(diags: Vec<Diag>) -> Self {
        let lookout = |diag: Diag| Some(Lookout { netns: diag.namespace(), diag });
        Self { all: diags.into_iter().map(lookout).collect(), buffer: vec![0; BUFFER] }
    }

    fn at(&mut self, namespace: usize) -> Option<(&mut Diag, &mut [u8])> {
        let Self { all, buffer } = self;
        all.get_mut(namespace)?.as_mut().map(|lookout| (&mut lookout.diag, buffer.as_mut_slice()))
    }
}

/// Enters one namespace after the other: only for a thread that ends soon.
fn open(proc: &Path) -> io::Result<Lookouts> {
    let mut own = Diag::open()?;
    // A kernel without the list says so now.
    own.list(StateFlags::LISTEN, |_| {})?;
    let mut diags = vec![own];
    if rights::kernel_is_at_least((6, 1)) {
        let entered = |file: &_| namespaces::enter(file).map_err(io::Error::from).and_then(|()| Diag::open()).ok();
        diags.extend(namespaces::others(proc).files.iter().filter_map(entered));
    }
    Ok(Lookouts::new(diags))
}

/// The states of a connection between its handshake and its end.
fn connections() -> StateFlags {
    StateFlags::all() - StateFlags::LISTEN - StateFlags::TIME_WAIT - StateFlags::CLOSE
}

impl Sockets for Lookouts {
    fn namespaces(&self) -> Vec<Option<u64>> {
        self.all.iter().map(|lookout| lookout.as_ref().map(|lookout| lookout.netns)).collect()
    }

    fn look(&mut self, namespace: usize, flow: &Asked) -> Look {
        match self.at(namespace).map(|(diag, _)| diag.is_there(flow.local, flow.remote, flow.cookie)) {
            Some(Ok(true)) => Look::There,
            Some(Ok(false)) => Look::Missing,
            Some(Err(_)) | None => Look::Unsure,
        }
    }

    fn begin(&mut self, namespace: usize, six: bool) -> bool {
        self.at(namespace).is_some_and(|(diag, buffer)| diag.begin(six, connections(), buffer).is_ok())
    }

    fn next(&mut self, namespace: usize, out: &mut dyn FnMut(u64)) -> Part {
        match self.at(namespace).map(|(diag, buffer)| diag.next(buffer, out)) {
            Some(Ok(true)) => Part::More,
            Some(Ok(false)) => Part::Last,
            Some(Err(_)) | None => Part::Broken,
        }
    }

    fn is_empty(&mut self, namespace: usize) -> bool {
        let Some((diag, buffer)) = self.at(namespace) else { return false };
        [false, true].iter().all(|six| {
            let mut any = false;
            let states = connections() | StateFlags::LISTEN;
            let first = diag.begin(*six, states, buffer).and_then(|()| diag.next(buffer, &mut |_| any = true));
            // What can't be read is not known to be empty.
            matches!(first, Ok(false)) && !any
        })
    }

    fn leave(&mut self, namespace: usize) {
        if let Some(lookout) = self.all.get_mut(namespace) {
            *lookout = None;
        }
    }
}
