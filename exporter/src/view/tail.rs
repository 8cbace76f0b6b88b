//! Frames from a running flowtel in, lines on standard output out; how it ended, at the end.

use std::{io, time::Duration};

use super::choose::Chosen;
use crate::{
    export::LinePrinter,
    telemetry::status::{
        ask::AskError,
        attach::{Attached, Came},
        frame::Frame,
    },
};

/// How long nothing may come until lines that wait are written.
const WAIT: Duration = Duration::from_millis(100);
/// How long nothing comes, where nothing waits to be written.
const LONG: Duration = Duration::from_secs(3600);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// flowtel stopped, and said so.
    Stopped,
    /// flowtel is gone without a word.
    Gone,
    /// Nobody reads the lines any more.
    Unread,
    /// This reader was too slow.
    Dropped {
        /// Records that it missed, all in all.
        missed: u64,
    },
    /// Too many look on already.
    Full,
}

/// Why it could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What answers is not understood.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Lines can't be written.
    #[error("cannot write to standard output: {0}")]
    Write(io::Error),
}

/// Writes lines until either side ends. `say` is told how many records were missed in between.
///
/// # Errors
/// What answers is not understood, or standard output takes no more.
pub fn follow(
    mut attached: Attached,
    chosen: &Chosen,
    mut printer: LinePrinter,
    mut say: impl FnMut(u64),
) -> Result<Ending, Error> {
    let mut total = 0_u64;
    let ending = loop {
        let written = match attached.next(if printer.holds() { WAIT } else { LONG })? {
            Came::Nothing => printer.write_held(false),
            Came::Gone => break Ending::Gone,
            Came::Frame(Frame::Records { missed, records, request }) => {
                if missed > 0 {
                    total = u64::saturating_add(total, missed);
                    say(missed);
                }
                chosen.batch(request, records).map_or(Ok(()), |batch| printer.write(&batch))
            }
            Came::Frame(Frame::Dropped { missed }) => break Ending::Dropped { missed: total.saturating_add(missed) },
            Came::Frame(Frame::Full) => break Ending::Full,
            Came::Frame(Frame::End) => break Ending::Stopped,
            Came::Frame(Frame::Hello(_) | Frame::Open { .. } | Frame::Status(_)) => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Ending::Unread),
            Err(e) => return Err(Error::Write(e)),
        }
    };
    match printer.write_held(true) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Write(e)),
        _ => Ok(ending),
    }
}
