//! Ways into the network namespaces that there were at the start: one socket each, which answers about its namespace whatever
//! becomes of flowtel's rights. An open one keeps its namespace alive, so those of others are given up with their last socket.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use netlink_packet_sock_diag::inet::StateFlags;

use super::{Asked, Look, Part, Sockets};
use crate::capture::{
    Error, rights,
    snapshot::{BUFFER, Diag, Pending, connections, namespaces},
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

// === impl Lookouts

impl Lookouts {
    /// Starts a thread that opens one for each namespace, as far as its rights go; `proc` shows the host's processes. Where
    /// the programs can't tell a flow's namespace (before Linux 6.1) there is one for flowtel's own alone.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(proc: PathBuf) -> Result<Pending<Self>, Error> {
        Pending::start("flowtel-lookouts", move || open(&proc))
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
        let enter = |file: File| namespaces::enter(&file).map_err(io::Error::from).and_then(|()| Diag::open()).ok();
        diags.extend(namespaces::others(proc).files.into_iter().filter_map(enter));
    }
    Ok(Lookouts::new(diags))
}

impl Sockets for Lookouts {
    fn namespaces(&self) -> Vec<Option<u64>> {
        self.all.iter().map(|lookout| lookout.as_ref().map(|lookout| lookout.netns)).collect()
    }

    fn look(&mut self, namespace: usize, flow: &Asked) -> Look {
        match self.at(namespace).map(|(diag, buffer)| diag.is_there(flow.local, flow.remote, flow.cookie, buffer)) {
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
