//! `flowtel tail`: shows the records of the running flowtel as lines, without a restart and without a second attachment.

use std::io::Write as _;

use crate::{
    config::{self, Config, Format, Key, Loaded, Origin},
    exit::{Exit, Failure},
    export::{LinePrinter, Print},
    telemetry::status::{ask::AskError, attach::attach, request::Request},
    view::{
        choose::Chosen,
        tail::{self, Ending, Error},
    },
};

/// Shows records until flowtel stops, or nobody reads the lines any more.
///
/// # Errors
/// Nobody is there to ask (69), this user may not (77), or this reader was too slow (1).
pub fn tail(loaded: &Loaded) -> Result<(), Failure> {
    let path = &loaded.config.telemetry.status.socket;
    if path.as_os_str().is_empty() {
        let empty = "telemetry.status.socket is empty: there is no socket to ask at";
        return Err(Exit::Config.with(anyhow::anyhow!(empty)));
    }
    let chosen = chosen(loaded)?;
    let printer = LinePrinter::new(&Print {
        format: format(loaded)?,
        path: None,
        rotate: config::Rotate::default(),
        compress: config::Compression::None,
    });
    let attached = attach(path, Request::Tail).map_err(refused)?;
    let missed = |records: u64| say(&format!("{records} records were missed: this reader is too slow"));
    let ending = tail::follow(attached, &chosen, printer, missed).map_err(|error| match error {
        Error::Ask(error) => refused(error),
        Error::Write(error) => anyhow::Error::new(error).context("cannot write to standard output").into(),
    })?;
    match ending {
        Ending::Unread => Ok(()),
        Ending::Stopped => {
            say("flowtel has stopped");
            Ok(())
        }
        Ending::Gone => Err(Exit::Unavailable.with(anyhow::anyhow!("flowtel is gone: it was killed, or has crashed"))),
        Ending::Full => Err(Exit::Unavailable.with(anyhow::anyhow!("{FULL}"))),
        Ending::Dropped { missed } => Err(anyhow::anyhow!(
            "flowtel has dropped this reader, which took nothing for some seconds; {missed} records were missed by then"
        )
        .into()),
    }
}

/// What is said where there is no seat.
pub(super) const FULL: &str = "so many look on already (flowtel top, flowtel tail) that there is no room for another";

/// What is shown: rules and events that flags name. Those of files are the running flowtel's: it has followed them already.
pub(super) fn chosen(loaded: &Loaded) -> Result<Chosen, Failure> {
    let Config { capture, .. } = &loaded.config;
    let none = config::rules::Rules::default();
    let rules = if is_flag(loaded, "capture.filter") { &capture.filter } else { &none };
    let events = if is_flag(loaded, "capture.events") { capture.events } else { config::Events::NETWORK_EVENTS };
    Chosen::new(rules, events).map_err(|why| Exit::Usage.with(anyhow::anyhow!(why)))
}

pub(super) fn is_flag(loaded: &Loaded, key: &str) -> bool {
    matches!(loaded.origins.get(&Key::new(key)), Origin::Flag(_))
}

/// The form that a flag names. That of files is the running flowtel's.
fn format(loaded: &Loaded) -> Result<Format, Failure> {
    if is_flag(loaded, "export.kind") && loaded.config.export.kind != Some(config::ExportKind::Stdout) {
        let wrong = "tail writes to standard output: --output text, json or ndjson";
        return Err(Exit::Usage.with(anyhow::anyhow!(wrong)));
    }
    Ok(if is_flag(loaded, "export.format") { loaded.config.export.format } else { Format::Auto })
}

/// The code that goes with a refusal.
pub(super) fn refused(error: AskError) -> Failure {
    match error {
        AskError::Forbidden { .. } => Exit::NoPermission.with(error),
        _ => Exit::Unavailable.with(error),
    }
}

/// A line beside the records. Standard error may be closed.
fn say(text: &str) {
    let _ = writeln!(anstream::stderr(), "flowtel: {text}");
}
