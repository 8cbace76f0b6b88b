//! What clients say first over TLS: segments of ClientHellos come in before the events of their flows, wait until they are whole
//! and their flow is known, and are told once for each flow.
//!
//! A hello is told as it is when its rest has not come after [`LINGERS`], or when its socket is closed. One that came to a
//! listening socket belongs to the socket that this makes of it; where none is made it belongs to nobody.
//!
//! Bounded: the oldest that isn't whole is told as it is when there are more than [`MOST`].

use std::{net::SocketAddr, time::Duration};

use flowtel_common::event::{self, AT_LISTENER, Established, Hello as Segment};
use hashbrown::HashMap;

use super::{Direction, Flow, FlowEvent, Stamp, What, aged::Aged, flows::Flows};
use crate::{
    capture::{Clock, KernelTime, NetnsId},
    tls::{Assembly, Read},
};

/// How long the rest of a hello is waited for: a segment that was lost is sent again within a second (RFC 6298, 2).
const LINGERS: Duration = Duration::from_millis(1500);
/// The most hellos that wait, and flows outside of the table of open ones that are known to be told.
const MOST: usize = 4096;

/// A hello that is not told yet.
#[derive(Debug)]
struct Waiting {
    assembly: Assembly,
    whole: bool,
    /// Events that it is made of.
    parts: u64,
    /// When the first of them passed.
    at: Stamp,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connection that a listening socket has not taken yet: its cookie, the peer, the own end.
type Untaken = (u64, SocketAddr, SocketAddr);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Hellos {
    waiting: Aged<Waiting>,
    untaken: HashMap<Untaken, Waiting, foldhash::fast::RandomState>,
    /// Sockets that are in no table of open flows, and whose hello was told.
    told: Aged<()>,
}

// === impl Hellos

impl Hellos {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.len() == 0 && self.untaken.is_empty()
    }

    fn is_told(&mut self, cookie: u64) -> bool {
        if self.told.contains(cookie) {
            return true;
        }
        if self.told.len() >= MOST {
            self.told.pop_oldest();
        }
        self.told.insert(cookie, ());
        false
    }
}

// === impl Waiting

impl Waiting {
    fn new(at: Stamp, segment: &Segment) -> Self {
        Self {
            assembly: Assembly::default(),
            whole: false,
            parts: 0,
            at,
            local: SocketAddr::new(event::ip(segment.local), segment.local_port),
            remote: SocketAddr::new(event::ip(segment.remote), segment.remote_port),
        }
    }

    /// Takes a segment. Returns whether it says anything new.
    fn add(&mut self, segment: &Segment, bytes: &[u8]) -> bool {
        let new = !self.whole && self.assembly.add(segment.at, bytes);
        if new {
            self.parts += 1;
            // What is no hello is not to wait either.
            self.whole = !matches!(self.assembly.read(), Read::Part(_)) && !self.assembly.bytes().is_empty();
        }
        new
    }
}

// === impl Flows

impl Flows {
    /// Takes a segment of a hello. To be called before [`Self::on`] is, with the events of the same reading.
    pub fn hello(&mut self, segment: &Segment, bytes: &[u8], clock: &Clock) {
        let time = KernelTime(segment.time);
        let wall = clock.wall(time);
        let at = Stamp { time, wall, observed: clock.wall(KernelTime::now()).max(wall) };
        let kind = &self.ledger.kernel.hello;
        if segment.way & AT_LISTENER != 0 {
            let fresh = Waiting::new(at, segment);
            let key = (segment.cookie, fresh.remote, fresh.local);
            let untaken = &mut self.hellos.untaken;
            if untaken.len() >= MOST && !untaken.contains_key(&key) {
                kind.evicted.add(1);
                return;
            }
            if !untaken.entry(key).or_insert(fresh).add(segment, bytes) {
                kind.unused.add(1);
            }
            return;
        }
        let cookie = segment.cookie;
        if self.open.peek(cookie).is_some_and(|open| open.hello) {
            kind.unused.add(1);
            return;
        }
        if self.hellos.waiting.get_mut(cookie).is_none() {
            if self.hellos.waiting.len() >= MOST
                && let Some((oldest, waiting)) = self.hellos.waiting.pop_oldest()
            {
                self.tell_hello(oldest, waiting);
            }
            self.hellos.waiting.insert(cookie, Waiting::new(at, segment));
        }
        let new = self.hellos.waiting.get_mut(cookie).is_some_and(|waiting| waiting.add(segment, bytes));
        if !new {
            self.ledger.kernel.hello.unused.add(1);
        }
    }

