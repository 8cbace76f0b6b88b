//! A handshake: its segments come in, in whatever order, and whether they prove a connection comes out.
//!
//! SYN, SYN-ACK and ACK must name each other's numbers (RFC 9293, 3.5): a SYN-ACK that acknowledges another SYN than the
//! one seen is forged, or belongs to another attempt.

use std::net::SocketAddr;

use super::half::Half;
use crate::capture::{KernelTime, pcap::Segment};

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
        let mut attempt = Self::nothing(segment.source, segment.destination);
        attempt.syn = Some(Syn::new(segment));
        attempt
    }

    /// An attempt whose SYN-ACK is here, and the SYN may yet come.
    pub fn answered(segment: &Segment) -> Self {
        let mut attempt = Self::nothing(segment.destination, segment.source);
        attempt.answer = Some(Answer::new(segment));
        attempt
    }

    fn nothing(initiator: SocketAddr, responder: SocketAddr) -> Self {
        Self { initiator, responder, syn: None, answer: None, crossing: None, early: None }
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
                if self.syn.is_some_and(|syn| syn.count == 1) && answer.count == 1 {
                    initiator.sampled(answer.first.since(self.syn.map_or(answer.first, |syn| syn.first)));
                }
                initiator.is_acknowledged(answer.acknowledgement, answer.first);
                let mut half = Half::after_syn(answer.isn, answer.payload);
                let crossed = u32::from(self.crossing.is_some());
                (half.segments, half.retransmits) = (answer.count + crossed, answer.count - 1);
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
