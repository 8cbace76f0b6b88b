//! SIGHUP: the configuration is read again from the same sources, and what can be changed while flowtel runs is. All that
//! can fail is tried first: then either everything is applied, or nothing, and why.
//!
//! No event is lost. The capture thread goes on meanwhile; batches wait in the queue while one exporter makes way for
//! another, and what the old one had not delivered is delivered by the new one.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use tokio::runtime;

use crate::{
    config::{self, Change, Config, Loaded, Sources, Target},
    export::{self, ExportHandle, Exporter},
    pipeline::{self, Running},
    record::{privacy::Policy, resource::Host},
    telemetry::{self, Instance, Prepared, Service, instance::Reload, notify, status::frame::Recording},
};

/// How long requests in flight may take to land before their batches are given back. Longer than a receiver that works
/// takes, so that nothing is sent twice; no longer than records should wait.
const LANDING: Duration = Duration::from_secs(5);

/// Who applies changed configurations.
pub(super) struct Reloader {
    /// What the configuration is made from.
    pub sources: Sources,
    /// What holds now.
    pub config: Config,
    pub target: Target,
    /// As it was called when the configuration was read last.
    pub host: Host,
    pub instance: Arc<Instance>,
}

/// A configuration of which everything could be built.
struct Next {
    change: Change,
    target: Target,
    exporter: Option<Exporter>,
    telemetry: Prepared,
    host: Host,
    privacy: Option<Arc<Policy>>,
}

// === impl Reloader

impl Reloader {
    /// Reads the configuration again and applies it, or says why not. Returns the export that goes on.
    pub(super) async fn reload(
        &mut self,
        export: ExportHandle,
        capture: &Running,
        service: &mut Service,
    ) -> ExportHandle {
        notify::reloading();
        let (export, refused, restart_for) = match self.next() {
            Ok(next) => {
                let restart: Vec<_> = next.change.restart.iter().map(ToString::to_string).collect();
                say(&next.change, &restart);
                (self.apply(next, export, capture, service).await, None, restart)
            }
            Err(why) => {
                tracing::error!("SIGHUP: the configuration is refused, the old one holds on: {why}");
                (export, Some(why), Vec::new())
            }
        };
        self.instance.reloads.note(Reload { at: SystemTime::now(), refused, restart_for });
        notify::ready(&self.instance);
        export
    }

    /// Everything that can fail.
    fn next(&self) -> Result<Next, String> {
        let loaded = config::load(&self.sources).map_err(|e| e.to_string().replace('\n', "; "))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let Loaded { config, target, origins, .. } = loaded;
        let change = Change::new(&self.config, config);
        let effective = Loaded { config: change.config.clone(), target, origins, warnings: Vec::new() };
        // The files of TLS may hold something else than before.
        let files = effective.config.export.tls != config::Tls::default();
        let exporter = (files || effective.config.export != self.config.export)
            .then(|| Exporter::build(&export::Settings::resolved(&effective)))
            .transpose()
            .map_err(|e| e.to_string())?;
        let host = Host::read();
        let renamed = host != self.host;
        let telemetry = Prepared::new(Some(&self.config), &effective.config, host.clone(), renamed)?;
        let privacy = Policy::read(&effective.config.record).map_err(|e| e.to_string())?;
        Ok(Next { change, target: effective.target, exporter, telemetry, host, privacy })
    }

    async fn apply(
        &mut self,
        next: Next,
        export: ExportHandle,
        capture: &Running,
        service: &mut Service,
    ) -> ExportHandle {
        let Next { change: Change { config, .. }, target, exporter, telemetry, host, privacy } = next;
        let Instance { queue, ledger, .. } = &*self.instance;
        telemetry::set_level(config.log.level);
        if config.queue != self.config.queue {
            queue.reconfigure(&config.queue);
        }
        self.instance.batch_bytes.store(config.export.batch.max_bytes.0, Relaxed);
        self.instance.set_recording(Recording::of(&config));
        capture.apply(pipeline::Change {
            old: self.config.clone(),
            new: config.clone(),
            host: host.clone(),
            target: target.clone(),
            privacy,
        });
        service.take_over(telemetry);
        let export = match exporter {
            None => export,
            Some(exporter) => {
                export.retire(LANDING).await;
                let (state, runtime) = (Arc::clone(&self.instance.export), runtime::Handle::current());
                exporter.spawn_telling(queue.clone(), Arc::clone(ledger), &runtime, state)
            }
        };
        if host.name != self.host.name {
            tracing::info!(host.name, "SIGHUP: this host has another name");
        }
        (self.config, self.target, self.host) = (config, target, host);
        export
    }
}

fn say(change: &Change, restart: &[String]) {
    let applied: Vec<_> = change.applied.iter().map(ToString::to_string).collect();
    if applied.is_empty() {
        tracing::info!("SIGHUP: the configuration was read again; nothing that can be applied has changed");
    } else {
        tracing::info!(changed = applied.join(", "), "SIGHUP: a changed configuration is applied");
    }
    if !restart.is_empty() {
        tracing::warn!(keys = restart.join(", "), "SIGHUP: these keys hold only after a restart");
    }
}
