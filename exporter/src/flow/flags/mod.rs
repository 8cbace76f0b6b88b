//! TCP segments in, [`FlowEvent`]s out, by SYN, ACK, FIN and RST flags and sequence numbers alone: what `flowtel replay`
//! makes of a capture, and the reference for what flags can tell.
//!
//! - [`FlagFlows`] joins segments by their two endpoints and decides;
//! - `attempt`: handshakes, whose segments may come in any order;
//! - `connection`, `half`: connections, and what each end has sent;
//! - `hellos`: what their clients say first over TLS;
//! - `updates`: what has passed so far, every so often;
//! - `table`: both by endpoints, bounded.
//!
//! A connection makes one record of each kind, for a capture shows it once and not once a side. Times are those of the
//! packets. Everything is told once; what segments lead to nothing is counted.

mod attempt;
mod connection;
mod half;
mod hellos;
mod table;
#[cfg(test)]
mod tests;
mod updates;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use flowtel_common::packet::Flags;
use ipnet::IpNet;

use self::{
    attempt::{Answer, Attempt, Syn},
    connection::{Connection, Meaning},
    half::Half,
    hellos::{MOST_SAYING, Saying},
    table::{Pair, Table},
};
use super::{BootId, Cause, Direction, EndReason, Evidence, FailReason, Flow, FlowEvent, Stamp, What, updates::Passed};
use crate::{
    capture::{
        KernelTime, WallTime,
        pcap::{Segment, Tunnel},
    },
    ledger::{Counter, Ledger, Replay},
};

/// The key of all ids that are made here: the same capture gives the same ids, wherever it is read.
pub const REPLAY: BootId = BootId::new(*b"flowtel replay 1");

/// An attempt without an answer is over this long after its last SYN: Linux sends six more, the last after 63 s, and gives
/// up 64 s later (tcp_syn_retries in ip-sysctl).
const GIVES_UP: Duration = Duration::from_secs(130);
/// An attempt that is this old at the capture's end has failed; a younger one may have been answered just after. (A first
/// SYN is repeated after 1 s: RFC 6298, 2.1.)
const UNANSWERED: Duration = Duration::from_secs(1);
/// For so long a segment of endpoints whose connection is over belongs to that one (TIME_WAIT is 60 s).
const LINGER: Duration = Duration::from_secs(60);

/// How the flag logic is bounded, and from where it looks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The most handshakes that are followed.
    pub attempts: usize,
    /// The most connections that are followed, and that are remembered once they are over.
    pub flows: usize,
    /// Networks that are local: what decides the direction.
    pub local: Vec<IpNet>,
    /// How often a connection that is open is told, by the times of its packets; `None`: never.
    pub update: Option<Duration>,
    /// What clients say first over TLS is told.
    pub hellos: bool,
}

/// The flag logic.
#[derive(Debug)]
pub struct FlagFlows {
    attempts: Table<Attempt>,
    open: Table<Connection>,
    over: Table<Over>,
    /// What is said first over open connections, and isn't whole.
    saying: Table<Saying>,
    settings: Settings,
    /// The latest time that a packet had.
    last: KernelTime,
    /// How many segments were taken.
    taken: u64,
    /// The latest time of what is not remembered any more: what is as old as that may have been told before.
    forgotten: KernelTime,
    ledger: Arc<Ledger>,
}

/// Nanoseconds between two packets; `None` where one has no time.
fn between(from: KernelTime, to: KernelTime) -> Option<u64> {
    (from.0 > 0 && to.0 > 0).then(|| to.since(from))
}

/// A connection or an attempt that is over.
#[derive(Debug, Clone, Copy)]
struct Over {
    at: KernelTime,
    /// The latest time of its segments.
    last: KernelTime,
    /// The initiator, and the number of its SYN: one that comes again is no new attempt.
    syn: Option<(SocketAddr, u32)>,
    /// Of an attempt that failed.
    failed: bool,
    /// The failed attempt's SYN, sent again after that: some systems ask three times although they were refused.
    again: Option<Syn>,
}

// === impl FlagFlows

