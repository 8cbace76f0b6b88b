//! The terminal: taken over here, and put back however this ends: by a key, a signal, an error or a panic.

use std::{
    io::{self, IsTerminal as _, Stdout, Write as _},
    panic,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event, execute,
        terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::escape::Escaped;

/// Panics of other threads: they would be written across the picture.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A terminal that is taken over. Dropped, it is as it was.
pub struct Taken {
    /// What can be drawn on.
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// Whether there is a terminal to draw on.
pub fn is_there() -> bool {
    io::stdout().is_terminal()
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
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
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
