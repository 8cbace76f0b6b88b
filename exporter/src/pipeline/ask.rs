//! A question from beside the record path in; what the capture thread knows of an open flow out, as the bytes of a record.
//!
//! The record is nobody's: it is neither counted nor queued. It is made only when somebody asks, between two rounds.

use std::{sync::mpsc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Message, Pipeline};
use crate::{
    capture::{Clock, KernelTime},
    flow::{FlowEvent, FlowId, Stamp, What},
    record::Limits,
};

/// Which flow, and where the answer goes.
#[derive(Debug)]
pub struct Ask {
    flow: FlowId,
    answer: oneshot::Sender<Option<Known>>,
}

/// What is known of an open flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// It is older than flowtel: its begin was not seen.
    pub older: bool,
    /// An `ExportLogsServiceRequest` with one record.
    pub request: Bytes,
}

/// A way to ask the capture thread.
#[derive(Debug, Clone)]
pub struct Asker(pub(super) mpsc::Sender<Message>);

/// How long an answer may take: some rounds at the longest tick.
const PATIENCE: Duration = Duration::from_secs(3);

// === impl Asker

impl Asker {
    /// What is known of the flow with this id; `None` where it is not open, or the capture thread stands still.
    pub async fn flow(&self, flow: FlowId) -> Option<Known> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Message::Ask(Ask { flow, answer })).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()?
    }
}

// === impl Pipeline

impl Pipeline {
    pub(super) fn answer(&mut self, ask: Ask) {
        // Who asks has the id from a record.
        let policy = self.encoder.policy().cloned();
        let is = |id: FlowId| policy.as_ref().map_or(id.0, |policy| policy.id(id.0)) == ask.flow.0;
        let known = self.flows.find(is).map(|(flow, older)| {
            let now = KernelTime::now();
            let wall = Clock::measure().wall(now);
            let at = Stamp { time: now, wall, observed: wall };
            let event = FlowEvent { at, flow, what: What::Open };
            // One that is sealed at its first record.
            let limits = Limits { records: 1, bytes: usize::MAX, age: Duration::ZERO };
            let sealed = self.encoder.beside(limits).write(&self.enricher.enrich(&event));
            Known { older, request: sealed.map(|batch| batch.bytes).unwrap_or_default() }
        });
        // Whoever asked may have gone.
        let _ = ask.answer.send(known);
    }
}