impl FlagFlows {
    /// A fresh stage.
    pub fn new(settings: Settings, ledger: Arc<Ledger>) -> Self {
        Self {
            attempts: Table::new(settings.attempts),
            open: Table::new(settings.flows),
            over: Table::new(settings.flows),
            saying: Table::new(MOST_SAYING),
            settings,
            last: KernelTime(0),
            taken: 0,
            forgotten: KernelTime(0),
            ledger,
        }
    }

    /// Takes one segment, and gives out what it leads to.
    pub fn on(&mut self, segment: &Segment, out: impl FnMut(FlowEvent)) {
        self.on_payload(segment, &[], out);
    }

    /// The same with what was captured of its payload.
    pub fn on_payload(&mut self, segment: &Segment, payload: &[u8], mut out: impl FnMut(FlowEvent)) {
        // What a connection's last segment says comes before its end, what its first says after its begin.
        let said = self.said(segment, payload, &mut out);
        self.take(segment, &mut out);
        if !said {
            self.said(segment, payload, &mut out);
        }
    }

    fn take(&mut self, segment: &Segment, out: &mut impl FnMut(FlowEvent)) {
        self.last = self.last.max(segment.time);
        self.taken += 1;
        self.expire(segment.time, out);
        let pair = Pair::new(segment.source, segment.destination);
        let joined = if segment.source == segment.destination {
            // Nobody can tell such a connection's ends apart.
            false
        } else if segment.flags.is_syn() {
            self.syn(pair, segment, out)
        } else if segment.flags.is_syn_ack() {
            self.syn_ack(pair, segment, out)
        } else if segment.has(Flags::SYN) {
            // With FIN or RST: no stack sends that.
            false
        } else {
            self.in_attempt(pair, segment, out) || self.in_connection(pair, segment, out)
        };
        let replay = &self.ledger.replay;
        if joined { replay.joined.add(1) } else { replay.unused.add(1) }
    }

    /// The capture is over: gives out what can be told now.
    pub fn finish(&mut self, mut out: impl FnMut(FlowEvent)) {
        let at = self.last;
        while let Some(attempt) = self.attempts.pop() {
            self.given_up(&attempt, at, UNANSWERED, &mut out);
        }
        while let Some(connection) = self.open.pop() {
            self.left_open(&connection, |replay| &replay.open, &mut out);
        }
    }

    /// How many connections are followed.
    pub fn open_flows(&self) -> usize {
        self.open.len()
    }

    // === handshakes

    fn syn(&mut self, pair: Pair, segment: &Segment, out: &mut impl FnMut(FlowEvent)) -> bool {
        if self.is_over(pair, segment) {
            if let Some(over) = self.over.get_mut(&pair).filter(|over| over.failed) {
                match &mut over.again {
                    Some(syn) => syn.again(segment.time),
                    None => over.again = Some(Syn::new(segment)),
                }
            }
            return self.open.get(&pair).is_some();
        }
        if self.open.get_mut(&pair).is_some_and(|open| open.repeats(segment)) {
            // A repeated SYN, on its way for long.
            return self.open.get(&pair).is_some();
        }
        let Some(attempt) = self.attempts.get_mut(&pair) else {
            self.ask(pair, Attempt::asked(segment), out);
            return true;
        };
        let from_initiator = segment.source == attempt.initiator;
        match &mut attempt.syn {
            Some(syn) if from_initiator && syn.isn == segment.sequence => {
                syn.again(segment.time);
                self.attempts.renew(&pair);
            }
            // The SYN-ACK was captured first.
            None if from_initiator
                && attempt.answer.is_some_and(|answer| {
                    answer.acknowledgement.wrapping_sub(segment.sequence.wrapping_add(1)) <= segment.payload
                }) =>
            {
                attempt.syn = Some(attempt::Syn::new(segment));
                self.ledger.replay.attempts.add(1);
                self.complete_early(pair, out);
            }
            // Both ask at the same time (RFC 9293, 3.5, simultaneous open).
            Some(_) if !from_initiator && attempt.crossing.is_none() && attempt.answer.is_none() => {
                attempt.crossing = Some(segment.sequence);
            }
            Some(_) if !from_initiator && attempt.crossing == Some(segment.sequence) => {}
            // Another attempt: the one before was given up.
            _ => {
                if let Some(attempt) = self.attempts.remove(&pair) {
                    self.given_up(&attempt, segment.time, Duration::ZERO, out);
                }
                self.ask(pair, Attempt::asked(segment), out);
            }
        }
        true
    }

