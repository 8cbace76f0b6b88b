//! Where sealed batches wait for the receiver. Batches come in from the capture thread ([`Queue::push`], which never
//! blocks); export leases them, the oldest first, and settles each lease: done, given back, or replaced by its two
//! halves. The same batches go out, in the order they came in, whatever was tried again in between.
//!
//! Must never lose a record without counting it, hand a batch to two leases at once, or stop the program.
//!
//! # The rules
//!
//! 1. A batch is *waiting*, *leased*, or gone. Gone means settled by [`Lease::done`], dropped and counted
//!    `queue_full`, unreadable and counted `corrupt`, or abandoned and counted `undelivered` or `queued`; each record ends
//!    in exactly one of them.
//! 2. [`Queue::lease`] gives the oldest waiting batch. Age is the order of pushes; a batch given back is as old as it
//!    was, and so are its halves.
//! 3. The budget counts the bytes of waiting *and* leased batches, for both are in memory. A push that finds no room
//!    drops waiting batches from the old end (`drop_oldest`) or the pushed one (`drop_newest`). A leased batch is never
//!    dropped: the receiver may be storing it at this moment. A batch that can't fit beside the leased ones drops
//!    nothing but itself.
//! 4. Halves repeat the resource and scope of the whole, so a split may exceed the budget by that much; the next push
//!    makes room for it too.
//! 5. A lease that is dropped unsettled (its task was aborted, or panicked) is given back.
//! 6. After [`Queue::close`] nothing comes in. A lease is `None` once nothing waits *and* nothing is leased, for what is
//!    leased may come back.
//! 7. [`Queue::abandon`] ends it: all that is there, leased batches included, is counted `undelivered`, or `queued` where
//!    it is on the disk, and settling a lease afterwards counts nothing.
//!
//! The queue on disk has [rules of its own](disk) beside these, and makes room by whole files.

use std::sync::Arc;

use crate::{config, ledger::Ledger, record::Batch};

pub mod disk;
pub mod inspect;
mod lease;
mod memory;
#[cfg(test)]
mod tests;
mod watchers;

use disk::Disk;
pub use disk::directory::OpenError;
pub use lease::Lease;
use memory::Memory;
use watchers::Watchers;
pub use watchers::{Seen, Watcher};

/// Batches on their way to the receiver. A clone is another handle of the same queue.
#[derive(Debug, Clone)]
pub enum Queue {
    /// Batches wait in memory, and what waits is lost when flowtel is killed.
    Memory(Arc<Memory>),
    /// Batches wait in files, and are there after a crash.
    Disk(Arc<Disk>),
}

/// How much is in the queue, leased batches included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Batches.
    pub batches: usize,
    /// Records in them.
    pub records: u64,
    /// Bytes of them: what the budget counts.
    pub bytes: u64,
    /// Batches that are in flight: part of `batches`.
    pub leased: usize,
    /// Records that survive a crash, for they are on the disk: part of `records`.
    pub durable: u64,
}

/// What was in the queue when it was given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Records that are lost, and counted `undelivered`.
    pub lost: u64,
    /// Records on the disk, for the next run, and counted `queued`.
    pub queued: u64,
}

/// A queue that has its directory, and no thread yet.
#[must_use = "nothing is written before it is started"]
pub struct Prepared {
    queue: Queue,
    work: Option<disk::Work>,
}

// === impl Prepared

impl Prepared {
    /// A handle of it, to push to.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Starts its thread.
    ///
    /// # Errors
    /// There can't be one.
    pub fn start(self) -> Result<Queue, OpenError> {
        if let Some(work) = self.work {
            work.start()?;
        }
        Ok(self.queue)
    }
}

// === impl Queue

impl Queue {
    /// An empty, open queue in memory, with the budget of these settings.
    pub fn new(config: &config::Queue, ledger: Arc<Ledger>) -> Self {
        Self::Memory(Arc::new(Memory::new(config.max_bytes.0, config.on_full, ledger)))
    }

