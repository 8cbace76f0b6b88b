//! The commands, one file each: a loaded configuration comes in, output and an exit code go out.
//!
//! Must never reach past the rooms' doors: what a command needs, a room offers.

use std::io::{self, Write as _};

use tokio::runtime;

use crate::exit::{Exit, Failure};

pub mod check;
pub mod config;
mod ending;
pub mod explain;
pub mod man;
pub mod queue;
mod reload;
pub mod replay;
pub mod run;
pub mod status;
pub mod tail;
pub mod top;

/// The threads that deliver, and wait for signals.
///
/// # Errors
/// The kernel refuses a thread.
fn export_threads(export: &crate::config::Export) -> Result<runtime::Runtime, Failure> {
    // One drains an outage at a hundred thousand records a second (make test-delivery), and a second would be woken for
    // each batch only to find nothing left to do. While one compresses, though, the other keeps timers and answers prompt.
    let workers = if export.compression == crate::config::Compression::None { 1 } else { 2 };
    runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("flowtel-export")
        .enable_all()
        .build()
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("starting the export threads")))
}

/// Prints on standard output, coloured on a terminal only. A reader that went away (`flowtel config | head`) has what
/// it wanted: no error.
///
/// # Errors
/// Standard output can't be written for another reason.
pub fn print(text: &[u8]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
