//! `flowtel status`: asks a running flowtel over its socket how it is doing.

use std::{io::IsTerminal as _, path::Path, time::Duration};

use rustix::thread::{Timespec, nanosleep};

use crate::{
    config::Loaded,
    escape::write_json,
    exit::{Exit, Failure},
    telemetry::status::{Status, ask, text},
};

/// In which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form {
    /// For machines.
    pub json: bool,
    /// Again and again, this often.
    pub watch: Option<Duration>,
}

impl Form {
    /// Whether each answer takes the place of the last one.
    fn redraws(self) -> bool {
        self.watch.is_some() && !self.json && std::io::stdout().is_terminal()
    }
}

/// Asks and prints.
///
/// # Errors
/// Nobody answers, or nothing that is understood; with 77 where the rights to ask are missing, else 69.
pub fn status(loaded: &Loaded, form: Form) -> Result<(), Failure> {
    let path = &loaded.config.telemetry.status.socket;
    if path.as_os_str().is_empty() {
        return Err(
            Exit::Config.with(anyhow::anyhow!("telemetry.status.socket is empty: there is no socket to ask at"))
        );
    }
    loop {
        let mut text = ask(path, form.json)?;
        if form.redraws() {
            // Home, and clear what is below: the lines stay in their places.
            text.splice(0..0, *b"\x1b[H\x1b[J");
        }
        super::print(&text).map_err(|e| anyhow::Error::new(e).context("cannot write to standard output"))?;
        let Some(every) = form.watch else { return Ok(()) };
        // A signal ends the program, not the wait.
        let seconds = i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        let _ = nanosleep(&Timespec { tv_sec: seconds, tv_nsec: every.subsec_nanos().into() });
        // A line between one and the next; JSON has a line each anyway.
        let between: &[u8] = if form.json || form.redraws() { b"" } else { b"\n" };
        super::print(between).map_err(|e| anyhow::Error::new(e).context("cannot write to standard output"))?;
    }
}

fn ask(path: &Path, json: bool) -> Result<Vec<u8>, Failure> {
    let status: Status = ask::ask(path).map_err(|e| match e {
        ask::AskError::Forbidden { .. } => Exit::NoPermission.with(e),
        _ => Exit::Unavailable.with(e),
    })?;
    if !json {
        return Ok(text::lines(&status).into_bytes());
    }
    let mut json = Vec::new();
    write_json(&mut json, &status).map_err(anyhow::Error::new)?;
    json.push(b'\n');
    Ok(json)
}
