//! The queue's own thread, the only one that touches its files: takes what the books ask for, does it, and tells them.
//!
//! Must never hold the books' lock during I/O, give up on a disk that fails, or fill the log with it.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Shared, directory::OpenError, files::Files, recover::Slot, store::Store};
use crate::{ledger::Ledger, queue::Position};

mod reading;
mod watch;

use reading::Reading;

/// The first wait before a disk that failed is tried again; it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The longest.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Written and synced at once at most: so that what fits on a disk that is nearly full gets there.
const CHUNK: u64 = 4 << 20;
/// Failures to read a batch, by a disk that answers with an error, until it is given up.
const READS: u32 = 5;
/// The least time between two warnings.
const QUIET: Duration = Duration::from_secs(10);

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Option<Store>,
    pub(super) settings: Settings,
    pub(super) files: Files,
    failing: Option<Failing>,
    /// When something was said about the disk last.
    said: Option<Instant>,
    trouble: Option<Trouble>,
    /// When acknowledgements are to be synced.
    acks_due: Option<Instant>,
    reading: Reading,
    /// When the directory is looked at next.
    watch_due: Instant,
    /// The directory is not where it was, and there is no other: nothing is written.
    displaced: bool,
}

/// What the thread has to know.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) sync_interval: Duration,
    pub(super) segment_bytes: u64,
}

/// The disk does not take anything.
#[derive(Debug)]
struct Failing {
    since: Instant,
    failures: u32,
    next: Instant,
    announced: bool,
}

