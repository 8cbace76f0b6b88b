//! What kernel events say of network namespaces in; for the one that a flow is in, its inode number as lsns(8) shows it and
//! whether it is the host's, out.
//!
//! - [`Namespaces`]: cookie → inode number, from what the kernel side reports of each namespace that it meets, from the list
//!   of sockets at the start, and from flowtel's own namespace;
//! - `interface`: the name of an interface, which means something within its namespace only.
//!
//! A process is no proof: its threads may be in several namespaces, and it may hold sockets of others. So /proc is not
//! asked which namespace a flow is in.
//!
//! Must never tell the inode number or the host's mark of another namespace, nor grow without bound.

mod interface;

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use flowtel_common::event;
pub use interface::{Interfaces, is_link_local};

use crate::{
    capture::{NetnsId, snapshot::own_namespace},
    owner::generations::Generations,
};

/// The most namespaces that are remembered. Of one that is forgotten the cookie is told until it is met again.
const MOST: usize = 1 << 16;

/// What is known of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number in nsfs.
    pub inode: Option<u32>,
    /// Its cookie; no namespace has 0.
    pub cookie: Option<u64>,
    /// Whether it is the host's.
    pub host: Option<bool>,
}

/// What is known of all of them.
#[derive(Debug)]
pub struct Namespaces {
    /// Inode numbers by cookie; 0 where it is not known.
    inodes: Generations<u64, u32>,
    /// The other way round. A number is given again when its namespace is gone: the last one counts.
    cookies: Generations<u32, u64>,
    /// The host's cookie, and its inode number.
    host: (Option<u64>, Option<u32>),
    /// flowtel's own namespace.
    own: Namespace,
}

// === impl Namespaces

impl Namespaces {
    /// With flowtel's own namespace, and nothing else.
    pub fn new(proc: &Path) -> Self {
        let mut namespaces = Self {
            inodes: Generations::new(MOST),
            cookies: Generations::new(MOST),
            host: (None, None),
            own: Namespace { inode: None, cookie: None, host: None },
        };
        // Threads of the kernel are in the host's namespace, and in no other; where `proc` shows the host's processes, the
        // second is one. It can't be read without the right to it.
        if crate::owner::shows_kernel_threads(proc) {
            namespaces.host.1 = inode(&proc.join("2/ns/net"));
        }
        let (cookie, inode) = (own_namespace(), inode(Path::new("/proc/thread-self/ns/net")));
        namespaces.own.inode = inode;
        namespaces.own.cookie = Some(cookie).filter(|cookie| *cookie != 0);
        if let (Some(cookie), Some(inode)) = (namespaces.own.cookie, inode) {
            namespaces.learn(cookie, inode);
        }
        namespaces
    }

    /// Takes what the kernel side reports.
    pub fn on(&mut self, met: &event::Netns) {
        if met.host != 0 {
            self.host.0 = Some(met.host);
        }
        if met.inode != 0 {
            self.learn(met.cookie, met.inode);
        }
    }

    /// Takes a cookie and the inode number that belongs to it for certain. 0 is none.
    pub fn learn(&mut self, cookie: u64, inode: u32) {
        if cookie == 0 || inode == 0 {
            return;
        }
        self.inodes.insert(cookie, inode);
        self.cookies.insert(inode, cookie);
        if self.host.0 == Some(cookie) {
            self.host.1 = Some(inode);
        }
    }

    /// What is known of one. `None`: not even which it is.
    pub fn of(&mut self, id: NetnsId) -> Option<Namespace> {
        let (cookie, inode) = match (id.cookie(), id.inode()) {
            (Some(cookie), _) => (Some(cookie), self.inodes.get(cookie).copied()),
            (None, Some(inode)) => (self.cookies.get(inode).copied(), Some(inode)),
            (None, None) => return None,
        };
        let host = match (self.host, cookie, inode) {
            ((Some(host), _), Some(cookie), _) => Some(host == cookie),
            ((_, Some(host)), _, Some(inode)) => Some(host == inode),
            _ => None,
        };
        let inode = inode.or(self.host.1.filter(|_| host == Some(true)));
        Some(Namespace { inode, cookie, host })
    }

    /// Whether one is flowtel's own, for certain.
    pub fn is_own(&self, namespace: &Namespace) -> bool {
        namespace.inode.is_some() && namespace.inode == self.own.inode
            || namespace.cookie.is_some() && namespace.cookie == self.own.cookie
    }
}

/// The inode number of a file of nsfs.
fn inode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().and_then(|found| u32::try_from(found.ino()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> Namespaces {
        Namespaces {
            inodes: Generations::new(64),
            cookies: Generations::new(64),
            host: (None, None),
            own: Namespace { inode: None, cookie: None, host: None },
        }
    }

    fn met(cookie: u64, inode: u32) -> event::Netns {
        event::Netns { kind: event::NETNS, inode, time: 1, cookie, host: 1 }
    }

    #[test]
    fn a_cookie_becomes_its_inode_number_and_only_the_hosts_is_the_hosts() {
        let mut namespaces = namespaces();
        assert_eq!(namespaces.of(NetnsId::UNKNOWN), None);
        let unknown = Namespace { inode: None, cookie: Some(7), host: None };
        assert_eq!(namespaces.of(NetnsId::new(7)), Some(unknown));
        namespaces.on(&met(1, 100));
        namespaces.on(&met(7, 700));
        let (host, other) = (namespaces.of(NetnsId::new(1)), namespaces.of(NetnsId::new(7)));
        assert_eq!(host, Some(Namespace { inode: Some(100), cookie: Some(1), host: Some(true) }));
        assert_eq!(other, Some(Namespace { inode: Some(700), cookie: Some(7), host: Some(false) }));
        assert_eq!(namespaces.of(NetnsId::of_inode(700)), other, "by either name it is the same");
        let stranger = Namespace { inode: Some(9), cookie: None, host: Some(false) };
        assert_eq!(namespaces.of(NetnsId::of_inode(9)), Some(stranger));
        assert_eq!(namespaces.of(NetnsId::of_inode(0)), None);
    }

    #[test]
    fn where_the_kernel_says_no_inode_numbers_the_cookie_and_the_hosts_mark_are_left() {
        let mut namespaces = namespaces();
        namespaces.on(&met(7, 0));
        assert_eq!(namespaces.of(NetnsId::new(7)), Some(Namespace { inode: None, cookie: Some(7), host: Some(false) }));
        namespaces.host.1 = Some(100);
        let host = Namespace { inode: Some(100), cookie: Some(1), host: Some(true) };
        assert_eq!(namespaces.of(NetnsId::new(1)), Some(host), "the host's by /proc");
    }

    #[test]
    fn an_inode_number_that_is_given_again_is_the_new_namespaces() {
        let mut namespaces = namespaces();
        namespaces.on(&met(7, 700));
        namespaces.on(&met(8, 700));
        assert_eq!(namespaces.of(NetnsId::of_inode(700)).and_then(|n| n.cookie), Some(8));
        assert_eq!(
            namespaces.of(NetnsId::new(7)).and_then(|n| n.inode),
            Some(700),
            "a flow of the old one may end yet"
        );
    }

    #[test]
    fn flowtels_own_namespace_is_known_from_itself() {
        let namespaces = Namespaces::new(Path::new("/proc"));
        let own = fs::metadata("/proc/self/ns/net").expect("it is there").ino();
        assert_eq!(namespaces.own.inode.map(u64::from), Some(own));
    }
}