    fn ask(&mut self, pair: Pair, attempt: Attempt, out: &mut impl FnMut(FlowEvent)) {
        if attempt.syn.is_some() {
            self.ledger.replay.attempts.add(1);
        }
        if let Some(forgotten) = self.attempts.insert(pair, attempt)
            && forgotten.syn.is_some()
        {
            self.ledger.replay.attempts_forgotten.add(1);
        }
        self.complete_early(pair, out);
    }

    fn syn_ack(&mut self, pair: Pair, segment: &Segment, out: &mut impl FnMut(FlowEvent)) -> bool {
        if let Some(attempt) = self.attempts.get_mut(&pair) {
            if attempt.is_answer(segment) {
                match &mut attempt.answer {
                    None => attempt.answer = Some(Answer::new(segment)),
                    Some(answer) if answer.isn == segment.sequence => {
                        answer.count = answer.count.saturating_add(1);
                        answer.first = answer.first.min(segment.time);
                    }
                    // Two that fit: with syncookies and a changed secret, or forged by who saw the SYN. The first holds.
                    Some(_) => return false,
                }
                self.complete_early(pair, out);
                return true;
            }
            if attempt.crossing.is_some() && attempt.is_completed_by(segment) {
                self.begin(pair, segment, out);
                return true;
            }
            if attempt.crossing.is_some() && segment.source == attempt.initiator {
                attempt.early = Some(*segment);
                return true;
            }
            return false;
        }
        if self.open.get_mut(&pair).is_some_and(|open| open.repeats(segment)) {
            return true;
        }
        if self.open.get(&pair).is_some() {
            return false;
        }
        if let Some(over) = self.over.get(&pair) {
            let Some(attempt) = over.again.map(|syn| Attempt::again(segment, syn)) else { return false };
            if !attempt.is_answer(segment) {
                return false;
            }
            self.forgotten = self.forgotten.max(over.last);
            self.over.remove(&pair);
            self.ask(pair, attempt, out);
            return true;
        }
        // Its SYN may follow: packets may be captured out of order. Until then it proves nothing.
        self.ask(pair, Attempt::answered(segment), out);
        true
    }

    /// Completes a handshake whose last segment came before the others.
    fn complete_early(&mut self, pair: Pair, out: &mut impl FnMut(FlowEvent)) {
        let Some(attempt) = self.attempts.get(&pair) else { return };
        if let Some(early) = attempt.early
            && attempt.syn.is_some()
            && attempt.is_completed_by(&early)
        {
            self.begin(pair, &early, out);
        }
    }

    /// Takes a segment without SYN as part of an attempt. Returns whether it is.
    fn in_attempt(&mut self, pair: Pair, segment: &Segment, out: &mut impl FnMut(FlowEvent)) -> bool {
        let Some(attempt) = self.attempts.get_mut(&pair) else { return false };
        if segment.has(Flags::RST) {
            let refused = segment.source == attempt.responder
                && match attempt.answer {
                    // Only what acknowledges the SYN answers it (RFC 9293, 3.10.7.3).
                    None => {
                        attempt.syn.is_some()
                            && segment.has(Flags::ACK)
                            && attempt.acknowledges_syn(segment.acknowledgement)
                    }
                    Some(answer) => attempt.takes_reset(&answer, segment.sequence),
                };
            let aborted = segment.source == attempt.initiator
                && attempt.syn.is_some_and(|syn| segment.sequence.wrapping_sub(syn.isn.wrapping_add(1)) <= syn.payload);
            if !refused && !aborted {
                return false;
            }
            let reason = if refused { FailReason::Refused } else { FailReason::Aborted };
            if let Some(attempt) = self.attempts.remove(&pair) {
                self.fail(&attempt, reason.by(Evidence::Segment), segment.time, segment.time, out);
            }
            return true;
        }
        if !segment.has(Flags::ACK) {
            return false;
        }
        if attempt.is_completed_by(segment) {
            self.begin(pair, segment, out);
            return true;
        }
        if attempt.takes_ahead(segment) {
            return true;
        }
        // The initiator's, while the answer is not here: perhaps captured before it.
        if attempt.answer.is_none() && segment.source == attempt.initiator && self.open.get(&pair).is_none() {
            attempt.early.get_or_insert(*segment);
            return true;
        }
        false
    }

