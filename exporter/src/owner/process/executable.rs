//! What /proc or the kernel's programs say of an executable in; name and path as text, and how far they can be trusted, out.
//!
//! Must never make more than [`MAX_PATH`] bytes, nor change a path that is valid UTF-8 and within that.

use flowtel_common::exec::{self, CALLED, Exec, HOST, OTHER, REMOVED, ROOTLESS, WHOLE};

use super::super::text;

/// The longest path that is kept, bytes: PATH_MAX. The kernel itself gives no longer one.
pub(super) const MAX_PATH: usize = 4096;

/// What the kernel adds when the file is no longer in its directory (fs/d_path.c, path_with_deleted).
const DELETED: &[u8] = b" (deleted)";
/// What the kernel calls a file of memory (mm/memfd.c).
const MEMFD: &str = "memfd:";
/// How a program that was started by a descriptor is called (fs/exec.c, alloc_bprm): that names no file.
const BY_DESCRIPTOR: &str = "/dev/fd/";

/// The program that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Executable {
    /// The last part of the path.
    pub name: Box<str>,
    /// Where it is, as its own mount namespace shows it, so of a container's process the path within the container: `state`
    /// says so. Bytes that are no UTF-8 are replaced by U+FFFD. At most 4 KiB. A program without a file has what the
    /// kernel calls it, such as `/memfd:name`.
    pub path: Box<str>,
    /// Why the path does not lead to the program; `None` where it does, or did when it was looked at.
    pub state: Option<State>,
    /// Which file it is, whatever the path.
    pub file: Option<File>,
    /// Who says so.
    pub source: Source,
}

/// Why a path is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The file was removed or replaced since the process started it (an upgrade), or never had a name. In /proc the kernel
    /// says it by a suffix, ` (deleted)`, which is left out of name and path: so of a file that is really named like this, the
    /// name is told without it.
    Deleted,
    /// It is a file of memory: no directory has it.
    Memfd,
    /// It is a path in another mount namespace than the host's: a container's, or that of a service with a private `/tmp`.
    OtherMountNamespace,
    /// It is not known which mount namespace the path is in.
    UnknownMountNamespace,
    /// It is what the caller of execve() passed: it may be relative, a symbolic link, or a script.
    Called,
}

/// A file, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    /// The device number of its file system, major and minor.
    pub device: (u32, u32),
    /// Its inode number there.
    pub inode: u64,
}

/// How an executable is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// By /proc, a moment after the event.
    Proc,
    /// By the start of the program itself.
    Exec,
}

/// Which mount namespace a path is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounts {
    Host,
    Other,
    Unknown,
}

// === impl Executable

impl Executable {
    /// Reads what the link holds. `None` where it holds nothing.
    pub(super) fn from_link(link: &[u8], file: Option<File>, mounts: Mounts) -> Option<Self> {
        let (path, deleted) = match link.strip_suffix(DELETED) {
            Some(path) => (path, true),
            None => (link, false),
        };
        let path = text::bounded(path, MAX_PATH);
        let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        let state = if deleted && path.strip_prefix('/').is_some_and(|name| name.starts_with(MEMFD)) {
            Some(State::Memfd)
        } else if deleted {
            Some(State::Deleted)
        } else {
            mounts.state()
        };
        Some(Self { name: name.into(), path: path.as_str().into(), state, file, source: Source::Proc })
    }

    /// Reads what the kernel's program told, with `names` as [`exec::names`] reads them. `None` where that is not
    /// whole.
    pub(in crate::owner) fn from_exec(head: &Exec, names: &[u8]) -> Option<Self> {
        let flag = |flag| head.flags & flag != 0;
        if head.kind == CALLED {
            let names = names.strip_suffix(b"\0")?;
            let path = text::bounded(names, MAX_PATH);
            let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
            return (!path.starts_with(BY_DESCRIPTOR)).then(|| Self {
                name: name.into(),
                path: path.as_str().into(),
                state: Some(State::Called),
                file: None,
                source: Source::Exec,
            });
        }
        let mut path = Vec::with_capacity(names.len());
        for name in exec::names(names)?.rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.len() > MAX_PATH {
            return None;
        }
        let path = text::bounded(&path, MAX_PATH);
        let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        let state = if flag(ROOTLESS) {
            if !name.starts_with(MEMFD) {
                return None;
            }
            Some(State::Memfd)
        } else if !flag(WHOLE) {
            return None;
        } else if flag(REMOVED) {
            Some(State::Deleted)
        } else {
            let mounts = match (flag(HOST), flag(OTHER)) {
                (true, false) => Mounts::Host,
                (false, true) => Mounts::Other,
                _ => Mounts::Unknown,
            };
            mounts.state()
        };
        let file = (head.inode != 0)
            .then_some(File { device: (head.device >> 20, head.device & 0xf_ffff), inode: head.inode });
        Some(Self { name: name.into(), path: path.as_str().into(), state, file, source: Source::Exec })
    }

    /// One at this path, as /proc would tell it.
    #[cfg(test)]
    pub fn example(path: &str) -> Self {
        Self::from_link(path.as_bytes(), None, Mounts::Host).expect("a path")
    }

    /// Only what the caller passed is known.
    pub(in crate::owner) fn is_called(&self) -> bool {
        self.state == Some(State::Called)
    }
}

// === impl Mounts

impl Mounts {
    fn state(self) -> Option<State> {
        match self {
            Self::Host => None,
            Self::Other => Some(State::OtherMountNamespace),
            Self::Unknown => Some(State::UnknownMountNamespace),
        }
    }
}

// === impl State

impl State {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Memfd => "memfd",
            Self::OtherMountNamespace => "other_mount_namespace",
            Self::UnknownMountNamespace => "unknown_mount_namespace",
            Self::Called => "called",
        }
    }
}

