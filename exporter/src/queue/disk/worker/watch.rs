//! Whether the queue's directory and files are still where they were: looked at once a second, and at the end.
//!
//! Must never let batches be counted as kept for the next run in a place where that will not look.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use super::{Reading, Worker, into_io, lost};
use crate::queue::disk::{directory::Standing, store::Store};

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// The share of the time that it may take, where there are very many files: one in so many parts.
const SHARE: u32 = 20;

impl Worker {
    /// Looks, where it is time to. An error where nothing can be written.
    pub(super) fn watch(&mut self, now: Instant, finishing: bool) -> io::Result<()> {
        if !finishing && now < self.watch_due {
            return if self.displaced { Err(displaced()) } else { Ok(()) };
        }
        self.watch_due = now + EVERY;
        let Some(store) = &mut self.store else { return Ok(()) };
        let directory = store.directory().path().to_owned();
        match store.standing() {
            Standing::InPlace if self.displaced => {
                self.shared.books().strand(|first| !store.is_stray(first));
                self.returned(now);
            }
            Standing::InPlace => {}
            Standing::Unlocked => {
                tracing::warn!(directory = %directory.display(), "the lock of the queue was removed: it is made again");
                if let Err(e) = store.lock_again() {
                    self.shared.books().strand(|_| false);
                    self.displaced = true;
                    return Err(into_io(e));
                }
                self.shared.books().strand(|first| !store.is_stray(first));
                self.returned(now);
            }
            Standing::Removed => {
                // Those that were known to be moved away with it are gone too.
                let gone = self.shared.books().known().into_iter().filter(|first| !store.is_stray(*first)).collect();
                let lost = self.vanished(gone);
                if !self.displaced || lost.0 > 0 {
                    tracing::warn!(
                        directory = %directory.display(), lost_batches = lost.0, lost_records = lost.1,
                        "the queue's directory was removed: it is made again, and what is in memory is written there"
                    );
                }
                self.move_on(now)?;
            }
            Standing::Elsewhere => {
                if !self.displaced {
                    self.shared.books().strand(|_| false);
                    self.displaced = true;
                    tracing::warn!(
                        directory = %directory.display(),
                        "the queue's directory was moved, or another one is in its place: what waits there is no longer kept \
                         for the next run"
                    );
                }
                self.move_on(now)?;
            }
        }
        let began = Instant::now();
        self.look_for_files();
        self.watch_due += began.elapsed() * SHARE;
        Ok(())
    }

    /// Goes on in the directory that is at the path now.
    fn move_on(&mut self, now: Instant) -> io::Result<()> {
        self.displaced = true;
        let Some(store) = &mut self.store else { return Ok(()) };
        let known = self.shared.books().known();
        let here = match store.move_on(known) {
            Ok(here) => here,
            Err(e) => {
                let e = into_io(e);
                return Err(if e.kind() == io::ErrorKind::NotFound { displaced() } else { e });
            }
        };
        self.shared.books().strand(|first| here.contains(&first));
        self.reading = Reading::Due;
        self.returned(now);
        Ok(())
    }

    /// It can be written again: at once.
    fn returned(&mut self, now: Instant) {
        self.displaced = false;
        if let Some(failing) = &mut self.failing {
            failing.next = now;
        }
    }

    /// Files that should be there, and are not.
    fn look_for_files(&mut self) {
        let Some(store) = &mut self.store else { return };
        store.drop_nameless();
        let mut gone = self.shared.books().known_here();
        gone.retain(|segment| !store.has(*segment));
        if !gone.is_empty() {
            let files = gone.len();
            let lost = self.vanished(gone);
            tracing::warn!(
                directory = %self.settings.directory.display(), files, lost_batches = lost.0, lost_records = lost.1,
                "files of the queue were removed: what is in memory is written again, the rest is lost and counted as corrupt"
            );
        }
    }

    /// Gives up segments that are gone. Returns how many batches that costs, and their records.
    fn vanished(&mut self, gone: BTreeSet<u64>) -> (u64, u64) {
        let mut all = (0, 0);
        for segment in gone {
            let rescue = self.shared.books().to_rescue(segment);
            for (at, slot) in rescue {
                // A file without a name is there as long as it is open.
                let Some(batch) = self.store.as_ref().and_then(|store| store.read(&slot).ok()) else { break };
                self.shared.books().rescued(at, batch);
            }
            let (batches, records) = self.shared.books().vanished(segment);
            self.store.as_mut().into_iter().for_each(|store: &mut Store| store.forget(segment));
            lost(&self.shared.ledger, batches, records);
            all = (all.0 + batches, all.1 + records);
        }
        self.shared.wake_all();
        all
    }
}

fn displaced() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it was moved away or removed, and there is no other in its place")
}
