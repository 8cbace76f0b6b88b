//! What was there before flowtel: the kernel's lists of TCP sockets in, connections and listeners out, and later whether
//! such a connection still is.
//!
//! - `cookies`: the list of those that the kernel side tells of;
//! - `diag`: the list of one network namespace;
//! - `namespaces`: which namespaces there are;
//! - `older`: connections that are watched to their end.
//!
//! The programs are attached before the lists are read, so nothing is missed in between: what begins meanwhile is told by
//! them, and has the same cookie here. Cookies are made known to the kernel side between a first and a second reading: of
//! what the second one shows every later FIN is told.
//!
//! Must never hold up the capture thread: the lists are read by a thread of their own, which enters other namespaces and
//! ends then.

mod cookies;
mod diag;
pub(super) mod namespaces;
mod older;

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

pub use cookies::Cookies;
pub use diag::Key;
use flowtel_common::event::{COMM_LEN, Counters, state};
use netlink_packet_sock_diag::inet::StateFlags;
pub use older::{Gone, Older};

use self::diag::Socket;
pub use self::diag::{BUFFER, Diag};
use super::{Error, KernelTime, NetnsId};

/// How long the lists of other namespaces may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was there, and the ways to look at it again.
#[derive(Debug)]
pub struct Snapshot {
    /// What was there.
    pub listing: Listing,
    /// How far it saw.
    pub reach: Reach,
    namespaces: Vec<Diag>,
    cookies: Cookies,
}

/// What was there.
#[derive(Debug)]
pub struct Listing {
    /// When the lists were read for the second time.
    pub time: KernelTime,
    /// Connections.
    pub connections: Vec<Found>,
    /// Ends that this host has left, each its own address and the peer's: their peers have not, or not yet.
    pub left: Vec<(SocketAddr, SocketAddr)>,
    /// Listening sockets.
    pub listeners: Vec<FoundListener>,
    /// Network namespaces that were read: cookie and inode number of each; 0 where it is not known.
    pub namespaces: Vec<(u64, u32)>,
}

/// A connection that was there.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its socket (SO_COOKIE).
    pub cookie: u64,
    /// Its [`state`] then.
    pub state: u32,
    /// The socket's own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether this side asked for it, where its counters prove it.
    pub active: Option<bool>,
    /// Which network namespace: equal for sockets of the same.
    pub namespace: usize,
    /// The same, as events have it.
    pub netns: NetnsId,
    /// The interface that the socket is bound to; 0: none.
    pub interface: u32,
    /// Inode of the socket's file; 0 where no process holds it.
    pub inode: u32,
    /// The cgroup that the socket was made in; 0 where it is not told.
    pub cgroup: u64,
    /// What it had counted.
    pub counters: Counters,
    /// Who holds it, once that was looked up.
    pub holder: Option<Holder>,
    /// How to look at it again.
    pub key: Key,
}

/// A listening socket that was there.
#[derive(Debug, Clone, Copy)]
pub struct FoundListener {
    /// Which network namespace: as for [`Found`].
    pub namespace: usize,
    /// The socket (SO_COOKIE).
    pub cookie: u64,
    /// Where it listens.
    pub port: u16,
    /// Inode of the socket's file.
    pub inode: u32,
    /// The cgroup that the socket was made in.
    pub cgroup: u64,
    /// Who holds it, once that was looked up.
    pub holder: Option<Holder>,
}

/// A process that holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its name: its first thread's.
    pub comm: [u8; COMM_LEN],
    /// Nobody else holds it, for certain.
    pub alone: bool,
}

/// How far a snapshot saw. `Display` says it to a person.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Connections, and listeners.
    pub found: (usize, usize),
    /// Other network namespaces that were read.
    pub others: usize,
    /// Other namespaces that could not be read.
    pub unread: usize,
    /// Why.
    pub reason: String,
    /// Connections that were more than is followed.
    pub left_out: usize,
}

/// What is made of the lists of sockets, in the making.
#[derive(Debug)]
pub struct Pending<T> {
    made: Receiver<Result<T, Error>>,
    thread: Option<thread::JoinHandle<()>>,
}

const READING: &str = "reading the list of TCP sockets (sock_diag)";

// === impl Snapshot

