//! Memory of sealed batches, used again for the next ones once nobody reads it any more. A fresh megabyte costs more in page
//! faults than the records that are written into it.
//!
//! Sealed batches come in, and go out as empty buffers when they are no longer waiting or being sent. What is kept beside
//! the queue is bounded: [`MOST`] buffers. Must never hand out memory that somebody can still read.

use std::collections::VecDeque;

use bytes::Bytes;

/// The most batches that are remembered: as many as are on their way when all goes well.
const MOST: usize = 4;
/// Smaller ones are not worth the trouble.
const LEAST: usize = 64 << 10;

/// The batches that were sealed last.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    lent: VecDeque<Bytes>,
    /// Something was sealed since the last [`Self::rest`].
    used: bool,
}

impl Buffers {
    /// Remembers the memory of a sealed batch.
    pub fn lend(&mut self, sealed: &Bytes) {
        self.used = true;
        if sealed.len() < LEAST {
            return;
        }
        if self.lent.len() >= MOST {
            // It waits in the queue and has its memory from there; or it is free, and there are enough.
            self.lent.pop_front();
        }
        self.lent.push_back(sealed.clone());
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn take(&mut self, capacity: usize) -> Vec<u8> {
        if let Some(free) = self.lent.iter().position(Bytes::is_unique)
            && let Some(mut bytes) = self.lent.remove(free)
        {
            // Else it would be moved to the buffer's front.
            bytes.truncate(1);
            let mut buffer = Vec::from(bytes);
            buffer.clear();
            if buffer.capacity() >= capacity {
                return buffer;
            }
        }
        Vec::with_capacity(capacity)
    }

    /// Gives back what was not needed since the last call.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.used) {
            self.lent = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as the encoder seals it: not from the buffer's start, and not to its end.
    fn sealed(byte: u8) -> Bytes {
        let mut buffer = Vec::with_capacity(LEAST + 100);
        buffer.resize(LEAST + 8, byte);
        Bytes::from(buffer).slice(8..)
    }

    #[test]
    fn memory_is_used_again_once_nobody_can_read_it() {
        let mut buffers = Buffers::default();
        let [first, second] = [sealed(1), sealed(2)];
        let at = first.as_ptr() as usize;
        buffers.lend(&first);
        buffers.lend(&second);
        let part = first.slice(10..20);
        drop(first);
        let other = buffers.take(LEAST);
        assert_eq!((part[0], second[0]), (1, 2));
        drop(part);
        let again = buffers.take(LEAST);
        assert!(again.is_empty() && again.capacity() >= LEAST);
        assert_eq!(again.as_ptr() as usize, at - 8, "the batch's own memory, from its start");
        assert_ne!(other.as_ptr() as usize, at - 8, "not while a part of it was read");
    }

    #[test]
    fn what_is_too_small_is_not_used_and_little_is_kept() {
        let mut buffers = Buffers::default();
        buffers.lend(&sealed(1));
        let large = buffers.take(LEAST * 4);
        assert!(large.capacity() >= LEAST * 4);
        for n in 0..10 {
            buffers.lend(&sealed(n));
        }
        buffers.lend(&Bytes::from_static(b"small"));
        assert_eq!(buffers.lent.len(), MOST);
        buffers.rest();
        assert_eq!(buffers.lent.len(), MOST, "something was sealed just now");
        buffers.rest();
        assert!(buffers.lent.is_empty());
    }
}
