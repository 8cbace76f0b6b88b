//! `flowtel top`: finds out what is to be watched (a running flowtel, this host by itself, a capture), connects it to the
//! screen, and gives up every right before it shows what others have written.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime;

use super::{
    replay::{self, Captures},
    run, tail,
};
use crate::{
    capture::{KernelTime, cgroup::Cgroup},
    config::{self, Config, Events, Loaded, QueueKind, Sources, Span, rules::Rules},
    exit::{Exit, Failure},
    export,
    ledger::Ledger,
    owner::Helper,
    pipeline::Pulse,
    queue::Queue,
    record::{Observer, privacy::Policy, resource::Host},
    rights::{Plan, signals},
    telemetry::{
        self, Instance,
        status::{
            Status,
            ask::AskError,
            attach::{Attached, Came, attach},
            frame::{Frame, Hello, Recording},
            request::Request,
        },
    },
    view::{
        choose::Chosen,
        source::{self, ROOM, Told},
        top::{App, Time, live, terminal, terminal::Taken},
    },
};

/// How long the running flowtel may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often open flows are told of where nobody has configured it.
const UPDATES: Duration = Duration::from_secs(1);
/// How old a batch becomes, where one is made for this screen alone.
const AGE: Duration = Duration::from_millis(250);
/// How often the balance is shown anew.
const EVERY: Duration = Duration::from_secs(1);

/// A capture that is watched instead of this host.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Which, and what of it.
    pub captures: Captures,
    /// How many times as fast as it happened; 0 is at once.
    pub speed: f64,
}

/// Shows what happens until somebody has seen enough.
///
/// # Errors
/// There is no terminal (64), nobody may be asked (77), or what is to be watched can't be.
pub fn top(loaded: Loaded, sources: &Sources, replay: Option<Capture>) -> Result<(), Failure> {
    if !terminal::is_there() {
        let why = "flowtel top draws on a terminal, and standard output is none: flowtel tail prints lines";
        return Err(Exit::Usage.with(anyhow::anyhow!(why)));
    }
    let chosen = tail::chosen(&loaded)?;
    // From here on a signal ends the screen, and no process that has the terminal in its hands.
    signals::hold();
    signals::release_hangup();
    if let Some(capture) = replay {
        return replayed(loaded, &capture, chosen);
    }
    let path = loaded.config.telemetry.status.socket.clone();
    if path.as_os_str().is_empty() {
        return alone(loaded, sources, chosen);
    }
    match attach(&path, Request::Top) {
        Ok(attached) => running(&loaded.config, attached, chosen, &path),
        Err(AskError::Nobody { .. }) => alone(loaded, sources, chosen),
        Err(error) => Err(tail::refused(error)),
    }
}

/// What a running flowtel records.
fn running(config: &Config, mut attached: Attached, chosen: Chosen, path: &Path) -> Result<(), Failure> {
    let hello = match attached.next(PATIENCE).map_err(tail::refused)? {
        Came::Frame(Frame::Hello(hello)) => hello,
        Came::Frame(Frame::Full) => return Err(Exit::Unavailable.with(anyhow::anyhow!(tail::FULL))),
        _ => {
            let why = format!("no answer within {} s", PATIENCE.as_secs());
            return Err(tail::refused(AskError::Silent { path: path.to_owned(), why }));
        }
    };
    let title = format!("attached to flowtel {}, process {}", export::printable(&hello.version, 20), hello.pid);
    let mut app = App::new(chosen, title, Time::Wall, terminal::has_colour());
    app.on(Frame::Hello(hello));
    let mut taken = Taken::new().map_err(no_terminal)?;
    // What comes now was written by others, and no thread is there yet.
    let plan = Plan::of(config, &[]).map(Plan::with_terminal);
    if plan.and_then(|plan| plan.change_user_alone().and_then(|()| plan.drop())).is_err() {
        app.title += ", with all rights";
    }
    let (to, from) = mpsc::sync_channel(ROOM);
    source::follow(attached, to).map_err(no_thread)?;
    show(&mut app, &mut taken, &from)
}

