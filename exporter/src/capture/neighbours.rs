//! Other programs that run where flowtel's do: the watched cgroup comes in, its programs and those of the cgroups above it come
//! out (BPF_PROG_QUERY of bpf(2)), without flowtel's own.
//!
//! They matter because two kinds of them can make flowtel deaf: sock_ops programs, which share one word of flags for each
//! socket and overwrite it when they set it; and sendmsg programs, which rewrite where a query goes. The kernel runs the
//! programs of a cgroup in the order in which they were attached, and those of the cgroups above it afterwards.
//!
//! The question needs CAP_NET_ADMIN or CAP_BPF, and a name needs CAP_SYS_ADMIN. What isn't allowed isn't known, and no error.

use std::{collections::HashMap, fmt, fs::File, io, os::fd::AsRawFd, path::PathBuf};

use aya::programs::{ProgramInfo, loaded_programs};

use super::{Programs, cgroup::Cgroup};
use crate::escape::Escaped;

const BPF_PROG_QUERY: libc::c_long = 16;

/// The most programs of one kind that a cgroup holds (BPF_CGROUP_MAX_PROGS, include/linux/bpf-cgroup-defs.h).
const MOST: usize = 64;
/// The deepest that a cgroup is looked for below the root.
const DEEPEST: usize = 64;

/// `bpf_attach_type` (include/uapi/linux/bpf.h) of the places that flowtel's programs are attached to, by the names that
/// `bpftool cgroup` gives them.
const PLACES: [(&str, u32); 12] = [
    ("cgroup_inet_ingress", 0),
    ("cgroup_inet_egress", 1),
    (SOCK_OPS, 3),
    ("cgroup_inet4_connect", 10),
    ("cgroup_inet6_connect", 11),
    ("cgroup_inet4_post_bind", 12),
    ("cgroup_inet6_post_bind", 13),
    ("cgroup_udp4_sendmsg", 14),
    ("cgroup_udp6_sendmsg", 15),
    ("cgroup_inet4_getpeername", 29),
    ("cgroup_inet6_getpeername", 30),
    ("cgroup_inet_sock_release", 34),
];
const SOCK_OPS: &str = "cgroup_sock_ops";

/// A program of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is attached, as `bpftool cgroup` says it.
    pub place: &'static str,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// Its name, where the rights allow it to be read.
    pub name: Option<String>,
    /// The cgroup that it is attached to.
    pub cgroup: PathBuf,
    /// It runs after flowtel's.
    pub after: bool,
}

/// A way to look for them, now and later.
#[derive(Debug)]
pub struct Neighbours {
    /// The watched cgroup, and those above it.
    path: Vec<(PathBuf, File)>,
    own: Vec<u32>,
    /// Those that were found last.
    pub known: Vec<Neighbour>,
    /// Why they can't be looked for, if they can't.
    pub refused: Option<String>,
    /// The right to look is gone.
    shut: bool,
}

// === impl Neighbours

impl Neighbours {
    /// Looks for those of `cgroup`, once flowtel's `programs` are attached.
    pub fn look(programs: &Programs, cgroup: &Cgroup) -> Self {
        let mut path = Vec::new();
        let mut at = Some(cgroup.path.as_path());
        while let Some(directory) = at
            && path.len() < DEEPEST
            && directory.join("cgroup.controllers").exists()
            && let Ok(file) = File::open(directory)
        {
            path.push((directory.to_owned(), file));
            at = directory.parent();
        }
        let mut neighbours = Self { path, own: programs.ids(), known: Vec::new(), refused: None, shut: false };
        neighbours.again();
        neighbours
    }

    /// From here on nobody looks: the right to is given up. Those that were found stay.
    pub fn shut(&mut self) {
        self.shut = true;
        self.refused = Some("it has given up the right to".into());
    }

