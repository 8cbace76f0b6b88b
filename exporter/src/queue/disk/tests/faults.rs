//! A file system that fails on request, and forgets in a crash what was not synced.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::super::files::Op;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) enum Broken {
    #[default]
    Nothing,
    /// There is no room: ENOSPC.
    Full,
    /// What was written does not reach the disk: EIO.
    Sync,
    /// Files may not be longer than this: EFBIG.
    Long(u64),
    /// All but reading: EROFS.
    Writing,
    /// Everything: EIO.
    All,
}

#[derive(Debug, Default)]
pub(in super::super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    broken: Broken,
    files: BTreeMap<PathBuf, Known>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    written: u64,
    synced: u64,
    named: bool,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn breaks(&self, broken: Broken) {
        self.state().broken = broken;
    }

    pub(in super::super) fn ask(&self, path: &Path, op: Op) -> io::Result<()> {
        let mut state = self.state();
        let error = match (state.broken, op) {
            (Broken::Full, Op::Create | Op::Write { .. }) => Some(libc::ENOSPC),
            (Broken::Long(most), Op::Write { end }) if end > most => Some(libc::EFBIG),
            (Broken::Sync, Op::Sync | Op::SyncDirectory) | (Broken::All, _) => Some(libc::EIO),
            (Broken::Writing, op) if op != Op::Read => Some(libc::EROFS),
            _ => None,
        };
        if op == Op::SyncDirectory {
            if error.is_none() {
                state.files.values_mut().for_each(|known| known.named = true);
            }
        } else {
            // What an earlier run left is on the disk.
            let known = state.files.entry(path.to_owned()).or_insert_with(|| match fs::metadata(path) {
                Ok(there) => Known { written: there.len(), synced: there.len(), named: true },
                Err(_) => Known::default(),
            });
            match (op, error) {
                (Op::Write { end }, _) => known.written = known.written.max(end),
                (Op::Sync, None) => known.synced = known.written,
                (Op::Cut { length }, None) => (known.written, known.synced) = (length, length),
                (Op::Remove, None) => {
                    state.files.remove(path);
                }
                _ => {}
            }
        }
        error.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// The power fails: of what was not synced, `chance` says how much is there afterwards.
    pub(in super::super) fn crash(&self, mut chance: impl FnMut(u64) -> u64) {
        let mut state = self.state();
        for (path, known) in std::mem::take(&mut state.files) {
            let Ok(file) = File::options().write(true).open(&path) else { continue };
            if path.extension().is_none() {
                continue;
            }
            if !known.named && chance(1) == 0 {
                fs::remove_file(&path).expect("it is there");
                continue;
            }
            let length = file.metadata().expect("it is open").len();
            let synced = known.synced.min(length);
            file.set_len(synced + chance(length - synced)).expect("it can be cut");
        }
        state.broken = Broken::Nothing;
    }
}
