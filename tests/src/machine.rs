//! What this machine can't do: nothing comes in, reasons come out.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::scene::skip;

/// Why no scenario can run here, if so.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root: it makes network namespaces and loads BPF programs".into());
    }
    if !has("ip") {
        return Some("needs iproute2 (apt-get install iproute2)".into());
    }
    if let Err(e) = Command::new("ip").args(["netns", "list"]).output() {
        return Some(format!("ip netns does not work: {e}"));
    }
    let cgroup2 = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !cgroup2.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        return Some("needs a cgroup v2 file system".into());
    }
    match (is_map_supported(MapType::RingBuf), is_program_supported(ProgramType::SockOps)) {
        (Ok(true), Ok(true)) => None,
        (Err(e), _) => Some(format!("BPF maps can't be made here: {e}")),
        (_, Err(e)) => Some(format!("BPF programs can't be loaded here: {e}")),
        _ => Some("this kernel has no BPF ring buffer or no sockops programs".into()),
    }
}

/// Whether a program of that name is on the path.
pub fn has(program: &str) -> bool {
    path_of(program).is_some()
}

/// Where on the path a program of that name is.
pub fn path_of(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Lets this process have as many descriptors as it may: some rows keep thousands of connections open at both ends.
pub fn raise_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Lets this process lock as much memory as it likes: kernels before 5.11 count BPF programs and maps as such.
pub fn raise_locked_memory() -> io::Result<()> {
    Ok(setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    // target/PROFILE/deps/TEST, and TARGET before PROFILE where one was named.
    let test = env::current_exe().unwrap_or_default();
    let beside = test.ancestors().skip(3).take(2).find(|directory| directory.join("stack").is_dir());
    let named = || env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    beside.map(PathBuf::from).or_else(named).unwrap_or_default()
}

/// The collector's program.
///
/// # Errors
/// Skips the scenario: it is not built.
pub fn otelcol() -> Result<PathBuf> {
    let path = target().join("stack/otelcol");
    if path.is_file() { Ok(path) } else { Err(skip("no collector: build it with tests/stack/build.sh otelcol")) }
}

/// Whether this process has the ids that the kernel's programs see: it is in the initial pid namespace.
pub fn has_kernel_pids() -> bool {
    // PROC_PID_INIT_INO, include/linux/proc_ns.h.
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.to_string_lossy() == "pid:[4026531836]")
}

/// Whether this process is in no cgroup but the root of the tree.
pub fn in_root_cgroup() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| text.lines().any(|line| line == "0::/"))
}

/// Whether the kernel tells in which network namespace a connection was established: Linux 6.1 and newer.
pub fn tells_namespaces() -> bool {
    is_at_least((6, 1))
}

/// Whether the kernel is of this version, or newer.
pub fn is_at_least(version: (u32, u32)) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

/// The inode number of the host's network namespace: threads of the kernel are in it.
///
/// # Errors
/// It can't be read.
pub fn host_namespace() -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata("/proc/2/ns/net")?.ino())
}

/// Whether the kernel tells which process calls listen(): by its BTF.
pub fn tells_listeners() -> bool {
    tells_types()
}

/// Whether it tells accept() from getpeername(): by its BTF, and how x86-64 keeps registers.
pub fn tells_calls() -> bool {
    tells_listeners() && std::env::consts::ARCH == "x86_64"
}

/// Whether the kernel says where the members of its structures are (BTF), so that a socket's own error can be read.
pub fn tells_types() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Memory that is free or can be made free, in bytes.
///
/// # Errors
/// /proc does not say.
pub fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