    /// Looks again: others may have come. Where that isn't allowed any more, those that were found before stay.
    pub fn again(&mut self) {
        if self.shut {
            return;
        }
        let mut found = Vec::new();
        for (place, kind) in PLACES {
            // Once flowtel's program has run, the others run after it.
            let mut after = false;
            for (cgroup, directory) in &self.path {
                match query(directory, kind) {
                    Ok(ids) => {
                        for id in ids {
                            if self.own.contains(&id) {
                                after = true;
                            } else {
                                let cgroup = cgroup.clone();
                                found.push(Neighbour { place, id, name: None, cgroup, after });
                            }
                        }
                    }
                    Err(e) => {
                        self.refused = Some(e.to_string());
                        return;
                    }
                }
            }
        }
        if !found.is_empty() {
            let names = names();
            found.iter_mut().for_each(|neighbour| neighbour.name = names.get(&neighbour.id).cloned());
        }
        self.refused = None;
        self.known = found;
    }

    /// Those that can take flowtel's callbacks away, each with its id.
    pub fn suspects(&self) -> impl Iterator<Item = &Neighbour> {
        self.known.iter().filter(|neighbour| neighbour.place == SOCK_OPS)
    }
}

impl fmt::Display for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.path.len() {
            0 | 1 => "on the watched cgroup",
            _ => "on the watched cgroup or above it",
        };
        if let Some(refused) = &self.refused {
            return write!(f, "other programs {way} can't be listed: {refused}");
        }
        if self.known.is_empty() {
            return write!(f, "no other programs are attached {way} where flowtel's are");
        }
        write!(f, "other programs {way}: ")?;
        list(f, self.known.iter())
    }
}

/// Programs as a person reads them, one after the other.
///
/// # Errors
/// The formatter refuses.
pub fn list<'a>(f: &mut impl fmt::Write, neighbours: impl Iterator<Item = &'a Neighbour>) -> fmt::Result {
    for (i, neighbour) in neighbours.enumerate() {
        let separator = if i > 0 { ", " } else { "" };
        write!(f, "{separator}{neighbour}")?;
    }
    Ok(())
}

// === impl Neighbour

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, id, name, cgroup, after } = self;
        write!(f, "{place} id {id}")?;
        if let Some(name) = name {
            write!(f, " \"{}\"", Escaped(name))?;
        }
        let order = if *after { "after" } else { "before" };
        write!(f, " ({}, runs {order} flowtel's)", Escaped(&cgroup.to_string_lossy()))
    }
}

/// The ids of a cgroup's own programs of one kind, in the order in which they run.
fn query(cgroup: &File, attach_type: u32) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Query {
        target: i32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
    }
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target: cgroup.as_raw_fd(),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        reserved: 0,
    };
    // SAFETY: the attributes are those of the command; it writes at most `count` ids where `ids` says, and both outlive it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.get(..(query.count as usize).min(MOST)).unwrap_or_default().to_vec())
}

/// The names of all programs of this host, by id, as far as this process may ask for them.
fn names() -> HashMap<u32, String> {
    let named =
        |program: ProgramInfo| Some((program.id(), program.name_as_str().filter(|n| !n.is_empty())?.to_owned()));
    loaded_programs().filter_map(Result::ok).filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PROGRAMS;

    #[test]
    fn every_place_of_a_program_is_asked_for() {
        for program in &PROGRAMS {
            assert!(PLACES.iter().any(|(place, _)| *place == program.attach), "{}", program.attach);
        }
    }

    #[test]
    fn a_neighbour_is_named_by_id_and_its_name_does_nothing_to_a_terminal() {
        let neighbour = Neighbour {
            place: SOCK_OPS,
            id: 7,
            name: Some("a\x1b[2Jb".into()),
            cgroup: "/sys/fs/cgroup".into(),
            after: true,
        };
        let shown = neighbour.to_string();
        assert!(shown.starts_with("cgroup_sock_ops id 7 \"a"), "{shown}");
        assert!(!shown.contains('\x1b') && shown.ends_with("(/sys/fs/cgroup, runs after flowtel's)"), "{shown}");
        let neighbours = Neighbours {
            path: Vec::new(),
            own: Vec::new(),
            known: vec![neighbour.clone()],
            refused: None,
            shut: false,
        };
        assert_eq!(neighbours.suspects().collect::<Vec<_>>(), [&neighbour]);
    }
}
