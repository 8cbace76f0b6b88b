//! `flowtel run`: builds each stage, connects them, waits for a signal, and stops them along the data's way.

use std::{io::Write as _, sync::Arc};

use tokio::{runtime, signal::unix, sync::watch};

use crate::{
    capture::{self, Programs, Rings, cgroup::Cgroup, rights, selftest},
    config::{self, Config, Loaded},
    enrich::Enricher,
    exit::{Exit, Failure},
    export::{self, Exporter},
    flow::{BootId, Flows},
    ledger::Ledger,
    pipeline::Pipeline,
    queue::Queue,
    record::{Encoder, Limits, resource},
    telemetry,
};

/// Threads that deliver: one is enough for tens of thousands of records a second, the second keeps signals and timers
/// prompt while it compresses.
pub(super) const WORKERS: usize = 2;

/// Watches and ships until a signal comes, or nobody reads standard output any more.
///
/// # Errors
/// Something that is needed is missing or refused: nothing was recorded then.
pub fn run(loaded: &Loaded) -> Result<(), Failure> {
    let Loaded { config, target, .. } = loaded;
    telemetry::start_log(&config.log);
    let exporter = Exporter::build(&export::Settings::resolved(loaded)).map_err(|e| Exit::Config.with(e))?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("flowtel-export")
        .enable_all()
        .build()
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("starting the export threads")))?;
    let _guard = runtime.enter();
    // From here on a signal is a stop and no death: what is recorded by then is delivered.
    let signals = signals().map_err(|e| Exit::Failure.with(anyhow::Error::new(e).context("preparing for signals")))?;

    let ledger = Arc::new(Ledger::default());
    let queue = Queue::new(&config.queue, Arc::clone(&ledger));
    let pipeline = pipeline(config, target, &queue, &ledger)?;
    let export = exporter.spawn(queue.clone(), Arc::clone(&ledger), runtime.handle());
    let running = pipeline.start().map_err(refused)?;

    let mut died = None;
    runtime.block_on(async {
        tokio::select! {
            () = nth(signals.clone(), 1) => tracing::info!("stopping; a second signal stops at once"),
            () = export.closed() => tracing::info!("nobody reads standard output any more: stopping"),
            () = ended(&running) => {}
        }
        // The thread needs a tick at most; nothing else is to be done meanwhile.
        died = running.stop().err();
        export.drain(config.export.grace.0, nth(signals, 2)).await;
    });
    if !matches!(config.log.level, config::Level::Off) {
        // Standard error may be closed; the exit code still tells how it ended.
        let _ = writeln!(std::io::stderr(), "{ledger}");
    }
    match died {
        None => Ok(()),
        Some(message) => Err(anyhow::anyhow!("the capture thread panicked: {message}").into()),
    }
}

/// Everything from the kernel to the queue, attached and ready.
fn pipeline(
    config: &Config,
    target: &config::Target,
    queue: &Queue,
    ledger: &Arc<Ledger>,
) -> Result<Pipeline, Failure> {
    let boot = BootId::read()
        .map_err(|e| Exit::Unavailable.with(anyhow::Error::new(e).context("reading the boot's id from /proc")))?;
    let cgroup = Cgroup::open(&config.capture.cgroup).map_err(refused)?;
    let mut programs = Programs::load(&config.capture).map_err(refused)?;
    let mut rings = Rings::take(&mut programs).map_err(refused)?;
    programs.attach_all(config, &cgroup).map_err(refused)?;
    tracing::info!(
        cgroup = %cgroup.path.display(),
        kernel = %rights::kernel().map_err(refused)?,
        "watching TCP connections{}",
        if cgroup.is_host_root() { " of the whole host" } else { " below a cgroup" }
    );
    let (own, first) = match selftest::run(&mut rings, &ledger.kernel) {
        Ok(test) => (config.capture.exclude_self.then_some(test.tgid), test.events),
        Err(e) => {
            tracing::warn!("{e}; going on, but connections may be missing, and flowtel's own are recorded too");
            (None, Vec::new())
        }
    };
    let limits = Limits {
        records: config.export.batch.max_records,
        bytes: usize::try_from(config.export.batch.max_bytes.0).unwrap_or(usize::MAX),
        age: config.export.batch.max_age.0,
    };
    let resource = resource::build(&config.record, &resource::Host::read());
    Ok(Pipeline {
        programs,
        rings,
        flows: Flows::new(config, boot, own, Arc::clone(ledger)),
        enricher: Enricher::new(config, ledger),
        encoder: Encoder::new(&resource, boot, config.record.event_name_attribute, limits),
        queue: queue.clone(),
        ledger: Arc::clone(ledger),
        tick: config.capture.tick.0,
        seal_each_tick: matches!(target, config::Target::Stdout { .. }),
        first,
    })
}

/// The code that goes with a refusal.
pub(super) fn refused(error: capture::Error) -> Failure {
    let exit = match error {
        capture::Error::Rights { .. } => Exit::NoPermission,
        _ => Exit::Unavailable,
    };
    exit.with(error)
}

/// How many of SIGINT and SIGTERM came so far.
pub(super) fn signals() -> std::io::Result<watch::Receiver<u32>> {
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
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

/// Returns when the capture thread has ended by itself.
async fn ended(running: &crate::pipeline::Running) {
    while !running.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}
