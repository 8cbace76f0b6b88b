//! Where lines are written to.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// Where lines are written to.
pub(in crate::export) trait Sink: Write + Send {
    /// Opens it, where it isn't open yet.
    ///
    /// # Errors
    /// It can't be.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// A batch begins: another file may be opened for it.
    ///
    /// # Errors
    /// There is nothing that could be written to.
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes back what was written since [`Sink::begin`]. Returns whether it could: of a pipe nothing can be taken back.
    fn undo(&mut self) -> bool {
        false
    }
}

/// A file descriptor without std's buffer, which would write line by line.
pub(in crate::export) struct Raw<F>(pub(in crate::export) F);

// === impl Raw

impl<F: AsFd + Send> Sink for Raw<F> {}

impl<F: AsFd> Write for Raw<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                // Whoever shares the terminal or pipe may have made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                },
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
