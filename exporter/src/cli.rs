//! The command line: arguments come in, a [`Command`] with its configuration's sources goes out.
//!
//! What was typed ([`Cli`]) and what it means ([`Command`]) are two things; the rest of the program sees the second.
//! Must never read a file or check a setting's value beyond the words that clap completes: that is `config`'s work.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint,
    error::ErrorKind,
};
use clap_complete::Shell;
use ipnet::IpNet;

mod look;
mod quick;

use look::{Lines, Look};
use quick::Quick;

use crate::{
    capture::pcap::Decapsulate,
    cmd::{self, queue::Form, replay::Captures},
    config::{Compression, Format, Key, Level, Override, Protocol, Sources},
    flow::FlowId,
    telemetry::status::request::flow_id,
};

const EXAMPLES: &str = "\
Examples:
  flowtel                                        print connections as they begin
  flowtel --endpoint http://collector:4317       send them to an OpenTelemetry collector by gRPC
  flowtel --endpoint https://loki.example/otlp --header X-Scope-OrgID=team
  flowtel --include 'port=443' --exclude 'src=10.0.0.0/8'   the first that matches decides
  flowtel replay capture.pcap                    the same from a capture, without any rights
  flowtel check                                  say what is missing on this host
  flowtel status                                 ask the running flowtel how it is doing
  flowtel tail                                   print what the running flowtel records
  flowtel top                                    watch flows live
  flowtel config                                 show the settings and where each came from
  flowtel explain --record flows.jsonl           say how each thing in a record is known

Exit codes:
  0 done, 64 wrong arguments, 78 wrong configuration, 77 rights are missing, 69 something is not there,
  65 a damaged capture, 66 no capture, 76 a capture that is not decoded in whole, 1 the rest";

const REPLAY_EXAMPLES: &str = "\
Examples:
  flowtel replay capture.pcapng                  print its connections
  flowtel replay day.pcap* --endpoint http://collector:4317
  flowtel replay --local 10.0.0.0/8 capture.pcap.gz > records.jsonl
  tcpdump -w - tcp or port 53 | flowtel replay -";

const CONFIG_EXAMPLES: &str = "\
Examples:
  flowtel config                                 what holds, and where each value came from
  flowtel config --endpoint http://h:4317        what would hold
  flowtel config > flowtel.toml                  a file to feed back with --config
  flowtel config --reference                     every key with its meaning and default";

const STATUS_EXAMPLES: &str = "\
Examples:
  flowtel status                                 for people
  flowtel status --watch                         again every 2 seconds
  flowtel status --json | jq .records            for machines
  flowtel status --set telemetry.status.socket=/tmp/flowtel.sock";
const TAIL_EXAMPLES: &str = "\
Examples:
  flowtel tail                                   for people
  flowtel tail --include 'process=curl port=443' --events begins
  flowtel tail -o ndjson | jq '.[\"process.executable.name\"]'";
const TOP_EXAMPLES: &str = "\
Examples:
  flowtel top                                    what is open, what moves
  flowtel top --include 'process=nginx'          the same of one program
  flowtel top --replay capture.pcap --speed 10   a capture, ten times as fast";
const EXPLAIN_EXAMPLES: &str = "\
Examples:
  flowtel explain 9f86d081884c7d659a2feaa0c55ad015   a flow that is open now
  flowtel explain --record flows.jsonl 9f86d081884c7d659a2feaa0c55ad015
  flowtel --format json | head -n 1 | flowtel explain --record -";
const QUEUE_EXAMPLES: &str = "\
Examples:
  flowtel queue inspect /var/lib/flowtel/queue   what waits, and since when
  flowtel queue verify /var/lib/flowtel/queue    whether every byte is sound
  flowtel queue export DIR > flows.jsonl         the records that wait, as OTLP/JSON lines";