/// What happens on this host, seen by this process itself.
fn alone(loaded: Loaded, sources: &Sources, chosen: Chosen) -> Result<(), Failure> {
    let Loaded { config, target, .. } = loaded;
    let config = for_screen(config);
    telemetry::start_log(&config.log);
    let plan = Plan::of(&config, &sources.files()).map_err(|e| Exit::Config.with(e))?.with_terminal();
    // Without a helper some owners stay unknown.
    let helper = Helper::start(&config.owner, &plan).unwrap_or(None);
    let privacy = Policy::read(&config.record).map_err(|e| Exit::Config.with(e))?;
    plan.change_user_alone().map_err(|e| Exit::NoPermission.with(e))?;
    let ledger = Arc::new(Ledger::default());
    let queue = Queue::new(&config.queue, Arc::clone(&ledger));
    let host = Host::read();
    let boot = crate::flow::BootId::read()
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("reading the boot's id from /proc")))?;
    let cgroup = Cgroup::open(&config.capture.cgroup).map_err(run::refused)?;
    let observer = Observer::at(&cgroup, &boot);
    let (mut pipeline, _) =
        run::pipeline(&config, &target, &host, (boot, &cgroup, &observer), (&queue, &ledger), helper.clone())?;
    pipeline.encoder = pipeline.encoder.with_privacy(privacy);
    pipeline.gather(signals::any_waits);
    if let (true, Some(watch)) = (plan.drops(), &mut pipeline.watch) {
        watch.shut();
    }

    let mut app = App::new(chosen, "this host, by itself".into(), Time::Wall, terminal::has_colour());
    let mut taken = Taken::new().map_err(no_terminal)?;
    plan.drop().map_err(|e| Exit::NoPermission.with(e))?;
    let runtime = super::export_threads(&config.export)?;
    let running = pipeline.start().map_err(run::refused)?;
    let instance = Instance::new(Arc::clone(&ledger), queue, Arc::default(), running.pulse(), 0).helped(helper);
    instance.set_recording(Recording::of(&config));
    let from = feed(Arc::new(instance), &runtime, "capture has stopped");
    let shown = show(&mut app, &mut taken, &from);
    drop(taken);
    running.stop().map_err(|message| anyhow::anyhow!("the capture thread panicked: {message}"))?;
    shown
}

/// What a capture holds, in its own time.
fn replayed(loaded: Loaded, capture: &Capture, chosen: Chosen) -> Result<(), Failure> {
    let Capture { captures, speed } = capture;
    let Loaded { config, target, .. } = loaded;
    let mut config = for_screen(config);
    let real_time = *speed > 0.0;
    // Batches are sealed by the time of packets.
    config.export.batch.max_age = Span(AGE.mul_f64(speed.clamp(0.01, 1000.0)));
    telemetry::start_log(&config.log);
    let privacy = Policy::read(&config.record).map_err(|e| Exit::Config.with(e))?;
    let opened = captures.open()?;
    let name = captures.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
    let title = format!("replay of {}", export::printable(&name, 200));
    let mut app = App::new(chosen, title, Time::Records, terminal::has_colour());
    let mut taken = Taken::new().map_err(no_terminal)?;
    let plan = Plan::of(&config, &[]).map(Plan::with_terminal);
    if plan.and_then(|plan| plan.change_user_alone().and_then(|()| plan.drop())).is_err() {
        app.title += ", with all rights";
    }
    let runtime = super::export_threads(&config.export)?;
    let ledger = Arc::new(Ledger::default());
    let queue = Queue::new(&config.queue, Arc::clone(&ledger));
    // Held as long as the screen is shown: the stage ends without it.
    let (_stop, stopped) = mpsc::channel();
    let stage = replay::stage((&config, &target, privacy), captures, &queue, stopped, real_time, &ledger);
    let instance = Instance::new(Arc::clone(&ledger), queue.clone(), Arc::default(), Arc::new(Pulse::default()), 0);
    instance.set_recording(Recording::of(&config));
    let mut pace = Pace { speed: *speed, start: None };
    let from = feed(Arc::new(instance), &runtime, "the capture ends here");
    thread::Builder::new()
        .name("flowtel-replay".into())
        .spawn(move || {
            replay::read(stage, opened, &indicatif::ProgressBar::hidden(), |time| pace.wait(time));
            queue.close();
        })
        .map_err(no_thread)?;
    show(&mut app, &mut taken, &from)
}

