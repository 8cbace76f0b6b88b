//! A handshake: its segments come in, in whatever order, and whether they prove a connection comes out.
//!
//! SYN, SYN-ACK and ACK must name each other's numbers (RFC 9293, 3.5): a SYN-ACK that acknowledges another SYN than the
//! one seen is forged, or belongs to another attempt.

use std::net::SocketAddr;

use super::half::Half;
use crate::capture::{
    KernelTime,
    pcap::{Segment, Tunnel},
};

/// An attempt at a connection.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Who sent the first SYN.
    pub initiator: SocketAddr,
    /// To whom.
    pub responder: SocketAddr,
    /// The SYN, once seen.
    pub syn: Option<Syn>,
    /// The SYN-ACK that answers it, once seen.
    pub answer: Option<Answer>,
    /// The other end's own SYN, where the two crossed.
    pub crossing: Option<u32>,
    /// A segment of the initiator's that came before what it acknowledges: packets may be captured out of order.
    pub early: Option<Segment>,
    /// What the responder has sent since its SYN-ACK, where it did not wait for the completing segment, or that one was
    /// captured late.
    pub ahead: Option<Half>,
    /// What carried the first segment.
    pub tunnel: Option<Tunnel>,
}

/// A SYN, repeated or not.
#[derive(Debug, Clone, Copy)]
pub struct Syn {
    pub isn: u32,
    /// Bytes in it (Fast Open).
    pub payload: u32,
    pub first: KernelTime,
    pub last: KernelTime,
    pub count: u32,
}

/// A SYN-ACK, repeated or not.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub isn: u32,
    pub acknowledgement: u32,
    pub payload: u32,
    pub first: KernelTime,
    pub count: u32,
}

// === impl Attempt

impl Attempt {
    /// An attempt whose SYN is here.
    pub fn asked(segment: &Segment) -> Self {
        let mut attempt = Self::nothing(segment.source, segment.destination, segment.tunnel);
        attempt.syn = Some(Syn::new(segment));
        attempt
    }

    /// An attempt whose SYN-ACK is here, and the SYN may yet come.
    pub fn answered(segment: &Segment) -> Self {
        let mut attempt = Self::nothing(segment.destination, segment.source, segment.tunnel);
        attempt.answer = Some(Answer::new(segment));
        attempt
    }

    /// An attempt that failed and was made again, whose SYN-ACK is here.
    pub fn again(segment: &Segment, syn: Syn) -> Self {
        let mut attempt = Self::answered(segment);
        attempt.syn = Some(syn);
        attempt
    }

    fn nothing(initiator: SocketAddr, responder: SocketAddr, tunnel: Option<Tunnel>) -> Self {
        let (syn, answer, crossing, early, ahead) = (None, None, None, None, None);
        Self { initiator, responder, syn, answer, crossing, early, ahead, tunnel }
    }

    /// When it was last tried.
    pub fn last(&self) -> KernelTime {
        let syn = self.syn.map(|syn| syn.last);
        syn.or(self.answer.map(|answer| answer.first)).unwrap_or(KernelTime(0))
    }

    /// Whether `number` acknowledges the SYN, and at most what it carried.
    pub fn acknowledges_syn(&self, number: u32) -> bool {
        self.syn.is_none_or(|syn| number.wrapping_sub(syn.isn.wrapping_add(1)) <= syn.payload)
    }

    /// Whether this SYN-ACK of the responder's is the answer to the SYN.
    pub fn is_answer(&self, segment: &Segment) -> bool {
        segment.source == self.responder
            && self.acknowledges_syn(segment.acknowledgement)
            // Its own SYN is the same one, where it sent one before.
            && self.crossing.is_none_or(|isn| isn == segment.sequence)
    }

