//! The queue in memory: a map by age, guarded by a lock that is held for a few map operations only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Position, Waiting, Watchers};
use crate::{config::OnFull, ledger::Ledger, record::Batch};

/// Batches in memory. See the module's rules.
#[derive(Debug)]
pub struct Memory {
    ledger: Arc<Ledger>,
    books: Mutex<Books>,
    /// One permit for each batch that began to wait; all waiters when a lease may have become `None`.
    changed: Notify,
    closed: watch::Sender<bool>,
    watchers: Watchers,
}

#[derive(Debug)]
struct Books {
    max_bytes: u64,
    on_full: OnFull,
    pushes: u64,
    waiting: BTreeMap<Position, Batch>,
    leased: BTreeMap<Position, Batch>,
    /// Of both maps.
    bytes: u64,
    /// Of both maps.
    records: u64,
    leased_bytes: u64,
    closed: bool,
}

// === impl Memory

impl Memory {
    pub(super) fn new(max_bytes: u64, on_full: OnFull, ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            books: Mutex::new(Books::new(max_bytes, on_full)),
            changed: Notify::new(),
            closed: watch::Sender::new(false),
            watchers: Watchers::default(),
        }
    }

    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    pub(super) fn push(&self, batch: Batch) {
        let mut books = self.books();
        if books.closed {
            self.ledger.records.undelivered.add(batch.records.into());
            return;
        }
        let size = size(&batch);
        let fits_beside_leased = books.leased_bytes.saturating_add(size) <= books.max_bytes;
        if fits_beside_leased && books.on_full == OnFull::DropOldest {
            while books.bytes + size > books.max_bytes {
                let Some((_, dropped)) = books.waiting.pop_first() else { break };
                books.forget(&dropped);
                self.ledger.records.queue_full.add(dropped.records.into());
            }
        }
        if books.bytes.saturating_add(size) > books.max_bytes {
            self.ledger.records.queue_full.add(batch.records.into());
            return;
        }
        let at = Position { run: 0, push: books.pushes, record: 0 };
        books.pushes += 1;
        books.wait(at, batch);
        drop(books);
        self.changed.notify_one();
    }

    pub(super) async fn lease(&self) -> Option<(Position, Batch)> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before looking, or a change in between would be missed.
            changed.as_mut().enable();
            if let Some(leased) = self.try_lease() {
                return Some(leased);
            }
            if self.books().is_over() {
                return None;
            }
            changed.await;
        }
    }

    pub(super) fn try_lease(&self) -> Option<(Position, Batch)> {
        let mut books = self.books();
        let (at, batch) = books.waiting.pop_first()?;
        books.leased_bytes += size(&batch);
        books.leased.insert(at, batch.clone());
        let more = !books.waiting.is_empty();
        drop(books);
        if more {
            // Permits don't add up: whoever takes one of several batches wakes the next.
            self.changed.notify_one();
        }
        Some((at, batch))
    }

    pub(super) fn done(&self, at: Position) -> u32 {
        let mut books = self.books();
        let Some(batch) = books.end_lease(at) else { return 0 };
        books.forget(&batch);
        let over = books.is_over();
        drop(books);
        if over {
            self.changed.notify_waiters();
        }
        batch.records
    }

    pub(super) fn give_back(&self, at: Position) {
        let mut books = self.books();
        let Some(batch) = books.end_lease(at) else { return };
        books.waiting.insert(at, batch);
        drop(books);
        self.changed.notify_one();
    }

    pub(super) fn replace(&self, at: Position, halves: [Batch; 2]) {
        let mut books = self.books();
        let Some(whole) = books.end_lease(at) else { return };
        books.forget(&whole);
        let [first, second] = halves;
        debug_assert_eq!(first.records + second.records, whole.records, "halves hold the records of the whole");
        let second_at = Position { record: at.record.saturating_add(first.records), ..at };
        for (at, half) in [(at, first), (second_at, second)] {
            books.wait(at, half);
        }
        drop(books);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.books().closed = true;
        self.closed.send_replace(true);
        self.changed.notify_waiters();
    }

    pub(super) async fn closed(&self) {
        // Fails only when the sender is gone, and self holds it.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn abandon(&self) -> u64 {
        let mut books = self.books();
        let books_at_end = Books { pushes: books.pushes, closed: true, ..Books::new(books.max_bytes, books.on_full) };
        let records = std::mem::replace(&mut *books, books_at_end).records;
        self.ledger.records.undelivered.add(records);
        drop(books);
        self.closed.send_replace(true);
        self.changed.notify_waiters();
        records
    }

    pub(super) fn waiting(&self) -> Waiting {
        let books = self.books();
        Waiting {
            batches: books.waiting.len() + books.leased.len(),
            records: books.records,
            bytes: books.bytes,
            leased: books.leased.len(),
            durable: 0,
        }
    }

    pub(super) fn reconfigure(&self, max_bytes: u64, on_full: OnFull) {
        let mut books = self.books();
        books.max_bytes = max_bytes;
        books.on_full = on_full;
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.books().max_bytes
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No code that can panic runs under the lock; should it ever, going on beats stopping the capture thread.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Books

impl Books {
    fn new(max_bytes: u64, on_full: OnFull) -> Self {
        Self {
            max_bytes,
            on_full,
            pushes: 0,
            waiting: BTreeMap::new(),
            leased: BTreeMap::new(),
            bytes: 0,
            records: 0,
            leased_bytes: 0,
            closed: false,
        }
    }

    fn wait(&mut self, at: Position, batch: Batch) {
        self.bytes += size(&batch);
        self.records += u64::from(batch.records);
        self.waiting.insert(at, batch);
    }

    fn forget(&mut self, batch: &Batch) {
        self.bytes -= size(batch);
        self.records -= u64::from(batch.records);
    }

    fn end_lease(&mut self, at: Position) -> Option<Batch> {
        let batch = self.leased.remove(&at)?;
        self.leased_bytes -= size(&batch);
        Some(batch)
    }

    fn is_over(&self) -> bool {
        self.closed && self.waiting.is_empty() && self.leased.is_empty()
    }
}

fn size(batch: &Batch) -> u64 {
    batch.bytes.len() as u64
}
