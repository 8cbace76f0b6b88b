//! One direction of a connection: what one end has sent, and how much of it the other has acknowledged, by sequence
//! numbers. Positions count payload bytes from the first one on, beyond 4 GiB too; a FIN takes one position.
//!
//! Must never be moved far by one segment: whoever knows addresses and ports can forge one.

use std::time::Duration;

use crate::capture::{KernelTime, pcap::Segment};
use flowtel_common::packet::Flags;

/// How far from what is known a segment may be: more than any burst that a capture loses, and a 64th of what a number
/// drawn blindly would hit.
const REACH: i64 = 1 << 26;
/// How far behind what is known a reset may be: a window without scaling.
const RESET_REACH: i64 = 1 << 16;

/// One direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Half {
    /// Sequence number of the first byte, once known.
    base: Option<u32>,
    /// Payload bytes known to be sent.
    sent: i64,
    /// Those among them that end with a segment that was seen; the rest is known by its acknowledgement only.
    seen: i64,
    /// The furthest position that was acknowledged.
    acknowledged: i64,
    /// Where the FIN is.
    fin: Option<i64>,
    /// Segments.
    pub segments: u32,
    /// Segments among them that repeat others.
    pub retransmits: u32,
    /// A position whose acknowledgement is awaited, and since when.
    sample: Option<(i64, KernelTime)>,
    smoothed: Option<u64>,
}

impl Half {
    /// After a SYN with this number, which may carry payload (RFC 7413).
    pub fn after_syn(isn: u32, payload: u32) -> Self {
        Self {
            base: Some(isn.wrapping_add(1)),
            sent: payload.into(),
            seen: payload.into(),
            segments: 1,
            ..Self::default()
        }
    }

    /// Whether its SYN had this number.
    pub fn began_with(&self, isn: u32) -> bool {
        self.base == Some(isn.wrapping_add(1))
    }

    /// The number of its SYN, or of what would have been it.
    pub fn syn(&self) -> Option<u32> {
        self.base.map(|base| base.wrapping_sub(1))
    }

    /// Sets where it begins, where nothing is known of it: at `base`.
    pub fn begin_at(&mut self, base: u32) {
        self.base.get_or_insert(base);
    }

    /// Counts a SYN that came again.
    pub fn again(&mut self) {
        self.segments = self.segments.saturating_add(1);
        self.retransmits = self.retransmits.saturating_add(1);
        self.sample = None;
    }

    /// The position that a sequence number stands for, near what is known.
    fn position(&self, number: u32) -> i64 {
        let Some(base) = self.base else { return 0 };
        // Positions are taken modulo 2^32, and the difference is at most 2^31 either way.
        let known = base.wrapping_add(self.sent as u32);
        self.sent + i64::from(number.wrapping_sub(known) as i32)
    }

    /// Where the byte with this number is among those that this end sends; `None` where that is not known, or before them.
    pub fn offset(&self, number: u32) -> Option<u32> {
        self.base.and_then(|_| u32::try_from(self.position(number)).ok())
    }

    /// Whether a number lies between what was acknowledged and what was sent, or a little behind: what the other end
    /// would take a reset for.
    pub fn takes_reset(&self, number: u32) -> bool {
        let position = self.position(number);
        self.base.is_some() && position >= self.acknowledged && position <= self.sent + 1 + RESET_REACH
    }

    /// Takes a segment (no SYN, no RST) of this end. Returns whether it can be one.
    pub fn sends(&mut self, segment: &Segment) -> bool {
        self.begin_at(segment.sequence);
        let start = self.position(segment.sequence);
        let end = start + i64::from(segment.payload);
        // One behind the beginning is a keepalive's.
        if start < -1 || end > self.sent + REACH || end < self.sent - REACH {
            return false;
        }
        self.segments = self.segments.saturating_add(1);
        let fin = segment.has(Flags::FIN);
        if segment.payload == 0 && !fin {
            // It says where its sender is (behind its FIN, perhaps), and sends nothing.
            return true;
        }
        if fin && end >= self.seen && end + 1 == self.sent {
            // What was acknowledged beyond this was the FIN itself: it was captured behind its acknowledgement.
            self.sent = end;
            self.fin = Some(end);
        }
        self.seen = self.seen.max(end);
        if end > self.sent {
            self.sent = end;
            // What sends on has not finished: that FIN was forged.
            self.fin = self.fin.filter(|fin| *fin >= end);
            self.sample.get_or_insert((end, segment.time));
        } else if segment.payload > 0 || self.fin == Some(end) {
            self.retransmits = self.retransmits.saturating_add(1);
            self.sample = None;
        }
        if fin && end == self.sent {
            self.fin = Some(end);
        }
        true
    }

    /// Takes the other end's word on how far it got this one's. Returns whether that can be.
    pub fn is_acknowledged(&mut self, number: u32, time: KernelTime) -> bool {
        self.begin_at(number);
        let position = self.position(number);
        if position < 0 || position > self.sent + REACH {
            return false;
        }
        if position > self.sent && self.fin.is_none_or(|fin| position != fin + 1) {
            // The capture has missed something: it was sent, or it would not be acknowledged.
            self.sent = position;
            self.fin = None;
        }
        self.acknowledged = self.acknowledged.max(position);
        if let Some((end, since)) = self.sample
            && position >= end
        {
            self.sample = None;
            if let Some(took) = super::between(since, time) {
                self.sampled(took);
            }
        }
        true
    }

    /// A round trip time, nanoseconds. (RFC 6298, 2: an eighth of each new one.)
    pub fn sampled(&mut self, nanoseconds: u64) {
        self.smoothed = Some(match self.smoothed {
            None => nanoseconds,
            Some(smoothed) => smoothed - smoothed / 8 + nanoseconds / 8,
        });
    }

    /// Whether its FIN was seen.
    pub fn has_finished(&self) -> bool {
        self.fin.is_some()
    }

    /// Whether its FIN was acknowledged.
    pub fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.acknowledged == fin + 1)
    }

    /// Payload bytes that were acknowledged; all that were sent before a FIN that was.
    pub fn bytes(&self) -> u64 {
        let bytes = match self.fin {
            Some(fin) => self.acknowledged.min(fin),
            None => self.acknowledged,
        };
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Its smoothed round trip time, as it looks from where the capture was made.
    pub fn rtt(&self) -> Option<Duration> {
        self.smoothed.filter(|n| *n > 0).map(Duration::from_nanos)
    }
}
