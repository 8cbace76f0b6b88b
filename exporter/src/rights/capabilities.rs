//! The one table of capabilities: what the start needs them for, and who keeps one. The unit, the compose file, ARCHITECTURE.md
//! and docs/operations.md say the same, and a test compares them.

use std::io;

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities,
    },
};

use crate::capture::rights::kernel_is_at_least;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    /// As capabilities(7) has it.
    pub name: &'static str,
    /// Its bit (include/uapi/linux/capability.h).
    bit: u32,
    /// What the start needs it for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// A service manager that starts flowtel as another user than root need not give it.
    pub for_root_only: bool,
    /// The helper keeps it.
    pub helper: bool,
    /// Shipped files give it.
    pub shipped: bool,
}

/// All that flowtel uses, the needed ones first.
pub const TABLE: [Capability; 10] = [
    Capability {
        name: "CAP_BPF",
        bit: 39,
        purpose: "loads programs and maps",
        without: "flowtel does not start",
        for_root_only: false,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_NET_ADMIN",
        bit: 12,
        purpose: "attaches programs to the cgroup tree",
        without: "flowtel does not start",
        for_root_only: false,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        purpose: "lets programs read the kernel's structures",
        without: "flowtel does not start",
        for_root_only: false,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        purpose: "reads executables of other users' processes",
        without: "no executable of processes that are older than flowtel, and no holder of connections that are older",
        for_root_only: false,
        helper: true,
        shipped: true,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        purpose: "opens cgroups by their number",
        without: "new cgroups are found by a search, some time after their first connection",
        for_root_only: false,
        helper: true,
        shipped: true,
    },
    Capability {
        name: "CAP_SETUID",
        bit: 7,
        purpose: "changes the user",
        without: "flowtel stays user 0, with no capability",
        for_root_only: true,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_SETGID",
        bit: 6,
        purpose: "changes the groups",
        without: "flowtel stays user 0, with no capability",
        for_root_only: true,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_SETPCAP",
        bit: 8,
        purpose: "empties the bounding set",
        without: "the bounding set stays; without capabilities and with no_new_privs nothing can be gained by it",
        for_root_only: true,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_CHOWN",
        bit: 0,
        purpose: "gives queue, pins and sockets to the user",
        without: "flowtel stays user 0 where a directory is still root's",
        for_root_only: true,
        helper: false,
        shipped: true,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: 21,
        purpose: "enters other network namespaces for the list of open connections",
        without: "connections in containers that are older than flowtel are not listed",
        for_root_only: false,
        helper: false,
        shipped: false,
    },
];

/// A kernel that lets anybody look into a map by its descriptor, although unprivileged BPF is off (kernel commit c8644cd0efe7,
/// "bpf: refine kernel.unprivileged_bpf_disabled behaviour").
const MAPS_BY_DESCRIPTOR: (u32, u32) = (5, 19);

/// What the main process keeps: nothing, but on older kernels CAP_BPF, without which it could not read its counters.
pub fn kept_by_main() -> Vec<&'static str> {
    if kernel_is_at_least(MAPS_BY_DESCRIPTOR) { Vec::new() } else { vec!["CAP_BPF"] }
}

/// What the helper keeps.
pub fn kept_by_helper() -> Vec<&'static str> {
    TABLE.iter().filter(|row| row.helper).map(|row| row.name).collect()
}

fn set(names: &[&str]) -> CapabilitySet {
    let bits = TABLE.iter().filter(|row| names.contains(&row.name)).fold(0, |bits, row| bits | 1u64 << row.bit);
    CapabilitySet::from_bits_retain(bits)
}

/// Which of these this thread doesn't have in effect.
pub fn missing<'n>(names: &[&'n str]) -> Vec<&'n str> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    names.iter().copied().filter(|name| !effective.contains(set(&[name]))).collect()
}

/// Puts into effect whatever this thread may have: a change of user takes it out.
pub(super) fn raise() -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?)
}

