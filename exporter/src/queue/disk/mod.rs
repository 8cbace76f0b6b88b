//! The queue on disk: batches wait in files, and are there after a crash.
//!
//! # The rules, beyond those of [the queue](super)
//!
//! 1. A push does no I/O and waits for none. The batch is in memory at first, and may be leased at once. The queue's own
//!    thread writes what came, `sync_interval` after the first of it, and calls fsync once for all (group commit). From
//!    then on the batch is *durable* ([`Waiting::durable`]): it survives the end of the process and of the system.
//! 2. A batch whose fate is known before it was written never is. So while the receiver keeps up, next to nothing is
//!    written.
//! 3. The order of age is that of pushes; what an earlier run left is older than all of this run.
//! 4. A batch that is settled is acknowledged beside its segment, before the queue counts on anything that follows from it.
//!    A crash may undo that (of the system: for `sync_interval`): then the same bytes go out once more, with the same
//!    `log.record.uid` in each record. No crash loses a durable batch.
//! 5. A batch that was split stays in its file until all halves are settled. After a crash the whole goes out again.
//! 6. The budget counts the files with all their headers, and what is to be written to them. Room is made by whole
//!    segments, the oldest of which no batch is leased: to give up single batches of it would free none.
//! 7. A disk that fails (full, read-only, broken, not there) stops nothing: batches stay in memory, up to a budget of
//!    their own, and are written as soon as it works. What finds no room is dropped as by any full queue; what is durable
//!    is not dropped for it.
//! 8. After fsync has failed, a file is cut to what was synced before, and what came after it is written again.
//! 9. What is damaged costs the batch it is in. It is counted `corrupt`, once, with as many records as are known of; when
//!    no record count is sound, the batch is counted alone. A torn end, as a crash leaves it, is such a batch.
//! 10. Nothing in the directory but another process's lock keeps the queue from starting, or holds it up: what an earlier
//!     run left is read beside everything else, a bounded part at a time, and while there are very many batches the rest
//!     stays in its files. For two seconds what this run pushes waits for it.
//! 11. [`Queue::abandon`](super::Queue::abandon) writes what is in memory; what is durable then is counted `queued`, for
//!     the next run, which counts it `carried_over`. The rest is counted `undelivered`.
//! 12. A directory that belongs to another user, or that others may write to, is refused; a file like that is left alone.
//! 13. Once a second the directory is looked at. Where it was moved or is another one, nothing in the old one is durable any
//!     more, though it is still read from there; batches wait in memory until there is a directory at the path again. One
//!     that was removed is made anew. Of files that are gone, what is in memory is written again, and the rest is lost and
//!     counted `corrupt`; for the next run, what was written again is as young as that.
//!
//! # The files
//!
//! | name | |
//! |---|---|
//! | `lock` | locked by flock(2) while a process has the directory; its process id for people |
//! | `00000000000000000001.segment` | batches; the number is the sequence of its first one ([`segment`]) |
//! | `00000000000000000001.acks` | which of them are settled ([`acks`]) |
//! | `….segment.damaged` | set aside: no sound batch was in it |
//!
//! A segment is only ever appended to, by the run that made it. It is removed when all its batches are settled, and its
//! acknowledgements after it. There is one file of acknowledgements for each segment instead of one cursor for all: with
//! several requests in flight batches are settled out of order, and after losses with gaps; an acknowledgement is then 16
//! bytes appended, not a file written anew; one that is damaged costs one batch that is sent again, where a damaged cursor
//! would cost the whole queue; and it is crash-safe by nature, for what is torn counts as not written.
//!
//! # The parts
//!
//! `books` knows what is where, under a lock. `worker` is the thread; it alone calls `store`, which alone writes.
//! `recover` reads what an earlier run left.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{Left, Position, Waiting, Watchers};
use crate::{
    config::{self, OnFull},
    ledger::Ledger,
    record::Batch,
};

