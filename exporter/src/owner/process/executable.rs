//! The bytes of the link /proc/PID/exe in; name and path as text out (proc_pid_exe(5)).
//!
//! Must never make more than [`MAX_PATH`] bytes, nor change a path that is valid UTF-8 and within that.

use super::super::text;

/// The longest path that is kept, bytes: PATH_MAX. The kernel itself gives no longer one.
pub(super) const MAX_PATH: usize = 4096;

/// What the kernel adds when the file is no longer in its directory (fs/d_path.c, path_with_deleted).
const DELETED: &[u8] = b" (deleted)";

/// The program that a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Executable {
    /// The last part of the path.
    pub name: Box<str>,
    /// Where it is, as the process's own mount namespace shows it, so of a container's process the path within the
    /// container. Bytes that are no UTF-8 are replaced by U+FFFD. At most 4 KiB. A program without a file has what the
    /// kernel calls it, such as `/memfd:name`.
    pub path: Box<str>,
    /// The file was removed or replaced since the process started it (an upgrade), or never had a name. The kernel says
    /// it by a suffix, ` (deleted)`, which is left out of `name` and `path`: so of a file that is really named like this,
    /// the name is told without it.
    pub deleted: bool,
}

// === impl Executable

impl Executable {
    /// Reads what the link holds. `None` where it holds nothing.
    pub(super) fn from_link(link: &[u8]) -> Option<Self> {
        let (path, deleted) = match link.strip_suffix(DELETED) {
            Some(path) => (path, true),
            None => (link, false),
        };
        let path = text::bounded(path, MAX_PATH);
        let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        Some(Self { name: name.into(), path: path.as_str().into(), deleted })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(link: &[u8]) -> (String, String, bool) {
        let e = Executable::from_link(link).expect("a program");
        (e.name.into(), e.path.into(), e.deleted)
    }

    #[test]
    fn names_and_paths_are_told_as_they_are() {
        assert_eq!(read(b"/usr/bin/curl"), ("curl".into(), "/usr/bin/curl".into(), false));
        assert_eq!(read("/opt/grüße 漢字/x y".as_bytes()).0, "x y");
        assert_eq!(read(b"/init").0, "init");
    }

    #[test]
    fn a_program_that_was_replaced_keeps_its_path_and_is_marked() {
        assert_eq!(read(b"/usr/sbin/nginx (deleted)"), ("nginx".into(), "/usr/sbin/nginx".into(), true));
        assert_eq!(read(b"/memfd:stage two (deleted)"), ("memfd:stage two".into(), "/memfd:stage two".into(), true));
    }

    #[test]
    fn nothing_and_a_bare_root_name_no_program() {
        assert_eq!(Executable::from_link(b""), None);
        assert_eq!(Executable::from_link(b"/"), None);
        assert_eq!(Executable::from_link(b" (deleted)"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_bounded_text(link in prop::collection::vec(any::<u8>(), 0..6000)) {
            if let Some(e) = Executable::from_link(&link) {
                prop_assert!(e.path.len() <= MAX_PATH && e.path.ends_with(&*e.name) && !e.name.contains('/'));
            }
        }

        #[test]
        fn valid_text_within_the_bound_is_kept_as_it_is(path in "/[^/\u{0}]{1,200}") {
            let e = Executable::from_link(path.as_bytes()).expect("a program");
            prop_assert_eq!(if e.deleted { format!("{} (deleted)", e.path) } else { e.path.into() }, path);
        }
    }
}
