//! A mounted proc file system in; whether it shows the host's processes, and how much of them, out.
//!
//! Process ids of kernel events are those of the initial pid namespace. A proc file system shows the ids of the pid
//! namespace that it was mounted in, and the same number there means another process.
//!
//! Must never take a container's /proc for the host's.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::stat::Stat;

/// Inode number of the initial pid namespace in nsfs: PROC_PID_INIT_INO (include/linux/proc_ns.h), the same in each kernel.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What can be seen of other processes. `Display` says it to a person, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// The executable of each process.
    All,
    /// Those of processes of the same user only.
    OwnUser,
    /// Nothing: `owner.executable` is off.
    Off,
    /// Nothing: there is no proc file system at this place, for this reason.
    NoProc {
        /// `owner.proc`.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Nothing: the proc file system shows other processes than the host's.
    OtherProcesses {
        /// `owner.proc`.
        path: String,
        /// flowtel itself has the host's process ids.
        host_pids: bool,
    },
}

// === impl Visibility

impl Visibility {
    /// Looks at the proc file system at `path`.
    pub(super) fn of(path: &Path, enabled: bool) -> Self {
        if !enabled {
            return Self::Off;
        }
        let shown = path.display().to_string();
        if let Err(e) = fs::metadata(path.join("stat")) {
            return Self::NoProc { path: shown, reason: e.to_string() };
        }
        if !shows_kernel_threads(path) {
            return Self::OtherProcesses { path: shown, host_pids: in_initial_pid_namespace() };
        }
        match fs::read_link(path.join("1/exe")) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Self::OwnUser,
            _ => Self::All,
        }
    }

    /// Nothing can be seen.
    pub fn is_hidden(&self) -> bool {
        !matches!(self, Self::All | Self::OwnUser)
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("executables of all processes can be read"),
            Self::OwnUser => f.write_str(
                "executables of flowtel's own user only can be read; for those of others give it CAP_SYS_PTRACE",
            ),
            Self::Off => f.write_str("executables are not looked up (owner.executable = false)"),
            Self::NoProc { path, reason } => {
                write!(f, "executables can't be read: {path} (owner.proc) is no proc file system: {reason}")
            }
            Self::OtherProcesses { path, host_pids: false } => write!(
                f,
                "executables can't be read: flowtel has a pid namespace of its own, and {path} (owner.proc) does not show \
                 the host's processes; run its container with the host's process ids (pid: host, hostPID: true), or mount \
                 the host's /proc into it and name the place in owner.proc"
            ),
            Self::OtherProcesses { path, host_pids: true } => write!(
                f,
                "executables can't be read: {path} (owner.proc) does not show the host's processes, or hides them \
                 (mount option hidepid)"
            ),
        }
    }
}

/// Whether this process is in the initial pid namespace.
pub(super) fn in_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == INITIAL_PID_NAMESPACE)
}

/// Whether the process with the id 2 is the kernel's (kthreadd): the kernel's threads are in the initial pid namespace
/// and in no other. It needs no rights, holds for a mount of the host's /proc within a container, and a process can't
/// pretend it.
pub(crate) fn shows_kernel_threads(proc: &Path) -> bool {
    let mut line = Vec::new();
    let read = File::open(proc.join("2/stat")).and_then(|f| f.take(1024).read_to_end(&mut line));
    read.is_ok() && Stat::parse(&line).is_some_and(|stat| stat.kernel_thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_proc_file_system_shows_nothing_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = Visibility::of(dir.path(), true);
        assert!(found.is_hidden());
        assert!(found.to_string().contains("owner.proc"), "{found}");
        assert_eq!(Visibility::of(dir.path(), false), Visibility::Off);
    }

    #[test]
    fn a_containers_proc_is_not_taken_for_the_hosts_whatever_its_second_process_is_called() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("stat"), "cpu  1 2 3\n").expect("written");
        fs::create_dir(dir.path().join("2")).expect("made");
        let pretender = "2 (kthreadd) S 0 0 0 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0 0 0\n";
        fs::write(dir.path().join("2/stat"), pretender).expect("written");
        assert!(!shows_kernel_threads(dir.path()));
        assert!(Visibility::of(dir.path(), true).is_hidden());
    }
}
