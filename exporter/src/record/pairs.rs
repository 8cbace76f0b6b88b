//! What a record says of two hosts and a service: a flow out, its words in the body and its attributes in.
//!
//! Most flows of a host go the same few ways: to its database, from its proxy. Of such a flow only one port changes from
//! record to record. So what is said of the rest is encoded once and copied from then on, in constant sizes: a few stores.
//! A host whose peers are all different pays a look at one slot.

use std::net::{IpAddr, SocketAddr};

use super::{
    schema,
    text::{self, Address},
    wire::{self, constant_attribute},
};
use crate::flow::{Direction, Flow};

/// Pairs remembered: a power of two. Each is half a kilobyte.
const SLOTS: usize = 128;
/// How often a pair is asked for before it is remembered: begin and end of one flow are not enough.
const ENOUGH: u32 = 3;
/// `outgoing tcp [` and `]` around the longest address.
const SOURCE_WORDS: usize = 56;
/// ` -> `, brackets, the longest address, a colon and a port.
const DESTINATION_WORDS: usize = 56;
/// Direction, whether it is local, and the source's address.
const BEFORE_PORT: usize = 144;
/// The destination's address and port, and what does not change.
const AFTER_PORT: usize = 160;

/// Encoded pairs. Each has one slot that it can be in; whoever was asked for often enough last is in it.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    slots: Vec<Slot>,
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    pair: Option<Pair>,
    /// Who else wants the slot, and how often in a row.
    wants: Option<(Key, u32)>,
}

/// What is the same in all records of a pair.
#[derive(Debug)]
pub(super) struct Pair {
    of: Key,
    /// `outgoing tcp 192.0.2.1`, without the port.
    pub source_words: Piece<SOURCE_WORDS>,
    /// ` -> 192.0.2.2:443`.
    pub destination_words: Piece<DESTINATION_WORDS>,
    /// Fields `attributes` of `LogRecord`, up to `source.port`.
    pub before_port: Piece<BEFORE_PORT>,
    /// Those behind it.
    pub after_port: Piece<AFTER_PORT>,
}

/// All that a `Pair` is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    direction: Option<Direction>,
    local: bool,
}

/// Bytes that are copied with whatever lies behind them: see [`wire::block`].
#[derive(Debug)]
pub(super) struct Piece<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

// === impl Pairs

impl Pairs {
    /// What is the same in all records of this flow's pair, where that is remembered.
    #[inline(always)]
    pub fn of(&mut self, flow: &Flow) -> Option<&Pair> {
        let key = Key::of(flow)?;
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let slot = self.slots.get_mut(key.slot())?;
        // Twice the same test: else the borrow would go on in the other branch.
        if slot.pair.as_ref().is_some_and(|pair| pair.of == key) {
            return slot.pair.as_ref();
        }
        slot.want(key, flow, &mut self.scratch)
    }
}

impl Slot {
    #[inline(never)]
    fn want(&mut self, key: Key, flow: &Flow, scratch: &mut Vec<u8>) -> Option<&Pair> {
        let times = match self.wants {
            Some((wants, times)) if wants == key => times + 1,
            _ => 1,
        };
        self.wants = (times < ENOUGH).then_some((key, times));
        if times < ENOUGH {
            return None;
        }
        self.pair = Pair::new(key, flow, scratch);
        self.pair.as_ref()
    }
}

// === impl Key

impl Key {
    /// `None` for what is odd: attempts that never left, and what was folded.
    #[inline(always)]
    fn of(flow: &Flow) -> Option<Self> {
        let Flow { source, destination, direction, local, .. } = flow;
        let whole = source.port() != 0 && destination.port() != 0 && !source.ip().is_unspecified();
        whole.then(|| Self {
            source: source.ip(),
            destination: destination.ip(),
            port: destination.port(),
            direction: *direction,
            local: *local,
        })
    }

    /// Whoever makes two pairs share a slot has them encoded as often as before there were slots.
    #[inline(always)]
    fn slot(&self) -> usize {
        let word = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ (v6.to_bits() as u64).rotate_left(17),
        };
        // 2^64 divided by the golden ratio: multiplied, all lower bits count in the upper ones.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let ends = word(self.source).wrapping_mul(SPREAD) ^ word(self.destination).rotate_left(32);
        let rest = u64::from(self.port) << 2 | u64::from(self.direction == Some(Direction::Incoming));
        ((ends ^ rest).wrapping_mul(SPREAD) >> (64 - SLOTS.ilog2())) as usize
    }
}

// === impl Pair

impl Pair {
    fn new(of: Key, flow: &Flow, scratch: &mut Vec<u8>) -> Option<Self> {
        let [source, destination] = [flow.source, flow.destination].map(|end| Address::new(end.ip()));
        Some(Self {
            of,
            source_words: Piece::of(scratch, |out| source_words(out, flow, &source))?,
            destination_words: Piece::of(scratch, |out| destination_words(out, flow, &destination))?,
            before_port: Piece::of(scratch, |out| before_port(out, flow, &source))?,
            after_port: Piece::of(scratch, |out| after_port(out, flow, &destination))?,
        })
    }
}

// === impl Piece