/// What was typed. Not to be shown by `Debug`: a header's value may be among it.
#[derive(Parser)]
#[command(
    name = "flowtel",
    version,
    about = "Watches TCP connections begin and ships each as an OpenTelemetry log record",
    max_term_width = 80,
    after_help = "flowtel --help says more, and has examples.",
    after_long_help = EXAMPLES,
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Typed>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Typed {
    /// Watch and ship connections; what flowtel does without a command
    Run(Settings),
    /// Make records of the connections in captures (pcap, pcapng), by their packets alone; needs no rights
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// Captures, in the order of their time; - is standard input
        #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Networks that are this side: they decide whether a connection is outgoing or incoming
        #[arg(long, value_name = "CIDR", value_parser = network)]
        local: Vec<IpNet>,
        /// Of a packet in a tunnel (GRE, VXLAN, GTP-U, ...), which one counts
        #[arg(long, value_enum, value_name = "WHICH", default_value_t)]
        decapsulate: Decapsulate,
        #[command(flatten)]
        settings: Settings,
    },
    /// Say what this host has and what is missing, without shipping anything
    Check(Settings),
    /// Print the settings, each with its origin
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        form: ConfigForm,
    },
    /// Look into the directory of a queue on disk, of this host or a copy; changes nothing
    #[command(after_help = QUEUE_EXAMPLES)]
    Queue {
        #[command(flatten)]
        settings: Settings,
        #[command(subcommand)]
        command: TypedQueue,
    },
    /// Ask the running flowtel how it is doing: what it saw, delivered and lost, and what waits
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        settings: Settings,
        /// Print JSON, for machines: one object a line
        #[arg(long)]
        json: bool,
        /// Ask again and again, every so many seconds
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
              value_parser = clap::value_parser!(u64).range(1..=86_400))]
        watch: Option<u64>,
    },
    /// Watch flows live: open ones, by process, destination and container
    #[command(after_help = TOP_EXAMPLES)]
    Top {
        #[command(flatten)]
        look: Look,
        /// Show a capture instead (pcap, pcapng), in its own time; - is standard input
        #[arg(long, value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath)]
        replay: Vec<PathBuf>,
        /// How many times as fast; 0 is at once
        #[arg(long, value_name = "TIMES", default_value_t = 1.0, requires = "replay", value_parser = speed)]
        speed: f64,
        /// Of a capture, networks that are this side
        #[arg(long, value_name = "CIDR", requires = "replay", value_parser = network)]
        local: Vec<IpNet>,
    },
    /// Show what the running flowtel records, line by line
    #[command(after_help = TAIL_EXAMPLES)]
    Tail {
        #[command(flatten)]
        look: Look,
        #[command(flatten)]
        lines: Lines,
    },
    /// Say how flowtel knows what a record says, and why it lacks what it lacks
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// The flow's id (flowtel.flow.id); without --record, of one that is open: the running flowtel is asked
        #[arg(value_name = "FLOW_ID", value_parser = flow, required_unless_present = "record")]
        flow: Option<FlowId>,
        /// Read records from this file, as OTLP/JSON or one JSON object a line; - is standard input
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        record: Option<PathBuf>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print every attribute of a record
    Schema {
        /// Print every metric of flowtel itself instead
        #[arg(long, conflicts_with = "format")]
        metrics: bool,
        /// For people or for machines
        #[arg(long, value_enum, default_value_t = SchemaForm::Markdown)]
        format: SchemaForm,
    },
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  flowtel completions bash > /etc/bash_completion.d/flowtel")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory: flowtel.1 and one for each command
    #[command(hide = true, after_help = "Example:\n  flowtel man ~/.local/share/man/man1")]
    Man {
        /// The directory, which must exist
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// A form of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaForm {
    /// A page for people
    Markdown,
    /// JSON Schema of one log record in OTLP/JSON
    JsonSchema,
    /// A registry of semantic conventions: records and metrics
    Weaver,
    /// Its manifest
    WeaverManifest,
    /// A request with a record of each event, in OTLP/JSON
    OtlpExample,
}

