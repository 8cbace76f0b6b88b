//! A connection between its handshake and its end, as its packets show it.

use std::net::SocketAddr;

use flowtel_common::packet::Flags;

use super::half::Half;
use crate::{
    capture::{KernelTime, pcap::Segment},
    flow::{Direction, EndReason, Flow, Traffic, updates::Passed},
};

/// A connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// As its records tell it.
    pub flow: Flow,
    /// When it began; `None` where that is not in the capture.
    pub began: Option<KernelTime>,
    /// When its last segment was captured.
    pub last: KernelTime,
    /// The source's direction.
    pub source: Half,
    /// The destination's.
    pub destination: Half,
    /// Whether it is known what the source said first, and the destination: told, or no TLS.
    pub said: [bool; 2],
    /// What passed by its last update.
    pub told: Passed,
    /// When that was, or when it was first seen.
    pub told_at: KernelTime,
}

/// What a segment is to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It can't be part of it: forged, or of an earlier connection of the same endpoints.
    Nothing,
    /// Part of it.
    Part,
    /// Its end.
    End(EndReason),
}

// === impl Connection

impl Connection {
    /// Where a segment's first byte is among those that its sender sends; `None` where nobody knows.
    pub fn offset(&mut self, segment: &Segment) -> Option<u32> {
        self.halves(segment.source).0.offset(segment.sequence)
    }

    /// The directions as a segment from `from` sees them: its own, the other end's.
    fn halves(&mut self, from: SocketAddr) -> (&mut Half, &mut Half) {
        if from == self.flow.source {
            (&mut self.source, &mut self.destination)
        } else {
            (&mut self.destination, &mut self.source)
        }
    }

    /// Takes a segment without SYN.
    pub fn on(&mut self, segment: &Segment) -> Meaning {
        if segment.has(Flags::RST) {
            return self.reset(segment);
        }
        let (own, other) = self.halves(segment.source);
        let own_before = *own;
        if !own.sends(segment) {
            return Meaning::Nothing;
        }
        if segment.has(Flags::ACK) && !other.is_acknowledged(segment.acknowledgement, segment.time) {
            *own = own_before;
            return Meaning::Nothing;
        }
        self.last = self.last.max(segment.time);
        if self.source.is_finished() && self.destination.is_finished() {
            return Meaning::End(EndReason::Fin);
        }
        Meaning::Part
    }

    fn reset(&mut self, segment: &Segment) -> Meaning {
        let by_source = segment.source == self.flow.source;
        let (own, other) = self.halves(segment.source);
        if !own.takes_reset(segment.sequence) {
            return Meaning::Nothing;
        }
        own.segments = own.segments.saturating_add(1);
        if segment.has(Flags::ACK) {
            // What it acknowledges arrived; one that can't be is not counted.
            other.is_acknowledged(segment.acknowledgement, segment.time);
        }
        self.last = self.last.max(segment.time);
        let by_local = by_source != (self.flow.direction == Some(Direction::Incoming));
        Meaning::End(if by_local { EndReason::ResetLocal } else { EndReason::ResetRemote })
    }

    /// Takes a SYN or SYN-ACK that has come already. Returns whether it is one of this connection's.
    pub fn repeats(&mut self, segment: &Segment) -> bool {
        let (own, _) = self.halves(segment.source);
        let is = own.began_with(segment.sequence);
        if is {
            own.again();
            self.last = self.last.max(segment.time);
        }
        is
    }

    /// Whether both ends have finished, even if the last acknowledgement was not captured.
    pub fn has_finished(&self) -> bool {
        self.source.has_finished() && self.destination.has_finished()
    }

    /// What passed.
    pub fn traffic(&self) -> Traffic {
        let local = match self.flow.direction {
            Some(Direction::Incoming) => &self.destination,
            _ => &self.source,
        };
        Traffic {
            counted: true,
            delta: None,
            source_bytes: self.source.bytes(),
            destination_bytes: self.destination.bytes(),
            source_segments: self.source.segments,
            destination_segments: self.destination.segments,
            retransmits: local.retransmits,
            // Where the capture was made is known only where somebody said which side is local.
            rtt: self.flow.direction.and_then(|_| local.rtt()),
        }
    }
}
