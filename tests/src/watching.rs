//! flowtel and a collector together: a scene comes in; every record that the collector got comes out, after both were
//! stopped in order and their counts compared.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, bail, ensure};

use crate::{
    collector::{Collector, Protocol},
    flowtel::{Balance, Flowtel, Launch},
    record::Record,
    scene::Scene,
};

const GAP: &str = "flowtel.gap";
const BEGIN: &str = "flowtel.tcp.flow.begin";
const FAILED: &str = "flowtel.tcp.flow.failed";
const UPDATE: &str = "flowtel.tcp.flow.update";

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

impl Watching {
    /// As [`Self::finish`], where something may have been lost: then the balances name it, and the gap records tell it.
    ///
    /// # Errors
    /// Something is wrong with the end or the counts.
    pub fn finish_with_losses(mut self) -> Result<Told> {
        let balance = self.flowtel.stop()?.balance()?;
        self.collector.stop()?;
        Told { records: self.collector.records()?, balance }.checked()
    }
}

impl Told {
    /// What the gap records tell, by stage and reason.
    ///
    /// # Errors
    /// One does not say what it must.
    pub fn gaps(&self) -> Result<BTreeMap<(String, String), i128>> {
        let mut told = BTreeMap::<_, i128>::new();
        let mut gaps: Vec<_> = self.records.iter().filter(|r| r.event_name == GAP).collect();
        gaps.sort_by_key(|r| r.time);
        for gap in gaps {
            let key = (gap.text("flowtel.gap.stage").to_owned(), gap.text("flowtel.gap.reason").to_owned());
            let number = |key, least| gap.int(key).map(i128::from).filter(|n| *n >= least);
            // One may tell of nothing but what came back.
            let least = i128::from(!gap.attributes.contains_key("flowtel.gap.recovered"));
            let (Some(events), Some(total)) = (number("flowtel.gap.events", least), number("flowtel.gap.total", 1))
            else {
                bail!("a gap without numbers: {gap:#?}");
            };
            let since = gap.text("flowtel.gap.since");
            let people = format!("gap: {events} ");
            // The event's name where it was asked for; what came back where anything did.
            let optional = ["event.name", "flowtel.gap.recovered"];
            let optional = optional.iter().filter(|key| gap.attributes.contains_key(**key)).count();
            let right = gap.severity == 13
                && gap.body.starts_with(&people)
                && gap.body.contains(&format!(" at {}, {}, since 20", key.0, key.1.replace('_', " ")))
                && since.ends_with('Z')
                && since.contains('T')
                && gap.attributes.len() == 6 + optional;
            ensure!(right, "a gap record is wrong: {gap:#?}");
            let sum = told.entry(key).or_default();
            *sum += events;
            ensure!(*sum <= total, "more is told than was lost: {gap:#?}");
        }
        Ok(told)
    }

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
                // Begin and end share the flow's id, what failed has none of either; folded ones and gaps have none.
                let event = match record.event_name.as_str() {
                    _ if key == "log.record.uid" => "",
                    FAILED => BEGIN,
                    name => name,
                };
                // A flow may have any number of them.
                if record.event_name == UPDATE && key == "flowtel.flow.id" {
                    continue;
                }
                let without = record.attributes.contains_key("flowtel.fold.count") || record.event_name == GAP;
                ensure!(
                    without && !event.is_empty() || ids.insert((event, record.text(key))),
                    "a {key} is there twice: {record:#?}"
                );
            }
        }
        let told: i128 = self.gaps()?.values().sum();
        let (counted, all) = self.balance.losses.map_or((0, 0), |losses| (losses.told, losses.gaps));
        let gaps = i128::try_from(self.records.iter().filter(|r| r.event_name == GAP).count())?;
        // Those that were lost themselves are told by the next.
        let right = if there + self.balance.records.part("folded") == self.balance.records.total {
            (told, gaps) == (counted, all)
        } else {
            told <= counted && gaps <= all
        };
        ensure!(right, "{gaps} gap records tell {told} losses; flowtel says {:?}", self.balance.losses);
        Ok(self)
    }
}