#[derive(Subcommand)]
enum TypedQueue {
    /// Print segments, batches, records, bytes and times
    Inspect {
        /// The queue's directory; without it, queue.path of the settings
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print JSON, for machines
        #[arg(long)]
        json: bool,
    },
    /// Check every checksum; ends with 1 where something is damaged
    Verify {
        /// The queue's directory; without it, queue.path of the settings
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
    /// Write the batches that wait to standard output, oldest first
    Export {
        /// The queue's directory; without it, queue.path of the settings
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Their form
        #[arg(long, value_name = "FORM", default_value = "json")]
        format: Form,
    },
}

#[derive(Args)]
#[group(multiple = false)]
struct ConfigForm {
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
    /// Print a configuration file with every key, its meaning and its default
    #[arg(long)]
    reference: bool,
    /// Print the reference as Markdown
    #[arg(long)]
    reference_docs: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// Read this file too, after those of /etc/flowtel
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    #[command(flatten)]
    quick: Quick,
    /// The OTLP receiver, such as http://collector:4317
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    endpoint: Option<String>,
    /// OTLP's transport; without it, gRPC on port 4317, else HTTP
    #[arg(long, hide_short_help = true)]
    protocol: Option<Protocol>,
    /// Form of the records on standard output
    #[arg(long, hide_short_help = true)]
    format: Option<Format>,
    /// Compression of requests
    #[arg(long, hide_short_help = true)]
    compression: Option<Compression>,
    /// The cgroup to watch: root, or the path of a cgroup v2 directory
    #[arg(long, hide_short_help = true, value_name = "PATH", value_hint = ValueHint::DirPath)]
    cgroup: Option<String>,
    /// Record these flows: 'dst=10.0.0.0/8 port=443'; with --exclude in any number, the first that matches decides
    #[arg(long, value_name = "CONDITIONS")]
    include: Vec<String>,
    /// Leave these flows out: 'process=curl user=0'
    #[arg(long, value_name = "CONDITIONS")]
    exclude: Vec<String>,
    /// How much flowtel says about itself on standard error
    #[arg(long, hide_short_help = true, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// Send this header with each request; other users of this host can see it here, but not in a file
    #[arg(long, hide_short_help = true, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// Set any key, such as export.batch.max_age=2s; wins over all other flags
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What was meant.
#[derive(Debug)]
pub enum Command {
    /// Watch and ship.
    Run(Sources),
    /// Make records of captures.
    Replay {
        /// What the settings are made from.
        sources: Sources,
        /// Which captures.
        captures: Captures,
    },
    /// Say what is missing.
    Check(Sources),
    /// Print the settings.
    Config {
        /// What they are made from.
        sources: Sources,
        /// Whether for machines.
        json: bool,
    },
    /// Ask a running flowtel.
    Status {
        /// What says where its socket is.
        sources: Sources,
        /// How to print.
        form: cmd::status::Form,
    },
    /// Show the records of a running flowtel.
    Tail(Sources),
    /// Watch flows live.
    Top {
        /// What the settings are made from.
        sources: Sources,
        /// What is watched instead of this host.
        replay: Option<cmd::top::Capture>,
    },
    /// Explain records.
    Explain {
        /// What says where the running flowtel's socket is.
        sources: Sources,
        /// Which.
        what: cmd::explain::What,
    },
    /// Print a configuration file with every key.
    Reference,
    /// Print the reference as Markdown.
    ReferenceDocs,
    /// Print what is in a queue's directory.
    InspectQueue {
        /// What says where it is, unless the directory does.
        sources: Sources,
        /// The directory.
        directory: Option<PathBuf>,
        /// Whether for machines.
        json: bool,
    },
    /// Check a queue's directory.
    VerifyQueue(Sources, Option<PathBuf>),
    /// Print the batches of a queue's directory.
    ExportQueue {
        /// What says where it is, unless the directory does.
        sources: Sources,
        /// The directory.
        directory: Option<PathBuf>,
        /// The form of the batches.
        form: Form,
    },
    /// Print the record's attributes.
    Schema(SchemaForm),
    /// Print flowtel's own metrics.
    Metrics,
    /// Print a completion script.
    Completions(Shell),
    /// Write the manual pages into this directory.
    Man(PathBuf),
}

/// Reads the arguments, the program's name first, and takes the environment along for the configuration.
///
/// # Errors
/// Wrong arguments; also the texts of `--help` and `--version`, whose `exit_code()` is 0.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let within = matches.subcommand().map(|(_, within)| within);
    let typed = cli.settings;
    let quick = typed.quick.rule();
    let quiet = typed.quick.quiet();
    // What stands before the command holds for it, too; what stands behind it wins.
    let before = typed.sources(Sources::new(env), rules(&matches, quick)?)?;
    let sources = |settings: Settings| {
        let rule = settings.quick.rule();
        settings.sources(before.clone(), rules(within.unwrap_or(&matches), rule)?)
    };
    Ok(match cli.command {
        None => Command::Run(before),
        Some(Typed::Run(settings)) => Command::Run(sources(settings)?),
        Some(Typed::Replay { files, local, decapsulate, settings }) => {
            let quiet = quiet || settings.quick.quiet();
            Command::Replay { sources: sources(settings)?, captures: Captures { files, local, decapsulate, quiet } }
        }
        Some(Typed::Check(settings)) => Command::Check(sources(settings)?),
        Some(Typed::Config { form: ConfigForm { reference: true, .. }, .. }) => Command::Reference,
        Some(Typed::Config { form: ConfigForm { reference_docs: true, .. }, .. }) => Command::ReferenceDocs,
        Some(Typed::Config { settings, form }) => Command::Config { sources: sources(settings)?, json: form.json },
        Some(Typed::Status { settings, json, watch }) => Command::Status {
            sources: sources(settings)?,
            form: cmd::status::Form { json, watch: watch.map(Duration::from_secs) },
        },
        Some(Typed::Tail { look, lines }) => {
            let mut sources = look.sources(before, within.unwrap_or(&matches))?;
            sources.overrides.extend(lines.overrides());
            Command::Tail(sources)
        }
        Some(Typed::Top { look, replay, speed, local }) => {
            let sources = look.sources(before, within.unwrap_or(&matches))?;
            let captures = Captures { files: replay, local, decapsulate: Decapsulate::default(), quiet: true };
            let replay = (!captures.files.is_empty()).then_some(cmd::top::Capture { captures, speed });
            Command::Top { sources, replay }
        }
        Some(Typed::Explain { flow, record, settings }) => {
            let what = match (record, flow) {
                (Some(file), flow) => cmd::explain::What::Records { file, flow: flow.map(|id| id.to_string()) },
                (None, Some(flow)) => cmd::explain::What::Flow(flow),
                (None, None) => return Err(Cli::command().error(ErrorKind::MissingRequiredArgument, "which flow?")),
            };
            Command::Explain { sources: sources(settings)?, what }
        }
        Some(Typed::Schema { metrics: false, format }) => Command::Schema(format),
        Some(Typed::Schema { metrics: true, .. }) => Command::Metrics,
        Some(Typed::Queue { settings, command }) => {
            let sources = sources(settings)?;
            match command {
                TypedQueue::Inspect { directory, json } => Command::InspectQueue { sources, directory, json },
                TypedQueue::Verify { directory } => Command::VerifyQueue(sources, directory),
                TypedQueue::Export { directory, format } => Command::ExportQueue { sources, directory, form: format },
            }
        }
        Some(Typed::Completions { shell }) => Command::Completions(shell),
        Some(Typed::Man { directory }) => Command::Man(directory),
    })
}

/// The completion script of a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flowtel", &mut script);
    script
}

