//! The terminal: taken over here, and put back however this ends: by a key, a signal, an error or a panic.

use std::{
    io::{self, IsTerminal as _, Stdout, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use ratatui::{
    Terminal as Screen,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event, execute,
        terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::escape::Escaped;

/// Panics of other threads: they would be written across the picture.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A terminal that is taken over. Dropped, it is as it was.
pub struct Taken {
    /// What can be drawn on.
    pub terminal: Screen<CrosstermBackend<Stdout>>,
}

/// Whether there is a terminal to draw on.
pub fn is_there() -> bool {
    io::stdout().is_terminal()
}

/// Waits until something is typed, at most so long.
///
/// What reads keys (crossterm) must not be asked once the terminal is gone: it reads again and again, without an end.
///
/// # Errors
/// The kernel refuses to wait.
pub(super) fn wait(most: Duration) -> io::Result<Terminal> {
    let (input, output) = (io::stdin(), io::stdout());
    let descriptor = if input.is_terminal() { input.as_fd() } else { output.as_fd() };
    let mut asked = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    let timeout = Timespec { tv_sec: most.as_secs().try_into().unwrap_or(1), tv_nsec: most.subsec_nanos().into() };
    match poll(&mut asked, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = asked.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL));
    Ok(if gone { Terminal::Gone } else { Terminal::There })
}

/// Whether the terminal is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    There,
    Gone,
}

/// Whether colours are wanted: not with NO_COLOR (no-color.org) or on a dumb terminal.
pub fn has_colour() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

// === impl Taken

impl Taken {
    /// Takes the terminal over. A panic of this thread puts it back before its message is written.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub fn new() -> io::Result<Self> {
        let (before, own) = (panic::take_hook(), thread::current().id());
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == own {
                put_back();
                before(info);
            } else {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
            }
        }));
        enable_raw_mode()?;
        // Not Terminal::clear: it asks where the cursor is, and not every terminal answers.
        let taken = execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))
            .and_then(|()| Screen::new(CrosstermBackend::new(io::stdout())));
        // What reads keys is made now: later there may be no right to open the terminal.
        let taken = taken.and_then(|terminal| event::poll(Duration::ZERO).map(|_| terminal));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        put_back();
    }
}

/// What can't be put back, because the terminal is gone, need not be.
fn put_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
    for panic in std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner)) {
        let _ = writeln!(io::stderr(), "flowtel: {}", Escaped(&panic));
    }
}
