//! Who asked a name server, and for whom names are looked up: what one of them learned is told to another where it can't
//! mislead.
//!
//! An address means something within its network namespace only: an unprivileged user may make a namespace, give it any
//! addresses, and answer any question there. So names of one namespace never label flows of another, whatever else is equal.

use super::names::Origin;

/// Who asked for what an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The cgroup of the socket that the answer came to.
    pub cgroup: u64,
    /// Its network namespace's cookie; 0: not known.
    pub netns: u64,
    /// Who sent the question; [`NO_UID`](flowtel_common::event::NO_UID): not known.
    pub uid: u32,
}

/// For whom a name is looked up: one side of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Its network namespace's cookie; 0: not known, then no answer holds.
    pub netns: u64,
    /// The cgroup and the user of its owner, where there is one.
    pub owner: Option<(u64, u32)>,
    /// Names of the hosts file hold in its namespace.
    pub hosts: bool,
}

/// How near to the reader an asker has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nearness {
    /// The same.
    Own,
    /// Anybody whose answers hold there.
    Any,
}

// === impl Reader

impl Reader {
    /// Whether what `asker` learned may be told.
    pub(super) fn may_know(&self, asker: &Asker, near: Nearness) -> bool {
        let Self { netns, owner, .. } = *self;
        netns != 0
            && match near {
                Nearness::Own => owner.is_some_and(|(cgroup, uid)| *asker == Asker { cgroup, netns, uid }),
                Nearness::Any => asker.netns == netns,
            }
    }

    /// What it says of names that were learned so near.
    pub(super) fn origin(&self, near: Nearness) -> Option<Origin> {
        match near {
            Nearness::Own => Some(Origin::Own),
            // Whoever owns a flow that nobody is known to own may have asked.
            Nearness::Any => self.owner.map(|_| Origin::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker = Asker { cgroup: 7, netns: 1, uid: 1000 };

    #[test]
    fn what_was_asked_in_one_namespace_is_never_told_in_another() {
        let own = Reader { netns: 1, owner: Some((7, 1000)), hosts: false };
        assert!(own.may_know(&ASKER, Nearness::Own));
        for (reader, any) in [
            (Reader { owner: Some((8, 1000)), ..own }, true),
            (Reader { owner: Some((7, 0)), ..own }, true),
            (Reader { owner: None, ..own }, true),
            (Reader { netns: 2, ..own }, false),
            (Reader { netns: 0, ..own }, false),
        ] {
            assert!(!reader.may_know(&ASKER, Nearness::Own), "{reader:?}");
            assert_eq!(reader.may_know(&ASKER, Nearness::Any), any, "{reader:?}");
        }
        let nowhere = Asker { netns: 0, ..ASKER };
        assert!(!Reader { netns: 0, ..own }.may_know(&nowhere, Nearness::Any), "two that nobody knows may be two");
    }
}