impl Snapshot {
    /// Starts a thread that takes a snapshot of at most `most` connections, and gives it to `then`, on that thread still.
    /// `proc` shows the host's processes.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start<T: Send + 'static>(
        cookies: Cookies,
        proc: PathBuf,
        most: usize,
        then: impl FnOnce(Self) -> T + Send + 'static,
    ) -> Result<Pending<T>, Error> {
        Pending::start("flowtel-snapshot", move || take(cookies, &proc, most).map(then))
    }

    /// Leaves only sockets that were made in one of these cgroups: of others the programs tell nothing.
    pub fn keep_in(&mut self, cgroups: &HashSet<u64>) {
        let Listing { connections, listeners, .. } = &mut self.listing;
        connections.retain(|found| cgroups.contains(&found.cgroup));
        listeners.retain(|listener| cgroups.contains(&listener.cgroup));
        self.reach.found = (connections.len(), listeners.len());
    }

    /// Has each socket's holder looked up: `find` is given the inodes of all that have one.
    pub fn look_up_holders(&mut self, find: impl FnOnce(&HashSet<u32>) -> HashMap<u32, Holder>) {
        let Listing { connections, listeners, .. } = &mut self.listing;
        let inodes = connections.iter().map(|c| c.inode).chain(listeners.iter().map(|l| l.inode));
        let holders = find(&inodes.filter(|inode| *inode != 0).collect());
        for found in connections {
            found.holder = holders.get(&found.inode).copied();
        }
        for listener in listeners {
            listener.holder = holders.get(&listener.inode).copied();
        }
    }

    /// What was there, and what will watch those of the connections that are given to it.
    pub fn watch(self) -> (Listing, Older) {
        let Self { listing, namespaces, cookies, .. } = self;
        let older = Older::new(namespaces, cookies, listing.time);
        (listing, older)
    }
}

// === impl Pending

impl<T> Pending<T> {
    /// Starts a thread of this name that makes it: it may enter other namespaces, and ends then.
    ///
    /// # Errors
    /// No thread can be made.
    pub(super) fn start(name: &str, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<Self, Error>
    where
        T: Send + 'static,
    {
        let (done, pending) = sync_channel(1);
        let system = |what| move |source| Error::System { what, source };
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // Nobody waits any more: it took too long, or flowtel stops.
                let _ = done.send(make().map_err(system(READING)));
            })
            .map_err(system("starting a thread that reads the list of TCP sockets"))?;
        Ok(Self { made: pending, thread: Some(thread) })
    }

    /// Whether its thread has ended, and its rights with it.
    pub fn is_over(&mut self) -> bool {
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            // It has said all that it had to say; this waits until the kernel has taken it away.
            let _ = thread.join();
        }
        self.thread.is_none()
    }

    /// What was taken, once it is.
    ///
    /// # Errors
    /// The kernel has no list of sockets.
    pub fn poll(&self) -> Option<Result<T, Error>> {
        match self.made.try_recv() {
            Ok(taken) => Some(taken),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let source = io::Error::other("its thread ended without a word");
                Some(Err(Error::System { what: READING, source }))
            }
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// As for [`Self::poll`].
    pub fn wait(self) -> Result<T, Error> {
        let lost = |_| Error::System { what: READING, source: io::Error::other("its thread ended without a word") };
        self.made.recv().map_err(lost)?
    }
}

