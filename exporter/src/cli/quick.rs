//! The flags that a person tries first: what is printed, of what, and how much is said. Each stands for keys of the
//! configuration.

use clap::{ArgAction, Args};

use super::word;
use crate::config::{Key, Outputs, Override};

/// What was typed.
#[derive(Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Quick {
    /// Where records go: text, json, ndjson, otlp, or both: text,otlp
    #[arg(long, short, value_name = "WHERE", value_parser = |text: &str| text.parse::<Outputs>())]
    output: Option<Outputs>,
    /// Record these events: begins, flows, network_events, or names with commas
    #[arg(long, value_name = "EVENTS")]
    events: Option<String>,
    /// Record this part of all flows: 0.1 is a tenth
    #[arg(long, value_name = "PART")]
    sample: Option<String>,
    /// Record the flows of these processes only
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Say nothing but errors
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: the whole balance at the stop; twice, details of the work
    #[arg(long, short, action = ArgAction::Count)]
    verbose: u8,
}

// === impl Quick

impl Quick {
    /// The keys that they set.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let mut overrides = Vec::new();
        let mut set = |flag: &'static str, key: &str, value: Option<String>| {
            overrides.extend(value.map(|value| Override::new(flag, Key::new(key), value)));
        };
        if let Some(outputs) = &self.output {
            set("--output", "export.kind", word(&outputs.kind));
            set("--output", "export.format", outputs.format.as_ref().and_then(word));
        }
        set("--events", "capture.events", self.events.clone());
        set("--sample", "capture.sample", self.sample.clone());
        set("--quiet", "log.level", self.quiet.then(|| "error".to_owned()));
        set("--verbose", "log.balance", (self.verbose > 0).then(|| "true".to_owned()));
        set("--verbose", "log.level", (self.verbose > 1).then(|| "debug".to_owned()));
        overrides
    }

    /// The rule of `--pid`.
    pub(super) fn rule(&self) -> Option<String> {
        let ids: Vec<_> = self.pid.iter().map(u32::to_string).collect();
        (!ids.is_empty()).then(|| format!("include pid={}", ids.join(",")))
    }

    pub(super) fn quiet(&self) -> bool {
        self.quiet
    }
}
