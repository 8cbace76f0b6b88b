//! A process in; the container that its cgroups of version 1 name out, on hosts that have such cgroups beside version 2
//! (the "hybrid" layout). There a container's process is often in no cgroup of version 2 but the root or its runtime's.
//!
//! The kernel's events know version 2 only, so /proc/PID/cgroup is asked as soon as an event is read, and the answer counts
//! where it is certain that it is the same process: as for its executable (`process`). A process may be moved meanwhile; who
//! moves it is its container's runtime, before it runs anything of the container.
//!
//! Must never name a container that another process is in, nor one on which the hierarchies do not agree.

use std::{fmt, fs, os::fd::OwnedFd, sync::Arc};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{
    Place,
    generations::Generations,
    process::{Processes, reading::read_whole, since_of},
};
use crate::{capture::KernelTime, config};

/// The longest list of cgroups that is read: a line for each of a dozen hierarchies.
const MOST_BYTES: usize = 16 << 10;

/// Which process is in which container, by version 1.
pub struct Hierarchies {
    proc: OwnedFd,
    known: Generations<u32, Known>,
}

/// What is known of a process id.
#[derive(Debug)]
struct Known {
    /// It holds for events of the process from here ...
    since: KernelTime,
    /// ... up to here.
    until: KernelTime,
    place: Option<Arc<Place>>,
}

// === impl Hierarchies

impl Hierarchies {
    /// `None` where there is nothing to ask: the host has no hierarchy of version 1, its processes are not shown, or
    /// `owner.container` is off.
    pub fn new(config: &config::Owner) -> Option<Self> {
        let list = config.proc.join("self/cgroup");
        let wanted = config.container && fs::read(list).is_ok_and(|text| version_1(&text).next().is_some());
        if !wanted || !Processes::shows_host(config) {
            return None;
        }
        let proc = open(CWD, &config.proc).ok()?;
        Some(Self { proc, known: Generations::new(config.max_processes as usize) })
    }

    /// The place of the process with the id `pid` in the initial pid namespace, which did something at `at`. `None`: none
    /// of its cgroups is a container's, or it is not certain whose they are.
    pub fn of(&mut self, pid: u32, at: KernelTime) -> Option<Arc<Place>> {
        let known = self.known.get(pid).filter(|known| at <= known.until);
        if let Some(known) = known {
            return known.place.clone().filter(|_| at >= known.since);
        }
        // Before anything is read: what is read holds at least until here.
        let until = KernelTime::now().max(at);
        let (since, place) = self.read(pid, at).unwrap_or_default();
        let before = self.known.get(pid).and_then(|known| known.place.clone());
        // What is the same stays one: records of it are encoded once.
        let place = match (place, before) {
            (Some(place), Some(before)) if *before == place => Some(before),
            (place, _) => place.map(Arc::new),
        };
        self.known.insert(pid, Known { since, until, place: place.clone() });
        place.filter(|_| at >= since)
    }

    fn read(&self, pid: u32, at: KernelTime) -> Option<(KernelTime, Option<Place>)> {
        let process = open(&self.proc, rustix::path::DecInt::new(pid)).ok()?;
        let since = since_of(&process, at).ok()?;
        let list = read_whole(&process, c"cgroup", MOST_BYTES).ok()?;
        Some((since, container_in(&list)))
    }
}

impl fmt::Debug for Hierarchies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hierarchies").finish_non_exhaustive()
    }
}

fn open(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The paths in lines `4:memory:/docker/…` (cgroups(7)): those of version 1 have a number other than 0.
fn version_1(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |b| *b == b':');
        let number = fields.next()?;
        let right = !number.is_empty() && number != b"0" && number.iter().all(u8::is_ascii_digit);
        right.then(|| fields.nth(1))?
    })
}

/// The place of a container that the lines name. `None` where they name none, or several.
fn container_in(list: &[u8]) -> Option<Place> {
    let mut places = version_1(list).map(Place::from_path).filter(|place| place.container_id.is_some());
    let first = places.next()?;
    places.all(|other| other.container_id == first.container_id && other.pod_uid == first.pod_uid).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3f4b0d9ad41d4a0ea3b1b8d2f7c5f6f0c3a9e1b2d4c6f8a0b1c2d3e4f5a6b7c8";
    const B: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn container(list: &str) -> Option<String> {
        let list = list.replace("{A}", A).replace("{B}", B);
        container_in(list.as_bytes()).and_then(|place| place.container_id).map(Into::into)
    }

    #[test]
    fn the_container_is_the_one_that_all_hierarchies_of_version_1_agree_on() {
        let docker = "12:memory:/docker/{A}\n11:cpu,cpuacct:/docker/{A}\n2:rdma:/\n1:name=systemd:/docker/{A}\n\
                      0::/system.slice/containerd.service\n";
        assert_eq!(container(docker).as_deref(), Some(A));
        assert_eq!(container("4:memory:/docker/{A}\n3:pids:/docker/{B}\n0::/\n"), None, "which of the two?");
        assert_eq!(container("0::/docker/{A}\n"), None, "version 2 is not asked here");
        assert_eq!(container("4:memory:/user.slice\n1:name=systemd:/user.slice/session-1.scope\n0::/\n"), None);
        assert_eq!(container("3:cpu:/a:b/docker/{A}\n").as_deref(), Some(A), "a path may hold a colon");
        for broken in ["", "\n", "4", "4:memory", "x:memory:/docker/{A}", ":memory:/docker/{A}"] {
            assert_eq!(container(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_pod_is_told_as_version_2_would_tell_it() {
        let list = format!(
            "5:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d8e4f6c_1b2a_4c3d_9e5f_a1b2c3d4e5f6.slice/cri-containerd-{A}.scope\n0::/\n"
        );
        let place = container_in(list.as_bytes()).expect("a container");
        assert_eq!(place.pod_uid.as_deref(), Some("0d8e4f6c-1b2a-4c3d-9e5f-a1b2c3d4e5f6"));
    }
}