    /// Whether this segment of the initiator's completes the handshake.
    pub fn is_completed_by(&self, segment: &Segment) -> bool {
        let Some(answer) = self.answer else { return false };
        if segment.source != self.initiator {
            return false;
        }
        // Of crossing SYNs, the initiator's own SYN-ACK repeats its SYN.
        let begins = self.syn.is_none_or(|syn| {
            let from = segment.sequence.wrapping_sub(syn.isn);
            from == 0 && self.crossing.is_some() || (1..=1 + MOST_AHEAD).contains(&from)
        });
        begins && segment.acknowledgement.wrapping_sub(answer.isn.wrapping_add(1)) <= MOST_AHEAD
    }

    /// Whether this segment of the responder's can be one after the handshake.
    pub fn is_followed_by(&self, segment: &Segment) -> bool {
        self.syn.is_some_and(|syn| segment.acknowledgement.wrapping_sub(syn.isn.wrapping_add(1)) <= MOST_AHEAD)
    }

    /// Takes a segment of the responder's behind its SYN-ACK, before the completing one. Returns whether it is one: the
    /// handshake is not over by it, for it proves nothing of the initiator.
    pub fn takes_ahead(&mut self, segment: &Segment) -> bool {
        let Some(answer) = self.answer else { return false };
        let behind = segment.sequence.wrapping_sub(answer.isn.wrapping_add(1));
        let follows = self.syn.is_none() || self.is_followed_by(segment);
        if segment.source != self.responder || behind > MOST_AHEAD || !follows {
            return false;
        }
        self.ahead.get_or_insert_with(|| Half::after_syn(answer.isn, answer.payload)).sends(segment)
    }

    /// Whether the responder may reset with this number.
    pub fn takes_reset(&self, answer: &Answer, number: u32) -> bool {
        number == answer.isn.wrapping_add(1) || self.ahead.is_some_and(|ahead| ahead.takes_reset(number))
    }

    /// The directions as the handshake leaves them: the initiator's, the responder's.
    pub fn halves(&self) -> [Half; 2] {
        let mut initiator = match (self.syn, self.answer) {
            (Some(syn), _) => {
                let mut half = Half::after_syn(syn.isn, syn.payload);
                (half.segments, half.retransmits) = (syn.count, syn.count - 1);
                half
            }
            (None, Some(answer)) => {
                let mut half = Half::default();
                half.begin_at(answer.acknowledgement);
                half
            }
            (None, None) => Half::default(),
        };
        let responder = match self.answer {
            Some(answer) => {
                if let Some(syn) = self.syn.filter(|syn| syn.count == 1 && answer.count == 1)
                    && let Some(took) = super::between(syn.first, answer.first)
                {
                    initiator.sampled(took);
                }
                initiator.is_acknowledged(answer.acknowledgement, answer.first);
                let mut half = self.ahead.unwrap_or_else(|| Half::after_syn(answer.isn, answer.payload));
                let crossed = u32::from(self.crossing.is_some());
                // The SYN-ACK is counted already, once.
                half.segments = half.segments.saturating_add(answer.count - 1 + crossed);
                half.retransmits = half.retransmits.saturating_add(answer.count - 1);
                half
            }
            None => Half::default(),
        };
        [initiator, responder]
    }
}

/// How far the segment that completes a handshake may be behind its first: it may be lost to the capture, and with Fast
/// Open the responder may have sent much before.
const MOST_AHEAD: u32 = 1 << 20;

// === impl Syn

impl Syn {
    pub fn new(segment: &Segment) -> Self {
        let Segment { sequence: isn, payload, time, .. } = *segment;
        Self { isn, payload, first: time, last: time, count: 1 }
    }

    /// Takes the same SYN again.
    pub fn again(&mut self, time: KernelTime) {
        self.count = self.count.saturating_add(1);
        (self.first, self.last) = (self.first.min(time), self.last.max(time));
    }
}

// === impl Answer

impl Answer {
    pub fn new(segment: &Segment) -> Self {
        let Segment { sequence: isn, acknowledgement, payload, time, .. } = *segment;
        Self { isn, acknowledgement, payload, first: time, count: 1 }
    }
}