    /// The queue of these settings, whose thread is not started: what is pushed is kept.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn prepare(config: &config::Queue, ledger: Arc<Ledger>) -> Result<Prepared, OpenError> {
        Ok(match config.kind {
            config::QueueKind::Memory => Prepared { queue: Self::new(config, ledger), work: None },
            config::QueueKind::Disk => {
                let (disk, work) = Disk::prepare_in(config, ledger)?;
                Prepared { queue: Self::Disk(Arc::new(disk)), work: Some(work) }
            }
        })
    }

    /// The queue of these settings. One on disk holds what an earlier run left, counted `carried_over`.
    ///
    /// # Errors
    /// Another process has the directory, or there can't be a thread. A directory that can't be used otherwise is no
    /// error: the queue is in memory until it can.
    pub fn open(config: &config::Queue, ledger: Arc<Ledger>) -> Result<Self, OpenError> {
        Self::prepare(config, ledger)?.start()
    }

    /// Puts a batch at the young end. Returns at once: it waits for no reader and does no I/O, it holds a lock that
    /// others hold for a map look-up. What the budget has no room for is counted `queue_full`; a batch that comes after
    /// [`Queue::close`] is counted `undelivered`.
    pub fn push(&self, batch: Batch) {
        self.watchers().show(&batch);
        match self {
            Self::Memory(memory) => memory.push(batch),
            Self::Disk(disk) => disk.push(batch),
        }
    }

    /// Shows each batch that is pushed from now on, whatever becomes of it.
    pub fn watch(&self) -> Watcher {
        self.watchers().watch()
    }

    /// Whether anybody watches now.
    pub fn is_watched(&self) -> bool {
        self.watchers().are_there()
    }

    fn watchers(&self) -> &Watchers {
        match self {
            Self::Memory(memory) => memory.watchers(),
            Self::Disk(disk) => disk.watchers(),
        }
    }

    /// The oldest waiting batch, as soon as there is one; `None` once the queue is closed and holds nothing more.
    /// Dropping the future loses nothing.
    pub async fn lease(&self) -> Option<Lease> {
        match self {
            Self::Memory(memory) => memory.lease().await.map(|(at, batch)| Lease::new(self.clone(), at, batch)),
            Self::Disk(disk) => disk.lease().await.map(|(at, batch)| Lease::new(self.clone(), at, batch)),
        }
    }

    /// The oldest waiting batch, if one waits now.
    pub fn try_lease(&self) -> Option<Lease> {
        match self {
            Self::Memory(memory) => memory.try_lease().map(|(at, batch)| Lease::new(self.clone(), at, batch)),
            Self::Disk(disk) => disk.try_lease().map(|(at, batch)| Lease::new(self.clone(), at, batch)),
        }
    }

    /// No more pushes. What is in the queue stays for export to take.
    pub fn close(&self) {
        match self {
            Self::Memory(memory) => memory.close(),
            Self::Disk(disk) => disk.close(),
        }
    }

    /// Returns once [`Queue::close`] was called.
    pub async fn closed(&self) {
        match self {
            Self::Memory(memory) => memory.closed().await,
            Self::Disk(disk) => disk.closed().await,
        }
    }

    /// Ends it: closes it, and counts the records of all that is in it `queued` where they are on the disk, else
    /// `undelivered`. Waits for the disk to take what it has not yet, some seconds at most.
    pub fn abandon(&self) -> Left {
        match self {
            Self::Memory(memory) => Left { lost: memory.abandon(), queued: 0 },
            Self::Disk(disk) => disk.abandon(),
        }
    }

    /// How much is in the queue now.
    pub fn waiting(&self) -> Waiting {
        match self {
            Self::Memory(memory) => memory.waiting(),
            Self::Disk(disk) => disk.waiting(),
        }
    }

    /// Goes on with a changed budget and another rule of what goes when it is full. What is there stays; the next push
    /// makes room. Of another kind of queue nothing is changed: that is for a restart.
    pub fn reconfigure(&self, config: &config::Queue) {
        match self {
            Self::Memory(memory) => memory.reconfigure(config.max_bytes.0, config.on_full),
            Self::Disk(disk) => disk.reconfigure(config),
        }
    }

    /// The budget, in bytes.
    pub fn max_bytes(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.max_bytes(),
            Self::Disk(disk) => disk.max_bytes(),
        }
    }

    fn done(&self, at: Position) -> u32 {
        match self {
            Self::Memory(memory) => memory.done(at),
            Self::Disk(disk) => disk.done(at),
        }
    }

    fn give_back(&self, at: Position) {
        match self {
            Self::Memory(memory) => memory.give_back(at),
            Self::Disk(disk) => disk.give_back(at),
        }
    }

    fn replace(&self, at: Position, halves: [Batch; 2]) {
        match self {
            Self::Memory(memory) => memory.replace(at, halves),
            Self::Disk(disk) => disk.replace(at, halves),
        }
    }
}

/// A batch's place in the order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Position {
    /// Which run it came with: an earlier one's is smaller.
    run: u32,
    /// The push it came with.
    push: u64,
    /// Which of that push's records is its first: tells halves apart, and in which order they are.
    record: u32,
}
