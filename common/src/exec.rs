//! What the kernel programs tell of processes: which program one runs from now on, and of which process it is a copy. A ring
//! of its own (`EXECS`), so that a storm of short processes can't crowd out flows.
//!
//! As with [`crate::event`]: written field by field, no padding, times are nanoseconds of CLOCK_BOOTTIME.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// First word of an [`Exec`] whose names are those of the file that runs.
pub const EXEC: u32 = 1;
/// First word of an [`Exec`] that has one name: what the caller of execve() passed. It may be relative, a script, or a
/// symbolic link.
pub const CALLED: u32 = 2;
/// First word of a [`Fork`].
pub const FORK: u32 = 3;

/// [`Exec::flags`]: the names lead to the root of a mount namespace.
pub const WHOLE: u32 = 1;
/// [`Exec::flags`]: which is the host's, the one of process 1.
pub const HOST: u32 = 2;
/// [`Exec::flags`]: which is another one than the host's.
pub const OTHER: u32 = 4;
/// [`Exec::flags`]: the file was removed from its directory, or never had one.
pub const REMOVED: u32 = 8;
/// [`Exec::flags`]: the file is in no directory at all: of memory (memfd_create(2)).
pub const ROOTLESS: u32 = 16;

/// Bytes of an entry before its name. [`ENTRY_LENGTH`] says where the name's length lies; the rest is of no use here.
pub const ENTRY: usize = 40;
/// Where in an entry the length of its name lies, a `u32`.
pub const ENTRY_LENGTH: usize = 20;
/// The most bytes of names: PATH_MAX, and one entry that begins before that.
pub const NAMES: usize = 4096 + ENTRY + 256;
/// The most bytes of the first argument, with a final zero.
pub const ARGUMENT: usize = 256;

/// A process runs another program from now on (tracepoint sched_process_exec). Its names follow, [`Exec::names`] bytes: of
/// [`CALLED`] one with a zero behind it, of [`EXEC`] those of the file from the innermost to the outermost, as [`names`] reads
/// them. Behind them [`Exec::argument`] bytes of its first argument.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Exec {
    /// [`EXEC`] or [`CALLED`].
    pub kind: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When.
    pub time: u64,
    /// The file's inode number; 0 where it is not known, or the names say where it is: [`WHOLE`] and [`HOST`], no more.
    pub inode: u64,
    /// The device number of its file system, as the kernel has it: 12 bits major, 20 minor. Likewise.
    pub device: u32,
    /// [`WHOLE`] and so on.
    pub flags: u32,
    /// Bytes of names that follow.
    pub names: u32,
    /// Bytes of the first argument that follow those, with its final zero.
    pub argument: u32,
}

/// A process was made (tracepoint sched_process_fork): it runs what the one does that made it. Without BTF this comes for new
/// threads too, whose ids no process has meanwhile.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
pub struct Fork {
    /// [`FORK`].
    pub kind: u32,
    /// Process id of the new one in the initial pid namespace.
    pub tgid: u32,
    /// When it began, as it says itself; without BTF, when it was told of.
    pub time: u64,
    /// Process id of the one that made it, whose program it runs.
    pub of: u32,
    /// Process id of its parent: another one with CLONE_PARENT. 0 where it is not known, without BTF.
    pub parent: u32,
}

/// One record of the ring, decoded.
#[cfg(feature = "user")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each names what it holds")]
pub enum Told<'r> {
    Exec { head: Exec, names: &'r [u8], argument: &'r [u8] },
    Fork(Fork),
}

/// What happened on one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnCpu {
    /// Programs started, and for which of them the ring had no room.
    pub execs: [u64; 2],
    /// Processes made, likewise.
    pub forks: [u64; 2],
    /// Address of the host's mount namespace, once it was looked for.
    pub host: u64,
}

/// What the kernel programs and user space share beside the ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// When the ring last had no room; 0: never. What is known of a process from before may be out of date.
    pub lost: u64,
    /// Inode number of the host's mount namespace; 0 where it is not known.
    pub host_inode: u64,
}

/// [`OnCpu`] as user space reads it.
pub type Words = [u64; size_of::<OnCpu>() / 8];

