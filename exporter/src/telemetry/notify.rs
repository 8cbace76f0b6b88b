//! What systemd is told (sd_notify(3), systemd.service(5) "Type=notify-reload"): ready, reloading, stopping, one line of
//! status, and as long as the capture thread goes on, that the watchdog may sleep. Without NOTIFY_SOCKET nothing happens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::instance::Instance;
use crate::{escape::Escaped, export::LinkState};

/// Tells the watchdog, as often as it asks for.
#[derive(Debug)]
pub(super) struct Keeper {
    /// `None`: no watchdog is on.
    every: Option<Duration>,
    last: Option<Instant>,
    rounds: u64,
    status: String,
}

/// Programs are attached, the self-test has passed, records are delivered: or a reload is over.
pub fn ready(instance: &Instance) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(instance))]);
}

/// A changed configuration is being read. [`ready`] ends it, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock"),
    }
}

/// What is recorded by now is delivered, then flowtel ends. `grace`: how long that may take.
pub fn stopping(grace: Duration) {
    // Else the service manager's own patience would cut short what was configured.
    let extend = u32::try_from(grace.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(extend),
        NotifyState::Status("stopping: delivering what is recorded"),
    ]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

/// One line about how it goes.
fn status(instance: &Instance) -> String {
    let known = instance.export.known();
    let endpoint = Escaped(&known.endpoint);
    match known.link {
        LinkState::Down => format!("watching; {endpoint} takes no records: they wait in the queue"),
        LinkState::Up | LinkState::Unknown => format!("watching; records go to {endpoint}"),
    }
}

// === impl Keeper

impl Keeper {
    pub(super) fn new() -> Self {
        // Twice in the time that it waits, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { every, last: None, rounds: 0, status: String::new() }
    }

    /// How often [`Self::keep`] is to be called.
    pub(super) fn interval(&self) -> Duration {
        self.every
            .map_or(Duration::from_secs(1), |every| every / 2)
            .clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Tells the watchdog where it is time and the capture thread has gone on since, and the status where it is another.
    pub(super) fn keep(&mut self, instance: &Instance) {
        let status = status(instance);
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        let due = self.every.is_some_and(|every| self.last.is_none_or(|last| last.elapsed() >= every));
        let rounds = instance.pulse.rounds();
        if due && rounds != self.rounds {
            tell(&[NotifyState::Watchdog]);
            (self.last, self.rounds) = (Some(Instant::now()), rounds);
        }
    }
}
