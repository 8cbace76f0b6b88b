//! What is known of the receiver: the pool's verdicts come in, what `flowtel status`, `/readyz` and the metrics say of it
//! goes out. Never in the way of a request: the lock is held for an assignment.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::verdict::Reason;

/// What is known of the receiver, told by one exporter at a time.
#[derive(Debug, Default)]
pub struct State(Mutex<Known>);

/// A copy of it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Where records go, without user, password and query.
    pub endpoint: String,
    /// What exports, as `otel.component.type` has it; empty before an exporter runs.
    pub component: &'static str,
    /// Up, down, or not known before the first answer.
    pub link: LinkState,
    /// Since when.
    pub since: Option<Instant>,
    /// How often it went down.
    pub outages: u64,
    /// Why the last request that failed did, and when: words of the receiver, not escaped.
    pub last_error: Option<(String, Instant)>,
}

/// Whether the receiver takes records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkState {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// It judged the last request: it is there.
    Up,
    /// The last request is to be tried again.
    Down,
}

// === impl State

impl State {
    /// What is known now.
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// A new exporter takes over: nothing is known of its receiver.
    pub(crate) fn begin(&self, endpoint: &str, component: &'static str) {
        let mut known = self.lock();
        *known = Known { endpoint: endpoint.into(), component, outages: known.outages, ..Known::default() };
    }

    pub(super) fn up(&self) {
        let mut known = self.lock();
        if known.link != LinkState::Up {
            known.link = LinkState::Up;
            known.since = Some(Instant::now());
        }
    }

    pub(super) fn down(&self, reason: &Reason) {
        let mut known = self.lock();
        if known.link != LinkState::Down {
            known.link = LinkState::Down;
            known.since = Some(Instant::now());
            known.outages += 1;
        }
        known.last_error = Some((reason.to_string(), Instant::now()));
    }

    /// The receiver is there, and refuses what it got.
    pub(super) fn refused(&self, reason: &Reason) {
        self.lock().last_error = Some((reason.to_string(), Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl LinkState

impl LinkState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}
