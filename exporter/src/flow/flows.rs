//! The flow stage: events by cookie become begins (`begins`), ends and failures (`ends`), which wait a moment and are told.

use std::{fmt, net::SocketAddr, sync::Arc};

use flowtel_common::event::{self, Event};
use hashbrown::{HashMap, hash_map::Entry};

use super::{
    BootId, CommunityId, FlowEvent, Owner, Role, Stamp, What,
    attempts::{Attempt, Attempts},
    audited::Vanished,
    early::Early,
    hellos::Hellos,
    listeners::Listeners,
    older::OlderFlows,
    open::OpenFlows,
    own::{Own, OwnSockets},
    refusals::{self, Refusal, Refusals},
    settle::{Place, Settling},
    updates::Untied,
    waits::Waits,
};
use crate::{
    capture::{Earlier, KernelEvent, KernelTime, NetnsId, WallTime},
    config,
    ledger::{Kind, Ledger},
};

mod begins;
mod ends;

pub(super) use ends::ended;

/// Entries of the waiting line whose memory is kept when it is empty.
const KEEP: usize = 1 << 12;

/// The flow stage.
#[derive(Debug)]
pub struct Flows {
    pub(super) attempts: Attempts,
    pub(super) waits: Waits,
    pub(super) open: OpenFlows,
    pub(super) older: OlderFlows,
    /// What was told of open flows that are in neither.
    pub(super) untied: Untied,
    /// Open flows are told now and then.
    pub(super) updated: bool,
    /// What clients say first over TLS.
    pub(super) hellos: Hellos,
    pub(super) listeners: Listeners,
    pub(super) vanished: Vanished,
    /// Where the audit goes on in the table of open flows.
    pub(super) audited: u32,
    pub(super) settling: Settling,
    refusals: Refusals,
    /// Calls of accept() whose flow has not begun.
    early: Early,
    /// Whether a process that listened is still there.
    lives: Lives,
    /// Begins that name a listener, and of which that was not asked yet, each with its socket.
    doubted: Vec<(Place, u64)>,
    /// Begins whose other end was not seen yet, by what both ends have in common.
    unmatched: HashMap<CommunityId, Place, foldhash::fast::RandomState>,
    /// Ends that are held, by cookie: a local reset leaves after its socket is closed.
    pub(super) closed: HashMap<u64, Place, foldhash::fast::RandomState>,
    pub(super) events: config::Events,
    pub(super) acceptors: bool,
    pub(super) boot: BootId,
    /// When all programs were attached. What became of an attempt that was made before may have happened unseen.
    pub(super) watched: KernelTime,
    own: Own,
    pub(super) own_sockets: OwnSockets,
    lost: Lost,
    pub(super) ledger: Arc<Ledger>,
}

/// A question that the flow stage is given.
struct Lives(Option<Question>);

type Question = Box<dyn FnMut(&Owner) -> bool + Send>;

impl fmt::Debug for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lives").field(&self.0.is_some()).finish()
    }
}

/// Events of flows that the kernel had no room for.
#[derive(Debug, Default)]
struct Lost {
    events: u64,
    /// When it was known last that there were more of them: nothing that comes later was lost with these.
    at: KernelTime,
}

// === impl Flows

impl Flows {
    /// A fresh stage that follows flows as far as `capture.events` needs it, and waits for acceptors where `owner` has
    /// them told. `boot` goes into every id. `own` is flowtel's process id as the kernel sees it, where its own
    /// connections are to be left out.
    pub fn new(config: &config::Config, boot: BootId, own: Option<u32>, ledger: Arc<Ledger>) -> Self {
        Self {
            attempts: Attempts::new(config.flow.max_attempts as usize, config.flow.attempt_age.0),
            waits: Waits::default(),
            open: OpenFlows::new(config.flow.max_flows as usize),
            older: OlderFlows::default(),
            untied: Untied::new(config.flow.max_flows as usize),
            updated: config.updates().is_some(),
            hellos: Hellos::default(),
            listeners: Listeners::default(),
            vanished: Vanished::default(),
            audited: 0,
            settling: Settling::default(),
            refusals: Refusals::default(),
            early: Early::default(),
            lives: Lives(None),
            doubted: Vec::new(),
            unmatched: HashMap::default(),
            closed: HashMap::default(),
            events: config.capture.events,
            acceptors: config.owner.acceptor,
            boot,
            watched: KernelTime::default(),
            own: Own::new(own),
            own_sockets: OwnSockets::default(),
            lost: Lost::default(),
            ledger,
        }
    }

