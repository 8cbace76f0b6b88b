//! What a flowtel knows and the kernel does not, left to the next one: notes of a fixed size, whose meaning is its own, in a
//! pinned map. Written at an orderly stop, and gone once they were read: one that is killed leaves none.

use std::{fs, io, path::Path};

use aya::maps::{Array, MapData};

/// One note.
pub type Note = [u64; 22];

/// More than any table holds.
const MOST: u64 = 1 << 24;

/// Writes notes to a new map at `path`: first their number.
pub(super) fn write(path: &Path, notes: &[Note]) -> io::Result<()> {
    let most = u32::try_from(notes.len()).map_err(io::Error::other)?.saturating_add(1);
    let mut map = Array::<MapData, Note>::create(most, 0).map_err(io::Error::other)?;
    let mut written = 0;
    for note in notes {
        written += 1;
        map.set(written, note, 0).map_err(io::Error::other)?;
    }
    let mut head = Note::default();
    if let Some(number) = head.first_mut() {
        *number = u64::from(written);
    }
    map.set(0, head, 0).map_err(io::Error::other)?;
    // Pinned when it is whole.
    map.pin(path).map_err(io::Error::other)
}

/// Takes the notes that are at `path` away, where there are any.
pub(super) fn take(path: &Path) -> Vec<Note> {
    let Some(map) = super::map(path).and_then(|map| Array::<MapData, Note>::try_from(map).ok()) else {
        return Vec::new();
    };
    // Whatever becomes of this flowtel, they are true once.
    if let Err(e) = fs::remove_file(path) {
        tracing::warn!("{} stays pinned: {e}", path.display());
        return Vec::new();
    }
    let number = map.get(&0, 0).ok().and_then(|head| head.first().copied()).unwrap_or_default();
    let last = u32::try_from(number.min(MOST)).unwrap_or_default();
    (1..=last).map_while(|at| map.get(&at, 0).ok()).collect()
}
