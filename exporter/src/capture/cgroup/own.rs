//! This process in; its place in the tree of cgroups out, and the group that it belongs to.
//!
//! /proc/self/cgroup says the place only to a process in the host's cgroup namespace. In a private one it says `/`, while the
//! host's tree may be mounted all the same. So the tree itself is asked: `cgroup.procs` lists processes by their ids in the
//! reader's pid namespace, and 0 for those that the reader can't see (kernel/cgroup/cgroup.c, cgroup_procs_show). A line with
//! this process's own id is this process, in every namespace, and reading it needs no right.
//!
//! Must never take a group for flowtel's own that holds what is not of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{mount, read_bounded};
use crate::capture::Error;

/// The most of one file that is read: some hundred thousand processes.
const MAX_PROCS: u64 = 4 << 20;
/// The most directories that are looked into.
const MOST: usize = 1 << 17;

/// Cgroups in which runtimes put whatever has no group of its own. Whoever attached there would watch the neighbours, too.
const SHARED: [&str; 15] = [
    "docker",
    "default",
    "k8s.io",
    "moby",
    "libpod_parent",
    "machine.slice",
    "system.slice",
    "user.slice",
    "app.slice",
    "kubepods",
    "burstable",
    "besteffort",
    "kubepods.slice",
    "kubepods-burstable.slice",
    "kubepods-besteffort.slice",
];

/// The cgroup below `root`, or `root` itself, that this process is in; `None` where it is in none of them.
pub(super) fn find(root: &Path) -> Option<PathBuf> {
    let said = said_by_proc(root).filter(|path| holds(path));
    said.or_else(|| walk(root))
}

/// What /proc/self/cgroup says, where `root` is the root of what is said.
fn said_by_proc(root: &Path) -> Option<PathBuf> {
    let text = read_bounded(Path::new("/proc/self/cgroup"), MAX_PROCS).ok()?;
    let text = String::from_utf8(text).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.split('/').any(|part| part == "..")).then(|| root.join(path))
}

fn walk(root: &Path) -> Option<PathBuf> {
    let mut unread = vec![root.to_owned()];
    for _ in 0..MOST {
        let path = unread.pop()?;
        if holds(&path) {
            return Some(path);
        }
        // One that is gone meanwhile has nothing in it; links are not followed.
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        unread.extend(inner.map(|entry| entry.path()));
    }
    None
}

/// Whether this process is in the cgroup itself.
fn holds(cgroup: &Path) -> bool {
    let own = std::process::id().to_string();
    // A threaded cgroup refuses the reading (EOPNOTSUPP): its processes are listed by the one above it.
    read_bounded(&cgroup.join("cgroup.procs"), MAX_PROCS)
        .is_ok_and(|text| text.split(|byte| *byte == b'\n').any(|line| line == own.as_bytes()))
}

/// The cgroup around the one that this process is in: of a container in a pod the pod's, of one with Compose's
/// `cgroup_parent` that.
///
/// # Errors
/// There is no such cgroup, or it is not visible, or it holds more than one group.
pub(super) fn group() -> Result<PathBuf, Error> {
    let root = mount()?;
    let whole = super::is_host_root(&root);
    let own = find(&root);
    group_of(&root, own.as_deref(), whole).map_err(|reason| Error::Group { reason })
}

fn group_of(root: &Path, own: Option<&Path>, whole: bool) -> Result<PathBuf, String> {
    const MOUNT: &str = "mount the host's tree into this container, read-only (/sys/fs/cgroup:/sys/fs/cgroup:ro)";
    const OWN: &str = "give the app, flowtel and the collector a cgroup of their own (Compose: cgroup_parent on each), or name \
                       one by its path";
    let Some(own) = own else {
        return Err(format!("flowtel's own cgroup is not below {}; {MOUNT}", root.display()));
    };
    if own == root {
        return Err(if whole {
            format!("flowtel runs in the root of the tree, with no group around it; {OWN}")
        } else {
            format!("{} shows flowtel's own cgroup alone, not the one around it; {MOUNT}", root.display())
        });
    }
    let around = own.parent().unwrap_or(root);
    if around == root && whole {
        return Err(format!(
            "the cgroup around flowtel's ({}) is the root: that is the whole host; {OWN}",
            own.display()
        ));
    }
    let name = around.file_name().unwrap_or_default().to_string_lossy();
    if SHARED.contains(&&*name) || name.starts_with("user-") {
        return Err(format!(
            "the cgroup around flowtel's, {}, holds whatever this host runs without a group of its own; {OWN}",
            around.display()
        ));
    }
    Ok(around.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_cgroup_around_the_container_and_none_that_holds_neighbours() {
        let root = Path::new("/sys/fs/cgroup");
        let of = |own: &str, whole| group_of(root, Some(&root.join(own)), whole);
        for (own, group) in [
            ("shop.slice/docker-1.scope", "shop.slice"),
            ("shop/1", "shop"),
            ("kubepods/burstable/pod1/2", "kubepods/burstable/pod1"),
            ("kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope", "kubepods.slice/kubepods-pod1.slice"),
        ] {
            assert_eq!(of(own, true), Ok(root.join(group)));
        }
        for (own, words) in [
            ("docker/1", "/sys/fs/cgroup/docker, holds whatever"),
            ("system.slice/docker-1.scope", "system.slice, holds whatever"),
            ("kubepods/burstable/1", "burstable, holds whatever"),
            ("user.slice/user-1000.slice/session-1.scope", "user-1000.slice, holds whatever"),
            ("1", "that is the whole host"),
        ] {
            assert!(of(own, true).is_err_and(|e| e.contains(words) && e.contains("cgroup_parent")), "{own}");
        }
        let alone = group_of(root, Some(root), false).expect_err("its own cgroup alone");
        assert!(alone.contains("shows flowtel's own cgroup alone") && alone.contains("/sys/fs/cgroup:ro"), "{alone}");
        assert!(group_of(root, Some(root), true).is_err_and(|e| e.contains("runs in the root")));
        assert!(group_of(root, None, true).is_err_and(|e| e.contains("is not below /sys/fs/cgroup")));
    }

    #[test]
    fn this_process_is_found_in_the_tree_and_not_where_it_is_not() {
        let Ok(root) = mount() else { return };
        let own = find(&root).expect("every process is in a cgroup");
        assert!(holds(&own) && walk(&own).as_deref() == Some(&*own));
        let empty = tempfile::tempdir().expect("a directory");
        assert_eq!(find(empty.path()), None);
    }
}
