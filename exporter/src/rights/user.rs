//! A name or number in, a user with its groups out; and becoming it. Read from /etc/passwd and /etc/group alone: a look-up by
//! the C library may ask the network.

use std::{fmt, fs, io, io::Read as _, path::Path};

use rustix::{
    fs::{Gid, Uid},
    thread::{set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{Error, capabilities};

/// The user that is looked for when none is configured.
const NAME: &str = "flowtel";
/// Who it is where the host has none: the number of nobody on most systems.
const NOBODY: u32 = 65534;
/// More than any file of users has.
const MOST: u64 = 4 << 20;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Other groups that it is in.
    groups: Vec<u32>,
    name: Option<String>,
    /// Nobody chose it.
    pub(super) is_fallback: bool,
}

// === impl User

impl User {
    /// The user of this name or number; without one `flowtel`, or 65534.
    pub(super) fn find(wanted: Option<&str>) -> Result<Self, Error> {
        Self::find_in(wanted, &text("/etc/passwd"), &text("/etc/group"))
    }

    fn find_in(wanted: Option<&str>, passwd: &str, group: &str) -> Result<Self, Error> {
        let name = wanted.map_or(NAME, str::trim);
        let number: Option<u32> = name.parse().ok();
        let found = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (known, uid, gid) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse().ok()?);
            (known == name || number == Some(uid)).then(|| (known.to_owned(), uid, gid))
        });
        match (found, number, wanted) {
            (Some((name, uid, gid)), ..) => {
                let groups = groups_of(group, &name);
                Ok(Self { uid, gid, groups, name: Some(name), is_fallback: false })
            }
            // The highest number means "no change" to the kernel.
            (None, Some(uid), _) if uid != u32::MAX => {
                Ok(Self { uid, gid: uid, groups: Vec::new(), name: None, is_fallback: false })
            }
            (None, _, None) => Ok(Self { uid: NOBODY, gid: NOBODY, groups: Vec::new(), name: None, is_fallback: true }),
            (None, _, Some(name)) => Err(Error::NoUser { name: name.to_owned() }),
        }
    }

    /// Becomes it, with all capabilities in effect that this thread had.
    pub(super) fn become_it(&self) -> Result<(), (&'static str, io::Error)> {
        let group = |gid: &u32| Gid::from_raw(*gid);
        let groups: Vec<_> = self.groups.iter().map(group).collect();
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        let failed = |what| move |e: rustix::io::Errno| (what, e.into());
        set_keep_capabilities(true).map_err(failed("keeping capabilities"))?;
        set_thread_groups(&groups).map_err(failed("setgroups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
        set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
        set_keep_capabilities(false).map_err(failed("keeping capabilities"))?;
        capabilities::raise().map_err(|e| ("capabilities", e))
    }

    /// Whether it is in this group.
    pub(super) fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} ({name})", self.uid),
            None => self.uid.fmt(f),
        }
    }
}

/// The groups in whose lines a user stands (group(5)).
fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let gid = |line: &str| -> Option<u32> {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    };
    group.lines().filter_map(gid).collect()
}

fn text(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    // Without the file there are no names.
    let _ = fs::File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nflowtel:x:987:986::/:/usr/sbin/nologin\nx:x:-1:1::/:/\n";
    const GROUP: &str = "root:x:0:\nssl-cert:x:110:flowtel,bob\nother:x:111:bob,flowtel2\nbroken:x\n";

    #[test]
    fn a_user_is_found_by_name_or_number_with_its_groups() {
        let flowtel = User { uid: 987, gid: 986, groups: vec![110], name: Some("flowtel".into()), is_fallback: false };
        for wanted in [None, Some("flowtel"), Some("987"), Some(" 987 ")] {
            assert_eq!(User::find_in(wanted, PASSWD, GROUP).expect("found"), flowtel);
        }
        assert_eq!(User::find_in(Some("0"), PASSWD, GROUP).expect("found").uid, 0);
        let number = User::find_in(Some("4711"), PASSWD, GROUP).expect("a number is enough");
        assert_eq!((number.uid, number.gid, number.is_fallback), (4711, 4711, false));
        assert!(number.is_in(4711) && !number.is_in(110) && flowtel.is_in(110));
    }

    #[test]
    fn without_a_user_it_is_nobody_and_a_name_that_is_none_is_refused() {
        let nobody = User::find_in(None, "root:x:0:0::/:/\n", "").expect("always");
        assert_eq!((nobody.uid, nobody.gid, nobody.is_fallback), (NOBODY, NOBODY, true));
        for wrong in ["flow", "x", "-1", "", "4294967295"] {
            assert!(matches!(User::find_in(Some(wrong), PASSWD, GROUP), Err(Error::NoUser { .. })), "{wrong}");
        }
    }
}
