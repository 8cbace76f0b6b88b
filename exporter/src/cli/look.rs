//! The flags of commands that look on at a running flowtel: which of its records are shown. Files and environment say what
//! flowtel records; here only flags do.

use std::path::PathBuf;

use clap::{ArgMatches, Args, ValueHint};

use super::{rules, split, usage, word};
use crate::config::{Key, Outputs, Override, Sources};

/// What was typed.
#[derive(Args)]
pub(super) struct Look {
    /// Show these flows: 'dst=10.0.0.0/8 port=443'; with --exclude in any number, the first that matches decides
    #[arg(long, value_name = "CONDITIONS")]
    include: Vec<String>,
    /// Leave these flows out: 'process=curl user=0'
    #[arg(long, value_name = "CONDITIONS")]
    exclude: Vec<String>,
    /// Show the flows of these processes only
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pid: Vec<u32>,
    /// Read this file too, after those of /etc/flowtel: it says where the running flowtel's socket is
    #[arg(long, hide_short_help = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Set any key, such as telemetry.status.socket=/tmp/flowtel.sock
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What `flowtel tail` takes beside that.
#[derive(Args)]
pub(super) struct Lines {
    /// Show these events: begins, flows, network_events, or names with commas
    #[arg(long, value_name = "EVENTS")]
    events: Option<String>,
    /// The form of the lines: text, json or ndjson; without it text on a terminal, else json
    #[arg(long, short, value_name = "FORM", value_parser = |text: &str| text.parse::<Outputs>())]
    output: Option<Outputs>,
}

// === impl Look

impl Look {
    /// The settings that they make, behind those of flags that stood before the command.
    pub(super) fn sources(self, mut sources: Sources, matches: &ArgMatches) -> Result<Sources, clap::Error> {
        let ids: Vec<_> = self.pid.iter().map(u32::to_string).collect();
        let pid = (!ids.is_empty()).then(|| format!("include pid={}", ids.join(",")));
        sources.config_file = self.config.or(sources.config_file);
        sources.overrides.extend(rules(matches, pid)?);
        for pair in &self.set {
            let (key, value) = split("--set", "KEY=VALUE", pair)?;
            let key = Key::parse(key.trim()).ok_or_else(|| usage("the KEY of --set KEY=VALUE is not a key of TOML"))?;
            sources.overrides.push(Override::new("--set", key, value.trim()));
        }
        Ok(sources)
    }
}

// === impl Lines

impl Lines {
    /// The keys that they set.
    pub(super) fn overrides(self) -> Vec<Override> {
        let set = |flag, key, value: Option<String>| value.map(|value| Override::new(flag, Key::new(key), value));
        let output = self.output;
        let kind = output.and_then(|output| word(&output.kind));
        let format = output.and_then(|output| word(&output.format?));
        [
            set("--events", "capture.events", self.events),
            set("--output", "export.kind", kind),
            set("--output", "export.format", format),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
