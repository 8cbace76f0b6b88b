//! A flood made short: of the lines that one place in the code logs, the first few in a while pass, the rest are counted.
//!
//! Bounded by the program's own text: there are as many places as there are log macros in it.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// How many lines of one place pass in [`WINDOW`].
const LINES: u32 = 10;
/// How long it lasts.
const WINDOW: Duration = Duration::from_secs(10);

/// What was logged lately, by place. A clone is another handle.
#[derive(Debug, Clone, Default)]
pub(super) struct Fold(Arc<Mutex<HashMap<Identifier, Window>>>);

/// The lines of one place since some time.
#[derive(Debug)]
struct Window {
    since: Instant,
    passed: u32,
    held: u64,
    /// What the last one that was held back said.
    like: String,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folded {
    pub lines: u64,
    /// What the last of them said.
    pub like: String,
}

// === impl Fold

impl Fold {
    /// What was held back in windows that are over.
    pub(super) fn take(&self) -> Vec<Folded> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Vec<Folded> {
        let mut windows = self.lock();
        let mut folded = Vec::new();
        windows.retain(|_, window| {
            let over = now.saturating_duration_since(window.since) >= WINDOW;
            if over && window.held > 0 {
                folded.push(Folded { lines: window.held, like: std::mem::take(&mut window.like) });
            }
            !over
        });
        folded
    }

    /// Whether a line may pass at `now`.
    fn pass(&self, place: Identifier, now: Instant, text: impl FnOnce() -> String) -> bool {
        let mut windows = self.lock();
        let window = windows.entry(place).or_insert(Window { since: now, passed: 0, held: 0, like: String::new() });
        // What was held back stays in the window until somebody tells of it.
        if window.held == 0 && now.saturating_duration_since(window.since) >= WINDOW {
            (window.since, window.passed) = (now, 0);
        }
        if window.passed < LINES {
            window.passed += 1;
            return true;
        }
        window.held += 1;
        window.like = text();
        false
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for Fold {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Who asks for more than `info` wants all of it.
        let metadata = event.metadata();
        *metadata.level() > Level::INFO
            || self.pass(metadata.callsite(), Instant::now(), || {
                let mut text = Text(String::new());
                event.record(&mut text);
                text.0
            })
    }
}

/// An event's words.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String can't fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, "{}{name}={value:?}", if self.0.is_empty() { "" } else { " " }),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

    use super::*;

    /// Counts what passes.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<u32>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Passed {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }

    #[test]
    fn a_flood_from_one_place_is_folded_and_counted_and_others_are_not() {
        let (passed, fold) = (Passed::default(), Fold::default());
        let log = tracing_subscriber::registry().with(passed.clone().with_filter(fold.clone()));
        tracing::subscriber::with_default(log, || {
            for i in 0..100 {
                tracing::warn!(i, "the same");
            }
            tracing::warn!("another");
            for _ in 0..50 {
                tracing::debug!("asked for");
            }
        });
        assert_eq!(*passed.0.lock().expect("nobody panicked"), LINES + 1 + 50);
        assert_eq!(fold.take(), [], "the window is not over");
        let folded = fold.take_at(Instant::now() + WINDOW);
        assert_eq!(folded, [Folded { lines: 100 - u64::from(LINES), like: "the same i=99".into() }]);
        assert_eq!(fold.take_at(Instant::now() + WINDOW), [], "told once");
    }
}