pub mod acks;
mod books;
pub mod directory;
pub(super) mod files;
mod recover;
pub mod segment;
mod store;
#[cfg(test)]
mod tests;
mod worker;

use books::{Books, Limits};
use directory::OpenError;
use files::Files;
use recover::Found;
use store::Store;
use worker::{Settings, Worker};

/// Batches that were read ahead for export, or that it just gave back.
const LOADED: u64 = 8 << 20;
/// Batches that wait while the rest of what an earlier run left stays in its files.
const ENOUGH: usize = 1 << 18;
/// How long the end waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// The queue on disk. Dropping it ends its thread after what was pushed is written.
pub struct Disk {
    shared: Arc<Shared>,
    watchers: Watchers,
}

/// What the threads share.
pub(super) struct Shared {
    ledger: Arc<Ledger>,
    sync_each: bool,
    books: Mutex<Books>,
    /// There is something to do for the queue's thread.
    work: Condvar,
    /// The queue's thread has ended.
    ended: Condvar,
    /// One permit for each batch that began to wait; all waiters when a lease may have become `None`.
    changed: Notify,
    closed: watch::Sender<bool>,
}

/// What the queue's thread is to do.
pub(super) struct Work(Worker);

// === impl Work

impl Work {
    pub(super) fn start(self) -> Result<(), OpenError> {
        let Self(worker) = self;
        let gone = worker::Gone(Arc::clone(&worker.shared));
        let path = worker.settings.directory.clone();
        let thread = thread::Builder::new().name("flowtel-queue".into()).spawn(move || {
            let _gone = gone;
            worker.run();
        });
        let what = "cannot start the thread of the queue in";
        thread.map(drop).map_err(|source| OpenError::Io { what, path, source })
    }
}

// === impl Disk

impl Disk {
    /// Takes the directory. The thread, once started, finds what is in it. A directory that fails otherwise than by being
    /// another's is tried again and again.
    pub(super) fn prepare_in(config: &config::Queue, ledger: Arc<Ledger>) -> Result<(Self, Work), OpenError> {
        let (disk, worker) = Self::prepare(config, ledger, Files::default(), segment_bytes(config.max_bytes.0))?;
        Ok((disk, Work(worker)))
    }

    /// The queue and its thread's work, which is not started.
    fn prepare(
        config: &config::Queue,
        ledger: Arc<Ledger>,
        files: Files,
        segment_bytes: u64,
    ) -> Result<(Self, Worker), OpenError> {
        let limits = Limits::of(config);
        let settings =
            Settings { directory: config.path.clone(), sync_interval: config.sync_interval.0, segment_bytes };
        let shared = Arc::new(Shared {
            ledger,
            sync_each: config.sync_interval.0.is_zero(),
            books: Mutex::new(Books::new(limits)),
            work: Condvar::new(),
            ended: Condvar::new(),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
        });
        let store = match Store::open(&settings.directory, &files, settings.segment_bytes) {
            Ok(store) => {
                shared.books().recovering = true;
                Some(store)
            }
            Err(refused @ (OpenError::Held { .. } | OpenError::Unfit { .. })) => return Err(refused),
            // The thread tries again at once, and says what is wrong.
            Err(OpenError::Io { .. }) => None,
        };
        let worker = Worker::new(Arc::clone(&shared), store, settings, files);
        Ok((Self { shared, watchers: Watchers::default() }, worker))
    }

    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    pub(super) fn push(&self, batch: Batch) {
        let mut books = self.shared.books();
        if books.closed {
            self.shared.ledger.records.undelivered.add(batch.records.into());
            return;
        }
        let was_idle = books.since.is_none();
        let dropped = books.push(batch, Instant::now());
        let errands = books.has_errands();
        drop(books);
        self.shared.ledger.records.queue_full.add(dropped);
        self.shared.changed.notify_one();
        if was_idle || errands || self.shared.sync_each {
            self.shared.work.notify_one();
        }
    }

