//! A Kubernetes pod's uid and the mounted tree of cgroups in; the pod's directory out.
//!
//! A container has a cgroup namespace of its own, and can't ask where in the tree it is: /proc/self/cgroup says `/`. It
//! knows its pod's uid (downward API), and the kubelet names the pod's directory by it: `pod<uid>` (driver cgroupfs), or
//! `…-pod<uid>.slice` with underscores for dashes (driver systemd).
//!
//! Whoever may make cgroups further down can name one like that, so the tree is read level by level and the highest counts;
//! two of one level are refused.
//!
//! Must never give another pod's directory, or read without bound.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The deepest that a pod is looked for: a kubelet in a container (kind, k3s in docker) has some levels above it.
const DEEPEST: usize = 10;
/// The most directories that are read.
const MOST: usize = 200_000;

/// The directory of the pod `uid` in the tree mounted at `mount`.
///
/// # Errors
/// No directory has its name, two of one level have, or the tree can't be read.
pub(super) fn find(mount: &Path, uid: &str) -> io::Result<PathBuf> {
    let names = [format!("pod{uid}"), format!("-pod{}.slice", uid.replace('-', "_"))];
    let is_it = |name: &str| name == names[0] || name.ends_with(&names[1]);
    let mut level = vec![mount.to_owned()];
    let mut read = 0;
    for _ in 0..DEEPEST {
        let (mut next, mut found) = (Vec::new(), Vec::new());
        for directory in &level {
            read += 1;
            let entries = match fs::read_dir(directory) {
                Ok(_) if read > MOST => {
                    return Err(io::Error::other(format!("pod {uid} is not among the first {MOST} cgroups")));
                }
                Ok(entries) => entries,
                Err(e) if directory == mount => return Err(e),
                // Gone meanwhile.
                Err(_) => continue,
            };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let pod = entry.file_name().to_str().is_some_and(is_it);
                if pod { &mut found } else { &mut next }.push(entry.path());
            }
        }
        match found.as_slice() {
            [] => level = next,
            [one] => return Ok(one.clone()),
            [one, other, ..] => {
                return Err(io::Error::other(format!(
                    "two cgroups are called like pod {uid}: {} and {}",
                    one.display(),
                    other.display()
                )));
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "no cgroup of pod {uid} is in the tree at {}; mount the node's /sys/fs/cgroup into the container. A static \
             pod's cgroup has another uid than its pod at the API",
            mount.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0d8e4f6c-1b2a-4c3d-9e5f-a1b2c3d4e5f6";

    fn tree(directories: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).expect("made");
        }
        root
    }

    #[test]
    fn the_directory_of_a_pod_is_found_for_both_cgroup_drivers_and_each_class_of_service() {
        let slice = "kubepods-burstable-pod0d8e4f6c_1b2a_4c3d_9e5f_a1b2c3d4e5f6.slice";
        for path in [
            format!("kubepods/pod{UID}"),
            format!("kubepods/besteffort/pod{UID}"),
            format!("kubepods.slice/kubepods-burstable.slice/{slice}"),
            format!("system.slice/docker-abc.scope/kubelet.slice/kubelet-kubepods.slice/{slice}"),
        ] {
            let root = tree(&[
                &format!("{path}/container"),
                "kubepods/pod0d8e4f6c-1b2a-4c3d-9e5f-a1b2c3d4e5f7",
                "user.slice/a",
            ]);
            assert_eq!(find(root.path(), UID).expect("found"), root.path().join(path));
        }
    }

    #[test]
    fn a_directory_of_that_name_within_another_pod_is_not_taken_and_two_of_one_level_are_refused() {
        let inner = format!("kubepods/burstable/podother/container/pod{UID}");
        let root = tree(&[&inner, &format!("kubepods/besteffort/pod{UID}")]);
        assert_eq!(find(root.path(), UID).expect("found"), root.path().join(format!("kubepods/besteffort/pod{UID}")));
        let root = tree(&[&format!("kubepods/burstable/pod{UID}"), &format!("kubepods/besteffort/pod{UID}")]);
        assert!(find(root.path(), UID).expect_err("which?").to_string().contains("two cgroups"));
        let nothing = find(tree(&["kubepods/besteffort"]).path(), UID).expect_err("none");
        assert_eq!(nothing.kind(), io::ErrorKind::NotFound);
        assert!(find(Path::new("/nowhere"), UID).is_err());
    }
}