    /// Programs are attached one after the other: the last was at `since`. Of an attempt that was made before, nothing more
    /// may ever be told, though it succeeded. To be called before any event.
    pub fn watches_since(&mut self, since: KernelTime) {
        self.watched = since;
    }

    /// Has `lives` say whether the process of an owner is still there: a listener that is no longer owns nothing that its
    /// socket takes. Asked when a begin was read that nobody was seen to accept so far.
    pub fn ask_lives(&mut self, lives: impl FnMut(&Owner) -> bool + Send + 'static) {
        self.lives = Lives(Some(Box::new(lives)));
    }

    /// Leaves out the connections of the flowtel before this one too, as far as they are its own. To be called before any
    /// event, where its own are left out.
    pub fn inherit(&mut self, earlier: &Earlier) {
        self.own.inherit(earlier);
        self.own_sockets.inherit(earlier);
    }

    /// flowtel's own process id, where its connections are left out, and their sockets that are open.
    pub fn own(&self) -> (Option<u32>, impl Iterator<Item = u64>) {
        (self.own.id(), self.own_sockets.iter())
    }

    /// Takes one event. Events come in the order of kernel time, but some may be missing or late.
    pub fn on(&mut self, event: &KernelEvent) {
        match &event.event {
            Event::Connect(call) => self.asks(event, call),
            Event::Bind(caller) => self.binds(event, caller),
            Event::Listen(caller) => self.listens(event, caller),
            Event::Unlisten(socket) => {
                let kind = &self.ledger.kernel.unlisten;
                if self.listeners.closed(socket.cookie) { kind.joined.add(1) } else { kind.unused.add(1) }
            }
            Event::Accept(accept) => self.accepts(event, accept),
            Event::Release(release) => self.drops(event, release),
            Event::SynAgain(syn) => self.in_attempt(
                event,
                syn.cookie,
                |kernel| &kernel.syn_again,
                |attempt, time| {
                    attempt.again = Some(time);
                },
            ),
            Event::UsedAgain(socket) => self.in_attempt(
                event,
                socket.cookie,
                |kernel| &kernel.used_again,
                |attempt, _| {
                    attempt.used_again = true;
                },
            ),
            Event::Established(established) => self.begins(event, established),
            Event::Fin(fin) => self.fin(event, fin),
            Event::Reset(segment) => self.reset(event, segment),
            Event::Close(close) => self.closes(event, close),
            Event::Update(update) => self.updates(event, update),
            // Who knows namespaces has noticed it.
            Event::Netns(_) => self.ledger.kernel.netns.joined.add(1),
            Event::Refused(refused) => {
                self.ledger.kernel.refused.joined.add(1);
                let refusal = Refusal {
                    at: stamp(event, event.time),
                    source: SocketAddr::new(event::ip(refused.remote), refused.remote_port),
                    destination: SocketAddr::new(event::ip(refused.local), refused.local_port),
                    netns: NetnsId::of_inode(refused.netns_inode),
                    proven: refused.proven != 0,
                };
                if let Some(refusal) = self.refusals.add(refusal) {
                    let told = refusals::single(&self.boot, &refusal);
                    self.settling.hold(told, 0, event.time, false, false);
                }
            }
        }
    }

    /// Gives out what has settled by `now`, in the order in which it happened, and forgets attempts that are too old.
    pub fn settle(&mut self, now: KernelTime, mut out: impl FnMut(&FlowEvent)) {
        let events = self.ledger.flows_ring_full();
        if events != self.lost.events {
            self.lost = Lost { events, at: now };
        }
        self.doubt();
        self.settle_hellos(Some(now));
        self.waited(Some(now));
        // What becomes of them nobody knows: the kernel may be trying still, they may wait for their first write (Fast Open), or
        // connect() failed and the socket is kept.
        while self.attempts.expire(now).is_some() {
            self.ledger.kernel.connect.unused.add(1);
        }
        self.ledger.kernel.accept.unused.add(self.early.forget(Some(now)));
        self.refusals.tell(&self.boot, Some(now), |event| out(&event));
        self.release(Some(now), out);
    }

    /// Gives out everything that waits: nothing more will come.
    pub fn flush(&mut self, mut out: impl FnMut(&FlowEvent)) {
        self.doubt();
        self.settle_hellos(None);
        self.waited(None);
        self.ledger.kernel.accept.unused.add(self.early.forget(None));
        self.refusals.tell(&self.boot, None, |event| out(&event));
        self.release(None, out);
    }

