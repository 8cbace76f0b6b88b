//! flowtel and a collector together: a scene comes in; every record that the collector got comes out, after both were
//! stopped in order and their counts compared.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use crate::{
    collector::{Collector, Protocol},
    flowtel::{Balance, Flowtel, Launch},
    record::Record,
    scene::Scene,
};

/// Both, running.
pub struct Watching {
    /// The first.
    pub flowtel: Flowtel,
    /// The second.
    pub collector: Collector,
}

/// All that was recorded of the whole host, others' connections too.
pub struct Told {
    /// The records.
    pub records: Vec<Record>,
    /// What flowtel said at its end.
    pub balance: Balance,
}

impl Watching {
    /// Starts both.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(scene: &Scene, protocol: Protocol) -> Result<Self> {
        Self::with(scene, protocol, Launch::new()?)
    }

    /// Starts a collector, and flowtel in this way.
    ///
    /// # Errors
    /// One does not start.
    pub fn with(scene: &Scene, protocol: Protocol, launch: Launch) -> Result<Self> {
        let collector = Collector::start(scene)?;
        let flowtel = collector.receive_from(launch, protocol).start(scene)?;
        Ok(Self { flowtel, collector })
    }

    /// Stops both, checks that nothing was lost on the way, and that no id is there twice.
    ///
    /// # Errors
    /// Something is wrong with the end or the counts.
    pub fn finish(mut self) -> Result<Told> {
        let balance = self.flowtel.stop()?.lossless()?;
        self.collector.stop()?;
        Told { records: self.collector.records()?, balance }.checked()
    }
}

impl Told {
    /// Compares the counts, and the ids of all records.
    ///
    /// # Errors
    /// The counts differ, or an id is there twice.
    pub fn checked(self) -> Result<Self> {
        let (here, there) = (self.records.len(), self.balance.records.part("delivered"));
        ensure!(i128::try_from(here)? == there, "flowtel delivered {there} records, the collector has {here}");
        for key in ["flowtel.flow.id", "log.record.uid"] {
            let mut ids = HashSet::new();
            for record in &self.records {
                // Begin and end share the flow's id; folded ones have none.
                let event = if key == "log.record.uid" { "" } else { &record.event_name };
                let folded = record.attributes.contains_key("flowtel.fold.count") && !event.is_empty();
                ensure!(folded || ids.insert((event, record.text(key))), "a {key} is there twice: {record:#?}");
            }
        }
        Ok(self)
    }
}
