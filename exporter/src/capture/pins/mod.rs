//! What stays in the kernel when flowtel ends, on request (`capture.pin`): the links by which the programs are attached, the
//! rings that they write, their counters. The next flowtel reads on where this one stopped, so what happens between an end
//! and a start is told, also when flowtel was killed, or its file was replaced by another version's.
//!
//! - `directory`: where they are pinned, and for whom;
//! - `handover`: how far the rings were read, and what was counted by then;
//! - `notes`: what a flowtel knows of open flows;
//! - `link`: the links.
//!
//! Programs are never taken over: each flowtel loads its own, and makes the links run these, a link in one step. Maps are,
//! where both mean the same by their bytes ([`Layout`]); else the next generation of all is made, and the one before goes
//! once it is attached. What nobody read of that is counted as not understood.
//!
//! The rings' positions and the counts that belong to them are two things that can't be written in one step. So they are
//! compared at a start: where a flowtel was killed between reading a ring and writing what it had read, the ring is read
//! anew from the place that the counts belong to. Nothing of that was told: a reading is noted before it is processed.

mod directory;
mod foreign;
mod handover;
mod link;
mod notes;

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData, RingBuf},
    programs::links::{FdLink, LinkError},
};
pub use directory::Lock;
pub use handover::{Counts, Layout, MOST_OWN};
use handover::{Handover, KINDS, RINGS as RING_COUNT, Words};
pub use notes::Note;
use notes::Paper;

use super::{Error, KernelTime, position::Position};

/// The maps that stay. Others are the programs' own notes, which they can do without.
pub(super) const MAPS: [&str; 6] = ["FLOWS", "OWNERS", "ANSWERS", "HELLOS", "TALLIES", DUES];
const RINGS: [&str; RING_COUNT] = ["FLOWS", "OWNERS", "ANSWERS", "HELLOS"];
/// When each open flow is reported next (`flow.update`).
const DUES: &str = "DUES";
const HANDOVER: &str = "HANDOVER";
const NOTES: &str = "NOTES";

/// A flowtel before this one, whose connections are flowtel's own too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its process id, as the kernel saw it.
    pub tgid: u32,
    /// When it had ended: afterwards the id may be another process's.
    pub until: KernelTime,
    /// Sockets of its connections, and of their other ends on this host.
    pub sockets: Vec<u64>,
}

/// The pinned maps and links of this flowtel.
pub struct Pins {
    base: PathBuf,
    /// This generation's directory.
    directory: PathBuf,
    /// Directories of other generations.
    others: Vec<PathBuf>,
    lock: Lock,
    taken: KernelTime,
    layout: Layout,
    left: Option<Handover>,
    /// Once the maps are there.
    maps: Option<Maps>,
    notes: Vec<Note>,
    /// Where this one's notes go, and how many there may be.
    paper: Option<Paper>,
    most_notes: u32,
    /// Places that programs of this flowtel are attached to.
    attached: HashSet<&'static str>,
}

struct Maps {
    positions: [Position; RING_COUNT],
    handover: Array<MapData, Words>,
    written: Handover,
}

// === impl Pins

impl Pins {
    /// Takes the directory `base`, and what a flowtel before left there. At the end there will be `most_notes` notes at most.
    ///
    /// # Errors
    /// The directory is no place for pins, or another flowtel has it.
    pub fn take(base: &Path, layout: Layout, most_notes: u32) -> Result<Self, Error> {
        let failed = |e: io::Error| unfit(base, e.to_string());
        let lock = directory::take(base).map_err(|problem| error(base, problem))?;
        let taken = KernelTime::now();
        let there = directory::generations(base).map_err(failed)?;
        let last = there.iter().find_map(|(_, path)| Some((path.clone(), left_in(path)?)));
        let usable = last.filter(|(path, left)| left.layout == layout && is_sound(path));
        if usable.is_none()
            && let Some(layout) = there.iter().find_map(|(_, path)| foreign::layout(&path.join(HANDOVER)))
        {
            tracing::warn!(
                "what another version of flowtel pinned in {} has layout {layout}, and this flowtel knows layout {}: \
                 all is pinned anew, and a gap record tells what nobody has read",
                base.display(),
                Handover::LAYOUT
            );
        }
        let (directory, left) = match usable {
            Some((path, left)) => (path, Some(left)),
            None => (directory::make_next(base, &there).map_err(failed)?, None),
        };
        let notes = notes::take(&directory.join(NOTES));
        let others = there.into_iter().map(|(_, path)| path).filter(|path| *path != directory).collect();
        Ok(Self {
            base: base.to_owned(),
            directory,
            others,
            lock,
            taken,
            layout,
            left,
            maps: None,
            notes,
            paper: None,
            most_notes,
            attached: HashSet::new(),
        })
    }

