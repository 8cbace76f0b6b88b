//! Who may ask at a local socket: the kernel's word on who connected goes in, yes or no comes out. Root may, flowtel's own
//! user, and the members of one group.
//!
//! The kernel noted user and groups when the other side connected (SO_PEERCRED, SO_PEERGROUPS): nothing that a client says
//! or does later changes them. Must never take the mode of a file for an answer.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::process::geteuid;
use tokio::net::UnixStream;

/// The most of /etc/group that is read.
const MAX_GROUPS_FILE: u64 = 1 << 20;
/// Groups of one process that fit without a second call.
const USUAL_GROUPS: usize = 64;
/// The most that a process can have (NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// The group, where there is one.
    pub group: Option<u32>,
}

// === impl Access

impl Access {
    /// For the members of this group, by its name or number. An empty text, or a group that this host doesn't have: none.
    pub fn of(group: &str) -> Self {
        let group = group.trim();
        let by_name = || {
            let mut text = String::new();
            // Without the file there are no names.
            File::open("/etc/group").and_then(|file| file.take(MAX_GROUPS_FILE).read_to_string(&mut text)).ok()?;
            group_of(&text, group)
        };
        Self { group: if group.is_empty() { None } else { group.parse().ok().or_else(by_name) } }
    }

    /// Whether the other side of this connection may ask.
    pub fn allows(self, connection: &UnixStream) -> bool {
        // Not rustix's: that takes the process id 0, of a peer outside flowtel's pid namespace, for an error.
        let Ok(peer) = connection.peer_cred() else { return false };
        if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
            return true;
        }
        let Some(group) = self.group else { return false };
        peer.gid() == group || peer_groups(connection).is_ok_and(|groups| groups.contains(&group))
    }
}

/// The number of a group in the form of group(5).
fn group_of(text: &str, name: &str) -> Option<u32> {
    let fields = |line: &str| -> Option<u32> {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    };
    text.lines().find_map(fields)
}

/// The supplementary groups of the process that connected.
fn peer_groups(connection: &impl AsFd) -> io::Result<Vec<u32>> {
    let fd = connection.as_fd();
    let ask = |groups: &mut Vec<u32>| {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes at most `bytes` bytes, which is the size of the vector, and `fd` is open while it
        // is borrowed.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let found = bytes as usize / size_of::<u32>();
        if result == 0 { Ok(found) } else { Err((io::Error::last_os_error(), found)) }
    };
    let mut groups = vec![0; USUAL_GROUPS];
    let found = match ask(&mut groups) {
        // It says how many there are.
        Err((e, found)) if e.raw_os_error() == Some(libc::ERANGE) && found <= MOST_GROUPS => {
            groups = vec![0; found];
            ask(&mut groups)
        }
        result => result,
    };
    groups.truncate(found.map_err(|(e, _)| e)?);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_or_number() {
        let text = "root:x:0:\n# no group\nflowtel:x:987:alice,bob\nflowtel2:x:988:\nbroken:x\nwrong:x:-1:\n";
        assert_eq!(group_of(text, "flowtel"), Some(987));
        for name in ["flow", "broken", "wrong", "alice", "x", ""] {
            assert_eq!(group_of(text, name), None, "{name}");
        }
        assert_eq!(Access::of("1234").group, Some(1234));
        assert_eq!(Access::of("").group, None);
        assert_eq!(Access::of("root").group, Some(0));
        assert_eq!(Access::of("no such group").group, None);
    }

    #[tokio::test]
    async fn the_groups_of_the_other_side_are_those_of_its_process() {
        let (near, _far) = UnixStream::pair().expect("a pair");
        let mut groups = peer_groups(&near).expect("the kernel says");
        let mut own: Vec<u32> =
            rustix::process::getgroups().expect("no buffer to be wrong").iter().map(|gid| gid.as_raw()).collect();
        groups.sort_unstable();
        own.sort_unstable();
        assert_eq!(groups, own);
        assert!(Access { group: None }.allows(&near), "it is flowtel's own user");
    }
}