/// The settings of a flowtel that records for a screen, and leaves nothing behind.
fn for_screen(mut config: Config) -> Config {
    config.capture.events = Events::NETWORK_EVENTS;
    config.capture.pin = None;
    config.capture.sample = 1.0;
    // What is shown is chosen on the screen, and can be chosen anew there.
    config.capture.filter = Rules::default();
    config.capture.filter_default = None;
    if config.flow.update.0.is_zero() {
        config.flow.update = Span(UPDATES);
    }
    config.queue.kind = QueueKind::Memory;
    config.export.kind = Some(config::ExportKind::Stdout);
    config.export.path = None;
    config.export.batch.max_age = Span(AGE);
    // Standard error is the same terminal.
    config.log.level = config::Level::Off;
    config
}

fn show(app: &mut App, taken: &mut Taken, from: &Receiver<Told>) -> Result<(), Failure> {
    live::run(app, taken, from).map_err(|e| anyhow::Error::new(e).context("drawing on the terminal").into())
}

/// Passes on what this process records itself, with the balance once a second. Nothing is missed: the queue waits.
fn feed(instance: Arc<Instance>, runtime: &runtime::Runtime, at_end: &'static str) -> Receiver<Told> {
    let (to, from) = mpsc::sync_channel(ROOM);
    // It may block: nothing else runs there.
    runtime.spawn(async move {
        // Fails where whoever looked has gone.
        if pass(&instance, &to).await.is_ok() {
            let _ = to.send(Told::Over(at_end.into()));
        }
    });
    from
}

async fn pass(instance: &Instance, to: &SyncSender<Told>) -> Result<(), mpsc::SendError<Told>> {
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        recording: instance.recording(),
        open_flows: 0,
    };
    to.send(Told::Frame(Frame::Hello(Box::new(hello))))?;
    let status = || Told::Frame(Frame::Status(Box::new(Status::of(instance))));
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        let lease = tokio::select! {
            lease = instance.queue.lease() => lease,
            _ = ticks.tick() => {
                to.send(status())?;
                continue;
            }
        };
        let Some(lease) = lease else { break };
        let batch = lease.batch();
        let (records, request) = (batch.records, batch.bytes.clone());
        to.send(Told::Frame(Frame::Records { missed: 0, records, request }))?;
        instance.ledger.records.delivered.add(u64::from(lease.done()));
    }
    to.send(status())
}

/// Packets in the time in which they were captured.
struct Pace {
    /// How many times as fast; 0 is at once.
    speed: f64,
    /// When the first was read, and its own time.
    start: Option<(Instant, KernelTime)>,
}

impl Pace {
    /// Waits until it is time for a packet.
    fn wait(&mut self, time: KernelTime) {
        if self.speed <= 0.0 {
            return;
        }
        let (began, first) = *self.start.get_or_insert_with(|| (Instant::now(), time));
        let due = Duration::from_nanos(time.since(first)).div_f64(self.speed);
        thread::park_timeout(due.saturating_sub(began.elapsed()));
    }
}

fn no_terminal(error: io::Error) -> Failure {
    Exit::Unavailable.with(anyhow::Error::new(error).context("taking the terminal over"))
}

fn no_thread(error: io::Error) -> Failure {
    Exit::Unavailable.with(anyhow::Error::new(error).context("starting a thread"))
}