/// What follows an [`EXEC`] for these names, from the innermost on: for tests.
#[cfg(feature = "user")]
pub fn entries<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> impl Iterator<Item = u8> {
    names.into_iter().flat_map(|name| {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_ne_bytes();
        let head =
            (0..ENTRY).map(move |at| at.checked_sub(ENTRY_LENGTH).and_then(|i| length.get(i)).copied().unwrap_or(0xaa));
        let padding = name.len().next_multiple_of(8) - name.len();
        head.chain(name.iter().copied()).chain(core::iter::repeat_n(0xbb, padding))
    })
}

/// The names in what follows an [`EXEC`], from the innermost on. `None` where it is not of that form.
#[cfg(feature = "user")]
pub fn names(mut entries: &[u8]) -> Option<impl DoubleEndedIterator<Item = &[u8]>> {
    let mut all = [&[][..]; NAMES / ENTRY];
    let mut count = 0;
    while !entries.is_empty() {
        let (entry, rest) = entries.split_at_checked(ENTRY)?;
        let (length, _) = u32::read_from_prefix(entry.get(ENTRY_LENGTH..)?).ok()?;
        let length = usize::try_from(length).ok()?;
        let (padded, rest) = rest.split_at_checked(length.checked_next_multiple_of(8)?)?;
        *all.get_mut(count)? = padded.get(..length)?;
        count += 1;
        entries = rest;
    }
    Some(all.into_iter().take(count))
}

// === impl Told

#[cfg(feature = "user")]
impl<'r> Told<'r> {
    /// Reads a record. `None` where its parts do not belong together.
    pub fn decode(record: &'r [u8]) -> Option<Self> {
        let (kind, _) = u32::read_from_prefix(record).ok()?;
        match kind {
            FORK => Fork::read_from_bytes(record).ok().map(Self::Fork),
            EXEC | CALLED => {
                let (head, rest) = Exec::read_from_prefix(record).ok()?;
                let (names, rest) = rest.split_at_checked(usize::try_from(head.names).ok()?)?;
                (usize::try_from(head.argument) == Ok(rest.len())).then_some(Self::Exec { head, names, argument: rest })
            }
            _ => None,
        }
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_have_no_padding() {
        assert_eq!(size_of::<Exec>(), 40);
        assert_eq!(size_of::<Fork>(), 24);
        assert_eq!((size_of::<OnCpu>(), size_of::<Shared>()), (40, 16));
    }

    #[test]
    fn names_are_read_entry_by_entry_and_what_is_cut_is_none() {
        let entries: Vec<u8> = entries([&b"curl"[..], b"12345678", b"usr"]).collect();
        let read: Vec<&[u8]> = names(&entries).expect("names").collect();
        assert_eq!(read, [&b"curl"[..], b"12345678", b"usr"]);
        let whole: Vec<usize> = (0..=entries.len()).filter(|n| names(&entries[..*n]).is_some()).collect();
        assert_eq!(whole, [0, 48, 96, 144]);
        let entry = |name| super::entries([name]).collect::<Vec<u8>>();
        let mut long = entry(b"x");
        long[ENTRY_LENGTH..ENTRY_LENGTH + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(names(&long).is_none());
        assert!(names(&entry(b"").repeat(200)).is_none());
    }

    #[test]
    fn a_record_whose_parts_do_not_fit_is_none() {
        let mut record = vec![0u8; 40 + 9];
        record[..4].copy_from_slice(&EXEC.to_ne_bytes());
        record[32..36].copy_from_slice(&5u32.to_ne_bytes());
        record[36..40].copy_from_slice(&4u32.to_ne_bytes());
        record[40..].copy_from_slice(b"curl\0xyz\0");
        let Some(Told::Exec { names, argument, .. }) = Told::decode(&record) else { panic!("an exec") };
        assert_eq!((names, argument), (&b"curl\0"[..], &b"xyz\0"[..]));
        for n in 0..record.len() {
            assert_eq!(Told::decode(&record[..n]), None);
        }
        record[..4].copy_from_slice(&99u32.to_ne_bytes());
        assert_eq!(Told::decode(&record), None);
    }
}
