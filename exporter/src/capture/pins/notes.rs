//! What a flowtel knows and the kernel does not, left to the next one: notes of a fixed size, whose meaning is its own, in a
//! pinned map. The map is made at the start, for a running flowtel may make none; it takes memory for what is in it alone.
//! It is written at an orderly stop, and gone once it was read: one that is killed leaves none.

use std::{fs, io, path::Path};

use aya::maps::{
    MapData,
    lpm_trie::{Key, LpmTrie},
};

/// One note.
pub type Note = [u64; 22];

/// More than any table holds.
const MOST: u64 = 1 << 24;
/// BPF_F_NO_PREALLOC (include/uapi/linux/bpf.h): a trie has no other way.
const NO_PREALLOC: u32 = 1;

/// Where notes are written to. Of the kinds of maps a trie alone costs nothing while it is empty; its keys are plain numbers.
pub(super) struct Paper(LpmTrie<MapData, [u8; 4], Note>);

// === impl Paper

impl Paper {
    /// A new one with room for `most` notes, pinned at `path`.
    pub(super) fn make(path: &Path, most: u32) -> io::Result<Self> {
        let trie = LpmTrie::<MapData, [u8; 4], Note>::create(most.saturating_add(1), NO_PREALLOC);
        trie.map_err(io::Error::other)?.pin(path).map_err(io::Error::other)?;
        let there = super::map(path).and_then(|map| LpmTrie::try_from(map).ok());
        there.map(Self).ok_or_else(|| io::Error::other("it can't be opened again"))
    }

    /// Writes as many notes as there is room for, and last their number: only so many count.
    pub(super) fn write(&mut self, notes: &[Note]) -> io::Result<()> {
        // The place of the number is taken first: a full map must not lose what is in it.
        self.number(0)?;
        let (mut written, mut result) = (0, Ok(()));
        for note in notes {
            if let Err(e) = self.0.insert(&key(written + 1), note, 0) {
                result = Err(io::Error::other(e));
                break;
            }
            written += 1;
        }
        self.number(written)?;
        result
    }

    /// Writes how many notes count.
    fn number(&mut self, number: u32) -> io::Result<()> {
        let mut head = Note::default();
        if let Some(first) = head.first_mut() {
            *first = number.into();
        }
        self.0.insert(&key(0), head, 0).map_err(io::Error::other)
    }
}

fn key(number: u32) -> Key<[u8; 4]> {
    Key::new(32, number.to_be_bytes())
}

/// Takes the notes that are at `path` away, where there are any.
pub(super) fn take(path: &Path) -> Vec<Note> {
    let Some(map) = super::map(path) else { return Vec::new() };
    // Whatever becomes of this flowtel, they are true once.
    if let Err(e) = fs::remove_file(path) {
        tracing::warn!("{} stays pinned: {e}", path.display());
        return Vec::new();
    }
    let Ok(trie) = LpmTrie::<MapData, [u8; 4], Note>::try_from(map) else { return Vec::new() };
    let at = |number| trie.get(&key(number), 0).ok();
    let number = at(0).and_then(|head| head.first().copied()).unwrap_or_default();
    let last = u32::try_from(number.min(MOST)).unwrap_or_default();
    (1..=last).map_while(at).collect()
}