    /// A copy of what keeps others out.
    pub fn lock(&self) -> Lock {
        self.lock.clone()
    }

    /// The flowtel before this one, where it left something that can be used.
    pub fn earlier(&self) -> Option<Earlier> {
        let Handover { tgid, own, .. } = self.left.as_ref()?;
        Some(Earlier { tgid: *tgid, until: self.taken, sockets: own.clone() })
    }

    /// The notes of the flowtel before, where it stopped in order.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Leaves notes to the flowtel after this one.
    pub(super) fn leave(&mut self, notes: &[Note]) {
        // That there is none was said at the start.
        if let Some(Err(e)) = self.paper.as_mut().map(|paper| paper.write(notes)) {
            tracing::warn!("not all that is known of open flows is handed on (capture.pin): {e}");
        }
    }

    /// What was counted by flowtels before.
    pub(super) fn counted(&self) -> Counts {
        self.left.as_ref().map(|left| left.counts).unwrap_or_default()
    }

    /// Where a map or the link of a place is pinned.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// To be called when the maps are pinned, and before anybody reads a ring: makes the rings be read from where the
    /// counts that were left belong to.
    pub(super) fn open(&mut self) -> Result<(), Error> {
        let failed = |e: io::Error| unfit(&self.base, e.to_string());
        let mut positions = Vec::new();
        for (i, name) in RINGS.into_iter().enumerate() {
            let map = MapData::from_pin(self.path(name)).map_err(|e| unfit(&self.base, super::programs::chain(&e)))?;
            let ring = map.fd().as_fd();
            let position = Position::of(ring).map_err(failed)?;
            if let (Some(left), Some(size)) = (&self.left, self.layout.rings.get(i)) {
                let from = left.positions.get(i).copied().unwrap_or_default();
                if !position.rewind(ring, *size, from).map_err(failed)? {
                    tracing::warn!(
                        "the flowtel before was killed in the middle of a reading, and the ring {name} was written over \
                         since: the balance of kernel events will be short of what it had just read"
                    );
                }
            }
            positions.push(position);
        }
        match Paper::make(&self.path(NOTES), self.most_notes) {
            Ok(paper) => self.paper = Some(paper),
            Err(e) => tracing::warn!("what is known of open flows will not be handed on (capture.pin): {e}"),
        }
        let handover = match array(&self.path(HANDOVER)) {
            Some(there) if self.left.is_some() => there,
            _ => self.make_handover()?,
        };
        let positions: [Position; RING_COUNT] =
            positions.try_into().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        // Until the first reading it says what was left.
        let written = self.left.clone().unwrap_or_else(|| Handover {
            layout: self.layout,
            tgid: 0,
            positions: std::array::from_fn(|i| positions.get(i).map_or(0, Position::get)),
            counts: Counts::default(),
            own: Vec::new(),
        });
        self.maps = Some(Maps { positions, handover, written });
        Ok(())
    }

    fn make_handover(&self) -> Result<Array<MapData, Words>, Error> {
        let path = self.path(HANDOVER);
        let failed = |reason: String| unfit(&self.base, reason);
        Array::<MapData, Words>::create(1, 0)
            .map_err(|e| failed(super::programs::chain(&e)))?
            .pin(&path)
            .map_err(|e| failed(super::programs::chain(&e)))?;
        array(&path).ok_or_else(|| failed(format!("{} can't be opened", path.display())))
    }

