//! How far a ring has been read, and how far it has been written; and the first words of a map that is shared. The kernel keeps the one in the ring's first page, which
//! whoever reads the ring writes, and the other in the second (kernel/bpf/ringbuf.c, "consumer_pos", "producer_pos").

use std::{io, num::NonZeroUsize, os::fd::BorrowedFd, ptr::NonNull, sync::atomic::AtomicUsize, sync::atomic::Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// One of the two pages of a ring that begin with a position, mapped.
#[derive(Debug)]
struct Page {
    start: NonNull<AtomicUsize>,
    bytes: NonZeroUsize,
}

/// How far a ring has been read.
#[derive(Debug)]
pub(super) struct Position(Page);

/// How far a ring has been written: up to the end of the last record that a program has room for, whether it is whole or not.
#[derive(Debug)]
pub(super) struct Written(Page);

/// The first words of a map, which a program writes.
#[derive(Debug)]
pub(super) struct Shared(Page);

// SAFETY: the page is shared memory that nobody moves, and all access to it is atomic.
unsafe impl Send for Page {}

// === impl Page

impl Page {
    /// Maps the page with this number of the ring.
    fn map(ring: BorrowedFd<'_>, number: u64, access: ProtFlags) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(rustix::param::page_size()).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel chooses where; nothing else is there.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes.get(), access, MapFlags::SHARED, ring, number * bytes.get() as u64)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, bytes })
    }

    fn position(&self) -> &AtomicUsize {
        // SAFETY: the page is mapped as long as `self` lives, its start is aligned for anything, and kernel and readers
        // write the position at once.
        unsafe { self.start.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped so by `map`, and no reference into it outlives `self`. It can't fail for a page that is there.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes.get()) };
    }
}

// === impl Position

impl Position {
    /// Of this ring.
    ///
    /// # Errors
    /// It is no ring, or there is no memory.
    pub fn of(ring: BorrowedFd<'_>) -> io::Result<Self> {
        Page::map(ring, 0, ProtFlags::READ | ProtFlags::WRITE).map(Self)
    }

    /// Bytes read since the ring was made.
    pub fn get(&self) -> u64 {
        self.0.position().load(Ordering::Acquire) as u64
    }

    /// Makes a ring of `size` bytes be read anew from `from` on, where what lies there was not written over since. Returns
    /// whether it is so. To be called before anybody reads the ring.
    ///
    /// # Errors
    /// The ring's other page can't be mapped.
    pub fn rewind(&self, ring: BorrowedFd<'_>, size: u64, from: u64) -> io::Result<bool> {
        let written = Written::of(ring)?;
        let read = self.get();
        let intact = || written.get().wrapping_sub(from) <= size;
        let Ok(back) = usize::try_from(from) else { return Ok(false) };
        if from > read || !intact() {
            return Ok(from == read);
        }
        self.0.position().store(back, Ordering::SeqCst);
        // A program that saw the old position a moment ago may write over it still.
        if !intact() {
            self.0.position().store(read as usize, Ordering::SeqCst);
            return Ok(false);
        }
        Ok(true)
    }
}

// === impl Shared

impl Shared {
    /// Of this array, which was made to be mapped.
    ///
    /// # Errors
    /// It is no such map, or there is no memory.
    pub fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        Page::map(map, 0, ProtFlags::READ).map(Self)
    }

    /// The first word of its first value.
    pub fn first(&self) -> u64 {
        self.word(0)
    }

    /// The second one.
    pub fn second(&self) -> u64 {
        self.word(1)
    }

    fn word(&self, index: usize) -> u64 {
        // SAFETY: both lie in the page, which is mapped as long as `self` lives; programs write each at once.
        let word = unsafe { self.0.start.add(index).as_ref() };
        word.load(Ordering::SeqCst) as u64
    }
}

// === impl Written

impl Written {
    /// Of this ring.
    ///
    /// # Errors
    /// It is no ring, or there is no memory.
    pub fn of(ring: BorrowedFd<'_>) -> io::Result<Self> {
        Page::map(ring, 1, ProtFlags::READ).map(Self)
    }

    /// Bytes written, or being written, since the ring was made.
    pub fn get(&self) -> u64 {
        self.0.position().load(Ordering::SeqCst) as u64
    }
}
