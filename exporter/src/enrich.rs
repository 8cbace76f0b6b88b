//! A flow event in, the same with names and owner out: the one place that asks the rooms which know them.
//!
//! Looks nothing up twice for one event, and loses no event for what it does not find.

use std::{net::IpAddr, sync::Arc};

use crate::{
    capture::{Event, KernelEvent, KernelTime, event::Dns as DnsEvent},
    config,
    dns::{Answer, Dns, Names},
    flow::{Direction, FlowEvent, Fold, What},
    ledger::Ledger,
    owner::{Executable, Place, Places, Processes},
};

/// A flow event with everything that is known beside it.
#[derive(Debug, Clone)]
pub struct Enriched<'a> {
    /// What happened.
    pub event: &'a FlowEvent,
    /// Names of the initiator's address.
    pub source_names: Option<Names<'a>>,
    /// Names of the responder's address.
    pub destination_names: Option<Names<'a>>,
    /// What the owner runs.
    pub executable: Option<Arc<Executable>>,
    /// Where the owner runs.
    pub place: Option<Arc<Place>>,
    /// It stands for so many begins or ends alike; a failure says so itself.
    pub fold: Option<Fold>,
}

/// The stage.
#[derive(Debug)]
pub struct Enricher {
    names: Option<Dns>,
    processes: Processes,
    places: Places,
}

// === impl Enriched

impl<'a> Enriched<'a> {
    /// An event about which nothing more is known.
    pub fn bare(event: &'a FlowEvent) -> Self {
        Self { event, source_names: None, destination_names: None, executable: None, place: None, fold: None }
    }
}

// === impl Enricher

impl Enricher {
    /// A fresh stage. It reads the hosts file, and opens /proc and the tree of cgroups.
    pub fn new(config: &config::Config, ledger: &Arc<Ledger>) -> Self {
        Self {
            names: config.dns.enabled.then(|| Dns::new(&config.dns, Arc::clone(ledger))),
            processes: Processes::new(&config.owner, Arc::clone(ledger)),
            places: Places::new(&config.owner, Arc::clone(ledger)),
        }
    }

    /// Takes a name server's answer.
    pub fn answer(&mut self, head: &DnsEvent, message: &[u8]) {
        if let Some(names) = &mut self.names {
            names.on(&Answer {
                time: KernelTime(head.time),
                cgroup: head.cgroup,
                asked: &head.asked[..(head.asked_length as usize).min(head.asked.len())],
                payload: message,
                truncated: head.whole > head.length,
            });
        }
    }

    /// Looks at a kernel event as soon as it is read: a process that asks for a connection may be gone a moment later.
    pub fn notice(&mut self, event: &KernelEvent) {
        let pid = match &event.event {
            Event::Connect(call) => call.caller.tgid,
            Event::Accept(accept) => accept.tgid,
            _ => return,
        };
        // What is found is remembered; the flow's event will ask for it.
        let _ = self.processes.executable(pid, event.time);
    }

    /// Adds what is known.
    pub fn enrich<'a>(&'a mut self, event: &'a FlowEvent) -> Enriched<'a> {
        if let (Some(names), What::Begin { .. }) = (&self.names, &event.what)
            && event.flow.direction == Some(Direction::Outgoing)
        {
            names.connects(event.flow.destination.port());
        }
        let owner = event.flow.owner;
        let executable = owner.and_then(|owner| self.processes.executable(owner.pid, owner.since));
        let place = owner.and_then(|owner| self.places.of(owner.cgroup));
        let names = |ip: IpAddr| {
            self.names.as_ref().and_then(|names| names.names(ip, owner.map(|owner| owner.cgroup), event.at.time))
        };
        Enriched {
            event,
            source_names: names(event.flow.source.ip()),
            destination_names: names(event.flow.destination.ip()),
            executable,
            place,
            fold: None,
        }
    }

    /// Goes on with changed settings. Names that are known stay known, within the new limits; what is known of processes
    /// and cgroups is looked up anew. Whether there are names at all (`dns.enabled`) is decided at the start, with the
    /// programs.
    pub fn reconfigure(&mut self, old: &config::Config, new: &config::Config, ledger: &Arc<Ledger>) {
        if let Some(names) = self.names.as_mut().filter(|_| old.dns != new.dns) {
            names.reconfigure(&new.dns);
        }
        if old.owner != new.owner {
            self.processes = Processes::new(&new.owner, Arc::clone(ledger));
            self.places = Places::new(&new.owner, Arc::clone(ledger));
        }
    }

    /// Addresses with names, and bytes of names.
    pub fn names_held(&self) -> (usize, usize) {
        self.names.as_ref().map_or((0, 0), Dns::held)
    }

    /// Forgets some of what is too old. To be called at each reading of the rings.
    pub fn tick(&mut self, now: KernelTime) {
        if let Some(names) = &mut self.names {
            names.tick(now);
        }
    }
}
