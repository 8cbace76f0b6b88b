//! Connections that are older than flowtel, watched until they are gone. The programs tell their FINs and RSTs; whether a
//! socket is over then, or was closed without a word, only the kernel's list can tell. So a segment makes this look at its
//! socket in each round of a moment, and every socket is looked at now and again.
//!
//! One look is one system call and some microseconds; their number in one round is bounded. A socket that is gone is told
//! one round later: whatever the programs told of it before is read by then.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use flowtel_common::event::{Counters, Event, state};

use super::{Cookies, Diag, Found, Key};
use crate::capture::{KernelEvent, KernelTime};

/// The most looks in one round.
const MOST_LOOKS: usize = 1024;
/// How long a socket is looked at in each round after a segment: it is told before its socket has taken it, and that may
/// take a while where a process holds the socket (sk_add_backlog, net/ipv4/tcp_ipv4.c).
const MOMENT: Duration = Duration::from_millis(200);
/// How long no socket goes without a look, unless they are too many for it.
const TURN: Duration = Duration::from_secs(10);

/// A socket that is no more.
#[derive(Debug, Clone, Copy)]
pub struct Gone {
    /// Which (SO_COOKIE).
    pub cookie: u64,
    /// When that was seen.
    pub time: KernelTime,
    /// When it was last seen.
    pub alive: KernelTime,
    /// Its [`state`] then.
    pub state: u32,
    /// What it had counted then.
    pub counters: Counters,
}

/// All that are watched.
#[derive(Debug)]
pub struct Older {
    sockets: HashMap<u64, Watched>,
    /// Each with the number of its sockets; `None` after the last of them: an open one keeps its namespace alive.
    namespaces: Vec<Option<(Diag, usize)>>,
    cookies: Cookies,
    /// When the list was read.
    time: KernelTime,
    /// Whose turn it is, and since when each waits. What is gone stays in it until its turn comes.
    turn: VecDeque<(KernelTime, u64)>,
    /// Those to be looked at in each round, each once.
    urgent: VecDeque<u64>,
    gone: Vec<Gone>,
}

#[derive(Debug)]
struct Watched {
    namespace: usize,
    key: Key,
    alive: KernelTime,
    state: u32,
    counters: Counters,
    /// When it became urgent last; `None` where it is not.
    urgent: Option<KernelTime>,
}

// === impl Older

impl Older {
    /// Watches none yet, of these namespaces. The list was read at `time`.
    pub(super) fn new(namespaces: Vec<Diag>, cookies: Cookies, time: KernelTime) -> Self {
        Self {
            sockets: HashMap::new(),
            namespaces: namespaces.into_iter().map(|diag| Some((diag, 0))).collect(),
            cookies,
            time,
            turn: VecDeque::new(),
            urgent: VecDeque::new(),
            gone: Vec::new(),
        }
    }

    /// Expects so many.
    pub fn reserve(&mut self, many: usize) {
        self.sockets.reserve(many);
        self.turn.reserve(many);
    }

    /// Watches one that `is_older`; another is no longer known to the kernel side.
    pub fn add(&mut self, found: Found, is_older: bool) {
        let Found { cookie, state, namespace, counters, key, .. } = found;
        if !is_older {
            self.cookies.remove(cookie);
            return;
        }
        if let Some(Some((_, sockets))) = self.namespaces.get_mut(namespace) {
            *sockets += 1;
        }
        let time = self.time;
        self.sockets.insert(cookie, Watched { namespace, key, alive: time, state, counters, urgent: None });
        self.turn.push_back((time, cookie));
        if waits_for_ack(state) {
            self.hurry(cookie, time);
        }
    }

    /// All were added: leaves namespaces that have none.
    pub fn all_added(&mut self) {
        for namespace in &mut self.namespaces {
            namespace.take_if(|(_, sockets)| *sockets == 0);
        }
    }

    /// Whether some are gone, and that is to be told in the next round.
    pub fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sees what the programs tell: a segment that may end a connection, or the end itself.
    pub fn notice(&mut self, event: &KernelEvent) {
        match &event.event {
            Event::Fin(fin) => self.hurry(fin.cookie, event.time),
            Event::Reset(reset) => self.hurry(reset.cookie, event.time),
            Event::Close(close) => self.forget(close.cookie),
            _ => {}
        }
    }

    /// Gives out what was seen to be gone in the round before, and not told otherwise since.
    pub fn gone(&mut self, mut tell: impl FnMut(&Gone)) {
        for gone in std::mem::take(&mut self.gone) {
            if self.sockets.contains_key(&gone.cookie) {
                self.forget(gone.cookie);
                tell(&gone);
            }
        }
    }

    /// Looks at some.
    pub fn look(&mut self, now: KernelTime) {
        let mut looks = 0;
        for _ in 0..self.urgent.len().min(MOST_LOOKS) {
            let Some(cookie) = self.urgent.pop_front() else { break };
            looks += 1;
            let state = self.look_at(cookie, now);
            let Some(watched) = self.sockets.get_mut(&cookie) else { continue };
            let fresh = |since: KernelTime| u128::from(now.since(since)) < MOMENT.as_nanos();
            if state.is_some_and(|state| waits_for_ack(state) || watched.urgent.is_some_and(fresh)) {
                self.urgent.push_back(cookie);
            } else {
                watched.urgent = None;
            }
        }
        while looks < MOST_LOOKS
            && let Some((since, cookie)) = self.turn.front().copied()
            && u128::from(now.since(since)) >= TURN.as_nanos()
        {
            looks += 1;
            self.turn.pop_front();
            if self.look_at(cookie, now).is_some() {
                self.turn.push_back((now, cookie));
            }
        }
    }

    /// Looks at one. Returns its state; `None` where it is gone, or not watched any more.
    fn look_at(&mut self, cookie: u64, now: KernelTime) -> Option<u32> {
        let watched = self.sockets.get_mut(&cookie)?;
        let (diag, _) = self.namespaces.get_mut(watched.namespace)?.as_mut()?;
        match diag.look(&watched.key) {
            Ok(Some(socket)) => {
                watched.alive = now;
                watched.state = socket.state;
                watched.counters = socket.counters;
                Some(socket.state)
            }
            Ok(None) => {
                let Watched { alive, state, counters, .. } = *watched;
                self.gone.push(Gone { cookie, time: KernelTime::now(), alive, state, counters });
                None
            }
            // The kernel is short of memory: another time.
            Err(_) => Some(watched.state),
        }
    }

    fn hurry(&mut self, cookie: u64, since: KernelTime) {
        if let Some(watched) = self.sockets.get_mut(&cookie)
            && watched.urgent.replace(since).is_none()
        {
            self.urgent.push_back(cookie);
        }
    }

    fn forget(&mut self, cookie: u64) {
        let Some(watched) = self.sockets.remove(&cookie) else { return };
        self.cookies.remove(cookie);
        if let Some(namespace) = self.namespaces.get_mut(watched.namespace) {
            if let Some((_, sockets)) = namespace {
                *sockets -= 1;
            }
            namespace.take_if(|(_, sockets)| *sockets == 0);
        }
    }
}

/// Whether a socket in this state is over as soon as its FIN is acknowledged, which no segment tells.
fn waits_for_ack(state: u32) -> bool {
    matches!(state, state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK)
}