    /// A handshake is complete, by this segment.
    fn begin(&mut self, pair: Pair, completing: &Segment, out: &mut impl FnMut(FlowEvent)) {
        let Some(attempt) = self.attempts.remove(&pair) else { return };
        let Some(answer) = attempt.answer else { return };
        if let Some(earlier) = self.open.remove(&pair) {
            self.left_open(&earlier, |replay| &replay.replaced, out);
        }
        if let Some(over) = self.over.remove(&pair) {
            self.forgotten = self.forgotten.max(over.last);
        }
        let [source, destination] = attempt.halves();
        let direction = self.direction(attempt.initiator, attempt.responder);
        let (began, handshake) = match (direction, attempt.syn) {
            _ if attempt.crossing.is_some() => (completing.time.max(answer.first), None),
            (Some(Direction::Incoming), _) => {
                let once =
                    answer.count == 1 && attempt.syn.is_some_and(|syn| syn.count == 1) && attempt.ahead.is_none();
                (completing.time, if once { between(answer.first, completing.time) } else { None })
            }
            (_, syn) => (answer.first, syn.and_then(|syn| between(syn.first, answer.first))),
        };
        let first = attempt.syn.map_or(answer.first, |syn| syn.first);
        let isn = attempt.syn.map_or(answer.acknowledgement.wrapping_sub(1), |syn| syn.isn);
        let flow = self.flow(attempt.initiator, attempt.responder, direction, (first, isn), attempt.tunnel);
        let seen = attempt.syn.is_some();
        let mut connection = Connection {
            flow,
            began: seen.then_some(began),
            last: completing.time,
            source,
            destination,
            said: [false, false],
            told: Passed::default(),
            told_at: completing.time,
        };
        let one = answer.count == 1 && attempt.crossing.is_none() && attempt.ahead.is_none();
        if let Some(took) = between(answer.first, completing.time).filter(|_| one) {
            connection.destination.sampled(took);
        }
        if seen {
            self.ledger.replay.begun.add(1);
            let handshake = handshake.filter(|n| *n > 0).map(Duration::from_nanos);
            let at = Stamp { time: began, wall: WallTime(began.0), observed: WallTime(completing.time.0.max(began.0)) };
            out(FlowEvent { at, flow: connection.flow.clone(), what: What::Begin { handshake } });
        } else {
            self.ledger.replay.unseen.add(1);
        }
        let ends = if completing.flags.is_syn_ack() {
            // The initiator's own, of crossing SYNs.
            connection.source.segments = connection.source.segments.saturating_add(1);
            let known = connection.destination.is_acknowledged(completing.acknowledgement, completing.time);
            debug_assert!(known, "it acknowledges the answer");
            Meaning::Part
        } else {
            connection.on(completing)
        };
        self.follow(pair, connection, ends, completing.time, out);
    }

    /// What failed, when it did, and when that was known.
    fn fail(
        &mut self,
        attempt: &Attempt,
        cause: Cause<FailReason>,
        at: KernelTime,
        known: KernelTime,
        out: &mut impl FnMut(FlowEvent),
    ) {
        let Some(syn) = attempt.syn else { return };
        self.ledger.replay.failed.add(1);
        let direction = self.direction(attempt.initiator, attempt.responder);
        let flow = self.flow(attempt.initiator, attempt.responder, direction, (syn.first, syn.isn), attempt.tunnel);
        let asked = Some((attempt.initiator, syn.isn));
        let over = Over { at, last: at.max(known), syn: asked, failed: true, again: None };
        self.remember(Pair::new(attempt.initiator, attempt.responder), over);
        let stamp = Stamp { time: at, wall: WallTime(at.0), observed: WallTime(known.0.max(at.0)) };
        out(FlowEvent { at: stamp, flow, what: What::Failed { cause, attempts: syn.count, fold: None } });
    }

