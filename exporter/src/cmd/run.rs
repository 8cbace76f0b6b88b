//! `flowtel run`: builds each stage, connects them, waits for a signal, and stops them along the data's way.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::Arc,
};

use tokio::{signal::unix, sync::watch};

use crate::{
    capture::{
        self, Clock, KernelTime, Neighbours, Pins, Programs, Rings, Snapshot, Telling,
        audit::Lookouts,
        cgroup::{self, Cgroup},
        pins, rights, selftest,
        snapshot::Pending,
    },
    config::{self, Config, Loaded, Sources},
    enrich::Enricher,
    exit::{Exit, Failure},
    export::{self, Exporter},
    flow::{BootId, Flows},
    gap::Gaps,
    ledger::Ledger,
    overload::Overload,
    owner::{Helper, Lives, Processes, holders},
    pipeline::{Pipeline, Watch, budget, limits},
    queue::Queue,
    record::{
        Encoder, Form, Observer,
        privacy::Policy,
        resource::{self, Host},
    },
    rights::{Plan, State, signals},
    select::Select,
    telemetry::{self, Instance, Prepared, Service, notify, status::frame::Recording},
};

use super::reload::Reloader;

/// Watches and ships until a signal comes, or nobody reads standard output any more.
///
/// # Errors
/// Something that is needed is missing or refused: nothing was recorded then.
pub fn run(loaded: Loaded, sources: Sources) -> Result<(), Failure> {
    telemetry::start_log(&loaded.config.log);
    // From here on a signal is a stop and no death: what is recorded by then is delivered.
    signals::hold();
    let plan = Plan::of(&loaded.config, &sources.files()).map_err(|e| Exit::Config.with(e))?;
    // Before anything else: it gets a copy of what there is.
    let helper = Helper::start(&loaded.config.owner, &plan).unwrap_or_else(|error| {
        tracing::warn!("no helper process: {error}");
        None
    });
    for hint in plan.hints() {
        tracing::warn!("{hint}");
    }
    let exporter = Exporter::prepare(&export::Settings::resolved(&loaded)).map_err(|e| Exit::Config.with(e))?;
    let privacy = Policy::read(&loaded.config.record).map_err(|e| Exit::Config.with(e))?;
    let Loaded { config, target, .. } = loaded;
    let on_terminal = is_on_terminal();
    if !plan.gives_records() {
        // The rights of the start may be what opens it.
        exporter.open().map_err(|e| Exit::Config.with(e))?;
    }
    plan.change_user().map_err(|e| Exit::NoPermission.with(e))?;
    exporter.open().map_err(|e| Exit::Config.with(e))?;

    // Nothing starts a thread that lasts before the rights are gone: it would keep them.
    let ledger = Arc::new(Ledger::default());
    let queue = Queue::prepare(&config.queue, Arc::clone(&ledger)).map_err(|e| Exit::Unavailable.with(e))?;
    let host = Host::read();
    let beside =
        Prepared::new(None, &config, host.clone(), false).map_err(|e| Exit::Unavailable.with(anyhow::anyhow!(e)))?;
    let boot = BootId::read()
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("reading the boot's id from /proc")))?;
    let cgroup = Cgroup::open(&config.capture.cgroup).map_err(refused)?;
    let observer = Observer::at(&cgroup, &boot);
    // The lock is held to the end: until then connections are made that the flowtel after this one leaves out.
    let (mut pipeline, _pinned) =
        pipeline(&config, &target, &host, (boot, &cgroup, &observer), (&queue.queue(), &ledger), helper.clone())?;
    pipeline.encoder = pipeline.encoder.with_privacy(privacy);
    if !pipeline.gather(signals::stop_waits) && plan.drops() && !signals::stop_waits() {
        return Err(Exit::Unavailable.with(anyhow::anyhow!(
            "the list of open connections can't be read in time, and its thread would keep rights that flowtel gives up; \
             capture.snapshot = false leaves it out"
        )));
    }
    if let (true, Some(watch)) = (plan.drops(), &mut pipeline.watch) {
        watch.shut();
    }
    plan.drop().map_err(|e| Exit::NoPermission.with(e))?;
    if let Some(state) = State::own() {
        tracing::info!("rights: {state}");
    }

    let runtime = super::export_threads(&config.export)?;
    let _guard = runtime.enter();
    let signals = heard().map_err(|e| Exit::Failure.with(anyhow::Error::new(e).context("preparing for signals")))?;
    let mut hangups = unix::signal(unix::SignalKind::hangup())
        .map_err(|e| Exit::Failure.with(anyhow::Error::new(e).context("SIGHUP")))?;
    signals::release();
    let queue = queue.start().map_err(|e| Exit::Unavailable.with(e))?;
    let state = Arc::<export::State>::default();
    let mut export = exporter.spawn_telling(queue.clone(), Arc::clone(&ledger), runtime.handle(), Arc::clone(&state));
    let running = pipeline.start().map_err(refused)?;
    let batch_bytes = config.export.batch.max_bytes.0;
    let instance = Arc::new(
        Instance::new(Arc::clone(&ledger), queue, state, running.pulse(), batch_bytes)
            .observing(observer)
            .asking(running.asker())
            .helped(helper),
    );
    instance.set_recording(Recording::of(&config));
    let mut service = Service::start(beside, Arc::clone(&instance));
    let mut reloader = Reloader { sources, config, target, host, instance: Arc::clone(&instance) };
    notify::ready(&instance);

    let (mut died, mut unread) = (None, false);
    runtime.block_on(async {
        loop {
            tokio::select! {
                () = nth(signals.clone(), 1) => tracing::info!("stopping; a second signal stops at once"),
                () = export.closed() => tracing::info!("nobody reads standard output any more: stopping"),
                () = running.ended() => {}
                Some(()) = hangups.recv() => {
                    if on_terminal && !is_on_terminal() {
                        // Nobody asked for a reload: the terminal that flowtel was started on was closed.
                        break;
                    }
                    export = reloader.reload(export, &running, &mut service).await;
                    continue;
                }
            }
            break;
        }
        let grace = reloader.config.export.grace.0;
        notify::stopping(grace);
        // The thread needs a tick at most; nothing else is to be done meanwhile.
        died = running.stop().err();
        super::ending::say_what_waits(&instance.queue, &reloader.config.queue, &reloader.target, grace);
        let closed = export.unread();
        export.drain(grace, nth(signals, 2)).await;
        unread = *closed.borrow();
        service.stop().await;
    });
    telemetry::tell_folded();
    let log = &reloader.config.log;
    let is_quiet = matches!(log.level, config::Level::Off | config::Level::Error);
    if !is_quiet || log.balance && log.level != config::Level::Off {
        // Standard error may be closed; the exit code still tells how it ended.
        let _ = writeln!(std::io::stderr(), "{}", super::ending::text(&ledger, log));
    }
    match died {
        None => super::ending::outcome(&ledger, unread),
        Some(message) => Err(anyhow::anyhow!("the capture thread panicked: {message}").into()),
    }
}

