//! A flow event in, the same with names and owner out: the one place that asks the rooms which know them.
//!
//! Looks nothing up twice for one event, and loses no event for what it does not find.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    capture::{Event, KernelEvent, KernelTime, Reach, caller, event::Dns as DnsEvent, exec::Told},
    config,
    dns::{Answer, Asker, Dns, Names, Reader},
    flow::{Direction, FlowEvent, Fold, Owner, What},
    ledger::Ledger,
    netns::{Interfaces, Namespace, Namespaces, is_link_local},
    owner::{Executable, Helper, Hierarchies, Place, Places, Process, Processes},
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
    /// What the owner runs, when it began, who made it.
    pub process: Option<Arc<Process>>,
    /// Where the owner runs.
    pub place: Option<Arc<Place>>,
    /// The network namespace that it happened in.
    pub netns: Option<Namespace>,
    /// The name of the interface that link-local addresses belong to.
    pub interface: Option<Arc<str>>,
    /// It stands for so many begins or ends alike; a failure says so itself.
    pub fold: Option<Fold>,
}

/// The stage.
#[derive(Debug)]
pub struct Enricher {
    names: Option<Dns>,
    processes: Processes,
    places: Places,
    /// The cgroup that is watched, where it is not the whole host.
    below: Option<PathBuf>,
    /// Containers by cgroups of version 1, where the host has such.
    hierarchies: Option<Hierarchies>,
    namespaces: Namespaces,
    interfaces: Interfaces,
    helper: Option<Helper>,
}

// === impl Enriched

impl<'a> Enriched<'a> {
    /// An event about which nothing more is known.
    pub fn bare(event: &'a FlowEvent) -> Self {
        Self {
            event,
            source_names: None,
            destination_names: None,
            process: None,
            place: None,
            netns: None,
            interface: None,
            fold: None,
        }
    }

    /// What the owner runs.
    pub fn executable(&self) -> Option<&Executable> {
        self.process.as_ref()?.executable.as_deref()
    }
}

// === impl Enricher

impl Enricher {
    /// A fresh stage. It reads the hosts file, and opens /proc and the tree of cgroups.
    pub fn new(config: &config::Config, ledger: &Arc<Ledger>, helper: Option<Helper>) -> Self {
        Self {
            names: config.dns.enabled.then(|| Dns::new(&config.dns, Arc::clone(ledger))),
            processes: Processes::new(&config.owner, Arc::clone(ledger)).helped(helper.clone()),
            places: Places::new(&config.owner, Arc::clone(ledger)).helped(helper.clone()),
            below: None,
            hierarchies: Hierarchies::new(&config.owner),
            namespaces: Namespaces::new(&config.owner.proc),
            interfaces: Interfaces::new(&config.owner.proc).helped(helper.clone()),
            helper,
        }
    }

    /// The same, where only what happens in this cgroup and below it is asked about.
    #[must_use]
    pub fn below(mut self, cgroup: &Path, config: &config::Owner, ledger: &Arc<Ledger>) -> Self {
        self.places = Places::below(config, Some(cgroup), Arc::clone(ledger)).helped(self.helper.clone());
        self.below = Some(cgroup.to_owned());
        self
    }

    /// Takes a name server's answer.
    pub fn answer(&mut self, head: &DnsEvent, message: &[u8]) {
        if let Some(names) = &mut self.names {
            names.on(&Answer {
                time: KernelTime(head.time),
                asker: Asker { cgroup: head.cgroup, netns: head.netns, uid: head.uid },
                asked: &head.asked[..(head.asked_length as usize).min(head.asked.len())],
                payload: message,
                truncated: head.whole > head.length,
            });
        }
    }

    /// Takes what the kernel told of a process, in the order of time, and before the events that it explains.
    pub fn told(&mut self, told: &Told<'_>) {
        self.processes.told(told);
    }

    /// All that the kernel told of processes was taken, as far as this goes.
    pub fn reaches(&mut self, reach: Reach) {
        self.processes.reaches(reach);
    }

    /// Takes network namespaces that are known for certain: cookie and inode number of each.
    pub fn learn_namespaces(&mut self, namespaces: &[(u64, u32)]) {
        namespaces.iter().for_each(|(cookie, inode)| self.namespaces.learn(*cookie, *inode));
    }

