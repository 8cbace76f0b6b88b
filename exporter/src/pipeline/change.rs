//! A changed configuration for the running capture thread: what can be changed between two rounds comes in, each stage
//! with its new limits goes on. What is open stays open; no event and no name is lost for it.
//!
//! Must never change what is attached to the kernel: that is for a restart.

use std::sync::Arc;

use super::{Pipeline, push};
use crate::{
    config::{self, Config, Target},
    overload::Budget,
    owner::Lives,
    record::{
        Encoder, Form, Limits,
        privacy::Policy,
        resource::{self, Host},
    },
    select::Filter,
};

/// What the capture thread is to go on with.
#[derive(Debug)]
pub struct Change {
    /// The configuration that was applied last.
    pub old: Config,
    /// The one to apply.
    pub new: Config,
    /// This host, as it is called now.
    pub host: Host,
    /// Where its records go.
    pub target: Target,
    /// What its settings leave out, shorten and hash.
    pub privacy: Option<Arc<Policy>>,
}

/// The limits of batches that a configuration sets.
pub fn limits(config: &Config) -> Limits {
    let batch = &config.export.batch;
    Limits {
        records: batch.max_records,
        bytes: usize::try_from(batch.max_bytes.0).unwrap_or(usize::MAX),
        age: batch.max_age.0,
    }
}

/// The budget of each cgroup that a configuration sets.
pub fn budget(overload: &config::Overload) -> Budget {
    Budget { rate: overload.cgroup_rate.into(), burst: overload.cgroup_burst.into() }
}

// === impl Pipeline

impl Pipeline {
    pub(super) fn apply(&mut self, change: &Change) {
        let Change { old, new, host, target, privacy } = change;
        self.seal_each_tick = new.export.prints();
        let form = Form::of(new, target);
        let renamed = self.host != *host;
        let record = old.record != new.record || *self.encoder.form() != form;
        // The file of the key may hold another one.
        let keyed = privacy.is_some();
        if record || keyed || old.export.batch != new.export.batch || renamed {
            self.host = host.clone();
            // A batch has one Resource: what is open is sealed with the old one.
            push(&self.queue, self.encoder.seal());
            let resource = resource::build(&new.record, host, &self.observer);
            let resource = resource::shortened(resource::sampled(resource, new.capture.sample), &new.record.shorten);
            let ids = (self.boot, self.observer.record_salt(&self.boot));
            self.encoder = Encoder::new(&resource, ids, form, limits(new)).with_privacy(privacy.clone());
        }
        let (before, now) = (&old.capture, &new.capture);
        if before.filter != now.filter || before.filter_default != now.filter_default {
            self.select.replace_filter(Filter::new(&now.filter, now.filter_default));
        }
        if old.flow != new.flow {
            self.flows.set_limits(&new.flow);
        }
        if old.owner != new.owner {
            self.flows.ask_lives(Lives::new(&new.owner).asked());
        }
        if old.overload != new.overload {
            self.overload.limit(budget(&new.overload));
        }
        if old.dns != new.dns || old.owner != new.owner {
            self.enricher.reconfigure(old, new, &self.ledger);
        }
    }
}