    /// Goes on with changed limits of its tables. The oldest that are over a limit are forgotten, and counted.
    pub fn set_limits(&mut self, config: &config::Flow) {
        self.attempts.set_limits(config.max_attempts as usize, config.attempt_age.0, &self.ledger.kernel);
        self.ledger.flows_forgotten.add(self.open.set_limit(config.max_flows as usize));
        self.untied.set_limit(config.max_flows as usize);
    }

    /// Whether nothing waits to be told.
    pub fn is_quiet(&self) -> bool {
        self.settling.is_empty()
            && self.early.is_empty()
            && self.refusals.is_empty()
            && self.waits.is_empty()
            && self.hellos.is_empty()
    }

    /// How many attempts are open.
    pub fn open_attempts(&self) -> usize {
        self.attempts.len()
    }

    /// How many flows are open.
    pub fn open_flows(&self) -> usize {
        self.open.len() + self.older.len()
    }

    fn release(&mut self, now: Option<KernelTime>, mut out: impl FnMut(&FlowEvent)) {
        while let Some((place, held)) = self.settling.next(now) {
            match held.event.what {
                What::Update { .. } => {
                    let (event, cookie, own) = (held.event.clone(), held.cookie, held.own);
                    self.settling.told();
                    if let Some(event) = self.told_update(&event, cookie).filter(|_| !own) {
                        out(&event);
                    }
                    continue;
                }
                What::ClientHello { .. } => {
                    let (event, cookie) = (held.event.clone(), held.cookie);
                    self.settling.told();
                    out(&self.told_hello(&event, cookie));
                    continue;
                }
                What::Begin { .. } => {
                    if held.unmatched
                        && let Some(id) = held.event.flow.community_id
                        && let Entry::Occupied(unmatched) = self.unmatched.entry(id)
                        && *unmatched.get() == place
                    {
                        unmatched.remove();
                    }
                    self.count(&self.ledger.kernel.established, held.own);
                    if !self.events.needs_ends() {
                        // Nobody will ask for it again: its end is not watched for.
                        self.open.remove(held.cookie);
                    }
                }
                What::End { .. } | What::Vanished => {
                    if let Entry::Occupied(closed) = self.closed.entry(held.cookie)
                        && *closed.get() == place
                    {
                        closed.remove();
                    }
                    if held.own {
                        self.own_sockets.remove(held.cookie);
                    }
                }
                What::Open | What::Failed { .. } => {}
            }
            if !held.own {
                out(&held.event);
            }
            self.settling.told();
        }
        self.settling.shrink(KEEP);
        if self.settling.is_empty() {
            // Nothing that waits is in these either.
            self.unmatched.shrink_to(KEEP);
            self.closed.shrink_to(KEEP);
        }
    }

    /// Asks whether the listeners that new begins name are still there. If so they were when these began.
    fn doubt(&mut self) {
        while let Some((begin, cookie)) = self.doubted.pop() {
            let held = self.settling.get(begin).filter(|held| held.names_listener());
            if let (Some(owner), Lives(Some(lives))) = (held.and_then(|held| held.event.flow.owner), &mut self.lives)
                && !lives(&owner)
            {
                self.disown(begin, cookie);
            }
        }
        self.doubted.shrink_to(KEEP);
    }

    /// The process that listened is gone: who has its socket now nobody saw.
    fn disown(&mut self, begin: Place, cookie: u64) {
        if let Some(held) = self.settling.get(begin) {
            held.event.flow.owner = None;
        }
        let closed = self.closed.get(&cookie).and_then(|place| self.settling.get(*place));
        let flows = [self.open.get(cookie).map(|open| &mut open.flow), closed.map(|held| &mut held.event.flow)];
        for flow in flows.into_iter().flatten() {
            flow.owner = flow.owner.filter(|owner| owner.role != Role::Listener);
        }
    }

    /// Whether an attempt is flowtel's own.
    pub(super) fn is_own(&self, attempt: &Attempt) -> bool {
        self.own.asked(attempt)
    }

    pub(super) fn count(&self, kind: &Kind, own: bool) {
        if own { kind.own.bump() } else { kind.joined.bump() }
    }
}

/// When `event` happened, or something that led to it at `time`.
pub(super) fn stamp(event: &KernelEvent, time: KernelTime) -> Stamp {
    // The event's own wall time, less the way back.
    let wall = WallTime(event.wall.0.saturating_sub(event.time.since(time)));
    Stamp { time, wall, observed: event.read }
}