    /// A listening socket took a connection, which `at` is the begin of: what came with it is the new socket's.
    pub(super) fn hello_taken(&mut self, established: &Established, at: Stamp) {
        if self.hellos.untaken.is_empty() {
            return;
        }
        let [local, remote] =
            [(established.local, established.local_port), (established.remote, established.remote_port)]
                .map(|(address, port)| SocketAddr::new(event::ip(address), port));
        let Some(mut first) = self.hellos.untaken.remove(&(established.listener, remote, local)) else { return };
        let cookie = established.cookie;
        // It came with the segment that completed the handshake: not before that.
        if first.at.time < at.time {
            first.at = Stamp { observed: first.at.observed, ..at };
        }
        // What followed it was read already.
        if let Some(rest) = self.hellos.waiting.remove(cookie) {
            first.parts += rest.parts;
            first.assembly.join(rest.assembly);
            first.whole = !matches!(first.assembly.read(), Read::Part(_));
        }
        self.hellos.waiting.insert(cookie, first);
    }

    /// The socket is closed: no more comes.
    pub(super) fn hello_over(&mut self, cookie: u64) {
        if self.hellos.waiting.len() > 0
            && let Some(waiting) = self.hellos.waiting.remove(cookie)
        {
            self.tell_hello(cookie, waiting);
        }
    }

    /// Tells hellos that are whole, and those whose rest does not come, where all that happened up to `now` was taken; all where it
    /// is `None`.
    pub(super) fn settle_hellos(&mut self, now: Option<KernelTime>) {
        if self.hellos.is_empty() {
            return;
        }
        let is_old = |at: &Stamp| now.is_none_or(|now| u128::from(now.since(at.time)) >= LINGERS.as_nanos());
        let is_due = |cookie: u64, waiting: &Waiting| {
            let known = now.is_none_or(|now| waiting.at.time <= now);
            known && (waiting.whole || is_old(&waiting.at) || self.closed.contains_key(&cookie))
        };
        let due = self.hellos.waiting.iter().filter(|(cookie, waiting)| is_due(*cookie, waiting));
        let due: Vec<u64> = due.map(|(cookie, _)| cookie).collect();
        for cookie in due {
            if let Some(waiting) = self.hellos.waiting.remove(cookie) {
                self.tell_hello(cookie, waiting);
            }
        }
        let unused = &self.ledger.kernel.hello.unused;
        self.hellos.untaken.retain(|_, waiting| {
            let old = is_old(&waiting.at);
            if old {
                unused.add(waiting.parts);
            }
            !old
        });
    }

    /// Has a hello wait with everything else, as that of its flow.
    fn tell_hello(&mut self, cookie: u64, waiting: Waiting) {
        let kind = &self.ledger.kernel.hello;
        let Waiting { assembly, parts, at, local, remote, .. } = waiting;
        let Some(hello) = assembly.hello() else {
            kind.unused.add(parts);
            return;
        };
        let known = match self.open.get(cookie) {
            Some(open) => (!std::mem::replace(&mut open.hello, true)).then(|| (open.flow.clone(), open.own)),
            None if self.hellos.is_told(cookie) || self.vanished.holds(cookie) => None,
            None => Some(self.hello_untied(cookie, at, local, remote)),
        };
        let kind = &self.ledger.kernel.hello;
        let Some((flow, own)) = known else {
            kind.unused.add(parts);
            return;
        };
        if own {
            kind.own.add(parts);
            return;
        }
        kind.joined.add(parts);
        let told = FlowEvent { at, flow, what: What::ClientHello { hello: Box::new(hello) } };
        self.settling.hold(told, cookie, at.time, false, false);
    }

    /// The flow of a hello that is not among the open ones, and whether it is flowtel's own.
    fn hello_untied(&mut self, cookie: u64, at: Stamp, local: SocketAddr, remote: SocketAddr) -> (Flow, bool) {
        if let Some(held) = self.closed.get(&cookie).and_then(|place| self.settling.get(*place)) {
            return (held.event.flow.clone(), held.own);
        }
        if let Some(flow) = self.older.flow_of(&self.boot, cookie) {
            return (flow, self.own_sockets.is_inherited(cookie));
        }
        // Where its begin was lost, who asked for it is known still.
        let attempt = self.attempts.get(cookie, at.time).map(|attempt| *attempt);
        let own = attempt.is_some_and(|attempt| self.is_own(&attempt)) || self.own_sockets.is_inherited(cookie);
        let mut flow = Flow::new(&self.boot, cookie, local, remote, attempt.map(|_| Direction::Outgoing));
        flow.came_of(attempt.as_ref(), &self.boot, at.time);
        (flow.owner, flow.netns) = attempt.map_or((None, NetnsId::UNKNOWN), |attempt| (attempt.owner, attempt.netns));
        (flow, own)
    }

    /// A hello that has waited, with what is known of its flow by now.
    pub(super) fn told_hello(&self, event: &FlowEvent, cookie: u64) -> FlowEvent {
        let mut event = event.clone();
        if let Some(open) = self.open.peek(cookie).filter(|open| open.began <= event.at.time) {
            event.flow = open.flow.clone();
        }
        event
    }
}