// === impl Source

impl Source {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Exec => "exec",
        }
    }
}

#[cfg(test)]
mod tests {
    use flowtel_common::exec::EXEC;
    use proptest::prelude::*;

    use super::*;

    fn read(link: &[u8]) -> (String, String, Option<State>) {
        let e = Executable::from_link(link, None, Mounts::Host).expect("a program");
        (e.name.into(), e.path.into(), e.state)
    }

    fn told(kind: u32, flags: u32, names: &[u8]) -> Option<(String, Option<State>)> {
        let device = 8 << 20 | 3;
        let head = Exec {
            kind,
            tgid: 7,
            time: 1,
            inode: 99,
            device,
            flags,
            names: u32::try_from(names.len()).expect("short"),
            argument: 0,
        };
        let names = if kind == CALLED {
            names.to_vec()
        } else {
            exec::entries(names.strip_suffix(b"\0").unwrap_or(names).split(|b| *b == 0)).collect()
        };
        let found = Executable::from_exec(&head, &names)?;
        assert_eq!(Some(&*found.name), found.path.rsplit('/').next());
        assert_eq!(found.source, Source::Exec);
        assert_eq!(found.file, (kind == EXEC).then_some(File { device: (8, 3), inode: 99 }));
        Some((found.path.into(), found.state))
    }

    #[test]
    fn names_and_paths_are_told_as_they_are() {
        assert_eq!(read(b"/usr/bin/curl"), ("curl".into(), "/usr/bin/curl".into(), None));
        assert_eq!(read("/opt/grüße 漢字/x y".as_bytes()).0, "x y");
        assert_eq!(read(b"/init").0, "init");
    }

    #[test]
    fn a_program_that_was_replaced_keeps_its_path_and_is_marked() {
        assert_eq!(read(b"/usr/sbin/nginx (deleted)").2, Some(State::Deleted));
        assert_eq!(read(b"/usr/sbin/nginx (deleted)").1, "/usr/sbin/nginx");
        let memfd = ("memfd:stage two".into(), "/memfd:stage two".into(), Some(State::Memfd));
        assert_eq!(read(b"/memfd:stage two (deleted)"), memfd);
    }

    #[test]
    fn a_path_of_another_mount_namespace_or_of_one_that_is_not_known_says_so() {
        let state = |mounts| Executable::from_link(b"/bin/x", None, mounts).expect("a program").state;
        assert_eq!(state(Mounts::Other), Some(State::OtherMountNamespace));
        assert_eq!(state(Mounts::Unknown), Some(State::UnknownMountNamespace));
        assert_eq!(told(EXEC, WHOLE | OTHER, b"x\0bin\0"), Some(("/bin/x".into(), Some(State::OtherMountNamespace))));
        assert_eq!(told(EXEC, WHOLE, b"x\0bin\0"), Some(("/bin/x".into(), Some(State::UnknownMountNamespace))));
    }

    #[test]
    fn nothing_and_a_bare_root_name_no_program() {
        for link in [&b""[..], b"/", b" (deleted)"] {
            assert_eq!(Executable::from_link(link, None, Mounts::Host), None);
        }
        for names in [&b""[..], b"\0"] {
            assert_eq!(told(EXEC, WHOLE | HOST, names), None);
        }
    }

    #[test]
    fn names_from_the_innermost_to_the_outermost_are_a_path() {
        assert_eq!(told(EXEC, WHOLE | HOST, b"curl\0bin\0usr\0"), Some(("/usr/bin/curl".into(), None)));
        assert_eq!(told(EXEC, WHOLE | HOST | REMOVED, b"x\0tmp\0"), Some(("/tmp/x".into(), Some(State::Deleted))));
        assert_eq!(told(EXEC, ROOTLESS | REMOVED, b"memfd:two\0"), Some(("/memfd:two".into(), Some(State::Memfd))));
    }

    #[test]
    fn a_path_that_did_not_come_to_a_root_is_none() {
        assert_eq!(told(EXEC, 0, b"curl\0bin\0"), None);
        assert_eq!(told(EXEC, ROOTLESS, b"curl\0"), None);
        let deep: Vec<u8> = (0..17).flat_map(|_| [&[b'a'; 255][..], b"\0"].concat()).collect();
        assert_eq!(told(EXEC, WHOLE | HOST, &deep), None);
    }

    #[test]
    fn what_the_caller_passed_is_marked_and_a_descriptor_names_no_file() {
        assert_eq!(told(CALLED, 0, b"./curl\0"), Some(("./curl".into(), Some(State::Called))));
        assert_eq!(told(CALLED, 0, b"/dev/fd/7\0"), None);
        assert_eq!(told(CALLED, 0, b"/dev/fd/7/x\0"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_bounded_text(link in prop::collection::vec(any::<u8>(), 0..6000), flags in 0u32..32) {
            if let Some(e) = Executable::from_link(&link, None, Mounts::Host) {
                prop_assert!(e.path.len() <= MAX_PATH && e.path.ends_with(&*e.name) && !e.name.contains('/'));
            }
            let short = &link[..link.len().min(4352)];
            for kind in [EXEC, CALLED] {
                if let Some((path, _)) = told(kind, flags, short) {
                    prop_assert!(path.len() <= MAX_PATH);
                }
            }
        }

        #[test]
        fn valid_text_within_the_bound_is_kept_as_it_is(path in "/[^/\u{0}]{1,200}") {
            let e = Executable::from_link(path.as_bytes(), None, Mounts::Host).expect("a program");
            prop_assert_eq!(if e.state.is_some() { format!("{} (deleted)", e.path) } else { e.path.into() }, path);
        }
    }
}
