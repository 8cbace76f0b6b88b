//! Cgroups: what they are called goes in, a directory that processes can be moved to comes out. They vanish on drop; those
//! of a test process that died are removed by [`sweep`].

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::Result;

use crate::scene::skip;

/// What they are called, before the process's id.
const PREFIX: &str = "flowtel-load-";

/// A cgroup (v2).
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A new one, below the root.
    ///
    /// # Errors
    /// Skips the scenario: none can be made here.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = root().ok_or_else(|| skip("no cgroup v2 file system"))?;
        let path = root.join(format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)));
        fs::create_dir(&path).map_err(|e| skip(format!("cgroups can't be made here: {e}")))?;
        Ok(Self(path))
    }

    /// A new one of this name, within it.
    ///
    /// # Errors
    /// Skips the scenario: none can be made here.
    pub fn inner(&self, name: &str) -> Result<Self> {
        let path = self.0.join(name);
        fs::create_dir(&path).map_err(|e| skip(format!("cgroups can't be made here: {e}")))?;
        Ok(Self(path))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file by which processes are moved to it.
    pub fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Moves a process to it.
    ///
    /// # Errors
    /// Skips the scenario: that can't be done here.
    pub fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.processes(), pid.to_string())
            .map_err(|e| skip(format!("processes can't be moved to a cgroup here: {e}")))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever was in it is gone by now; if not, the next run removes it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Removes what killed runs left behind.
pub fn sweep() {
    for entry in root().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(inner.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where the tree is mounted.
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut of = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    of.find(|words| words.get(2) == Some(&"cgroup2")).map(|words| PathBuf::from(words[1]))
}