/// The definition of all commands, for the manual pages.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

// === impl Settings

impl Settings {
    fn sources(self, mut sources: Sources, rules: Option<Override>) -> Result<Sources, clap::Error> {
        sources.config_file = self.config.or(sources.config_file);
        sources.overrides.extend(rules);
        sources.overrides.extend(self.quick.overrides());
        let texts = [("--endpoint", "export.endpoint", self.endpoint), ("--cgroup", "capture.cgroup", self.cgroup)];
        let words = [
            ("--protocol", "export.protocol", self.protocol.as_ref().and_then(word)),
            ("--format", "export.format", self.format.as_ref().and_then(word)),
            ("--compression", "export.compression", self.compression.as_ref().and_then(word)),
            ("--log-level", "log.level", self.log_level.as_ref().and_then(word)),
        ];
        for (flag, key, value) in texts.into_iter().chain(words) {
            sources.overrides.extend(value.map(|value| Override::new(flag, Key::new(key), value)));
        }
        for pair in &self.header {
            let (name, value) = split("--header", "NAME=VALUE", pair)?;
            let key = Key::new("export.headers").child(name.trim());
            sources.overrides.push(Override::new("--header", key, value.trim()));
        }
        for pair in &self.set {
            let (key, value) = split("--set", "KEY=VALUE", pair)?;
            let key = Key::parse(key.trim()).ok_or_else(|| usage("the KEY of --set KEY=VALUE is not a key of TOML"))?;
            sources.overrides.push(Override::new("--set", key, value.trim()));
        }
        Ok(sources)
    }
}

