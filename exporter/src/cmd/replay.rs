//! `flowtel replay`: opens the captures, connects the stages, waits until all is delivered or a signal comes, and says how
//! it went.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::run::{heard, nth};
use crate::{
    capture::{
        KernelTime,
        pcap::{self, Decapsulate, Packet, Reader, Undecoded},
    },
    config::{self, Config, Loaded, Target},
    exit::{Exit, Failure},
    export::{self, Exporter},
    flow::flags::{self, FlagFlows, REPLAY},
    ledger::Ledger,
    pipeline::limits,
    queue::Queue,
    record::{Encoder, Form, Observer, privacy::Policy, resource},
    replay::Replay,
    rights::Plan,
    telemetry,
};

/// How long everything that was recorded may take to be delivered: a signal ends it sooner.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often the bar is drawn, a second.
const DRAWN: u8 = 10;

/// What is to be replayed, and how.
#[derive(Debug, Clone)]
pub struct Captures {
    /// Files, in the order of their packets' time; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Networks that are local.
    pub local: Vec<IpNet>,
    /// Which packet of a tunnel counts.
    pub decapsulate: Decapsulate,
    /// No progress, and no summary.
    pub quiet: bool,
}

/// An opened capture.
pub(super) struct Capture {
    name: PathBuf,
    source: Box<dyn Read + Send>,
    size: Option<u64>,
}

/// How the reading ended.
pub(super) enum Ended {
    /// All was read.
    Whole,
    /// A stop came.
    Stopped(PathBuf),
    /// It could not go on.
    Broken(PathBuf, pcap::Error),
}

/// Replays captures until all that they tell is delivered, a signal comes, or nobody reads standard output any more.
///
/// # Errors
/// A capture can't be read, or not to its end; records were not delivered; or what is needed is missing or refused.
pub fn replay(loaded: &Loaded, captures: &Captures) -> Result<(), Failure> {
    let Loaded { config, target, .. } = loaded;
    telemetry::start_log(&config.log);
    let exporter = Exporter::build(&export::Settings::resolved(loaded)).map_err(|e| Exit::Config.with(e))?;
    let privacy = Policy::read(&config.record).map_err(|e| Exit::Config.with(e))?;
    let opened = captures.open()?;
    // What comes now was written by others. The files are open, and no thread is there yet.
    let given_up = Plan::of(config, &[]).and_then(|plan| plan.change_user_alone().and_then(|()| plan.drop()));
    if let Err(error) = given_up {
        tracing::warn!("{error}; the captures are read with all rights");
    }
    let runtime = super::export_threads(&config.export)?;
    let _guard = runtime.enter();
    let signals = heard().map_err(|e| Exit::Failure.with(anyhow::Error::new(e).context("preparing for signals")))?;

    let ledger = Arc::new(Ledger::default());
    let queue = Queue::new(&config.queue, Arc::clone(&ledger));
    let (stop, stopped) = mpsc::channel();
    let live = captures.files.iter().any(|path| is_stdin(path));
    let stage = stage((config, target, privacy), captures, &queue, stopped, live, &ledger);
    let bar = bar(&opened, captures.quiet, target);
    let started = Instant::now();
    let export = exporter.spawn(queue.clone(), Arc::clone(&ledger), runtime.handle());
    let (done, reading) = oneshot::channel();
    let drawn = bar.clone();
    thread::Builder::new()
        .name("flowtel-replay".into())
        .spawn(move || {
            let ended = read(stage, opened, &drawn, |_| {});
            // Nobody waits for it any more when a second signal came.
            let _ = done.send(ended);
        })
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("starting the replay thread")))?;

    let (ended, unread) = runtime.block_on(async {
        let mut reading = reading;
        let ended = tokio::select! {
            ended = &mut reading => Some(ended),
            () = nth(signals.clone(), 1) => None,
            () = export.closed() => None,
        };
        let (ended, grace, signal) = match ended {
            Some(ended) => (Some(ended), NO_LIMIT, 1),
            None => {
                // Fails only where the thread has just ended by itself.
                let _ = stop.send(());
                // A read from a terminal or a pipe can't be interrupted: then what was told so far is all.
                let ended = tokio::time::timeout(config.export.grace.0, &mut reading).await.ok();
                (ended, config.export.grace.0, 2)
            }
        };
        let closed = export.unread();
        export.drain(grace, nth(signals, signal)).await;
        let unread = *closed.borrow();
        (ended, unread)
    });
    bar.finish_and_clear();
    if !captures.quiet && !matches!(config.log.level, config::Level::Off) {
        // Standard error may be closed; the exit code still tells how it ended.
        let _ = writeln!(
            io::stderr(),
            "{}\n{}",
            summary(&ledger, started.elapsed()),
            super::ending::text(&ledger, &config.log)
        );
    }
    match ended {
        Some(Ok((ended, undecoded))) => outcome(ended, &undecoded, &ledger, unread),
        Some(Err(_)) => Err(anyhow!("the replay thread panicked").into()),
        None if unread => Ok(()),
        None => Err(anyhow!("stopped by a signal while waiting for more of the capture").into()),
    }
}