/// Everything from the kernel to the queue, attached and ready.
pub(super) fn pipeline(
    config: &Config,
    target: &config::Target,
    host: &Host,
    (boot, cgroup, observer): (BootId, &Cgroup, &Observer),
    (queue, ledger): (&Queue, &Arc<Ledger>),
    helper: Option<Helper>,
) -> Result<(Pipeline, Option<pins::Lock>), Failure> {
    capture::clock::settle_in().map_err(refused)?;
    let start = KernelTime::now();
    let wanted = config.capture.events.has(config::Events::GAPS);
    let gaps = wanted.then(|| Gaps::new(boot, start, Clock::measure().wall(start), Arc::clone(ledger)));
    let mut pins = match &config.capture.pin {
        Some(path) => {
            // With updates also what was told of older flows, and of those in no table.
            let tables = if config.updates().is_some() { 3 } else { 1 };
            let most = config.flow.max_flows.saturating_mul(tables).saturating_add(config.flow.max_attempts);
            Some(Pins::take(path, pins::Layout::of(&config.capture, cgroup), most).map_err(refused)?)
        }
        None => None,
    };
    let lock = pins.as_ref().map(Pins::lock);
    let earlier = pins.as_ref().and_then(Pins::earlier);
    let notes = pins.as_mut().map(Pins::take_notes).unwrap_or_default();
    let mut programs = Programs::load(config, pins).map_err(refused)?;
    let mut rings = Rings::take(&mut programs).map_err(refused)?;
    // What explains an event comes before what reports it.
    match programs.attach_execs(&config.owner) {
        telling @ Telling::Nothing(_) => tracing::warn!("{telling}"),
        telling => tracing::debug!("executables: {telling}"),
    }
    programs.attach_all(config, cgroup, &ledger.kernel).map_err(refused)?;
    let attached = KernelTime::now();
    tracing::info!(
        cgroup = %cgroup.path.display(),
        kernel = %rights::kernel().map_err(refused)?,
        "watching TCP connections{}",
        if cgroup.is_host_root() { " of the whole host" } else { " below a cgroup" }
    );
    let neighbours = Neighbours::look(&programs, cgroup);
    tracing::info!("{neighbours}");
    let mut first = Vec::new();
    let own = match selftest::run(&mut rings, cgroup, &ledger.kernel, &mut first) {
        Ok(selftest::Outcome::Proved(test)) => config.capture.exclude_self.then_some(test.tgid),
        Ok(outside) => {
            tracing::info!("self-test: {outside}");
            None
        }
        Err(e) => {
            tracing::warn!("{e}; going on, but connections may be missing, and flowtel's own are recorded too");
            None
        }
    };
    let resource = resource::build(&config.record, host, observer);
    let resource = resource::shortened(resource::sampled(resource, config.capture.sample), &config.record.shorten);
    let snapshot = if config.capture.takes_snapshot() { Some(snapshot(config, &mut programs, cgroup)?) } else { None };
    let watch = if config.capture.takes_audit() {
        let lookouts = Lookouts::start(config.owner.proc.clone()).map_err(refused)?;
        Some(Watch::new(lookouts, config.capture.audit.0, neighbours))
    } else {
        None
    };
    let mut flows = Flows::new(config, boot, own, Arc::clone(ledger));
    flows.ask_lives(Lives::new(&config.owner).asked());
    if earlier.is_none() {
        flows.watches_since(attached);
    }
    if let (Some(earlier), Some(_)) = (&earlier, own) {
        flows.inherit(earlier);
    }
    let open = flows.take_up(&notes);
    if let Some(earlier) = &earlier {
        tracing::info!("reading on where process {} stopped, with {open} open flows and attempts of its", earlier.tgid);
    }
    let mut enricher = Enricher::new(config, ledger, helper);
    if !cgroup.is_host_root() {
        enricher = enricher.below(&cgroup.path, &config.owner, ledger);
    }
    let pipeline = Pipeline {
        programs,
        rings,
        snapshot,
        watch,
        flows,
        overload: Overload::new(budget(&config.overload), Arc::clone(ledger)),
        enricher,
        select: Select::new(config, Arc::clone(ledger)),
        encoder: Encoder::new(&resource, (boot, observer.record_salt(&boot)), Form::of(config, target), limits(config)),
        host: host.clone(),
        gaps,
        boot,
        observer: observer.clone(),
        queue: queue.clone(),
        ledger: Arc::clone(ledger),
        tick: config.capture.tick.0,
        seal_each_tick: config.export.prints(),
        first,
    };
    Ok((pipeline, lock))
}