/// A batch that could not be read.
#[derive(Debug)]
struct Trouble {
    at: Position,
    failures: u32,
    next: Instant,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, store: Option<Store>, settings: Settings, files: Files) -> Self {
        let now = Instant::now();
        let reading = if store.is_some() { Reading::Due } else { Reading::Done };
        Self {
            shared,
            store,
            settings,
            files,
            failing: None,
            said: None,
            trouble: None,
            acks_due: None,
            reading,
            watch_due: now + watch::EVERY,
            displaced: false,
        }
    }

    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    #[cfg(test)]
    pub(super) fn has_synced_acks(&self) -> bool {
        self.acks_due.is_none()
    }

    /// Works until the queue has ended.
    pub(super) fn run(mut self) {
        let mut now = Instant::now();
        while !self.round(now) {
            let books = self.shared.books();
            // What came during the round is seen here, for it comes under this lock.
            if let Some(wait) = self.next(&books, Instant::now()).filter(|wait| !wait.is_zero()) {
                let _woken = self.shared.work.wait_timeout(books, wait);
            }
            now = Instant::now();
        }
    }

    /// Does all that is due. Returns whether that was the last time.
    pub(super) fn round(&mut self, now: Instant) -> bool {
        let finishing = self.shared.books().finishing;
        if let Err(error) = self.watch(now, finishing) {
            self.failed(now, &error);
        } else if finishing || self.failing.as_ref().is_none_or(|failing| failing.next <= now) {
            match self.maintain(now, finishing) {
                Ok(true) => self.recovered(),
                Ok(false) => {}
                Err(error) => self.failed(now, &error),
            }
        }
        if !self.displaced && !finishing {
            self.read_on(now);
        }
        if finishing {
            self.shared.books().finished = true;
            self.shared.ended.notify_all();
            return true;
        }
        self.load(now);
        false
    }

    /// Opens, removes, acknowledges and writes what is due. Returns whether that proved that the disk works.
    fn maintain(&mut self, now: Instant, finishing: bool) -> io::Result<bool> {
        if self.store.is_none() {
            self.open()?;
        }
        self.look_in(now)?;
        let Some(store) = &mut self.store else { return Ok(false) };
        // Also where nothing is to be written any more: a batch that was settled meanwhile must not be found there.
        store.mend()?;
        let mut proven = false;
        loop {
            let (dead, settled) = self.shared.books().errands();
            if let Err((e, dead, settled)) = run_errands(store, dead, settled) {
                self.shared.books().put_back(dead, settled);
                return Err(e);
            }
            if store.has_unsynced_acks() {
                self.acks_due.get_or_insert(now + self.settings.sync_interval);
            }
            let chunk = {
                let mut books = self.shared.books();
                let due = books.since.is_some_and(|since| since + self.settings.sync_interval <= now);
                let due = due || finishing || self.failing.is_some();
                let chunk = if due { books.take_chunk(CHUNK) } else { Vec::new() };
                if chunk.is_empty() && !books.has_removals() {
                    break;
                }
                chunk
            };
            if chunk.is_empty() {
                continue;
            }
            let mut slots = Vec::new();
            let outcome = store.write(chunk.iter().map(|(_, batch)| batch), &mut slots);
            self.shared.books().written(&chunk, &slots, store.active());
            outcome?;
            proven = true;
        }
        if finishing || self.acks_due.is_some_and(|due| due <= now) {
            store.sync_acks()?;
            self.acks_due = None;
            proven = true;
        }
        // Nothing is there to be written, so nothing can fail any more.
        Ok(proven || self.failing.is_some())
    }

    fn open(&mut self) -> io::Result<()> {
        let Settings { directory, segment_bytes, .. } = &self.settings;
        self.store = Some(Store::open(directory, &self.files, *segment_bytes).map_err(into_io)?);
        self.reading = Reading::Due;
        Ok(())
    }

    /// Reads what export will ask for next.
    pub(super) fn load(&mut self, now: Instant) {
        loop {
            let Some((at, slot)) = self.shared.books().to_load() else { return };
            let Some(store) = &self.store else { return };
            if self.trouble.as_ref().is_some_and(|trouble| trouble.at == at && trouble.next > now) {
                return;
            }
            match store.read(&slot) {
                Ok(batch) => {
                    self.shared.books().was_read(at, batch);
                    self.shared.changed.notify_one();
                }
                Err(error) => {
                    let damaged = matches!(
                        error.kind(),
                        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
                    );
                    let failures = self.trouble.take().filter(|trouble| trouble.at == at).map_or(1, |t| t.failures + 1);
                    if !damaged && failures < READS {
                        self.trouble = Some(Trouble { at, failures, next: now + wait(failures) });
                        return;
                    }
                    let records = self.shared.books().unreadable(at);
                    lost(&self.shared.ledger, 1, records);
                    if self.may_say(now) {
                        tracing::error!(
                            directory = %self.settings.directory.display(), segment = slot.segment, records, %error,
                            "a batch of the queue can't be read: it is lost, and counted as corrupt"
                        );
                    }
                    self.shared.wake_all();
                }
            }
        }
    }

    /// How long there is nothing to do.
    fn next(&self, books: &super::books::Books, now: Instant) -> Option<Duration> {
        if books.finishing {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut at = |time: Instant| next = Some(next.map_or(time, |next| next.min(time)));
        match &self.failing {
            Some(failing) => at(failing.next),
            None => {
                if books.has_errands() || self.store.is_none() || self.reading.is_unopened() {
                    return None;
                }
                books.since.map(|since| since + self.settings.sync_interval).into_iter().for_each(&mut at);
                self.acks_due.into_iter().for_each(&mut at);
            }
        }
        if self.store.is_some() {
            at(self.watch_due);
            if !self.displaced && self.reading.goes_on(books) {
                return None;
            }
        }
        if let Some((position, _)) = books.to_load()
            && self.store.is_some()
        {
            match &self.trouble {
                Some(trouble) if trouble.at == position => at(trouble.next),
                _ => return None,
            }
        }
        // Woken where something comes up; the hour is for clocks that are not what they seem.
        Some(next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(now)))
    }

    fn failed(&mut self, now: Instant, error: &io::Error) {
        // What this run pushed does not wait for a directory that can't be read.
        self.shared.recovered();
        let may_say = self.failing.as_ref().is_none_or(|failing| !failing.announced) && self.may_say(now);
        let failing = self.failing.get_or_insert(Failing { since: now, failures: 0, next: now, announced: false });
        failing.failures = failing.failures.saturating_add(1);
        failing.next = now + wait(failing.failures);
        self.shared.ledger.queue.disk_failures.add(1);
        if may_say {
            failing.announced = true;
            tracing::warn!(
                directory = %self.settings.directory.display(), %error,
                "the queue's directory takes nothing; batches wait in memory, up to {}, and it is tried again",
                bytesize::ByteSize(self.shared.books().limits().memory).display().iec()
            );
        }
    }

    fn recovered(&mut self) {
        if let Some(failing) = self.failing.take()
            && failing.announced
        {
            tracing::info!(
                directory = %self.settings.directory.display(), after = ?failing.since.elapsed(),
                "the queue's directory works again: what waited in memory is written"
            );
        }
    }

    fn may_say(&mut self, now: Instant) -> bool {
        let may = self.said.is_none_or(|said| now.saturating_duration_since(said) >= QUIET);
        if may {
            self.said = Some(now);
        }
        may
    }
}

fn into_io(error: OpenError) -> io::Error {
    match error {
        OpenError::Io { source, .. } => source,
        refused @ (OpenError::Held { .. } | OpenError::Unfit { .. }) => io::Error::other(refused.to_string()),
    }
}

/// Counts what is lost.
pub(super) fn lost(ledger: &Ledger, batches: u64, records: u64) {
    ledger.queue.corrupt_batches.add(batches);
    ledger.records.corrupt.add(records);
}

type Slots = Vec<Slot>;

/// Removes and acknowledges. After an error, what is still to be done.
fn run_errands(store: &mut Store, mut dead: Vec<u64>, mut settled: Slots) -> Result<(), (io::Error, Vec<u64>, Slots)> {
    while let Some(segment) = dead.last() {
        if let Err(e) = store.remove(*segment)
            && !store.is_stray(*segment)
        {
            return Err((e, dead, settled));
        }
        dead.pop();
    }
    while let Some(slot) = settled.last() {
        if let Err(e) = store.acknowledge(slot.segment, slot.sequence)
            && !store.is_stray(slot.segment)
        {
            return Err((e, dead, settled));
        }
        settled.pop();
    }
    Ok(())
}

fn wait(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY)
}

/// Told when the thread ends, however it ends.
pub(super) struct Gone(pub(super) Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.books().finished = true;
        self.0.ended.notify_all();
    }
}