/// The stages from packets to the queue.
pub(super) fn stage(
    (config, target, privacy): (&Config, &Target, Option<Arc<Policy>>),
    captures: &Captures,
    queue: &Queue,
    stop: mpsc::Receiver<()>,
    live: bool,
    ledger: &Arc<Ledger>,
) -> Replay {
    let settings = flags::Settings {
        attempts: config.flow.max_attempts as usize,
        flows: config.flow.max_flows as usize,
        local: captures.local.clone(),
        update: config.updates(),
        hellos: config.hellos(),
    };
    let resource = resource::build(&config.record, &resource::Host::read(), &Observer::WHOLE_HOST);
    let resource = resource::shortened(resource::sampled(resource, config.capture.sample), &config.record.shorten);
    let encoder = Encoder::new(&resource, (REPLAY, 0), Form::of(config, target), limits(config)).with_privacy(privacy);
    let flows = FlagFlows::new(settings, Arc::clone(ledger));
    Replay::new(flows, config, encoder, queue.clone(), stop, live, Arc::clone(ledger))
        .decapsulating(captures.decapsulate)
}

/// Reads one capture after the other, as if they were one; `pace` has each packet's time before its turn comes. Returns how it
/// ended, and what could not be looked into.
pub(super) fn read(
    mut stage: Replay,
    captures: Vec<Capture>,
    bar: &ProgressBar,
    mut pace: impl FnMut(KernelTime),
) -> (Ended, Undecoded) {
    let mut ended = Ended::Whole;
    let mut undecoded = Undecoded::default();
    for Capture { name, source, .. } in captures {
        let source: Box<dyn Read + Send> = if bar.is_hidden() { source } else { Box::new(bar.wrap_read(source)) };
        let mut reader = match Reader::new(source) {
            Ok(reader) => reader,
            Err(e) => {
                ended = Ended::Broken(name, e);
                break;
            }
        };
        let mut go_on = true;
        let whole = loop {
            let one = |packet: &Packet<'_>| {
                pace(packet.time);
                go_on = stage.packet(packet);
            };
            match reader.next(one) {
                Ok(_) if !go_on => break Err(Ended::Stopped(name)),
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(e) => break Err(Ended::Broken(name, e)),
            }
        };
        undecoded.add(reader.undecoded());
        if let Err(early) = whole {
            ended = early;
            break;
        }
    }
    stage.finish();
    (ended, undecoded)
}

/// What the shell is told. `unread`: the reader of standard output went away.
fn outcome(ended: Ended, undecoded: &Undecoded, ledger: &Ledger, unread: bool) -> Result<(), Failure> {
    let records = &ledger.records;
    let lost = super::ending::lost(ledger, unread);
    let unknown = || anyhow!("not decoded, and so not recorded: {undecoded}");
    if (!matches!(ended, Ended::Whole) || lost > 0) && !undecoded.is_empty() {
        // Another code says how it ended. Standard error may be closed.
        let _ = writeln!(io::stderr(), "flowtel: {}", unknown());
    }
    match ended {
        Ended::Broken(name, error) => {
            let code = match &error {
                // An error without a number is of the unpacking.
                pcap::Error::Read { source, .. } if source.raw_os_error().is_some() => Exit::NoInput,
                _ => Exit::Data,
            };
            let told = anyhow!("reading {}: what was read up to there is told", name.display());
            Err(code.with(anyhow::Error::new(error).context(told)))
        }
        Ended::Stopped(_) if unread => Ok(()),
        Ended::Stopped(name) => Err(anyhow!("stopped by a signal within {}", name.display()).into()),
        Ended::Whole if lost > 0 => Err(anyhow!("{lost} of {} records were not delivered", records.made.get()).into()),
        Ended::Whole if !undecoded.is_empty() => Err(Exit::Undecoded.with(unknown())),
        Ended::Whole => Ok(()),
    }
}

/// How much was done, and how fast.
fn summary(ledger: &Ledger, took: Duration) -> String {
    let (replay, records) = (&ledger.replay, &ledger.records);
    let seconds = took.as_secs_f64().max(1e-9);
    let rate = |n: u64| (n as f64 / seconds).round();
    format!(
        "replayed {} packets, {} flows, {} records in {seconds:.3} s: {} packets/s, {} records/s",
        replay.read.get(),
        replay.begun.get() + replay.unseen.get(),
        records.made.get(),
        rate(replay.read.get()),
        rate(records.made.get()),
    )
}

/// The progress bar: hidden in pipes, and where records go to the same terminal.
fn bar(captures: &[Capture], quiet: bool, target: &config::Target) -> ProgressBar {
    let lines_here = matches!(target, config::Target::Stdout { .. }) && io::stdout().is_terminal();
    if quiet || lines_here || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let size: Option<u64> = captures.iter().map(|capture| capture.size).sum();
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr_with_hz(DRAWN));
    let form = match size {
        Some(_) => "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes}, {bytes_per_sec}",
    };
    // The form is right: a test makes it.
    bar.with_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

// === impl Captures

impl Captures {
    /// Opens all of them.
    pub(super) fn open(&self) -> Result<Vec<Capture>, Failure> {
        self.files.iter().map(|path| Capture::open(path)).collect()
    }
}

// === impl Capture

impl Capture {
    fn open(path: &Path) -> Result<Self, Failure> {
        if is_stdin(path) {
            return Ok(Self { name: "standard input".into(), source: Box::new(io::stdin()), size: None });
        }
        let fails = |e: io::Error| {
            Exit::NoInput.with(anyhow::Error::new(e).context(format!("opening the capture {}", path.display())))
        };
        let file = File::open(path).map_err(fails)?;
        let metadata = file.metadata().map_err(fails)?;
        if metadata.is_dir() {
            return Err(fails(io::ErrorKind::IsADirectory.into()));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { name: path.to_owned(), source: Box::new(file), size })
    }
}
