//! The index of an interface in; its name out. An index means an interface within one network namespace: of flowtel's own
//! the kernel is asked, of another one a process in it is, if it is certain to be in it.
//!
//! Must never give the name of another namespace's interface.

use std::{
    fmt::Write as _,
    fs::File,
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Namespace, Namespaces, inode};
use crate::owner::{Helper, generations::Generations};

/// How long an answer holds: an interface may get another name.
const FRESH: Duration = Duration::from_secs(1);
/// The most answers that are remembered.
const MOST: usize = 1024;
/// The most that is read of a list of addresses.
const MOST_BYTES: u64 = 64 << 10;

/// Names of interfaces.
#[derive(Debug)]
pub struct Interfaces {
    proc: PathBuf,
    /// By namespace and index.
    known: Generations<(u64, u32), Answer>,
    helper: Option<Helper>,
}

/// When it is to be asked for again, and the name. `None`: there is none.
type Answer = (Instant, Option<Arc<str>>);

/// Whether an address means something together with an interface only (RFC 4291, 2.5.6; RFC 3927).
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

// === impl Interfaces

impl Interfaces {
    /// `proc` is the host's proc file system, if it is there.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), known: Generations::new(MOST), helper: None }
    }

    /// The same, which has the helper say which namespace a process is in, where there is one.
    #[must_use]
    pub fn helped(self, helper: Option<Helper>) -> Self {
        Self { helper, ..self }
    }

    /// The name of the interface with this index in a namespace, in which the process `pid` may be.
    pub fn name(
        &mut self,
        namespaces: &Namespaces,
        namespace: Namespace,
        index: u32,
        pid: Option<u32>,
    ) -> Option<Arc<str>> {
        let of = namespace.cookie.or(namespace.inode.map(u64::from)).filter(|_| index != 0)?;
        let now = Instant::now();
        if let Some((until, name)) = self.known.get((of, index))
            && now < *until
        {
            return name.clone();
        }
        let name = if namespaces.is_own(&namespace) {
            named_here(index)
        } else {
            self.named_there(namespace.inode?, index, pid?)?
        };
        let name: Option<Arc<str>> = name.filter(|name| is_plain(name)).map(Into::into);
        self.known.insert((of, index), (now + FRESH, name.clone()));
        name
    }

    /// By a list of the process's namespace, where that is the one before and after. `None` where the list can't be asked;
    /// then another process may tell.
    fn named_there(&self, namespace: u32, index: u32, pid: u32) -> Option<Option<String>> {
        let process = self.proc.join(pid.to_string());
        let is_there = || match self.helper.as_ref().and_then(|helper| helper.netns(pid)) {
            Some(inode) => inode == u64::from(namespace),
            None => inode(&process.join("ns/net")) == Some(namespace),
        };
        if !is_there() {
            return None;
        }
        let mut list = String::new();
        let file = File::open(process.join("net/if_inet6")).ok()?;
        file.take(MOST_BYTES).read_to_string(&mut list).ok()?;
        let name = named_in(&list, index);
        is_there().then_some(name)
    }
}

/// In the calling thread's own namespace.
fn named_here(index: u32) -> Option<String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    netdevice::index_to_name(socket, index).ok()
}

/// In /proc/net/if_inet6: address, index in hex, length of the prefix, scope, flags, name (net/ipv6/addrconf.c,
/// if6_seq_show). An interface with a link-local address is there.
fn named_in(list: &str, index: u32) -> Option<String> {
    let mut wanted = String::new();
    // Writing to a String can't fail.
    let _ = write!(wanted, "{index:02x}");
    list.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.nth(1)? == wanted).then(|| fields.nth(3).map(str::to_owned))?
    })
}

/// Whether a name is one that the kernel gives (dev_valid_name, net/core/dev.c), and can be shown as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() < libc::IFNAMSIZ && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "fe8000000000000000155dfffe012345 02 40 20 80     eth0\n\
                        00000000000000000000000000000001 01 80 10 80       lo\n\
                        fe80000000000000000000000000abcd 1f4 40 20 80   veth500\n";

    #[test]
    fn an_index_is_found_in_the_list_of_addresses() {
        assert_eq!(named_in(LIST, 2).as_deref(), Some("eth0"));
        assert_eq!(named_in(LIST, 0x1f4).as_deref(), Some("veth500"));
        assert_eq!(named_in(LIST, 3), None);
        assert_eq!(named_in("x\n02\nfe80 02 40\n", 2), None);
    }

    #[test]
    fn what_is_link_local_is_told_by_the_address() {
        for (ip, is) in
            [("fe80::1", true), ("febf::1", true), ("fec0::1", false), ("169.254.1.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(is_link_local(ip.parse().expect("an address")), is, "{ip}");
        }
    }

    #[test]
    fn the_own_loopback_has_its_name_and_names_that_would_break_a_line_are_none() {
        let mut interfaces = Interfaces::new(Path::new("/proc"));
        let mut namespaces = Namespaces::new(Path::new("/proc"));
        let own = namespaces.own;
        let own = Namespace { cookie: own.cookie.or(Some(1)), ..own };
        assert_eq!(interfaces.name(&namespaces, own, 1, None).as_deref(), Some("lo"));
        assert_eq!(interfaces.name(&namespaces, own, 0, None), None);
        namespaces.own = Namespace { inode: None, cookie: None, host: None };
        let other = Namespace { inode: Some(1), cookie: Some(2), host: None };
        assert_eq!(interfaces.name(&namespaces, other, 1, Some(std::process::id())), None, "it is not in that one");
        assert!(is_plain("eth0.5") && !is_plain("a\u{1b}b") && !is_plain("") && !is_plain("0123456789abcdef"));
    }
}