/// The rules of `--include` and `--exclude`, in the order in which they were typed; behind them the one of `--pid`, which
/// leaves out all others.
fn rules(matches: &ArgMatches, pid: Option<String>) -> Result<Option<Override>, clap::Error> {
    let mut typed = Vec::new();
    for action in ["include", "exclude"] {
        // Not every command has them.
        let (Ok(Some(values)), Some(places)) = (matches.try_get_many::<String>(action), indices(matches, action))
        else {
            continue;
        };
        for (value, place) in values.zip(places) {
            if value.trim().is_empty() {
                return Err(usage(format!("--{action} expects conditions such as 'dst=10.0.0.0/8 port=443'")));
            }
            typed.push((place, format!("{action} {value}")));
        }
    }
    typed.sort();
    let last = pid.into_iter().flat_map(|rule| [rule, "exclude".to_owned()]);
    let texts: Vec<_> = typed.into_iter().map(|(_, text)| text).chain(last).collect();
    let rules = Override::new("--include, --exclude", Key::new("capture.filter"), texts.join("\n"));
    Ok((!texts.is_empty()).then_some(rules))
}

fn indices<'a>(matches: &'a ArgMatches, name: &str) -> Option<clap::parser::Indices<'a>> {
    matches.ids().any(|id| id == name).then(|| matches.indices_of(name)).flatten()
}

/// A flow's id, as records have it.
fn flow(text: &str) -> Result<FlowId, String> {
    flow_id(text).ok_or_else(|| "expected the 32 hex digits of flowtel.flow.id".to_owned())
}

/// A network in CIDR notation, or an address alone.
fn network(text: &str) -> Result<IpNet, String> {
    let address = |_| text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse().or_else(address).map_err(|_| "expected a network such as 10.0.0.0/8, or an address".to_owned())
}

/// How many times as fast as it happened.
fn speed(text: &str) -> Result<f64, String> {
    let right = |times: &f64| (0.0..=1e6).contains(times);
    text.parse().ok().filter(right).ok_or_else(|| "expected a number such as 0.5 or 10; 0 is at once".to_owned())
}

/// Splits at the first `=`. The error doesn't quote the text, for it may hold a secret: clap's own check of a value
/// would, which is why this isn't one.
fn split<'a>(flag: &str, form: &str, pair: &'a str) -> Result<(&'a str, &'a str), clap::Error> {
    pair.split_once('=')
        .filter(|(name, _)| !name.trim().is_empty())
        .ok_or_else(|| usage(format!("{flag} expects {form}, but there is no name or no =")))
}

fn usage(message: impl std::fmt::Display) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, message)
}

