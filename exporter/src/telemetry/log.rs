//! The log of flowtel itself: settings in, lines on standard error out. Standard output belongs to records.
//!
//! A line is one line, whatever is in it (`writer`); a place in the code that has much to say says only so much (`fold`).

use std::{io::IsTerminal as _, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::{Level, Log, LogFormat};

mod fold;
mod writer;

use fold::Fold;
use writer::OneLine;

/// What can be changed while it runs; set once, by the first start.
static RUNNING: OnceLock<Running> = OnceLock::new();

struct Running {
    filter: reload::Handle<EnvFilter, Registry>,
    fold: Fold,
}

/// Starts the log. A second call in one process changes nothing.
pub fn start(config: &Log) {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let fold = Fold::default();
    let json = config.format == LogFormat::Json;
    let colour = !json && colour();
    let lines = fmt::layer()
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_ansi(colour)
        .with_writer(OneLine { json, colour });
    let lines = if json { lines.json().with_current_span(false).boxed() } else { lines.boxed() };
    let log = tracing_subscriber::registry().with(filter).with(lines.with_filter(fold.clone()));
    // Fails only where a log was started before, as in tests.
    if log.try_init().is_ok() {
        let _ = RUNNING.set(Running { filter: handle, fold });
    }
}

/// Goes on with another level.
pub fn set_level(level: Level) {
    if let Some(running) = RUNNING.get() {
        // Fails only when the log is gone, and then there is nothing to set.
        let _ = running.filter.reload(filter(level));
    }
}

/// Says how many lines were left out lately, if any were. To be called now and then.
pub fn tell_folded() {
    for folded in RUNNING.get().map(|running| running.fold.take()).unwrap_or_default() {
        tracing::warn!(
            lines = folded.lines,
            like = folded.like,
            "lines were left out of this log, for they were too many"
        );
    }
}

fn filter(level: Level) -> EnvFilter {
    // Libraries speak up only when something is wrong with them; `debug` and `trace` are for flowtel's own words.
    EnvFilter::new(match level {
        Level::Off => "off",
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "warn,flowtel=info",
        Level::Debug => "warn,flowtel=debug",
        Level::Trace => "debug,flowtel=trace",
    })
}

/// Colour on a terminal only, and not where the user said no (no-color.org).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