    /// Whether questions go to the helper: then they are better asked [ahead](Self::ahead).
    pub fn is_helped(&self) -> bool {
        self.helper.is_some()
    }

    /// Asks the helper, once for all of these process ids and times, for what [`Self::notice`] and [`Self::enrich`] will ask.
    pub fn ahead(&mut self, callers: impl Iterator<Item = (u32, KernelTime)>) {
        self.processes.ahead(callers);
    }

    /// Looks at a kernel event as soon as it is read: a process that asks for a connection may be gone a moment later.
    pub fn notice(&mut self, event: &KernelEvent) {
        if let Event::Netns(met) = &event.event {
            return self.namespaces.on(met);
        }
        let Some(pid) = caller(&event.event) else { return };
        self.processes.notice(pid, event.time);
        if let Some(hierarchies) = &mut self.hierarchies {
            let _ = hierarchies.of(pid, event.time);
        }
    }

    /// Counts what it means for names: each event once, whether or not it becomes a record of its own.
    pub fn count(&self, event: &FlowEvent) {
        if let (Some(names), What::Begin { .. }) = (&self.names, &event.what)
            && event.flow.direction == Some(Direction::Outgoing)
        {
            names.connects(event.flow.destination.port());
        }
    }

    /// Adds what is known.
    pub fn enrich<'a>(&'a mut self, event: &'a FlowEvent) -> Enriched<'a> {
        let owner = event.flow.owner;
        let process = owner.and_then(|owner| self.processes.process(owner.pid, owner.since));
        let place = owner.and_then(|owner| self.place(owner));
        let netns = self.namespaces.of(event.flow.netns);
        let interface = netns.and_then(|netns| self.interface(event, netns));
        let reader = Reader {
            netns: netns.and_then(|netns| netns.cookie).unwrap_or_default(),
            owner: owner.map(|owner| (owner.cgroup, owner.uid)),
            hosts: netns.is_some_and(|netns| netns.host == Some(true) || self.namespaces.is_own(&netns)),
        };
        let names = |ip: IpAddr| self.names.as_ref().and_then(|names| names.names(ip, &reader, event.at.time));
        Enriched {
            event,
            source_names: names(event.flow.source.ip()),
            destination_names: names(event.flow.destination.ip()),
            process,
            place,
            netns,
            interface,
            fold: None,
        }
    }

    /// The name of the interface that a flow's link-local addresses belong to.
    fn interface(&mut self, event: &FlowEvent, netns: Namespace) -> Option<Arc<str>> {
        let flow = &event.flow;
        if flow.interface == 0 || !is_link_local(flow.source.ip()) && !is_link_local(flow.destination.ip()) {
            return None;
        }
        let pid = flow.owner.map(|owner| owner.pid);
        self.interfaces.name(&self.namespaces, netns, flow.interface, pid)
    }

    /// Where an owner runs. Version 2 of cgroups is asked first: its answer is of the very moment of the event.
    fn place(&mut self, owner: Owner) -> Option<Arc<Place>> {
        let place = self.places.of(owner.cgroup);
        let Some(hierarchies) = &mut self.hierarchies else { return place };
        let contained = place.as_ref().is_some_and(|place| place.container_id.is_some());
        if contained { place } else { hierarchies.of(owner.pid, owner.since).or(place) }
    }

    /// Goes on with changed settings. Names that are known stay known, within the new limits; what is known of processes
    /// and cgroups is looked up anew. Whether there are names at all (`dns.enabled`) is decided at the start, with the
    /// programs.
    pub fn reconfigure(&mut self, old: &config::Config, new: &config::Config, ledger: &Arc<Ledger>) {
        if let Some(names) = self.names.as_mut().filter(|_| old.dns != new.dns) {
            names.reconfigure(&new.dns);
        }
        if old.owner != new.owner {
            self.processes.reconfigure(&new.owner);
            let places = Places::below(&new.owner, self.below.as_deref(), Arc::clone(ledger));
            self.places = places.helped(self.helper.clone());
            self.hierarchies = Hierarchies::new(&new.owner);
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
