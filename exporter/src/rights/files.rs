//! Where the running program may read and write, by Landlock (Linux 5.13 and newer; landlock(7)): the system's own
//! directories, and those that the configuration names. Directories, not files: a file that is replaced by a rename is
//! another one.
//!
//! What is open already stays open. Must never allow `/`.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};

use super::{User, ground};
use crate::{
    capture::cgroup,
    config::{Config, QueueKind},
};

/// Read by the C library, the resolver, and flowtel itself: hosts and resolver, certificates, time zones, processes, cgroups,
/// the list of CPUs.
const SYSTEM: [&str; 14] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/dev/null",
    "/dev/urandom",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
];

/// The newest rules that are asked for; an older kernel enforces what it knows of them.
const NEWEST: ABI = ABI::V6;

/// What is allowed.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// Files that a reload reads.
    named: Vec<PathBuf>,
}

/// How far it holds. `Display` says it to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confined {
    /// All that is asked for.
    Fully,
    /// What this kernel knows of it.
    Partly,
    /// This kernel has no Landlock.
    Not,
    /// Nobody wants it.
    Off,
}

// === impl Wanted

impl Wanted {
    pub(super) fn of(config: &Config, files: &[PathBuf]) -> Self {
        let mut named: Vec<PathBuf> = files.to_vec();
        let tls = &config.export.tls;
        named.extend(
            [&tls.ca_file, &tls.cert_file, &tls.key_file, &config.export.headers_file, &config.record.hash.key_file]
                .into_iter()
                .flatten()
                .cloned(),
        );
        let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        read.extend(["SSL_CERT_FILE", "SSL_CERT_DIR", "TZDIR"].iter().filter_map(env::var_os).map(PathBuf::from));
        read.push(config.owner.proc.clone());
        read.extend(cgroup::mount().ok());
        for file in named.iter().chain([&config.dns.hosts_file, &"/etc/resolv.conf".into(), &"/etc/hosts".into()]) {
            read.extend(around(file));
            // What a link leads to.
            read.extend(file.canonicalize().ok().and_then(|file| around(&file)));
        }
        let mut write = Vec::new();
        if config.queue.kind == QueueKind::Disk {
            // Beside it, too: the directory may be replaced by another one.
            write.extend(around(&config.queue.path));
            write.push(config.queue.path.clone());
        }
        write.extend(config.export.path.as_deref().and_then(around));
        for socket in [&config.telemetry.status.socket, &config.telemetry.admin.socket] {
            write.extend(around(socket));
        }
        Self { read, write, named }
    }

    /// Files that a reload reads and this user can't.
    pub(super) fn unreadable(&self, user: &User) -> Vec<&Path> {
        let there = self.named.iter().filter(|path| path.exists());
        let closed = |path: &Path| !ground::allows(path, user, 0o4) || ground::unreachable(path, user).is_some();
        there.map(PathBuf::as_path).filter(|path| closed(path)).collect()
    }

    /// Confines this thread, and those that it starts.
    pub(super) fn confine(&self) -> Confined {
        let confined = self.try_confine().unwrap_or_else(|error| {
            tracing::warn!("Landlock does not hold: {error}");
            RulesetStatus::NotEnforced
        });
        match confined {
            RulesetStatus::FullyEnforced => Confined::Fully,
            RulesetStatus::PartiallyEnforced => Confined::Partly,
            RulesetStatus::NotEnforced => Confined::Not,
        }
    }

    fn try_confine(&self) -> Result<RulesetStatus, landlock::RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let all = AccessFs::from_all(NEWEST)
            & !(AccessFs::Execute | AccessFs::IoctlDev | AccessFs::MakeBlock | AccessFs::MakeChar);
        let rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(&self.read, read))?
            .add_rules(path_beneath_rules(&self.write, all))?;
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// The directory of a file; not the root, of which a file alone is allowed.
fn around(file: &Path) -> Option<PathBuf> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    Some(if directory.parent().is_none() { file.to_owned() } else { directory.to_owned() })
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fully => "enforced",
            Self::Partly => "enforced as far as this kernel can",
            Self::Not => "not on this kernel",
            Self::Off => "off",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_files_are_allowed_and_never_the_root() {
        let mut config = Config::default();
        config.export.tls.ca_file = Some("/srv/tls/ca.pem".into());
        config.export.headers_file = Some("/headers".into());
        config.queue.kind = QueueKind::Disk;
        let wanted = Wanted::of(&config, &["/home/user/flowtel.toml".into()]);
        for path in ["/srv/tls", "/headers", "/home/user", "/etc", "/proc"] {
            assert!(wanted.read.contains(&path.into()), "{path}: {wanted:?}");
        }
        for path in ["/var/lib/flowtel", "/var/lib/flowtel/queue", "/run/flowtel"] {
            assert!(wanted.write.contains(&path.into()), "{path}: {wanted:?}");
        }
        assert!(wanted.read.iter().chain(&wanted.write).all(|path| path.parent().is_some()), "{wanted:?}");
        assert!(wanted.write.iter().all(|path| path.components().count() > 2), "{wanted:?}");
    }
}