    /// An attempt to which nothing more comes. It has timed out where no answer was seen `after` its last SYN.
    fn given_up(&mut self, attempt: &Attempt, now: KernelTime, after: Duration, out: &mut impl FnMut(FlowEvent)) {
        let Some(syn) = attempt.syn else { return };
        if attempt.answer.is_some() {
            // Half open: the initiator never answered. It may never have asked, either: anybody can send a SYN.
            self.ledger.replay.half_open.add(1);
        } else if attempt.early.is_none() && u128::from(now.since(syn.last)) >= after.as_nanos() {
            self.fail(attempt, FailReason::TimedOut.by(Evidence::Timer), syn.last, now, out);
        } else {
            // Too young; or the initiator went on, so that there was an answer which was not captured.
            self.ledger.replay.unfinished.add(1);
        }
    }

    // === connections

    fn in_connection(&mut self, pair: Pair, segment: &Segment, out: &mut impl FnMut(FlowEvent)) -> bool {
        let Some(connection) = self.open.get_mut(&pair) else {
            return self.join_midway(pair, segment, out);
        };
        match connection.on(segment) {
            Meaning::Nothing => false,
            Meaning::Part => {
                if let Some(every) = self.settings.update {
                    connection.update(segment.time, every, out);
                }
                true
            }
            Meaning::End(reason) => {
                if let Some(connection) = self.open.remove(&pair) {
                    self.end(pair, &connection, reason, segment.time, out);
                }
                true
            }
        }
    }

    /// Follows a connection whose begin was not captured, from this segment on.
    fn join_midway(&mut self, pair: Pair, segment: &Segment, out: &mut impl FnMut(FlowEvent)) -> bool {
        if !segment.has(Flags::ACK) || segment.has(Flags::RST) || self.over.get(&pair).is_some() {
            // A reset alone proves nothing: it answers what was sent to a port that nobody has.
            return false;
        }
        let (from, to) = (segment.source, segment.destination);
        // Who asked is not known: the side that is local stands first, else the one seen first.
        let swap = self.direction(from, to) == Some(Direction::Incoming);
        let (mut source, mut destination) = if swap { (to, from) } else { (from, to) };
        let mut direction = None;
        if let Some(attempt) = self.attempts.get(&pair) {
            // Its SYN was captured, its SYN-ACK was not; here it goes on, if this fits.
            if attempt.responder != from || !attempt.is_followed_by(segment) {
                return false;
            }
            (source, destination) = (attempt.initiator, attempt.responder);
            direction = self.direction(source, destination);
            self.attempts.remove(&pair);
            self.ledger.replay.unfinished.add(1);
        }
        let mut connection = Connection {
            flow: self.flow(source, destination, direction, (segment.time, segment.sequence), segment.tunnel),
            began: None,
            last: segment.time,
            source: Half::default(),
            destination: Half::default(),
            said: [false, false],
            told: Passed::default(),
            told_at: segment.time,
        };
        self.ledger.replay.unseen.add(1);
        let ends = connection.on(segment);
        self.follow(pair, connection, ends, segment.time, out);
        true
    }

    /// Follows a connection from here on, unless it ends at once.
    fn follow(
        &mut self,
        pair: Pair,
        connection: Connection,
        meaning: Meaning,
        at: KernelTime,
        out: &mut impl FnMut(FlowEvent),
    ) {
        if let Meaning::End(reason) = meaning {
            self.end(pair, &connection, reason, at, out);
        } else if let Some(forgotten) = self.open.insert(pair, connection) {
            self.left_open(&forgotten, |replay| &replay.forgotten, out);
        }
    }