fn take(mut cookies: Cookies, proc: &std::path::Path, most: usize) -> io::Result<Snapshot> {
    let start = Instant::now();
    let mut reach = Reach::default();
    let mut namespaces = vec![Diag::open()?];
    let own = std::fs::metadata("/proc/thread-self/ns/net");
    let mut inodes = vec![own.map_or(0, |found| inode(&found))];
    let others = namespaces::others(proc);
    if others.too_many {
        reach.reason = "there are too many".into();
        reach.unread += 1;
    }
    // Each file is closed when its namespace was entered: there is one descriptor for each at a time.
    for file in others.files {
        match namespaces::enter(&file).map_err(io::Error::from).and_then(|()| Diag::open()) {
            Ok(diag) => {
                namespaces.push(diag);
                inodes.push(file.metadata().map_or(0, |found| inode(&found)));
            }
            Err(e) => {
                reach.unread += 1;
                reach.reason = match e.raw_os_error() {
                    Some(libc::EPERM) => "CAP_SYS_ADMIN is missing".into(),
                    _ => e.to_string(),
                };
            }
        }
    }
    // What is known of each by the file that it was entered by is certain.
    let ids: Vec<_> = namespaces.iter().map(Diag::namespace).zip(inodes).collect();
    let id_of = |namespace: usize| {
        let (cookie, inode) = ids.get(namespace).copied().unwrap_or_default();
        NetnsId::new(cookie).or(NetnsId::of_inode(inode))
    };
    // First reading. From here on the kernel side tells each FIN of these.
    let mut known = Vec::new();
    for (namespace, diag) in namespaces.iter_mut().enumerate() {
        if namespace > 0 && start.elapsed() > PATIENCE {
            break;
        }
        diag.list(connections(), |socket| {
            if !socket.over {
                known.push((namespace, socket.cookie, socket.key));
            }
        })?;
        known.truncate(most);
    }
    for (_, cookie, _) in &known {
        cookies.insert(*cookie);
    }
    // Second reading: what holds from here on.
    let time = KernelTime::now();
    let mut found = Vec::with_capacity(known.len());
    let mut seen = HashSet::with_capacity(known.len());
    let (mut left, mut listeners) = (Vec::new(), Vec::new());
    for (namespace, diag) in namespaces.iter_mut().enumerate() {
        if namespace > 0 && start.elapsed() > PATIENCE {
            reach.unread += 1;
            reach.reason = "it took too long".into();
            continue;
        }
        reach.others += usize::from(namespace > 0);
        diag.list(connections() | StateFlags::LISTEN, |socket| {
            if socket.state == state::LISTEN {
                let Socket { cookie, local, inode, cgroup, .. } = socket;
                let port = local.port();
                listeners.push(FoundListener { namespace, cookie, port, inode, cgroup, holder: None });
            } else if seen.insert(socket.cookie) {
                if socket.over {
                    left.push((socket.local, socket.remote));
                } else {
                    found.push(Found::new(namespace, id_of(namespace), socket));
                }
            }
        })?;
    }
    // A list that changes while it is read may leave one out.
    for (namespace, cookie, key) in known {
        if !seen.contains(&cookie)
            && let Some(diag) = namespaces.get_mut(namespace)
            && let Ok(Some(socket)) = diag.look(&key)
            && seen.insert(cookie)
        {
            found.push(Found::new(namespace, id_of(namespace), socket));
        }
    }
    if found.len() > most {
        reach.left_out = found.len() - most;
        found.truncate(most);
    }
    for found in &found {
        cookies.insert(found.cookie);
    }
    reach.found = (found.len(), listeners.len());
    let listing = Listing { time, connections: found, left, listeners, namespaces: ids };
    Ok(Snapshot { listing, reach, namespaces, cookies })
}

/// The cookie of flowtel's own network namespace; 0 where the kernel does not tell.
pub fn own_namespace() -> u64 {
    Diag::open().map_or(0, |diag| diag.namespace())
}

fn inode(file: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    u32::try_from(file.ino()).unwrap_or_default()
}

/// The states of a connection between its handshake and its end.
pub(super) fn connections() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

// === impl Found

impl Found {
    fn new(namespace: usize, netns: NetnsId, socket: Socket) -> Self {
        let Socket { cookie, state, local, remote, inode, cgroup, counters, active, key, .. } = socket;
        let (interface, holder) = (key.interface(), None);
        Self { cookie, state, local, remote, active, namespace, netns, interface, inode, cgroup, counters, holder, key }
    }

    /// An established one that nobody holds, for tests of what is made of it.
    #[cfg(test)]
    pub fn sample(cookie: u64, local: SocketAddr, remote: SocketAddr) -> Self {
        let (counters, key) = (Counters::default(), Key::sample());
        let state = state::ESTABLISHED;
        let (active, holder, netns) = (None, None, NetnsId::UNKNOWN);
        Self {
            cookie,
            state,
            local,
            remote,
            active,
            namespace: 0,
            netns,
            interface: 0,
            inode: 0,
            cgroup: 0,
            counters,
            holder,
            key,
        }
    }
}

// === impl Reach

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, listeners) = self.found;
        let s = |count: usize| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{connections} open connection{} and {listeners} listener{}, in flowtel's network namespace",
            s(connections),
            s(listeners)
        )?;
        if self.others > 0 {
            write!(f, " and {} other{}", self.others, s(self.others))?;
        }
        if self.unread > 0 {
            write!(f, "; not in {} other{}: {}", self.unread, s(self.unread), self.reason)?;
        }
        if self.left_out > 0 {
            write!(f, "; {} more than flow.max_flows were left out", self.left_out)?;
        }
        Ok(())
    }
}
