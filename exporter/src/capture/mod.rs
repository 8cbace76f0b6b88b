//! Kernel rings in, [`KernelEvent`]s with wall-clock time out. Knows nothing of flows, records or export.
//!
//! - `kernel_types`: where members of the kernel's own structures lie, by its BTF;
//! - [`cgroup`]: where the tree of cgroups is;
//! - `programs`: the kernel object, loaded and attached;
//! - `execs`: those programs of it that tell of processes;
//! - [`neighbours`]: other programs that run where these do;
//! - [`pins`]: what of them stays in the kernel, on request;
//! - `rings`: reading what the programs wrote, in the order of kernel time;
//! - `position`: how far a ring was read and written;
//! - [`audit`]: whether what counts as open still is;
//! - [`clock`]: kernel time and wall-clock time;
//! - [`snapshot`]: what was there before flowtel;
//! - [`selftest`]: one loopback connection that proves the path and tells flowtel's own process id;
//! - [`pcap`]: capture files instead of the kernel;
//! - [`rights`]: what this process may do, and what the kernel is.

pub mod audit;
pub mod cgroup;
pub mod clock;
mod execs;
mod kernel_types;
pub mod neighbours;
mod netns_id;
pub mod pcap;
pub mod pins;
mod position;
mod programs;
pub mod rights;
mod rings;
pub mod selftest;
pub mod snapshot;
mod wait;

use std::{io, path::PathBuf};

pub use clock::{Clock, KernelTime, WallTime};
pub use execs::Telling;
pub use flowtel_common::{
    event::{self, Event},
    exec,
};
pub use neighbours::Neighbours;
pub use netns_id::NetnsId;
pub use pins::{Earlier, Note, Pins};
pub use programs::{OBJECT, PROGRAMS, Program, Programs};
pub use rings::{Reach, Rings, caller, kind_of};
pub use snapshot::Snapshot;
pub use wait::{Stop, Wait};

/// A fact from the kernel, and when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelEvent {
    /// When, by the kernel's clock.
    pub time: KernelTime,
    /// When, by the wall clock as it was when the event was read.
    pub wall: WallTime,
    /// When it was read.
    pub read: WallTime,
    /// What.
    pub event: Event,
}

/// Why capture can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel is older than the programs need.
    #[error("this kernel is {found}; flowtel needs Linux {needed} or newer")]
    OldKernel {
        /// As uname says it.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
    /// A capability is missing.
    #[error(
        "loading eBPF programs needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and {missing} is not there; run flowtel as \
         root (sudo flowtel), or give its service these capabilities"
    )]
    Rights {
        /// Names of those that are missing.
        missing: String,
    },
    /// No cgroup v2 tree is mounted.
    #[error("no cgroup v2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NoCgroup2,
    /// The cgroup of the configuration can't be watched.
    #[error("can't watch the cgroup {path} (capture.cgroup): {source}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be told which group of cgroups flowtel belongs to, or that group holds others, too.
    #[error("capture.cgroup = \"self\": {reason}")]
    Group {
        /// Why, and what to do.
        reason: String,
    },
    /// The kernel refused a program or a map.
    #[error("the kernel refused to load {what}: {reason}{hint}")]
    Load {
        /// Program or map.
        what: String,
        /// What the kernel said.
        reason: String,
        /// What may help.
        hint: &'static str,
    },
    /// The kernel refused to attach a program.
    #[error("the kernel refused to attach {program} to the cgroup {cgroup}: {reason}{hint}")]
    Attach {
        /// Its name.
        program: &'static str,
        /// Where to.
        cgroup: PathBuf,
        /// What the kernel said.
        reason: String,
        /// What may help.
        hint: &'static str,
    },
    /// Maps and links can't be pinned where they are to be.
    #[error("can't keep anything in {path} (capture.pin): {reason}")]
    Pins {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another flowtel has the pins.
    #[error("another flowtel uses {path} (capture.pin): stop that one first, or give this one a directory of its own")]
    PinsHeld {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed that should not.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// flowtel runs in a time namespace whose clock can't be told from the kernel's.
    #[error(
        "flowtel runs in a time namespace, and how that shifts the clock can't be read ({reason}): all times would be wrong; \
         run flowtel outside of it"
    )]
    TimeNamespace {
        /// Why not.
        reason: String,
    },
    /// The self-test connection did not arrive as events.
    #[error(
        "the self-test connection over 127.0.0.1 was made, but its events did not arrive from the kernel within {waited_ms} \
         ms: another program on the watched cgroup may hide them"
    )]
    SelfTest {
        /// How long it was waited for.
        waited_ms: u64,
    },
}