/// Starts to look for what is open already, and who holds it. After the programs were attached: what begins meanwhile they
/// tell.
pub(super) fn snapshot(
    config: &Config,
    programs: &mut Programs,
    cgroup: &Cgroup,
) -> Result<Pending<Snapshot>, Failure> {
    let below = (!cgroup.is_host_root()).then(|| cgroup.path.clone());
    let cookies = programs.older().map_err(refused)?;
    let proc = config.owner.proc.clone();
    let shown = config.owner.clone();
    let pending = Snapshot::start(cookies, proc.clone(), config.flow.max_flows as usize, move |mut snapshot| {
        if let Some(below) = &below {
            snapshot.keep_in(&cgroup::tree(below));
        }
        if Processes::shows_host(&shown) {
            snapshot.look_up_holders(|inodes| holders::find(&proc, |inode| inodes.contains(&inode)));
        }
        snapshot
    });
    pending.map_err(refused)
}

/// The code that goes with a refusal.
pub(super) fn refused(error: capture::Error) -> Failure {
    let exit = match error {
        capture::Error::Rights { .. } => Exit::NoPermission,
        _ => Exit::Unavailable,
    };
    exit.with(error)
}

/// Whether somebody at a terminal started this. (After its hang-up, it is no terminal any more.)
fn is_on_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}

/// How many of SIGINT and SIGTERM came so far.
pub(super) fn heard() -> std::io::Result<watch::Receiver<u32>> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    // Once it is caught, a write that would make a file longer than RLIMIT_FSIZE allows fails instead of killing: that is a
    // full disk, and a full disk stops nothing.
    let _caught = unix::signal(unix::SignalKind::from_raw(libc::SIGXFSZ))?;
    let (count, seen) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            count.send_modify(|n| *n += 1);
        }
    });
    Ok(seen)
}

/// Returns when the `n`th signal has come.
pub(super) async fn nth(mut signals: watch::Receiver<u32>, n: u32) {
    if signals.wait_for(|count| *count >= n).await.is_err() {
        // Nobody counts any more: the runtime is going down.
        std::future::pending::<()>().await;
    }
}