    pub(super) async fn lease(&self) -> Option<(Position, Batch)> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // Registered before looking, or a change in between would be missed.
            changed.as_mut().enable();
            if let Some(leased) = self.try_lease() {
                return Some(leased);
            }
            if self.shared.books().is_over() {
                return None;
            }
            changed.await;
        }
    }

    pub(super) fn try_lease(&self) -> Option<(Position, Batch)> {
        let mut books = self.shared.books();
        let leased = books.lease();
        let (more, read) = (books.has_waiting(), books.to_load().is_some());
        drop(books);
        if read {
            self.shared.work.notify_one();
        }
        if leased.is_some() && more {
            // Permits don't add up: whoever takes one of several batches wakes the next.
            self.shared.changed.notify_one();
        }
        leased
    }

    pub(super) fn done(&self, at: Position) -> u32 {
        let mut books = self.shared.books();
        let records = books.done(at);
        let (over, errands) = (books.is_over(), books.has_errands());
        drop(books);
        if errands {
            self.shared.work.notify_one();
        }
        if over {
            self.shared.changed.notify_waiters();
        }
        records
    }

    pub(super) fn give_back(&self, at: Position) {
        self.shared.books().give_back(at);
        self.shared.changed.notify_one();
    }

    pub(super) fn replace(&self, at: Position, halves: [Batch; 2]) {
        self.shared.books().replace(at, halves);
        self.shared.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.shared.close();
    }

    pub(super) async fn closed(&self) {
        // Fails only when the sender is gone, and self holds it.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn abandon(&self) -> Left {
        self.shared.close();
        let mut books = self.shared.books();
        books.finishing = true;
        self.shared.work.notify_one();
        let deadline = Instant::now() + PATIENCE;
        while !books.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("the disk of the queue does not answer; what it has not taken is counted as lost");
                break;
            }
            let (again, _) = self.shared.ended.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner);
            books = again;
        }
        let left = books.end();
        drop(books);
        self.shared.ledger.records.undelivered.add(left.lost);
        self.shared.ledger.records.queued.add(left.queued);
        self.shared.changed.notify_waiters();
        left
    }

    pub(super) fn waiting(&self) -> Waiting {
        self.shared.books().waiting()
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.shared.books().limits().disk
    }

    /// Goes on with other budgets, and another rule of what goes when they are full; the next push makes room.
    pub(super) fn reconfigure(&self, config: &config::Queue) {
        self.shared.books().set_limits(Limits::of(config));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.books().finishing = true;
        self.shared.work.notify_one();
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

// === impl Limits

impl Limits {
    fn of(config: &config::Queue) -> Self {
        Self {
            disk: config.max_bytes.0,
            memory: config.max_memory.0,
            loaded: LOADED,
            enough: ENOUGH,
            drop_oldest: config.on_full == OnFull::DropOldest,
        }
    }
}

// === impl Shared

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // No code that can panic runs under the lock; should it ever, going on beats stopping the capture thread.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.books().closed = true;
        self.closed.send_replace(true);
        self.changed.notify_waiters();
    }

    fn wake_all(&self) {
        self.changed.notify_one();
        self.changed.notify_waiters();
    }

    /// What an earlier run left is known, as far as it is waited for.
    fn recovered(&self) {
        if std::mem::take(&mut self.books().recovering) {
            self.wake_all();
        }
    }

    /// Takes over some of what an earlier run left, and counts it. Returns its records.
    fn adopt(&self, run: u32, found: Found) -> u64 {
        let (lost_batches, lost_records) = (found.lost_batches, found.lost_records);
        let records = self.books().adopt(run, found);
        self.ledger.records.carried_over.add(records + lost_records);
        worker::lost(&self.ledger, lost_batches, lost_records);
        if records > 0 {
            self.changed.notify_one();
        }
        records
    }
}

/// A part of the budget: it is what a full queue drops at once.
fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 32).clamp(64 << 10, 16 << 20)
}
