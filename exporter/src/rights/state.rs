//! What a process has left, to a person: what the kernel says in /proc/PID/status comes in. Of Landlock the kernel says nothing;
//! what was enforced is noted.

use std::{fmt, fs, sync::OnceLock};

use serde::{Deserialize, Serialize};

use super::capabilities;

static LANDLOCK: OnceLock<String> = OnceLock::new();

/// The rights of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its user: the real, effective and saved ids, once where they are the same.
    pub users: Vec<u32>,
    /// Capabilities in any set but the bounding set.
    pub capabilities: Vec<String>,
    /// How many are in the bounding set.
    pub bounding: u32,
    /// It can't gain any by executing a file.
    pub no_new_privs: bool,
    /// Its system calls: `filtered`, or `not filtered`.
    pub seccomp: String,
    /// Its files, where that is known.
    pub landlock: Option<String>,
}

pub(super) fn note_landlock(how: String) {
    // It happens once.
    let _ = LANDLOCK.set(how);
}

// === impl State

impl State {
    /// This process's own: of the calling thread, which has what all have.
    pub fn own() -> Option<Self> {
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        Some(Self { landlock: LANDLOCK.get().cloned(), ..Self::read(&status)? })
    }

    /// Another process's.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// Reads proc_pid_status(5).
    fn read(status: &str) -> Option<Self> {
        let value =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
        let bits = |key| u64::from_str_radix(value(key)?, 16).ok();
        let mut users: Vec<u32> = value("Uid")?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        users.dedup();
        let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
        Some(Self {
            users,
            capabilities: capabilities::names(sets.iter().filter_map(|set| bits(set)).fold(0, |all, set| all | set)),
            bounding: bits("CapBnd")?.count_ones(),
            no_new_privs: value("NoNewPrivs") == Some("1"),
            seccomp: if value("Seccomp") == Some("2") { "filtered" } else { "not filtered" }.into(),
            landlock: None,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<_> = self.users.iter().map(u32::to_string).collect();
        write!(f, "user {}, ", users.join("/"))?;
        match self.capabilities.len() {
            0 => f.write_str("no capabilities")?,
            1..=5 => write!(f, "capabilities {}", self.capabilities.join(" "))?,
            n => write!(f, "{n} capabilities")?,
        }
        match self.bounding {
            0 => f.write_str(", bounding set empty")?,
            n => write!(f, ", {n} in the bounding set")?,
        }
        write!(f, ", no_new_privs {}, system calls {}", if self.no_new_privs { "on" } else { "off" }, self.seccomp)?;
        if let Some(landlock) = &self.landlock {
            write!(f, ", Landlock {landlock}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_and_told() {
        let status = "Name:\tUid: 0\nUid:\t987\t987\t987\t987\nCapInh:\t0000000000000000\nCapPrm:\t0000000000080004\n\
                      CapEff:\t0000000000080004\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
                      Seccomp:\t2\n";
        let state = State::read(status).expect("read");
        assert_eq!(
            state.to_string(),
            "user 987, capabilities CAP_DAC_READ_SEARCH CAP_SYS_PTRACE, bounding set empty, no_new_privs on, system calls \
             filtered"
        );
        assert!(State::own().is_some());
        assert_eq!(State::read("Uid:\t0\n"), None);
    }
}
