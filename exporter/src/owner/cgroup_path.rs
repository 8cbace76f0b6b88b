//! The path of a cgroup in; which container, pod and systemd unit it is out.
//!
//! The path is read from its root to its end, and what is further in counts:
//!
//! - a **container** is a part `<64 hex>`, `<runtime>-<64 hex>` or `<runtime>-<64 hex>.scope`, as Docker, containerd,
//!   CRI-O, Podman and nerdctl name it, whatever the runtime; or `<task>-<number>` within its task of 32 hex digits, as
//!   AWS Fargate names it; or the machine of systemd-nspawn and LXC, or Garden's container (Cloud Foundry), which have a
//!   name and no id. Monitors (conmon, `lxc.monitor`, nspawn's supervisor) are outside of what they watch, virtual machines
//!   are no containers. It ends the unit named before it: that one holds the container's manager, not the process;
//! - a **pod** is a part `…-pod<uid>.slice` or `pod<uid>`. It ends container and unit named before it: those are the node
//!   that the pod runs on. A container within a container of a pod belongs to the pod;
//! - a **unit** is a part `*.service` or `*.scope` that is no container's.
//!
//! Whoever owns a cgroup names those below it: within `user@1000.service` the user, within a container that may write
//! to its cgroups the container. So what is said here is as true as that owner is.
//!
//! Must never panic, and never tell anything but hex digits as a container's id, nor control characters at all outside
//! of `path`.

use super::text;

/// The longest path that is read, bytes: PATH_MAX.
const MAX_PATH: usize = 4096;

/// The longest name of a machine (HOST_NAME_MAX) and of a unit (UNIT_NAME_MAX, 255 with its zero).
const MAX_MACHINE: usize = 64;
const MAX_UNIT: usize = 255;

/// Where a process runs, as the path of its cgroup says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The innermost container: 64 hex digits in lower case; on Fargate 32 of them, a dash and a number; of systemd-nspawn,
    /// LXC and Garden the machine's name.
    pub container_id: Option<Box<str>>,
    /// The Kubernetes pod's uid, with dashes; of a static pod the 32 hex digits that the kubelet made for it.
    pub pod_uid: Option<Box<str>>,
    /// The innermost systemd unit, service or scope, within the container where there is one; escapes such as `\x2d` are
    /// replaced by what they stand for.
    pub systemd_unit: Option<Box<str>>,
    /// The path, `/` for the root of the tree. Bytes that are no UTF-8 are replaced by U+FFFD. At most 4 KiB.
    pub path: Box<str>,
}

/// What one part of a path is.
enum Part {
    Pod(Box<str>),
    Container(Box<str>),
    Unit(Box<str>),
    Other,
}

// === impl Place

impl Place {
    /// Reads a path, relative to the root of the tree of cgroups or to that of a cgroup namespace (`/../../docker-…`).
    pub fn from_path(path: &[u8]) -> Self {
        let text = text::bounded(path, MAX_PATH);
        let mut place = Self::default();
        let mut parts = text.split('/').filter(|part| !matches!(*part, "" | "." | "..")).peekable();
        let (mut beyond, mut outer, mut first) = ("", "", true);
        while let Some(part) = parts.next() {
            let next = parts.peek().copied().unwrap_or_default();
            // containerd without systemd's driver under a kubelet with it: kubepods-pod<uid>.slice:cri-containerd:<id>
            for piece in part.split(':') {
                place.step(classify(piece, Around { beyond, outer, next, first }), piece);
            }
            (beyond, outer, first) = (outer, part, false);
        }
        place.path = if text.is_empty() { "/".into() } else { text.into() };
        place
    }

    fn step(&mut self, part: Part, piece: &str) {
        match part {
            Part::Pod(uid) => (self.pod_uid, self.container_id, self.systemd_unit) = (Some(uid), None, None),
            Part::Container(id) => {
                self.container_id = Some(id);
                // A service that is a container (Podman's Quadlet, cgroups=split) has the container right within it.
                if !piece.starts_with("libpod-payload-") {
                    self.systemd_unit = None;
                }
            }
            Part::Unit(unit) => self.systemd_unit = Some(unit),
            Part::Other => {}
        }
    }
}

/// What stands around a part.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// Two before.
    beyond: &'a str,
    outer: &'a str,
    next: &'a str,
    first: bool,
}