/// Leaves this thread these capabilities, as far as it has them, and no other: not in its sets, not in the ambient set,
/// not in the bounding set (where CAP_SETPCAP is there to empty it).
pub fn keep_only(names: &[&str]) -> io::Result<()> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there is none.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(e) => return Err(e.into()),
    }
    if missing(&["CAP_SETPCAP"]).is_empty() {
        for bit in 0..64 {
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
                Ok(()) => {}
                // The kernel knows no more.
                Err(Errno::INVAL) => break,
                Err(e) => return Err(e.into()),
            }
        }
    }
    let left = capabilities(None)?.permitted & set(names);
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() },
    )?)
}

/// Names of the bits of a set, as /proc/PID/status shows it; those that flowtel never uses by their number.
pub fn names(bits: u64) -> Vec<String> {
    let name =
        |bit: u32| TABLE.iter().find(|row| row.bit == bit).map_or_else(|| format!("{bit}"), |row| row.name.into());
    (0..64).filter(|bit| bits & 1 << bit != 0).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../../config/flowtel.service");
    const DROP_IN: &str = include_str!("../../../config/flowtel-no-helper.conf");
    const COMPOSE: &str = include_str!("../../../docker-compose.yml");
    const PAGES: &str = include_str!("../../../docs/operations.md");

    fn of(wanted: impl Fn(&Capability) -> bool) -> Vec<&'static str> {
        TABLE.iter().filter(|row| wanted(row)).map(|row| row.name).collect()
    }

    /// The words of a setting of a unit, of its last line.
    fn words<'t>(unit: &'t str, key: &str) -> Vec<&'t str> {
        let last = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).next_back();
        last.unwrap_or_default().split_whitespace().collect()
    }

    #[test]
    fn the_shipped_files_give_what_the_table_says() {
        let systemd = of(|row| row.shipped && !row.for_root_only);
        let alone = of(|row| row.shipped && !row.for_root_only && !row.helper);
        for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert_eq!(words(UNIT, key), systemd, "{key} of the unit");
            assert_eq!(words(DROP_IN, key), alone, "{key} of the drop-in");
        }
        let added = COMPOSE.lines().find_map(|line| line.trim().strip_prefix("cap_add: [")?.strip_suffix(']'));
        let added: Vec<_> = added.expect("a list").split(", ").map(|name| format!("CAP_{name}")).collect();
        let mut wanted = of(|row| row.shipped);
        wanted.sort_unstable();
        let mut found: Vec<_> = added.iter().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, wanted, "cap_add of docker-compose.yml");
    }

    #[test]
    fn the_table_of_the_pages_is_this_one() {
        let yes = |is: bool| if is { "yes" } else { "no" };
        for row in &TABLE {
            let left = if row.name == "CAP_BPF" { "before Linux 5.19" } else { "no" };
            let line = format!(
                "| {} | {} | {} | {} | {left} | {} | {} |",
                row.name,
                row.purpose,
                yes(row.shipped && !row.for_root_only),
                yes(row.shipped),
                yes(row.helper),
                row.without
            );
            assert!(PAGES.lines().any(|known| known == line), "docs/operations.md lacks the line\n{line}");
        }
        assert_eq!(PAGES.lines().filter(|line| line.starts_with("| CAP_")).count(), TABLE.len());
    }

    #[test]
    fn each_capability_has_the_kernels_number() {
        let known = [
            ("CAP_BPF", CapabilitySet::BPF),
            ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
            ("CAP_PERFMON", CapabilitySet::PERFMON),
            ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
            ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
            ("CAP_SETUID", CapabilitySet::SETUID),
            ("CAP_SETGID", CapabilitySet::SETGID),
            ("CAP_SETPCAP", CapabilitySet::SETPCAP),
            ("CAP_CHOWN", CapabilitySet::CHOWN),
            ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
        ];
        assert_eq!(known.len(), TABLE.len());
        for (name, bits) in known {
            assert_eq!(set(&[name]), bits, "{name}");
        }
        assert_eq!(kept_by_helper(), ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        assert_eq!(names(1 << 39 | 1 << 1), ["1", "CAP_BPF"]);
    }
}
