//! Who observes, in; the two identities that follow from it, out: `service.instance.id`, and the salt of `log.record.uid`.
//!
//! A host-wide flowtel and the sidecars of single cgroups see the same connections, and each records them. Their flows have
//! the same ids, which join them; their records and instances must not be taken for each other's copies.

use uuid::{Uuid, uuid};

use super::resource::Host;
use crate::{capture::cgroup::Cgroup, flow::BootId};

/// Namespace of service.instance.id (semantic conventions, "Service instance id").
const INSTANCE_NAMESPACE: Uuid = uuid!("4d63009a-8d0f-11ee-aad7-4c796ed8e320");

/// What part of a host a flowtel observes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observer {
    /// What tells the attached cgroup from others of this host; `None` for the whole host.
    scope: Option<String>,
}

// === impl Observer

impl Observer {
    /// One that observes the whole host, or a capture of one.
    pub const WHOLE_HOST: Self = Self { scope: None };

    /// One whose programs are attached to `cgroup`.
    pub fn at(cgroup: &Cgroup, boot: &BootId) -> Self {
        if cgroup.is_host_root() {
            return Self::WHOLE_HOST;
        }
        Self::below(match cgroup.path_in_tree() {
            Some(path) => path.display().to_string(),
            // The cgroup's number is its own until the next boot.
            None => format!("{:032x} {}", boot.hash(b"cgroup"), cgroup.id),
        })
    }

    fn below(scope: String) -> Self {
        Self { scope: Some(scope) }
    }

    /// `service.instance.id`: a UUIDv5 of the machine id and the scope, so that it survives restarts. Without a machine id
    /// the host's name stands for it.
    pub(super) fn instance_id(&self, host: &Host) -> Uuid {
        let machine = host.id.as_deref().unwrap_or(&host.name);
        match &self.scope {
            None => Uuid::new_v5(&INSTANCE_NAMESPACE, machine.as_bytes()),
            // No machine id and no host name holds a line end.
            Some(scope) => Uuid::new_v5(&INSTANCE_NAMESPACE, format!("{machine}\n{scope}").as_bytes()),
        }
    }

    /// What the ids of its records differ by from those of another observer of this host.
    pub fn record_salt(&self, boot: &BootId) -> u128 {
        self.scope.as_ref().map_or(0, |scope| boot.hash(scope.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observers_of_one_host_have_ids_of_their_own_that_survive_a_restart() {
        let host = Host { name: "a".into(), id: Some("0123456789abcdef0123456789abcdef".into()) };
        let boot = BootId::new([7; 16]);
        let all = [Observer::WHOLE_HOST, Observer::below("/app.slice".into()), Observer::below("/db.slice".into())];
        let ids = all.clone().map(|observer| (observer.instance_id(&host), observer.record_salt(&boot)));
        assert_ne!(ids[0], ids[1]);
        for (i, id) in ids.iter().enumerate() {
            assert!(ids[..i].iter().all(|other| other.0 != id.0 && other.1 != id.1));
            let again = all[i].clone();
            assert_eq!((again.instance_id(&host), again.record_salt(&boot)), *id);
        }
        assert_eq!(Observer::WHOLE_HOST.record_salt(&boot), 0);
    }
}