fn classify(part: &str, around: Around<'_>) -> Part {
    if let Some(uid) = pod(part) {
        return Part::Pod(uid);
    }
    let id = container(part).or_else(|| fargate(part, around)).map(Into::into);
    if let Some(id) = id.or_else(|| machine(part, around)) {
        return Part::Container(id);
    }
    unit(part).map_or(Part::Other, Part::Unit)
}

/// The id in `<64 hex>`, `<runtime>-<64 hex>`, `<runtime>-<64 hex>.scope`.
fn container(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let (runtime, id) = match name.rsplit_once('-') {
        Some((runtime, id)) => (Some(runtime), id),
        None => (None, name),
    };
    let named = runtime.is_none_or(|r| {
        !r.is_empty()
            && !r.ends_with("conmon")
            && r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    });
    (named && id.len() == 64 && id.bytes().all(lower_hex)).then_some(id)
}

/// A container's id on Fargate, `<32 hex>-<number>`: the task that it is in comes first in it, and before it in the path
/// (where a cgroup namespace does not hide that).
fn fargate<'a>(part: &'a str, around: Around<'_>) -> Option<&'a str> {
    let (task, number) = part.split_once('-')?;
    let right = task.len() == 32
        && task.bytes().all(lower_hex)
        && (1..=20).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
        && (around.outer == task || around.first);
    right.then_some(part)
}

/// The uid in `…-pod<uid>.slice` (systemd's driver, `_` for `-`) or `pod<uid>` (cgroupfs).
fn pod(part: &str) -> Option<Box<str>> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = name.strip_prefix("pod").or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?;
    if uid.len() == 32 && uid.bytes().all(lower_hex) {
        return Some(uid.into()); // a static pod's
    }
    let right = uid.len() == 36
        && uid.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => matches!(b, b'-' | b'_'),
            _ => lower_hex(b),
        });
    right.then(|| uid.replace('_', "-").into())
}

/// The name of a machine of systemd-nspawn or LXC, or of a container of Garden.
fn machine(part: &str, around: Around<'_>) -> Option<Box<str>> {
    let name = if let Some(instance) = part.strip_prefix("systemd-nspawn@").and_then(|s| s.strip_suffix(".service")) {
        // Its own processes are beside the machine's.
        if around.next == "supervisor" {
            return None;
        }
        unescape(instance)
    } else if let Some(scope) = part.strip_prefix("machine-").and_then(|s| s.strip_suffix(".scope")) {
        let name = unescape(scope);
        // libvirt's virtual machines are registered the same way.
        if name.starts_with("qemu-") {
            return None;
        }
        name
    } else if let Some(name) = part.strip_prefix("lxc.payload.") {
        name.into()
    } else if around.outer == "lxc" && !around.first || is_garden(part, around) {
        part.into() // LXC before 4.0: /lxc/NAME
    } else {
        return None;
    };
    let right = !name.is_empty()
        && name.len() <= MAX_MACHINE
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    right.then(|| name.into())
}

/// Whether what stands before a part is Garden's own cgroup, with a tag of the installation or without, and where it
/// throttles, its halves for containers that keep to their share and for others (guardian, rundmc/cgroups).
fn is_garden(part: &str, around: Around<'_>) -> bool {
    let is_root = |part: &str| part.strip_prefix("garden").is_some_and(|tag| tag.is_empty() || tag.starts_with('-'));
    let is_half = |part: &str| matches!(part, "good" | "bad");
    if is_half(around.outer) { is_root(around.beyond) } else { is_root(around.outer) && !is_half(part) }
}

/// The name of a service or scope (systemd.unit(5)): only characters that systemd gives to units.
fn unit(part: &str) -> Option<Box<str>> {
    // systemd puts this before names that could be taken for a file of the cgroup (src/basic/cgroup-util.c, cg_escape).
    let name = part.strip_prefix('_').unwrap_or(part);
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope"))?;
    let right = !stem.is_empty()
        && name.len() <= MAX_UNIT
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@'));
    right.then(|| unescape(name).into())
}

fn lower_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

/// Replaces `\x2d` and the like by the characters that they stand for, where those are printable ASCII
/// (systemd-escape(1)); any other stays as it is.
fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("\\x") {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 2..at + 4).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|b| b.is_ascii_graphic() || *b == b' ') {
            Some(b) => {
                out.push(char::from(b));
                rest = &rest[at + 4..];
            }
            None => {
                out.push_str("\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests;
