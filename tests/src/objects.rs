//! The kernel's lists of BPF programs and links: a process or nothing comes in, ids come out.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::{loaded_links, loaded_programs};

/// Ids of the links that a process holds, by its descriptors.
///
/// # Errors
/// The process is gone.
pub fn links_of(pid: u32) -> Result<BTreeSet<u32>> {
    held(Path::new("/proc").join(pid.to_string()).as_path(), "link_id:")
}

/// Ids of all links in the kernel.
///
/// # Errors
/// The kernel refuses to tell.
pub fn links() -> Result<BTreeSet<u32>> {
    // A link that went away between its id and its look-up is none.
    Ok(loaded_links().flatten().map(|link| link.id()).collect())
}

/// Ids of flowtel's programs that no living process holds: left behind.
///
/// # Errors
/// The kernel refuses to tell.
pub fn orphans() -> Result<BTreeSet<u32>> {
    let loaded = loaded_programs().flatten();
    let mut orphans: BTreeSet<u32> =
        loaded.filter(|p| p.name_as_str().is_some_and(|n| n.starts_with("flowtel_"))).map(|p| p.id()).collect();
    for process in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        // Processes come and go.
        for id in held(&process.path(), "prog_id:").unwrap_or_default() {
            orphans.remove(&id);
        }
    }
    Ok(orphans)
}

/// Names of the programs that a process holds, as far as the kernel keeps them: 15 bytes.
///
/// # Errors
/// The process is gone.
pub fn programs_of(pid: u32) -> Result<BTreeSet<String>> {
    let ids = held(Path::new("/proc").join(pid.to_string()).as_path(), "prog_id:")?;
    let held = loaded_programs().flatten().filter(|program| ids.contains(&program.id()));
    Ok(held.filter_map(|program| program.name_as_str().map(str::to_owned)).collect())
}

fn held(process: &Path, field: &str) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for descriptor in fs::read_dir(process.join("fdinfo"))?.flatten() {
        // Descriptors come and go too.
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        ids.extend(info.lines().filter_map(|line| line.strip_prefix(field)?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}