impl<const N: usize> Piece<N> {
    /// What `write` writes; `None` if it does not fit.
    fn of(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Option<Self> {
        scratch.clear();
        write(scratch);
        let mut bytes = [0; N];
        bytes.get_mut(..scratch.len())?.copy_from_slice(scratch);
        Some(Self { bytes, len: scratch.len() })
    }

    /// Appends them.
    #[inline(always)]
    pub fn write(&self, out: &mut Vec<u8>) {
        wire::block(out, &self.bytes, self.len);
    }
}

/// The body up to the source's port.
#[inline(always)]
pub(super) fn source_words(out: &mut Vec<u8>, flow: &Flow, source: &Address) {
    match flow.direction {
        Some(Direction::Outgoing) => out.extend_from_slice(b"outgoing tcp "),
        Some(Direction::Incoming) => out.extend_from_slice(b"incoming tcp "),
        None => out.extend_from_slice(b"tcp "),
    }
    if flow.source.ip().is_unspecified() {
        out.push(b'?');
    } else {
        address(out, source, &flow.source);
    }
}

/// The body from there on, up to the destination's name.
#[inline(always)]
pub(super) fn destination_words(out: &mut Vec<u8>, flow: &Flow, destination: &Address) {
    out.extend_from_slice(b" -> ");
    address(out, destination, &flow.destination);
    if flow.destination.port() != 0 {
        text::port(out, flow.destination.port());
    }
}

/// The source's port in the body, where it is known.
#[inline(always)]
pub(super) fn source_port_words(out: &mut Vec<u8>, flow: &Flow) {
    if flow.source.port() != 0 && !flow.source.ip().is_unspecified() {
        text::port(out, flow.source.port());
    }
}

/// IPv6 addresses before a port in brackets (RFC 3986, 3.2.2).
#[inline(always)]
fn address(out: &mut Vec<u8>, address: &Address, end: &SocketAddr) {
    let brackets = end.is_ipv6() && end.port() != 0;
    if brackets {
        out.push(b'[');
    }
    address.write(out);
    if brackets {
        out.push(b']');
    }
}

/// Attributes of the two hosts, up to the source's port.
#[inline(always)]
pub(super) fn before_port(out: &mut Vec<u8>, flow: &Flow, source: &Address) {
    match flow.direction {
        Some(Direction::Outgoing) => constant_attribute!(out, schema::DIRECTION, Direction::Outgoing.as_str()),
        Some(Direction::Incoming) => constant_attribute!(out, schema::DIRECTION, Direction::Incoming.as_str()),
        None => {}
    }
    if flow.local {
        wire::bool_attribute(out, schema::LOCAL, true);
    }
    if !flow.source.ip().is_unspecified() {
        wire::address_attribute(out, schema::SOURCE_ADDRESS, source);
    }
}

/// A port's attribute, where it is known.
#[inline(always)]
pub(super) fn port(out: &mut Vec<u8>, key: &str, end: &SocketAddr) {
    if end.port() != 0 {
        wire::int_attribute(out, key, end.port().into());
    }
}

/// Attributes of the two hosts from there on.
#[inline(always)]
pub(super) fn after_port(out: &mut Vec<u8>, flow: &Flow, destination: &Address) {
    wire::address_attribute(out, schema::DESTINATION_ADDRESS, destination);
    port(out, schema::DESTINATION_PORT, &flow.destination);
    constant_attribute!(out, schema::TRANSPORT, "tcp");
    if flow.destination.is_ipv4() {
        constant_attribute!(out, schema::NETWORK_TYPE, "ipv4");
    } else {
        constant_attribute!(out, schema::NETWORK_TYPE, "ipv6");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: &str, destination: &str) -> Flow {
        Flow {
            netns: crate::capture::NetnsId::UNKNOWN,
            interface: 0,
            id: None,
            community_id: None,
            source: source.parse().expect("an endpoint"),
            destination: destination.parse().expect("an endpoint"),
            direction: Some(Direction::Outgoing),
            local: false,
            owner: None,
            tunnel: None,
        }
    }

    #[test]
    fn a_pair_is_remembered_when_it_was_asked_for_often_enough_and_is_no_other() {
        let base = flow("192.0.2.1:40000", "192.0.2.2:443");
        let variants = [
            base.clone(),
            flow("192.0.2.3:40000", "192.0.2.2:443"),
            flow("192.0.2.1:40000", "192.0.2.3:443"),
            flow("192.0.2.1:40000", "192.0.2.2:444"),
            Flow { direction: Some(Direction::Incoming), ..base.clone() },
            Flow { direction: None, ..base.clone() },
            Flow { local: true, ..base.clone() },
        ];
        // All in one slot, as if someone had chosen them so.
        let (mut slot, mut scratch) = (Slot::default(), Vec::new());
        for flow in variants.iter().chain(variants.iter().rev().skip(1)) {
            let key = Key::of(flow).expect("an ordinary flow");
            for _ in 1..ENOUGH {
                assert!(slot.want(key, flow, &mut scratch).is_none());
            }
            let fresh = Pair::new(key, flow, &mut Vec::new()).expect("it fits");
            let pair = slot.want(key, flow, &mut scratch).expect("often enough");
            assert_eq!((pair.of, &pair.before_port.bytes), (key, &fresh.before_port.bytes));
        }
        let [one, other] = [&variants[1], &variants[2]].map(|flow| (Key::of(flow).expect("an ordinary flow"), flow));
        for (key, flow) in [one, other].repeat(3) {
            assert!(slot.want(key, flow, &mut scratch).is_none(), "two that take turns encode nothing anew");
        }

        let mut pairs = Pairs::default();
        for _ in 0..ENOUGH {
            pairs.of(&base);
        }
        let other = Flow { source: "192.0.2.1:40001".parse().expect("an endpoint"), ..base };
        assert!(pairs.of(&other).is_some(), "another port of the same pair");
    }

    #[test]
    fn the_longest_pair_fits() {
        let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
        let flow = Flow { local: true, direction: Some(Direction::Incoming), ..flow(longest, longest) };
        let key = Key::of(&flow).expect("an ordinary flow");
        assert!(Pair::new(key, &flow, &mut Vec::new()).is_some());
    }
}
