//! What clients say first over TLS, in a capture: told when it is whole, or as it is when its connection is over. Bounded: the
//! oldest is told as it is when more than [`MOST_SAYING`] are not whole.

use super::{FlagFlows, connection::Connection, table::Pair};
use crate::{
    capture::{KernelTime, WallTime, pcap::Segment},
    flow::{FlowEvent, Stamp, What},
    tls::{Assembly, Hello, MOST, Read},
};

/// The most connections whose hello is not whole.
pub(super) const MOST_SAYING: usize = 4096;

/// What the ends of a connection, source and destination, have said so far.
#[derive(Debug)]
pub(super) struct Saying {
    pair: Pair,
    ends: [Option<Said>; 2],
}

/// What one end has said so far, and when it began.
#[derive(Debug)]
struct Said {
    since: KernelTime,
    assembly: Assembly,
}

// === impl FlagFlows

impl FlagFlows {
    /// Looks whether a segment is part of a hello. Returns whether its connection is known.
    pub(super) fn said(&mut self, segment: &Segment, payload: &[u8], out: &mut impl FnMut(FlowEvent)) -> bool {
        if !self.settings.hellos || payload.is_empty() {
            return true;
        }
        let pair = Pair::new(segment.source, segment.destination);
        let Some(connection) = self.open.get_mut(&pair) else { return false };
        let end = usize::from(segment.source != connection.flow.source);
        // Where nothing is known of an end it begins with what was captured of it first.
        let Some(at) = connection.offset(segment) else { return false };
        if connection.said.get(end) == Some(&true) || at as usize >= MOST {
            return true;
        }
        if self.saying.get(&pair).is_none() {
            let pushed_out = self.saying.insert(pair, Saying { pair, ends: [None, None] });
            if let Some(Saying { pair, ends }) = pushed_out
                && let Some(connection) = self.open.get_mut(&pair)
            {
                connection.said = [true, true];
                connection.rest(ends, out);
            }
        }
        let Some(said) = self.saying.get_mut(&pair).and_then(|saying| saying.ends.get_mut(end)) else { return true };
        let said = said.get_or_insert_with(|| Said { since: segment.time, assembly: Assembly::default() });
        // Packets may be captured out of order.
        said.since = said.since.min(segment.time);
        said.assembly.add(at, payload);
        let (since, read) = (said.since, said.assembly.read());
        if matches!(read, Read::Part(_)) {
            return true;
        }
        let Some(connection) = self.open.get_mut(&pair) else { return true };
        if let Some(over) = connection.said.get_mut(end) {
            *over = true;
        }
        if let Some(said) = self.saying.get_mut(&pair).and_then(|saying| saying.ends.get_mut(end)) {
            *said = None;
        }
        if let Read::Whole(hello) = read {
            // A flow has one.
            connection.said = [true, true];
            out(connection.tells(since, segment.time, hello));
        }
        if connection.said == [true, true] {
            self.saying.remove(&pair);
        }
        true
    }

    /// A connection is over: tells what isn't whole.
    pub(super) fn rest_of_hellos(&mut self, connection: &Connection, out: &mut impl FnMut(FlowEvent)) {
        let pair = Pair::new(connection.flow.source, connection.flow.destination);
        if let Some(saying) = self.saying.remove(&pair) {
            connection.rest(saying.ends, out);
        }
    }
}

// === impl Connection

impl Connection {
    /// Tells what isn't whole.
    fn rest(&self, ends: [Option<Said>; 2], out: &mut impl FnMut(FlowEvent)) {
        let hello = |Said { since, assembly }: Said| Some((since, assembly.hello()?));
        if let Some((since, hello)) = ends.into_iter().flatten().find_map(hello) {
            out(self.tells(since, self.last, hello));
        }
    }

    fn tells(&self, time: KernelTime, known: KernelTime, hello: Hello) -> FlowEvent {
        let at = Stamp { time, wall: WallTime(time.0), observed: WallTime(known.0.max(time.0)) };
        FlowEvent { at, flow: self.flow.clone(), what: What::ClientHello { hello: Box::new(hello) } }
    }
}
