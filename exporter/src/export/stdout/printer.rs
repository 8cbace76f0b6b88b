//! Batches in, lines on standard output out, on the thread that calls: for a command that does nothing else.

use std::io;

use super::{Form, Raw, Writer};
use crate::{export::Print, record::Batch};

/// Writes lines in one form.
pub struct LinePrinter(Writer);

// === impl LinePrinter

impl LinePrinter {
    /// What prints in this form on standard output; `path` and `compress` are for a flowtel that runs.
    pub fn new(print: &Print) -> Self {
        Self(Writer::new(Form::of(print), Box::new(Raw(rustix::stdio::stdout())), None))
    }

    /// Writes a batch. On a terminal its lines may wait a moment for those that belong before them.
    ///
    /// # Errors
    /// Standard output takes no more, or it is no batch.
    pub fn write(&mut self, batch: &Batch) -> io::Result<()> {
        self.0.write(batch).error.map_or(Ok(()), Err)
    }

    /// Whether lines wait for [`Self::write_held`].
    pub fn holds(&self) -> bool {
        self.0.holds()
    }

    /// Writes the lines that have waited long enough, or with `all` every one.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub fn write_held(&mut self, all: bool) -> io::Result<()> {
        self.0.write_held(all).error.map_or(Ok(()), Err)
    }
}
