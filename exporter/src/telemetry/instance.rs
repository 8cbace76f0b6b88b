//! What of a running flowtel can be looked at: handles of the ledger, the queue, the export, the capture thread's pulse.
//! Everything that shows its state (metrics, `/healthz`, `flowtel status`) reads it here; nothing writes but the reload.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::{
    export,
    ledger::Ledger,
    owner::Helper,
    pipeline::{Asker, Pulse, Watcher},
    queue::Queue,
    record::Observer,
    telemetry::status::frame::Recording,
};

/// Longer than any tick, and than a round on a machine that is busy with other things.
pub const STALLED: Duration = Duration::from_secs(10);

/// Two rounds at the longest tick, and a bit.
const REFRESH: Duration = Duration::from_millis(2500);

/// A running flowtel.
#[derive(Debug)]
pub struct Instance {
    /// All counts.
    pub ledger: Arc<Ledger>,
    /// What waits.
    pub queue: Queue,
    /// What is known of the receiver.
    pub export: Arc<export::State>,
    /// The capture thread's signs of life.
    pub pulse: Arc<Pulse>,
    /// When it was ready, by the wall clock.
    pub started: SystemTime,
    /// And by a clock that is never set.
    pub ready: Instant,
    /// The size up to which batches grow, in bytes.
    pub batch_bytes: AtomicU64,
    /// Which part of the host it observes.
    pub observer: Observer,
    /// A way to ask the capture thread, where there is one.
    pub asker: Option<Asker>,
    /// The helper process, where there is one.
    pub helper: Option<Helper>,
    /// What became of changed configurations.
    pub reloads: Reloads,
    /// What is recorded of what happens.
    recording: Mutex<Recording>,
}

/// What became of changed configurations.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last: Mutex<Option<Reload>>,
}

/// One SIGHUP.
#[derive(Debug, Clone)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// Why the configuration was not taken; `None`: it was.
    pub refused: Option<String>,
    /// Keys that were changed and hold only after a restart.
    pub restart_for: Vec<String>,
}

// === impl Instance

impl Instance {
    /// One that is ready now.
    pub fn new(
        ledger: Arc<Ledger>,
        queue: Queue,
        export: Arc<export::State>,
        pulse: Arc<Pulse>,
        batch_bytes: u64,
    ) -> Self {
        Self {
            ledger,
            queue,
            export,
            pulse,
            started: SystemTime::now(),
            ready: Instant::now(),
            batch_bytes: AtomicU64::new(batch_bytes),
            observer: Observer::WHOLE_HOST,
            asker: None,
            helper: None,
            reloads: Reloads::default(),
            recording: Mutex::default(),
        }
    }

    /// What is recorded of what happens.
    pub fn recording(&self) -> Recording {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another part of what happens is recorded from now on.
    pub fn set_recording(&self, recording: Recording) {
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = recording;
    }

    /// The same, observing another part of the host than the whole.
    #[must_use]
    pub fn observing(self, observer: Observer) -> Self {
        Self { observer, ..self }
    }

    /// The same, whose capture thread can be asked.
    #[must_use]
    pub fn asking(self, asker: Asker) -> Self {
        Self { asker: Some(asker), ..self }
    }

    /// The same, with a helper.
    #[must_use]
    pub fn helped(self, helper: Option<Helper>) -> Self {
        Self { helper, ..self }
    }

    /// Brings the kernel's counts up to date, and keeps them so while what it returns lives. They come from the capture
    /// thread: where that stands still, this waits for it a while, and the counts stay as they are.
    pub async fn refresh(&self) -> Watcher<'_> {
        self.pulse.watch(REFRESH).await
    }

    /// Whether the capture thread goes on. `Err`: for how long it has not.
    ///
    /// # Errors
    /// It stands still.
    pub fn is_alive(&self) -> Result<(), Duration> {
        match self.pulse.silence().unwrap_or_else(|| self.ready.elapsed()) {
            silence if silence > STALLED => Err(silence),
            _ => Ok(()),
        }
    }

    /// Whether records that are made now get through, at once or from the queue.
    ///
    /// # Errors
    /// The receiver takes none, and the queue has no room for another batch: one will be dropped.
    pub fn is_ready(&self) -> Result<(), String> {
        if let Err(silence) = self.is_alive() {
            return Err(format!("the capture thread has stood still for {} s", silence.as_secs()));
        }
        let known = self.export.known();
        let (held, budget) = (self.queue.waiting().bytes, self.queue.max_bytes());
        let full = held.saturating_add(self.batch_bytes.load(Relaxed)) > budget;
        if known.link == export::LinkState::Up || !full {
            return Ok(());
        }
        Err(format!("the receiver takes no records, and the queue is full: {held} of {budget} bytes"))
    }
}

// === impl Reloads

impl Reloads {
    /// Notes one.
    pub fn note(&self, reload: Reload) {
        let count = if reload.refused.is_none() { &self.applied } else { &self.refused };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
        count.fetch_add(1, Relaxed);
    }

    /// How many were applied.
    pub fn applied(&self) -> u64 {
        self.applied.load(Relaxed)
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// The last one.
    pub fn last(&self) -> Option<Reload> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
