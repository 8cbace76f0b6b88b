//! The log of flowtel itself: settings in, lines on standard error out. Standard output belongs to records.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt as _};

use crate::config::{Level, Log, LogFormat};

/// Starts the log. A second call in one process changes nothing.
pub fn start(config: &Log) {
    // Libraries speak up only when something is wrong with them; `debug` and `trace` are for flowtel's own words.
    let filter = match config.level {
        Level::Off => "off",
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "warn,flowtel=info",
        Level::Debug => "warn,flowtel=debug",
        Level::Trace => "debug,flowtel=trace",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr);
    // `try_init` fails only where a log was started before, as in tests.
    let _ = match config.format {
        LogFormat::Json => builder.json().with_current_span(false).finish().try_init(),
        LogFormat::Text => builder.with_ansi(colour()).finish().try_init(),
    };
}

/// Colour on a terminal only, and not where the user said no (no-color.org).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
