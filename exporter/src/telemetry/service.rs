//! Everything here that runs beside the record path, started, changed and stopped together: a configuration comes in;
//! listeners, a pusher and the watchdog's keeper go on by themselves.
//!
//! What can fail is done by [`Prepared`], before anything is changed; [`Service`] only takes it over.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{runtime, task::JoinHandle};

use super::{
    admin::{self, Admin},
    instance::Instance,
    log,
    metrics::Push,
    notify::Keeper,
    status::socket,
};
use crate::{
    config::{Config, Otlp},
    export::MetricsClient,
    record::resource::{self, Host},
    rights::calls,
};

/// How long the last push of metrics may take.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// What is ready to be taken over. Of each, `None`: it stays as it is.
#[derive(Debug)]
pub struct Prepared {
    admin: Option<Option<admin::Listening>>,
    admin_socket: Option<Option<admin::Listening>>,
    status: Option<Option<socket::Listening>>,
    metrics: Option<Option<MetricsClient>>,
    config: Config,
    host: Host,
}

/// All that runs.
#[derive(Debug)]
pub struct Service {
    instance: Arc<Instance>,
    runtime: runtime::Handle,
    admin: Option<Admin>,
    admin_socket: Option<Admin>,
    status: Option<socket::Server>,
    push: Option<Push>,
    keeper: JoinHandle<()>,
}

// === impl Prepared

impl Prepared {
    /// What `new` asks for and `old` did not, on a host that is called `host` now, and was otherwise where it is `renamed`; at
    /// the start there is no `old`.
    ///
    /// # Errors
    /// The admin address can't be taken, or no client for metrics can be built; in words. (A status socket that can't
    /// be made is a warning: flowtel does its work without.)
    pub fn new(old: Option<&Config>, new: &Config, host: Host, renamed: bool) -> Result<Self, String> {
        let changed = |same: fn(&Config, &Config) -> bool| old.is_none_or(|old| !same(old, new));
        let mut prepared =
            Self { admin: None, admin_socket: None, status: None, metrics: None, config: new.clone(), host };
        let address = |config: &Config| config.telemetry.admin.resolve();
        if old.is_none_or(|old| address(old) != address(new)) {
            let listening = address(new).map(|address| {
                admin::Listening::at(address).map_err(|e| {
                    format!("can't listen at {address} (telemetry.admin.address): {e}; choose another port, or end what is there")
                })
            });
            prepared.admin = Some(listening.transpose()?);
        }
        // The files of TLS may hold something else than before.
        let files = new.export.tls != crate::config::Tls::default();
        if files
            || renamed
            || changed(|a, b| {
                a.telemetry.metrics == b.telemetry.metrics && a.export == b.export && a.record == b.record
            })
        {
            let to = new.telemetry.metrics.resolve(&new.export).map_err(|e| e.to_string())?;
            let client =
                |to: &Otlp| MetricsClient::build(to, &new.export).map_err(|e| format!("telemetry.metrics: {e}"));
            prepared.metrics = Some(to.as_ref().map(client).transpose()?);
        }
        let group = &new.telemetry.group;
        if changed(|a, b| a.telemetry.status == b.telemetry.status) {
            let at = |path: &Path| socket::Listening::at(path, group);
            let without = "no status socket: `flowtel status` will not find this flowtel";
            prepared.status = Some(socket_at(&new.telemetry.status.socket, at, without));
        }
        if changed(|a, b| a.telemetry.admin.socket == b.telemetry.admin.socket) {
            let at = |path: &Path| admin::Listening::at_socket(path, group);
            let without = "no admin socket: nobody can ask for health and metrics there";
            prepared.admin_socket = Some(socket_at(&new.telemetry.admin.socket, at, without));
        }
        Ok(prepared)
    }
}

/// A socket at `path`, where there is one wanted. One that can't be made is a warning.
fn socket_at<T>(path: &Path, at: impl FnOnce(&Path) -> io::Result<T>, without: &str) -> Option<T> {
    if path.as_os_str().is_empty() {
        return None;
    }
    at(path).inspect_err(|error| tracing::warn!(path = %path.display(), %error, "{without}")).ok()
}

// === impl Service

impl Service {
    /// Starts what was prepared. Has to be called on tokio.
    pub fn start(prepared: Prepared, instance: Arc<Instance>) -> Self {
        let runtime = runtime::Handle::current();
        let keeper = tokio::spawn(keep(Arc::clone(&instance)));
        let mut service = Self { instance, runtime, admin: None, admin_socket: None, status: None, push: None, keeper };
        service.take_over(prepared);
        service
    }

    /// Goes on with what was prepared. Has to be called on tokio.
    pub fn take_over(&mut self, prepared: Prepared) {
        let Prepared { admin, admin_socket, status, metrics, config, host } = prepared;
        if let Some(admin) = admin {
            self.admin = admin.map(|listening| listening.serve(Arc::clone(&self.instance)));
        }
        if let Some(socket) = admin_socket {
            self.admin_socket = socket.map(|listening| listening.serve(Arc::clone(&self.instance)));
        }
        if let Some(status) = status {
            self.status = status.map(|listening| listening.serve(Arc::clone(&self.instance)));
        }
        if let Some(metrics) = metrics {
            self.end_push();
            self.push = metrics.and_then(|client| {
                let interval = config.telemetry.metrics.interval.0;
                let resource = resource::build(&config.record, &host, &self.instance.observer);
                let endpoint = client.endpoint.clone();
                match Push::start(client, interval, resource, &self.instance, self.runtime.clone()) {
                    Ok(push) => {
                        tracing::info!(endpoint, every = %config.telemetry.metrics.interval, "pushing metrics");
                        Some(push)
                    }
                    Err(error) => {
                        tracing::error!(endpoint, %error, "metrics can't be pushed");
                        None
                    }
                }
            });
        }
    }

    /// Pushes the last metrics, shows the last records to those who look on, and ends all of it.
    pub async fn stop(mut self) {
        if let Some(status) = self.status.take() {
            status.finish().await;
        }
        if let Some(last) = self.end_push() {
            // The task can't fail but by a panic, which is told.
            let _ = last.await;
        }
    }

    fn end_push(&mut self) -> Option<JoinHandle<()>> {
        let push = self.push.take()?;
        Some(self.runtime.spawn_blocking(move || push.stop(LAST_PUSH)))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Tells the watchdog that all is well, and the log how much it left out.
async fn keep(instance: Arc<Instance>) {
    let mut keeper = Keeper::new();
    let mut ticks = tokio::time::interval(keeper.interval());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        keeper.keep(&instance);
        let calls = calls::news();
        if !calls.is_empty() {
            tracing::error!(
                calls = calls.join(" "),
                "system calls that flowtel isn't known to need were refused; if something does not work since, \
                 security.seccomp = \"log\" lets them through until that is mended"
            );
        }
        log::tell_folded();
    }
}
