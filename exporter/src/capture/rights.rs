//! What this process may do, and what the kernel is: for errors that tell a person what is missing.

use std::fs;

use super::Error;

/// The oldest kernel that the programs run on.
pub const NEEDED_KERNEL: (u32, u32) = (5, 10);
const NEEDED_KERNEL_TEXT: &str = "5.10";

/// A capability by number and name (include/uapi/linux/capability.h).
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON")];
/// Stands for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// The kernel's release, as uname gives it, where it is new enough.
///
/// # Errors
/// It is older than 5.10.
pub fn kernel() -> Result<String, Error> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    // A release that can't be read is no reason to stop: loading will tell.
    match version(&release) {
        Some(found) if found < NEEDED_KERNEL => Err(Error::OldKernel { found: release, needed: NEEDED_KERNEL_TEXT }),
        _ => Ok(release),
    }
}

/// Whether the running kernel is at least this version. `false` where its release can't be read.
pub fn kernel_is_at_least(wanted: (u32, u32)) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    version(&release).is_some_and(|found| found >= wanted)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the capabilities that loading and attaching need are in effect.
///
/// # Errors
/// Names those that are missing.
pub fn capabilities() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|source| Error::System { what: "reading /proc/self/status", source })?;
    let effective = effective(&status).unwrap_or(0);
    let missing = missing(effective);
    if missing.is_empty() { Ok(()) } else { Err(Error::Rights { missing: missing.join(", ") }) }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    NEEDED.iter().filter(|(bit, _)| !has(*bit) && (*bit == 12 || !has(SYS_ADMIN))).map(|(_, name)| *name).collect()
}

/// The kernel's lockdown mode, where it is on (kernel_lockdown(7)): `integrity` or `confidentiality`.
pub fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text.split('[').nth(1)?.split(']').next()?;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_many_makers_are_read() {
        assert_eq!(version("5.10.0-30-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("6.18.44-fc-v445"), Some((6, 18)));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some((4, 18)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn root_an_old_style_admin_and_an_ordinary_user_are_told_apart() {
        assert!(missing(0x1ff_ffff_ffff).is_empty());
        assert!(missing(1 << 21 | 1 << 12).is_empty());
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(1 << 39 | 1 << 12), ["CAP_PERFMON"]);
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
    }
}
