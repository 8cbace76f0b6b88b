//! Which process listens on which socket, for incoming flows that nobody was seen to accept: accept() without an address runs
//! no hook. A listener is a listening *socket*, known by its cookie, and the kernel side tells which one took a connection:
//! so neither addresses, nor ports, nor namespaces need be compared, and one port may have as many listeners as it likes.
//!
//! In: listen(), bind(), the end of a listening socket, and those that were there at the start. Out: the owner of a flow that
//! a listener took, or none where that isn't certain. Bounded by cgroup.

use super::{Owner, shares::Shares};

/// The most listeners that are remembered: of one cgroup, and of all.
const MOST: (usize, usize) = (4096, 65_536);
/// The most sockets that were bound and don't listen yet, likewise.
const MOST_BOUND: (usize, usize) = (512, 16_384);

/// Listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    owners: Shares<Owner>,
    /// Who bound a socket, where the kernel does not tell who calls listen().
    bound: Shares<Owner>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self { owners: Shares::new(MOST.0, MOST.1), bound: Shares::new(MOST_BOUND.0, MOST_BOUND.1) }
    }
}

impl Listeners {
    /// Remembers who bound a socket.
    pub fn bound(&mut self, cookie: u64, owner: Owner) {
        self.bound.insert(cookie, owner.cgroup, owner);
    }

    /// A socket listens from now on, and `owner` asked for it. Where that isn't known it is who bound the socket; a socket
    /// that nobody bound has no owner then.
    pub fn listens(&mut self, cookie: u64, owner: Option<Owner>) {
        match owner.or_else(|| self.bound.remove(cookie)) {
            Some(owner) => _ = self.owners.insert(cookie, owner.cgroup, owner),
            None => _ = self.owners.remove(cookie),
        }
    }

    /// A socket is closed, or does not listen any longer. Returns whether anything was known of it.
    pub fn closed(&mut self, cookie: u64) -> bool {
        self.owners.remove(cookie).is_some() | self.bound.remove(cookie).is_some()
    }

    /// Who listens on this socket. 0 is none.
    pub fn owner(&self, cookie: u64) -> Option<Owner> {
        self.owners.get(cookie).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        capture::KernelTime,
        flow::{Role, Source},
    };

    fn owner(pid: u32, cgroup: u64) -> Owner {
        let (since, role, source) = (KernelTime(1), Role::Listener, Source::Listener);
        Owner { pid, uid: 0, comm: [0; 16], cgroup, since, role, source, begin: None }
    }

    #[test]
    fn who_calls_listen_comes_before_who_bound_and_who_only_bound_is_nobody() {
        let mut listeners = Listeners::default();
        listeners.bound(1, owner(10, 1));
        assert_eq!(listeners.owner(1), None, "it does not listen yet");
        listeners.listens(1, None);
        listeners.bound(2, owner(20, 1));
        listeners.listens(2, Some(owner(21, 1)));
        listeners.listens(3, None);
        let pids = [1, 2, 3].map(|cookie| listeners.owner(cookie).map(|owner| owner.pid));
        assert_eq!(pids, [Some(10), Some(21), None]);
        assert_eq!([1, 2, 3, 3].map(|cookie| listeners.closed(cookie)), [true, true, false, false]);
        assert!((1..=3).all(|cookie| listeners.owner(cookie).is_none()));
        assert!(listeners.owners.is_empty() && listeners.bound.is_empty());
    }

    #[test]
    fn seventeen_thousand_binds_of_one_user_leave_all_servers_known() {
        let mut listeners = Listeners::default();
        for server in 1..=200 {
            listeners.bound(server, owner(server as u32, server));
            listeners.listens(server, None);
        }
        // And one that has bound, and listens only later.
        listeners.bound(201, owner(201, 201));
        for cookie in 1000..18_000 {
            listeners.bound(cookie, owner(4711, 100_000));
            if cookie % 2 == 0 {
                listeners.listens(cookie, None);
            }
        }
        listeners.listens(201, None);
        assert!((1..=201).all(|server| listeners.owner(server).is_some_and(|o| u64::from(o.pid) == server)));
    }

    /// What becomes of one socket, by the rule alone: listening it is its caller's, or its binder's; else nobody's.
    #[derive(Clone, Copy, Default)]
    struct Model {
        bound: Option<u32>,
        listens: Option<u32>,
    }

    proptest! {
        #[test]
        fn each_socket_is_its_own_whatever_happens_to_others(
            steps in prop::collection::vec((0u8..4, 1u64..6, 1u32..9), 1..120),
        ) {
            let mut listeners = Listeners::default();
            let mut model = [Model::default(); 6];
            for (step, cookie, pid) in steps {
                let one = &mut model[cookie as usize];
                match step {
                    0 => { listeners.bound(cookie, owner(pid, 1)); one.bound = Some(pid); }
                    1 => { listeners.listens(cookie, Some(owner(pid, 1))); one.listens = Some(pid); }
                    2 => { listeners.listens(cookie, None); one.listens = one.bound.take(); }
                    _ => { listeners.closed(cookie); *one = Model::default(); }
                }
                for (cookie, model) in model.iter().enumerate() {
                    prop_assert_eq!(listeners.owner(cookie as u64).map(|owner| owner.pid), model.listens);
                }
            }
        }
    }
}