    fn end(
        &mut self,
        pair: Pair,
        connection: &Connection,
        reason: EndReason,
        at: KernelTime,
        out: &mut impl FnMut(FlowEvent),
    ) {
        self.ended(pair, connection, at);
        self.tell_end(connection, reason, at, out);
    }

    fn tell_end(
        &mut self,
        connection: &Connection,
        reason: EndReason,
        at: KernelTime,
        out: &mut impl FnMut(FlowEvent),
    ) {
        self.rest_of_hellos(connection, out);
        self.ledger.replay.ended.add(1);
        let duration = connection.began.and_then(|began| between(began, at)).map(Duration::from_nanos);
        let stamp = Stamp { time: at, wall: WallTime(at.0), observed: WallTime(at.0) };
        let what = What::End { cause: Some(reason.by(Evidence::Segment)), duration, traffic: connection.traffic() };
        let what = what.since(self.settings.update.map(|_| &connection.told));
        out(FlowEvent { at: stamp, flow: connection.flow.clone(), what });
    }

    fn ended(&mut self, pair: Pair, connection: &Connection, at: KernelTime) {
        let syn = connection.source.syn().map(|isn| (connection.flow.source, isn));
        self.remember(pair, Over { at, last: connection.last.max(at), syn, failed: false, again: None });
    }

    /// Remembers what is over, for a while.
    fn remember(&mut self, pair: Pair, over: Over) {
        let before = self.over.get(&pair).map(|over| over.last);
        let pushed_out = self.over.insert(pair, over).map(|over| over.last);
        for last in [before, pushed_out].into_iter().flatten() {
            self.forgotten = self.forgotten.max(last);
        }
    }

    /// A connection that is not followed any more. Where both ends had finished, it is over all the same.
    fn left_open(&mut self, connection: &Connection, count: fn(&Replay) -> &Counter, out: &mut impl FnMut(FlowEvent)) {
        self.forgotten = self.forgotten.max(connection.last);
        if connection.has_finished() {
            self.tell_end(connection, EndReason::Fin, connection.last, out);
        } else {
            self.rest_of_hellos(connection, out);
            count(&self.ledger.replay).add(1);
        }
    }

    // === time and place

    /// Ends what is too old at `now`.
    fn expire(&mut self, now: KernelTime, out: &mut impl FnMut(FlowEvent)) {
        let older = |at: KernelTime, limit: Duration| u128::from(now.since(at)) >= limit.as_nanos();
        while let Some(attempt) = self.attempts.pop_if(|attempt| older(attempt.last(), GIVES_UP)) {
            self.given_up(&attempt, now, GIVES_UP, out);
        }
        while let Some(over) = self.over.pop_if(|over| older(over.at, LINGER)) {
            self.forgotten = self.forgotten.max(over.last);
        }
    }

    /// Whether this is the SYN of something that is over.
    fn is_over(&self, pair: Pair, segment: &Segment) -> bool {
        self.over.get(&pair).is_some_and(|over| over.syn == Some((segment.source, segment.sequence)))
    }

    fn direction(&self, initiator: SocketAddr, responder: SocketAddr) -> Option<Direction> {
        let local = |end: SocketAddr| self.settings.local.iter().any(|net| net.contains(&end.ip()));
        if local(initiator) { Some(Direction::Outgoing) } else { local(responder).then_some(Direction::Incoming) }
    }

    /// A flow between these ends, whose first segment had this time and number.
    ///
    /// Time and number stand for the socket: ports are used again. A capture may hold the same segments twice, the second
    /// time long after, and both are told: then the place of the first segment joins them.
    fn flow(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        direction: Option<Direction>,
        (time, number): (KernelTime, u32),
        tunnel: Option<Tunnel>,
    ) -> Flow {
        let again = if time <= self.forgotten { self.taken } else { 0 };
        // An odd factor: different places stay different.
        let place = again.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let socket = time.0 ^ (u64::from(number) << 32 | u64::from(number)) ^ place;
        let mut flow = Flow::new(&REPLAY, socket, source, destination, None);
        flow.direction = direction;
        // The other side's record does not exist: a capture shows a connection once.
        flow.local = false;
        flow.tunnel = tunnel;
        flow
    }
}
