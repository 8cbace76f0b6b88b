//! The loop: takes what comes and what is typed, draws once a second and at every key, until a key, a signal or the terminal
//! ends it.

use std::{
    io,
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ratatui::crossterm::event::{self, Event};

use super::{
    App, Go, screen,
    terminal::{self, Taken, Terminal},
};
use crate::{rights::signals, telemetry::status::frame::Frame, view::source::Told};

/// How often the picture is drawn where nothing is typed.
const EVERY: Duration = Duration::from_secs(1);
/// How long a signal, or a full channel, waits at most.
const LOOK: Duration = Duration::from_millis(200);

/// Shows the app until somebody has seen enough. Signals must be [held](signals::hold).
///
/// # Errors
/// The terminal fails. One that is gone is no error.
pub fn run(app: &mut App, taken: &mut Taken, from: &Receiver<Told>) -> io::Result<()> {
    let mut drawn: Option<Instant> = None;
    loop {
        take(app, from);
        if drawn.is_none_or(|at| at.elapsed() >= EVERY) {
            app.tick(wall());
            taken.terminal.draw(|frame| screen::draw(frame, app))?;
            drawn = Some(Instant::now());
        }
        if signals::any_waits() {
            return Ok(());
        }
        let rest = drawn.map_or(Duration::ZERO, |at| EVERY.saturating_sub(at.elapsed()));
        if terminal::wait(rest.min(LOOK))? == Terminal::Gone {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) => {
                    if app.key(key) == Go::Quit {
                        return Ok(());
                    }
                    drawn = None;
                }
                Event::Resize(..) => drawn = None,
                _ => {}
            }
        }
    }
}

/// Takes all that has come.
fn take(app: &mut App, from: &Receiver<Told>) {
    loop {
        match from.try_recv() {
            Ok(Told::Frame(frame)) => {
                if let Frame::Dropped { .. } = frame {
                    app.over = Some("dropped: this reader was too slow".into());
                }
                app.on(frame);
            }
            Ok(Told::Over(why)) => app.over = Some(why),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => {
                app.over.get_or_insert_with(|| "nothing more comes".into());
                return;
            }
        }
    }
}

/// Nanoseconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