    /// Makes the link that is pinned for `place` run `program`. Returns whether there is one.
    pub(super) fn replace(&mut self, place: &'static str, program: BorrowedFd<'_>) -> io::Result<bool> {
        let link = match link::open(&self.path(place)) {
            Ok(link) => link,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        link::update(&link, program)?;
        self.attached.insert(place);
        Ok(true)
    }

    /// Pins the new link of `place`.
    pub(super) fn keep<L>(&mut self, place: &'static str, link: L) -> io::Result<()>
    where
        FdLink: TryFrom<L, Error = LinkError>,
    {
        let link = FdLink::try_from(link).map_err(io::Error::other)?;
        link.pin(self.path(place)).map_err(io::Error::other)?;
        self.attached.insert(place);
        Ok(())
    }

    /// To be called when all programs are attached: takes away what is attached for nobody any more. Returns how many
    /// events nobody has read, and nobody can.
    pub(super) fn tidy(&mut self) -> u64 {
        // What dies from here on is this generation's.
        if let Some(maps) = &mut self.maps {
            maps.write(maps.written.clone());
        }
        let stays =
            |name: &str| MAPS.contains(&name) || [HANDOVER, NOTES].contains(&name) || self.attached.contains(name);
        let told = |path: &Path, e: &io::Error| tracing::warn!("{} stays pinned: {e}", path.display());
        for name in directory::names(&self.directory).unwrap_or_default() {
            let path = self.path(&name);
            if !stays(&name)
                && let Err(e) = fs::remove_file(&path)
            {
                told(&path, &e);
            }
        }
        let mut unread = 0;
        for generation in std::mem::take(&mut self.others) {
            let mut names = directory::names(&generation).unwrap_or_default();
            // Links first: afterwards nothing writes into the rings.
            names.sort_by_key(|name| MAPS.contains(&name.as_str()));
            for name in names {
                let path = generation.join(&name);
                if RINGS.contains(&name.as_str()) {
                    unread += records(&path);
                }
                if let Err(e) = fs::remove_file(&path) {
                    told(&path, &e);
                }
            }
            if let Err(e) = fs::remove_dir(&generation) {
                told(&generation, &e);
            }
        }
        unread
    }

    /// Notes how far the rings were read: `read` events by kind in this run, of which nothing was processed that is not
    /// noted. `lost` are the losses that were told in this run. `own` are flowtel's own sockets.
    pub(super) fn note(
        &mut self,
        tgid: u32,
        read: [u64; KINDS],
        lost: Option<&Counts>,
        own: impl Iterator<Item = u64>,
    ) {
        let before = self.counted();
        let Some(maps) = &mut self.maps else { return };
        let sum = |now: [u64; KINDS], before: [u64; KINDS]| {
            let mut sum = now;
            sum.iter_mut().zip(before).for_each(|(sum, before)| *sum = sum.wrapping_add(before));
            sum
        };
        let mut counts = maps.written.counts;
        counts.read = sum(read, before.read);
        if let Some(lost) = lost {
            counts.ring_full = sum(lost.ring_full, before.ring_full);
            counts.limited = sum(lost.limited, before.limited);
        }
        let mut positions = [0; RING_COUNT];
        positions.iter_mut().zip(&maps.positions).for_each(|(word, position)| *word = position.get());
        let own = own.take(MOST_OWN).collect();
        let now = Handover { layout: self.layout, tgid, positions, counts, own };
        if now != maps.written {
            maps.write(now);
        }
    }
}

/// What the directory `base` is good for, to a person. `user` is whom flowtel becomes.
///
/// # Errors
/// As [`Pins::take`].
pub fn look(base: &Path, user: Option<u32>) -> Result<String, Error> {
    let there = match directory::look(base, user) {
        Ok(there) => there,
        Err(directory::Problem::Held) => return Ok(format!("{} is another flowtel's, which runs", base.display())),
        Err(problem) => return Err(error(base, problem)),
    };
    let generations = if there { directory::generations(base).unwrap_or_default() } else { Vec::new() };
    Ok(match generations.iter().find_map(|(_, path)| left_in(path)) {
        Some(left) => format!("{} has what process {} left, to be taken over", base.display(), left.tgid),
        None => match generations.iter().find_map(|(_, path)| foreign::layout(&path.join(HANDOVER))) {
            Some(layout) => format!(
                "{} can be used; what another version left there has layout {layout}, not {}, and is pinned anew",
                base.display(),
                Handover::LAYOUT
            ),
            None => format!("{} can be used; nothing is pinned there yet", base.display()),
        },
    })
}

// === impl Maps

impl Maps {
    fn write(&mut self, handover: Handover) {
        // Should the kernel refuse, what was written before stands: the next flowtel reads the rings from there.
        if self.handover.set(0, handover.encode(), 0).is_ok() {
            self.written = handover;
        }
    }
}

/// The index in [`Counts`] of the kind of event that a ring's record starts with.
pub(super) fn kind_of(record: &[u8]) -> Option<usize> {
    use flowtel_common::{event, tally};
    let first = record.first_chunk().map(|word| u32::from_ne_bytes(*word))?;
    let kind = match first {
        event::CONNECT => tally::CONNECT,
        event::ESTABLISHED => tally::ESTABLISHED,
        event::FIN => tally::FIN,
        event::RESET => tally::RESET,
        event::CLOSE => tally::CLOSE,
        event::REFUSED => tally::REFUSED,
        event::ACCEPT => tally::ACCEPT,
        event::BIND => tally::BIND,
        event::LISTEN => tally::LISTEN,
        event::UNLISTEN => tally::UNLISTEN,
        event::RELEASE => tally::RELEASE,
        event::DNS => tally::DNS,
        event::SYN_AGAIN => tally::SYN_AGAIN,
        event::USED_AGAIN => tally::USED_AGAIN,
        event::UPDATE => tally::UPDATE,
        event::HELLO => tally::HELLO,
        event::NETNS => tally::NETNS,
        _ => return None,
    };
    Some(kind as usize)
}

fn map(path: &Path) -> Option<Map> {
    MapData::from_pin(path).ok().and_then(|data| Map::from_map_data(data).ok())
}

fn array(path: &Path) -> Option<Array<MapData, Words>> {
    map(path).and_then(|map| Array::try_from(map).ok())
}

/// What was left in a generation.
fn left_in(generation: &Path) -> Option<Handover> {
    Handover::decode(&array(&generation.join(HANDOVER))?.get(&0, 0).ok()?)
}

/// Whether the maps of a generation are of the kinds that they are to be.
fn is_sound(generation: &Path) -> bool {
    MAPS.iter().all(|name| {
        let found = map(&generation.join(name));
        match found {
            Some(Map::RingBuf(_)) => RINGS.contains(name),
            Some(Map::SkStorage(_)) => *name == DUES,
            Some(Map::PerCpuArray(_)) => !RINGS.contains(name) && *name != DUES,
            _ => false,
        }
    })
}

/// How many records a ring holds that nobody has read.
fn records(path: &Path) -> u64 {
    let Some(mut ring) = map(path).and_then(|map| RingBuf::try_from(map).ok()) else { return 0 };
    let mut records = 0;
    while ring.next().is_some() {
        records += 1;
    }
    records
}

fn unfit(base: &Path, reason: String) -> Error {
    error(base, directory::Problem::Unfit(reason))
}

fn error(base: &Path, problem: directory::Problem) -> Error {
    let path = base.to_owned();
    match problem {
        directory::Problem::Held => Error::PinsHeld { path },
        directory::Problem::Unfit(reason) => Error::Pins { path, reason },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_that_is_counted_is_known_by_its_record() {
        let known: BTreeSet<usize> = (0..64_u32).filter_map(|kind| kind_of(&kind.to_ne_bytes())).collect();
        assert_eq!(known, (0..KINDS).collect());
    }
}