/// A choice as the configuration writes it.
fn word(choice: &impl ValueEnum) -> Option<String> {
    choice.to_possible_value().map(|value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Loaded};

    fn parsed(args: &[&str]) -> Result<Command, clap::Error> {
        parse(["flowtel"].iter().chain(args).map(OsString::from), [])
    }

    fn loaded(args: &[&str]) -> config::Loaded {
        match parsed(args) {
            Ok(Command::Run(mut sources)) => {
                sources.etc = "/nonexistent".into();
                config::load(&sources).unwrap_or_else(|e| panic!("{e}"))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns_and_says_what_it_said() {
        let mut root = Cli::command();
        root.build();
        let mut all = vec![root.clone()];
        all.extend(root.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        let texts = all.iter_mut().map(|command| {
            let help = command.render_help();
            format!("=== {} -h\n\n{help}", command.get_name())
        });
        let text = texts.collect::<Vec<_>>().join("\n");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn no_command_means_run() {
        assert!(matches!(parsed(&[]), Ok(Command::Run(_))));
        assert!(matches!(parsed(&["--log-level", "debug"]), Ok(Command::Run(_))));
        assert!(matches!(parsed(&["run"]), Ok(Command::Run(_))));
        assert!(matches!(parsed(&["check"]), Ok(Command::Check(_))));
        assert!(matches!(parsed(&["config", "--json"]), Ok(Command::Config { json: true, .. })));
    }

    #[test]
    fn every_flag_sets_its_key_and_is_named_as_its_origin() {
        let flags = [
            ("--output", "otlp", "export.kind"),
            ("--endpoint", "http://h:4318", "export.endpoint"),
            ("--protocol", "http/protobuf", "export.protocol"),
            ("--format", "json", "export.format"),
            ("--compression", "gzip", "export.compression"),
            ("--cgroup", "/sys/fs/cgroup/x", "capture.cgroup"),
            ("--log-level", "trace", "log.level"),
            ("--header", "x-api-key=a=b", "export.headers.x-api-key"),
            ("--set", "export.batch.max_age=2s", "export.batch.max_age"),
        ];
        let args: Vec<_> = flags.iter().flat_map(|(flag, value, _)| [*flag, *value]).collect();
        let loaded = loaded(&args);
        for (flag, _, key) in flags {
            assert_eq!(loaded.origins.get(&Key::new(key)).to_string(), format!("flag {flag}"));
        }
        assert_eq!(loaded.config.export.headers["x-api-key"].expose(), "a=b");
        assert_eq!(loaded.config.capture.cgroup, "/sys/fs/cgroup/x");
        assert_eq!(loaded.config.log.level, Level::Trace);
    }

    #[test]
    fn the_words_of_flags_are_the_words_of_the_configuration() {
        for (flag, key) in [
            ("--protocol", "export.protocol"),
            ("--format", "export.format"),
            ("--compression", "export.compression"),
            ("--log-level", "log.level"),
        ] {
            let Some(config::reference::Kind::Choice(words)) =
                config::reference::find(&Key::new(key)).map(|e| e.kind.clone())
            else {
                panic!("{key} is no choice")
            };
            for word in words {
                assert_eq!(loaded(&[flag, &word]).origins.get(&Key::new(key)).to_string(), format!("flag {flag}"));
            }
        }
    }

    #[test]
    fn rules_are_asked_in_the_order_in_which_they_were_typed() {
        for command in [None, Some("run"), Some("config")] {
            let args = ["--exclude", "port=22", "--include=addr=10.0.0.0/8", "--exclude", "process=\"a b\""];
            let args: Vec<_> = command.into_iter().chain(args).collect();
            let (Ok(Command::Run(mut sources)) | Ok(Command::Config { mut sources, .. })) = parsed(&args) else {
                panic!("{args:?}")
            };
            sources.etc = "/nonexistent".into();
            let loaded = config::load(&sources).unwrap_or_else(|e| panic!("{e}"));
            let rules: Vec<_> = loaded.config.capture.filter.0.iter().map(ToString::to_string).collect();
            let expected = ["exclude port=22", "include address=10.0.0.0/8", "exclude process=\"a b\""];
            assert_eq!(rules, expected);
            let origin = loaded.origins.get(&Key::new("capture.filter")).to_string();
            assert_eq!(origin, "flag --include, --exclude");
        }
        assert!(parsed(&["--include", " "]).is_err());
    }

    #[test]
    fn flags_that_people_try_set_their_keys() {
        let args =
            ["-o", "text,otlp", "--events", "begins", "--sample=0.5", "--pid", "7,8", "-v", "--exclude", "port=ssh"];
        let Loaded { config, .. } = loaded(&args);
        assert_eq!((config.export.kind, config.export.format), (Some(config::ExportKind::Both), Format::Text));
        assert!((config.capture.sample, config.log.balance) == (0.5, true));
        let rules: Vec<_> = config.capture.filter.0.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["exclude port=22", "include pid=7,8", "exclude"]);
        assert_eq!(loaded(&["-q"]).config.log.level, Level::Error);
        assert_eq!(loaded(&["-vv"]).config.log.level, Level::Debug);
        assert!(parsed(&["-q", "-v"]).is_err());
    }

    #[test]
    fn flags_before_the_command_hold_for_it_and_those_behind_it_win() {
        let args = ["--endpoint", "http://a:4317", "--sample", "0.5", "config", "--endpoint", "http://b:4317"];
        let Ok(Command::Config { mut sources, .. }) = parsed(&args) else { panic!("{args:?}") };
        sources.etc = "/nonexistent".into();
        let config = config::load(&sources).unwrap_or_else(|e| panic!("{e}")).config;
        assert_eq!(config.export.endpoint, Some(config::Endpoint::new("http://b:4317")));
        assert!(config.capture.sample == 0.5);
    }

    #[test]
    fn quoted_keys_can_be_set() {
        let loaded = loaded(&["--set", "record.resource.\"a.b\"=c", "--set", "record.resource.d.e=f"]);
        assert_eq!(loaded.config.record.resource["a.b"], "c");
        assert_eq!(loaded.config.record.resource["d.e"], "f");
    }

    #[test]
    fn a_wrong_pair_is_a_usage_error_that_does_not_quote_it() {
        for args in [["--header", "hunter2"], ["--header", "=hunter2"], ["--set", "hunter2"], ["--set", "a b=hunter2"]]
        {
            let error = parsed(&args).expect_err("wrong arguments");
            assert_eq!(error.exit_code(), 2);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
