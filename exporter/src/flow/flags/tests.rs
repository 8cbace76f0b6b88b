//! Packets as they pass, each row of the flag logic a test: which records come of them.

use std::{sync::Arc, time::Duration};

use flowtel_common::packet::Flags;
use proptest::prelude::*;

use super::*;
use crate::flow::{Fold, Traffic};
use crate::tls::sample::Sample;

const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN: u8 = Flags::FIN | Flags::ACK;
const RST: u8 = Flags::RST;
const MS: u64 = 1_000_000;
/// Initial sequence numbers, near the end of their range.
const A0: u32 = u32::MAX - 20;
const B0: u32 = 5000;

/// A stage and what it told.
struct Wire {
    flows: FlagFlows,
    ledger: Arc<Ledger>,
    now: u64,
    told: Vec<FlowEvent>,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}
use Side::{A, B};

/// A segment of a story: numbers count from the first payload byte of each side (-1 is the SYN).
#[derive(Debug, Clone, Copy)]
struct Say(Side, u8, i64, i64, u32);

fn a() -> SocketAddr {
    ([10, 0, 0, 1], 40_000).into()
}

fn b() -> SocketAddr {
    ([10, 0, 0, 2], 80).into()
}

fn number(base: u32, position: i64) -> u32 {
    base.wrapping_add(1).wrapping_add(position as u32)
}

impl Say {
    fn segment(self, time: u64) -> Segment {
        let Self(from, flags, sequence, acknowledgement, payload) = self;
        let (source, destination, own, other) = if from == A { (a(), b(), A0, B0) } else { (b(), a(), B0, A0) };
        Segment {
            time: KernelTime(time),
            source,
            destination,
            flags: Flags(flags),
            sequence: number(own, sequence),
            acknowledgement: if flags & ACK == 0 { 0 } else { number(other, acknowledgement) },
            payload,
            tunnel: None,
        }
    }
}

impl Wire {
    fn new() -> Self {
        Self::with(&[], 1000)
    }

    fn with(local: &[&str], most: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let local = local.iter().map(|net| net.parse().expect("a network")).collect();
        let settings = Settings { attempts: most, flows: most, local, update: None, hellos: true };
        Self { flows: FlagFlows::new(settings, Arc::clone(&ledger)), ledger, now: 1_000_000 * MS, told: Vec::new() }
    }

    /// Each a millisecond after the other.
    fn say(&mut self, story: &[Say]) -> &mut Self {
        for say in story {
            self.now += MS;
            self.take(say.segment(self.now));
        }
        self
    }

    fn take(&mut self, segment: Segment) {
        let told = &mut self.told;
        self.flows.on(&segment, |event| told.push(event));
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += ms * MS;
        self
    }

    /// What was told until the capture's end, a word each.
    fn end(&mut self) -> Vec<String> {
        let told = &mut self.told;
        self.flows.finish(|event| told.push(event));
        let r = &self.ledger.replay;
        let fates = [&r.begun, &r.failed, &r.half_open, &r.unfinished, &r.attempts_forgotten];
        assert_eq!(r.attempts.get(), fates.iter().map(|n| n.get()).sum::<u64>(), "attempts");
        let fates = [&r.ended, &r.open, &r.replaced, &r.forgotten];
        assert_eq!(r.begun.get() + r.unseen.get(), fates.iter().map(|n| n.get()).sum::<u64>(), "flows");
        self.told.iter().map(word).collect()
    }

    /// With updates of connections that are open, at least so far apart.
    fn updated(every: Duration) -> Self {
        let mut wire = Self::new();
        wire.flows.settings.update = Some(every);
        wire
    }

    fn traffic(&self) -> Traffic {
        let mut ends = self.told.iter().filter_map(|event| match event.what {
            What::End { traffic, .. } => Some(traffic),
            _ => None,
        });
        ends.next_back().expect("an end")
    }
}

fn word(event: &FlowEvent) -> String {
    match &event.what {
        What::Open | What::Vanished => unreachable!("a capture tells begins and ends"),
        What::Update { .. } => "update".into(),
        What::ClientHello { hello } => {
            format!(
                "{}hello {}",
                if hello.whole { "" } else { "part of a " },
                hello.server_name.as_deref().unwrap_or("?")
            )
        }
        What::Begin { .. } => "begin".into(),
        What::End { cause, duration, .. } => {
            let cause = cause.expect("a capture shows it");
            assert_eq!(cause.source, Some(Evidence::Segment));
            format!("{}end {}", if duration.is_none() { "unseen " } else { "" }, cause.reason.as_str())
        }
        What::Failed { cause, attempts, fold } => {
            assert_eq!(*fold, None::<Fold>);
            format!("failed {} {attempts}", cause.reason.as_str())
        }
    }
}

const HANDSHAKE: [Say; 3] = [Say(A, SYN, -1, 0, 0), Say(B, SYN | ACK, -1, 0, 0), Say(A, ACK, 0, 0, 0)];
/// 100 bytes there, 3000 back.
const TALK: [Say; 4] =
    [Say(A, ACK, 0, 0, 100), Say(B, ACK, 0, 100, 1500), Say(B, ACK, 1500, 100, 1500), Say(A, ACK, 100, 3000, 0)];
const GOODBYE: [Say; 4] =
    [Say(A, FIN, 100, 3000, 0), Say(B, ACK, 3000, 101, 0), Say(B, FIN, 3000, 101, 0), Say(A, ACK, 101, 3001, 0)];

fn whole() -> Vec<Say> {
    [&HANDSHAKE[..], &TALK, &GOODBYE].concat()
}

#[test]
fn a_connection_has_one_begin_and_one_end_with_what_passed() {
    let mut wire = Wire::new();
    assert_eq!(wire.say(&whole()).end(), ["begin", "end fin"]);
    let (begin, end) = (&wire.told[0], &wire.told[1]);
    assert_eq!((begin.flow.source, begin.flow.destination), (a(), b()));
    assert_eq!(begin.what, What::Begin { handshake: Some(Duration::from_millis(1)) });
    assert_eq!(begin.at.time.0, 1_000_002 * MS, "when the SYN-ACK came");
    assert_eq!(begin.flow.id, end.flow.id);
    assert_eq!(begin.flow.direction, None);
    let What::End { duration, .. } = end.what else { panic!("an end") };
    assert_eq!(duration, Some(Duration::from_millis(9)));
    let expected = Traffic {
        counted: true,
        source_bytes: 100,
        destination_bytes: 3000,
        source_segments: 6,
        destination_segments: 5,
        retransmits: 0,
        rtt: None,
        delta: None,
    };
    assert_eq!(wire.traffic(), expected);
    assert_eq!(wire.ledger.replay.joined.get(), 11);
}

#[test]
fn what_passes_is_told_by_the_time_of_packets_and_adds_up_to_what_the_end_says() {
    let mut wire = Wire::updated(Duration::from_secs(60));
    wire.say(&HANDSHAKE).say(&TALK).wait(59_000).say(&[Say(A, ACK, 100, 3000, 50)]);
    wire.wait(1_000).say(&[Say(B, ACK, 3000, 150, 0)]);
    // Nothing comes for three intervals: nothing is told of it.
    wire.wait(180_000).say(&[Say(A, ACK, 150, 3000, 25), Say(B, ACK, 3000, 175, 0)]);
    wire.say(&[Say(A, FIN, 175, 3000, 0), Say(B, FIN, 3000, 176, 0), Say(A, ACK, 176, 3001, 0)]);
    assert_eq!(wire.end(), ["begin", "update", "update", "end fin"]);
    let told = |event: &FlowEvent| match event.what {
        What::Update { traffic, .. } | What::End { traffic, .. } => Some((traffic, traffic.delta.expect("a delta"))),
        _ => None,
    };
    let all: Vec<_> = wire.told.iter().filter_map(told).collect();
    let bytes: Vec<_> = all.iter().map(|(_, delta)| (delta.source_bytes, delta.destination_bytes)).collect();
    assert_eq!(bytes, [(150, 3000), (0, 0), (25, 0)]);
    let packets: i64 = all.iter().map(|(_, delta)| i64::from(delta.source_segments)).sum();
    let (end, _) = all.last().expect("an end");
    assert_eq!((end.source_bytes, i64::from(end.source_segments)), (175, packets));
    let What::Update { duration, .. } = wire.told[1].what else { panic!("an update") };
    assert_eq!(duration.map(|d| d.as_secs()), Some(60));
}

#[test]
fn the_same_capture_gives_the_same_ids_and_another_time_gives_others() {
    let ids = |wait| {
        let mut wire = Wire::new();
        wire.wait(wait).say(&whole()).end();
        wire.told.iter().map(|event| event.flow.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0), ids(0));
    assert_ne!(ids(0), ids(1));
}

#[test]
fn local_networks_decide_the_direction_and_whose_side_is_told() {
    let told = |local: &[&str]| {
        let mut wire = Wire::with(local, 1000);
        wire.say(&HANDSHAKE).say(&TALK).say(&[Say(A, RST, 100, 0, 0)]).end();
        (wire.told[0].clone(), wire.told[1].clone(), wire.traffic().rtt.is_some())
    };
    let (begin, end, rtt) = told(&["10.0.0.1/32"]);
    assert_eq!((begin.flow.direction, word(&end).as_str(), rtt), (Some(Direction::Outgoing), "end reset.local", true));
    let (begin, end, rtt) = told(&["10.0.0.2/31"]);
    assert_eq!((begin.flow.direction, word(&end).as_str(), rtt), (Some(Direction::Incoming), "end reset.remote", true));
    assert_eq!(begin.at.time.0, 1_000_003 * MS, "when the handshake was complete");
    let (begin, end, rtt) = told(&["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!((begin.flow.direction, word(&end).as_str(), rtt), (None, "end reset.local", false));
    assert_eq!(told(&["10.0.0.0/8"]).0.flow.direction, Some(Direction::Outgoing), "both are local");
}

#[test]
fn syns_and_syn_acks_that_are_sent_again_make_no_second_begin() {
    let mut wire = Wire::new();
    let [syn, answer, ack] = HANDSHAKE;
    wire.say(&[syn, syn, answer, answer, ack, answer, ack, syn]).say(&TALK).say(&GOODBYE);
    wire.say(&[syn, GOODBYE[2], GOODBYE[3]]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.traffic().retransmits, 2, "two SYNs more, before the end");
    assert_eq!(wire.ledger.replay.unused.get(), 3);
}

#[test]
fn a_syn_ack_with_a_wrong_number_makes_no_begin() {
    let mut wire = Wire::new();
    // The initiator answers a forged one with a reset of the number it named, and goes on.
    wire.say(&[HANDSHAKE[0], Say(B, SYN | ACK, -1, 77, 0), Say(A, RST, 77, 0, 0), Say(A, ACK, 0, 0, 0)]);
    assert_eq!(wire.wait(2000).end(), Vec::<String>::new());
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0], Say(B, SYN | ACK, 900, 77, 0), Say(A, RST, 77, 0, 0)]).say(&HANDSHAKE[1..]);
    assert_eq!(wire.say(&TALK).say(&GOODBYE).end(), ["begin", "end fin"]);
}

#[test]
fn a_handshake_that_is_never_completed_is_no_flow() {
    let mut wire = Wire::new();
    assert_eq!(wire.say(&HANDSHAKE[..2]).wait(200_000).say(&[]).end(), Vec::<String>::new());
    assert_eq!(wire.ledger.replay.half_open.get(), 1);
}

#[test]
fn a_reset_that_answers_a_syn_refuses_it() {
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0], Say(B, RST | ACK, -1, 0, 0), Say(B, RST | ACK, -1, 0, 0)]);
    assert_eq!(wire.end(), ["failed refused 1"]);
    assert_eq!(wire.ledger.replay.unused.get(), 1);
    // Not with another number, and not without ACK: nobody but who saw the SYN can refuse it.
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0], Say(B, RST | ACK, -1, 5, 0), Say(B, RST, -1, 0, 0)]).say(&HANDSHAKE[1..]);
    assert_eq!(wire.say(&TALK).say(&GOODBYE).end(), ["begin", "end fin"]);
}

#[test]
fn syns_without_an_answer_time_out_each_counted() {
    let mut wire = Wire::new();
    let syn = HANDSHAKE[0];
    wire.say(&[syn]).wait(1000).say(&[syn]).wait(2000).say(&[syn]);
    let last = wire.now;
    wire.wait(131_000);
    // Any packet moves the clock.
    wire.take(Segment { source: ([10, 9, 9, 9], 9).into(), ..syn.segment(wire.now) });
    assert_eq!(word(&wire.told[0]), "failed timed_out 3");
    assert_eq!(wire.told[0].at.time.0, last, "when it was last tried");
    assert_eq!(wire.end(), ["failed timed_out 3"], "the other is too young");
    assert_eq!(wire.ledger.replay.unfinished.get(), 1);
}

#[test]
fn an_attempt_without_an_answer_at_the_captures_end_has_failed_if_it_is_a_second_old() {
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0]]).wait(1500);
    wire.take(Segment { source: ([10, 9, 9, 9], 9).into(), ..HANDSHAKE[0].segment(wire.now) });
    assert_eq!(wire.end(), ["failed timed_out 1"]);
}

#[test]
fn an_initiator_that_resets_before_it_completes_has_given_up() {
    let mut wire = Wire::new();
    // A scanner's half handshake.
    wire.say(&HANDSHAKE[..2]).say(&[Say(A, RST, 0, 0, 0)]);
    assert_eq!(wire.end(), ["failed aborted 1"]);
}

#[test]
fn a_port_that_is_used_again_is_a_new_flow() {
    let mut wire = Wire::new();
    wire.say(&whole());
    let again: Vec<_> = whole();
    for say in again {
        wire.now += MS;
        let mut segment = say.segment(wire.now);
        let (own, other) = if say.0 == A { (0x1234, 0x777) } else { (0x777, 0x1234) };
        segment.sequence = segment.sequence.wrapping_add(own);
        segment.acknowledgement = segment.acknowledgement.wrapping_add(other);
        wire.take(segment);
    }
    assert_eq!(wire.end(), ["begin", "end fin", "begin", "end fin"]);
    assert_ne!(wire.told[0].flow.id, wire.told[2].flow.id);
    assert_eq!(wire.told[0].flow.community_id, wire.told[2].flow.community_id);
}

#[test]
fn a_new_handshake_replaces_a_flow_whose_end_was_not_captured() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE);
    for say in HANDSHAKE {
        wire.now += MS;
        let mut segment = say.segment(wire.now);
        segment.sequence = segment.sequence.wrapping_add(1 << 30);
        segment.acknowledgement = segment.acknowledgement.wrapping_add(1 << 30);
        wire.take(segment);
    }
    assert_eq!(wire.end(), ["begin", "begin"]);
    assert_eq!((wire.ledger.replay.replaced.get(), wire.ledger.replay.open.get()), (1, 1));
}

#[test]
fn a_syn_into_an_open_flow_does_not_end_it() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&[Say(A, SYN, 70_000, 0, 0)]).say(&TALK).say(&GOODBYE);
    assert_eq!(wire.wait(2000).end(), ["begin", "end fin"]);
    assert_eq!(wire.ledger.replay.unfinished.get(), 1);
}

#[test]
fn syns_that_cross_are_one_flow() {
    let mut wire = Wire::new();
    let syns = [Say(A, SYN, -1, 0, 0), Say(B, SYN, -1, 0, 0)];
    let answers = [Say(A, SYN | ACK, -1, 0, 0), Say(B, SYN | ACK, -1, 0, 0)];
    wire.say(&syns).say(&answers).say(&TALK).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.told[0].flow.source, a(), "who was first");
    assert_eq!(wire.traffic().source_bytes, 100);
    let mut wire = Wire::new();
    wire.say(&syns).say(&[answers[1], answers[0]]).say(&TALK).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
}

#[test]
fn data_in_a_syn_counts_once_whether_it_is_taken_or_not() {
    let story = |taken: i64| {
        let mut wire = Wire::new();
        wire.say(&[Say(A, SYN, -1, 0, 40), Say(B, SYN | ACK, -1, taken, 0)]);
        if taken == 0 {
            wire.say(&[Say(A, ACK, 0, 0, 40)]);
        }
        wire.say(&[Say(A, ACK, 40, 0, 60), Say(B, ACK, 0, 100, 3000)]).say(&GOODBYE);
        (wire.end(), wire.traffic().source_bytes, wire.traffic().destination_bytes)
    };
    let expected = (vec!["begin".to_owned(), "end fin".to_owned()], 100, 3000);
    assert_eq!(story(40), expected);
    assert_eq!(story(0), expected);
}

#[test]
fn half_a_close_is_no_end_and_what_follows_counts() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&[Say(A, FIN, 0, 0, 0), Say(B, ACK, 0, 1, 0)]).wait(90_000);
    assert_eq!(wire.told.len(), 1);
    wire.say(&[Say(B, ACK, 0, 1, 500), Say(A, ACK, 1, 500, 0), Say(B, FIN, 500, 1, 0), Say(A, ACK, 1, 501, 0)]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (0, 500));
}

#[test]
fn both_may_finish_at_once_and_the_last_acknowledgement_may_be_missing() {
    let fins = [Say(A, FIN, 100, 3000, 0), Say(B, FIN, 3000, 100, 0)];
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK).say(&fins).say(&[Say(A, ACK, 101, 3001, 0), Say(B, ACK, 3001, 101, 0)]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK).say(&fins);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (100, 3000));
}

#[test]
fn a_reset_of_either_side_ends_it_with_what_was_acknowledged() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK).say(&[Say(B, RST | ACK, 3000, 100, 0)]);
    assert_eq!(wire.end(), ["begin", "end reset.remote"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (100, 3000));
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK[..3]).say(&[Say(A, RST, 100, 0, 0), Say(B, ACK, 3000, 100, 10)]);
    assert_eq!(wire.end(), ["begin", "end reset.local"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (100, 0), "nothing was acknowledged");
}

#[test]
fn resets_and_fins_with_numbers_out_of_reach_end_nothing() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK);
    wire.say(&[
        Say(B, RST, 900_000, 0, 0),
        Say(B, RST, 100, 0, 0),
        Say(A, RST, -5, 0, 0),
        Say(B, FIN, 1 << 30, 100, 0),
        Say(B, FIN, -(1 << 30), 100, 0),
        Say(A, ACK, 100, 1 << 30, 0),
        // One that may be: what is sent on proves that it was forged.
        Say(A, FIN, 100, 3000, 0),
    ]);
    wire.say(&[Say(A, ACK, 100, 3000, 50), Say(B, ACK, 3000, 150, 0)]);
    assert_eq!(wire.told.len(), 1);
    wire.say(&[Say(A, FIN, 150, 3000, 0), Say(B, FIN, 3000, 151, 0), Say(A, ACK, 151, 3001, 0)]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (150, 3000));
}

#[test]
fn retransmissions_are_counted_and_their_bytes_are_not() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&[TALK[0], TALK[0]]).say(&TALK[1..]).say(&[TALK[2]]);
    wire.say(&[GOODBYE[0]]).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    let traffic = wire.traffic();
    assert_eq!((traffic.source_bytes, traffic.destination_bytes, traffic.retransmits), (100, 3000, 2));
}

#[test]
fn packets_that_the_capture_has_missed_are_counted_by_their_acknowledgement() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK[..2]).say(&TALK[3..]).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.traffic().destination_bytes, 3000);
    // The FIN is captured behind its acknowledgement.
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE).say(&TALK).say(&[GOODBYE[1], GOODBYE[0], GOODBYE[2], GOODBYE[3]]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.traffic().source_bytes, 100);
}

#[test]
fn more_than_four_gibibytes_are_counted() {
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE);
    let (step, steps) = (40_000_000_i64, 250);
    for i in 0..steps {
        wire.say(&[Say(A, ACK, i * step, 0, step as u32), Say(B, ACK, 0, (i + 1) * step, 0)]);
    }
    let all = step * steps;
    wire.say(&[Say(A, FIN, all, 0, 0), Say(B, FIN, 0, all + 1, 0), Say(A, ACK, all + 1, 1, 0)]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.traffic().source_bytes, 10_000_000_000);
}

#[test]
fn a_flow_that_began_before_the_capture_is_told_at_its_end_only() {
    let mut wire = Wire::new();
    wire.say(&TALK).say(&GOODBYE);
    assert_eq!(wire.end(), ["unseen end fin"]);
    assert_eq!(wire.told[0].flow.direction, None);
    assert_eq!(wire.told[0].flow.source, a(), "who was seen first");
    assert_eq!(wire.traffic().destination_bytes, 3000);
    let mut wire = Wire::with(&["10.0.0.2/32"], 1000);
    wire.say(&TALK).say(&[Say(B, RST, 3000, 0, 0)]);
    assert_eq!(wire.end(), ["unseen end reset.local"]);
    assert_eq!(wire.told[0].flow.source, b(), "the local side");
}

#[test]
fn a_reset_alone_and_the_rest_of_a_flow_that_is_over_are_nothing() {
    let mut wire = Wire::new();
    wire.say(&[Say(B, RST | ACK, 0, 0, 0), Say(A, RST, 0, 0, 0)]);
    wire.say(&whole()).say(&GOODBYE).say(&TALK);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.ledger.replay.unused.get(), 10);
}

#[test]
fn a_handshake_captured_out_of_order_is_one() {
    let [syn, answer, ack] = HANDSHAKE;
    for story in [[syn, ack, answer], [answer, syn, ack]] {
        let mut wire = Wire::new();
        wire.say(&story).say(&TALK).say(&GOODBYE);
        assert_eq!(wire.end(), ["begin", "end fin"], "{story:?}");
        assert_eq!(wire.traffic().source_bytes, 100);
    }
}

#[test]
fn data_of_the_responder_before_the_completing_segment_is_no_obstacle() {
    // A server that speaks first, and a capture that has the ACK behind its words.
    let early = [Say(B, ACK, 0, 0, 1000), Say(B, ACK, 1000, 0, 500)];
    let mut wire = Wire::with(&["10.0.0.2/32"], 1000);
    wire.say(&HANDSHAKE[..2]).say(&early).say(&[Say(A, ACK, 0, 1500, 0), Say(A, ACK, 0, 1500, 100)]);
    wire.say(&[Say(B, ACK, 1500, 100, 1500), Say(A, ACK, 100, 3000, 0)]).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    let traffic = wire.traffic();
    assert_eq!((traffic.source_bytes, traffic.destination_bytes, traffic.retransmits), (100, 3000, 0));
    assert_eq!((traffic.source_segments, traffic.destination_segments), (6, 6));
    assert_eq!(wire.told[0].what, What::Begin { handshake: None }, "the ACK was not the one that completed it");
    // Nobody completes it: the server's words prove nothing of the client.
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE[..2]).say(&early);
    assert_eq!(wire.end(), Vec::<String>::new());
    assert_eq!(wire.ledger.replay.half_open.get(), 1);
    // It gives up after its words.
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE[..2]).say(&early).say(&[Say(B, RST, 1500, 0, 0)]);
    assert_eq!(wire.end(), ["failed refused 1"]);
    // It says all, and finishes.
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE[..2]).say(&early[..1]).say(&[Say(B, FIN, 1000, 0, 0), Say(A, ACK, 0, 1001, 0)]);
    wire.say(&[Say(A, FIN, 0, 1001, 0), Say(B, ACK, 1001, 1, 0)]);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!((wire.traffic().source_bytes, wire.traffic().destination_bytes), (0, 1000));
}

#[test]
fn a_syn_that_was_refused_and_is_answered_when_it_comes_again_begins_a_flow() {
    let refusal = Say(B, RST | ACK, -1, 0, 0);
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0], refusal]).wait(500).say(&[HANDSHAKE[0], refusal]).wait(500);
    wire.say(&HANDSHAKE).say(&TALK).say(&GOODBYE);
    assert_eq!(wire.end(), ["failed refused 1", "begin", "end fin"]);
    assert_ne!(wire.told[0].flow.id, wire.told[1].flow.id);
    // Without that SYN an answer is forged, or of something else.
    let mut wire = Wire::new();
    wire.say(&[HANDSHAKE[0], refusal]).say(&HANDSHAKE[1..]);
    assert_eq!(wire.end(), ["failed refused 1"]);
}

#[test]
fn the_same_packets_twice_are_two_flows_with_ids_of_their_own() {
    // As in a capture that was put behind itself, after so long that nobody remembers: each record keeps an id of its own.
    for story in [whole(), [&TALK[..], &GOODBYE].concat(), vec![HANDSHAKE[0], Say(B, RST | ACK, -1, 0, 0)]] {
        let mut wire = Wire::new();
        for _ in 0..3 {
            wire.now = 1_000_000 * MS;
            wire.say(&story);
            wire.now = 2_000_000 * MS;
            wire.take(Segment { source: ([10, 9, 9, 9], 9).into(), ..TALK[0].segment(wire.now) });
        }
        wire.end();
        let ids: std::collections::HashSet<_> =
            wire.told.iter().map(|event| (event.flow.id, event.at.time, std::mem::discriminant(&event.what))).collect();
        assert_eq!(ids.len(), wire.told.len(), "{story:?}");
        assert!(wire.told.len() >= 3);
    }
}

#[test]
fn a_packet_from_the_future_makes_no_two_ends_with_one_id() {
    // What the fuzzer found: one packet's time is far ahead, and the packets come again.
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE[..2]);
    let (start, ahead) = (wire.now, wire.now + 139_000 * MS);
    for _ in 0..2 {
        wire.take(TALK[0].segment(ahead));
        wire.now = start;
        wire.say(&TALK[1..]).say(&GOODBYE);
    }
    assert_eq!(wire.end(), ["unseen end fin", "unseen end fin"]);
    assert_ne!(wire.told[0].flow.id, wire.told[1].flow.id);
}

#[test]
fn packets_without_a_time_tell_no_durations() {
    let mut wire = Wire::with(&["10.0.0.1/32"], 1000);
    for say in whole() {
        wire.take(say.segment(0));
    }
    assert_eq!(wire.told[0].what, What::Begin { handshake: None });
    let What::End { duration, traffic, .. } = wire.told[1].what else { panic!("an end") };
    assert_eq!((duration, traffic.rtt, traffic.destination_bytes), (None, None, 3000));
}

#[test]
fn a_flow_has_the_tunnel_of_its_first_packet() {
    let mut wire = Wire::new();
    for say in whole() {
        wire.now += MS;
        let tunnel = (say.0 == A).then_some(Tunnel::Vxlan);
        wire.take(Segment { tunnel, ..say.segment(wire.now) });
    }
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert!(wire.told.iter().all(|event| event.flow.tunnel == Some(Tunnel::Vxlan)));
}

#[test]
fn one_direction_alone_begins_nothing_and_has_not_timed_out() {
    let mut wire = Wire::new();
    let story: Vec<_> = whole().into_iter().filter(|say| say.0 == A).collect();
    wire.say(&story).wait(5000);
    wire.take(Segment { source: ([10, 9, 9, 9], 9).into(), ..HANDSHAKE[0].segment(wire.now) });
    assert_eq!(wire.end(), Vec::<String>::new());
}

#[test]
fn a_flood_of_syns_takes_bounded_memory_and_costs_no_flow() {
    let mut wire = Wire::with(&[], 100);
    wire.say(&HANDSHAKE);
    for i in 0..10_000u32 {
        let source = (std::net::Ipv4Addr::from(0x0b00_0000 + i), 1).into();
        wire.take(Segment { source, ..HANDSHAKE[0].segment(wire.now) });
    }
    assert!(wire.flows.attempts.len() <= 100);
    wire.say(&TALK).say(&GOODBYE);
    assert_eq!(wire.end(), ["begin", "end fin"]);
    assert_eq!(wire.ledger.replay.attempts_forgotten.get(), 9900);
}

#[test]
fn more_flows_than_are_followed_push_out_the_oldest() {
    let mut wire = Wire::with(&[], 10);
    for port in 1..=100 {
        for say in HANDSHAKE {
            let mut segment = say.segment(wire.now);
            let end = if say.0 == A { &mut segment.source } else { &mut segment.destination };
            end.set_port(port);
            wire.take(segment);
        }
    }
    assert_eq!(wire.flows.open_flows(), 10);
    assert_eq!(wire.end().len(), 100);
    assert_eq!((wire.ledger.replay.forgotten.get(), wire.ledger.replay.open.get()), (90, 10));
}

/// Any segment near the story's numbers, or anywhere.
fn any_segment() -> impl Strategy<Value = Segment> {
    let position = prop_oneof![4 => -3i64..4000, 1 => any::<i32>().prop_map(i64::from)];
    (any::<bool>(), any::<u8>(), position.clone(), position, 0u32..2000, 0u64..300_000).prop_map(
        |(from_a, flags, sequence, acknowledgement, payload, ms)| {
            Say(if from_a { A } else { B }, flags, sequence, acknowledgement, payload).segment(ms * MS)
        },
    )
}

proptest! {
    /// However the story's segments are reordered, lost and repeated, it is told at most once, and nothing is stuck.
    #[test]
    fn whatever_is_lost_repeated_or_out_of_order_nothing_is_told_twice(
        order in prop::collection::vec(0usize..11, 0..60), local in any::<bool>()
    ) {
        let mut wire = Wire::with(if local { &["10.0.0.2/32"] } else { &[] }, 1000);
        let story = whole();
        for i in order {
            wire.say(&[story[i]]);
        }
        let told = wire.end();
        let count = |word: &str| told.iter().filter(|told| told.starts_with(word)).count();
        for word in ["begin", "end", "failed"] {
            prop_assert!(count(word) <= 1, "{told:?}");
        }
        // Ends that come before their handshake look like those of an earlier flow.
        prop_assert!(count("unseen") <= 1, "{told:?}");
        prop_assert_eq!(wire.flows.open_flows(), 0);
        let r = &wire.ledger.replay;
        prop_assert_eq!(r.joined.get() + r.unused.get(), (wire.now - 1_000_000 * MS) / MS);
    }

    /// What is repeated at once, or swapped with its neighbour behind the handshake, changes nothing of the story.
    #[test]
    fn repeated_and_swapped_segments_change_no_story(repeated in prop::collection::vec(any::<bool>(), 11), swap in 3usize..10) {
        let mut story = whole();
        story.swap(swap, swap + 1);
        let mut wire = Wire::new();
        for (say, again) in story.into_iter().zip(repeated) {
            wire.say(&[say]);
            if again {
                wire.say(&[say]);
            }
        }
        prop_assert_eq!(wire.end(), ["begin", "end fin"]);
        let traffic = wire.traffic();
        prop_assert_eq!((traffic.source_bytes, traffic.destination_bytes), (100, 3000));
    }

    /// Whatever comes, the balances hold, and each flow has one begin and one end at most.
    #[test]
    fn any_segments_balance(segments in prop::collection::vec(any_segment(), 0..200)) {
        let mut wire = Wire::with(&[], 4);
        for segment in segments {
            wire.take(segment);
        }
        wire.end();
        let mut seen = std::collections::HashSet::new();
        for event in &wire.told {
            prop_assert!(seen.insert((event.flow.id, std::mem::discriminant(&event.what))), "{event:?}");
        }
    }
}

/// Says something with these bytes of payload, captured whole.
fn with_payload(wire: &mut Wire, from: Side, at: i64, acknowledged: i64, payload: &[u8]) {
    wire.now += MS;
    let segment = Say(from, ACK, at, acknowledged, payload.len() as u32).segment(wire.now);
    let told = &mut wire.told;
    wire.flows.on_payload(&segment, payload, |event| told.push(event));
}

#[test]
fn a_hello_is_told_once_whole_in_whatever_order_its_segments_were_captured() {
    let bytes = Sample::new("example.com").and((0x6399, vec![1; 1600])).bytes();
    let (first, rest) = bytes.split_at(1400);
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE);
    with_payload(&mut wire, A, 1400, 0, rest);
    with_payload(&mut wire, A, 0, 0, first);
    with_payload(&mut wire, A, 0, 0, first);
    with_payload(&mut wire, B, 0, bytes.len() as i64, &[22, 3, 3, 0, 4, 2, 0, 0, 0]);
    assert_eq!(wire.told.iter().map(word).collect::<Vec<_>>(), ["begin", "hello example.com"]);
    assert_eq!(wire.told[0].flow.id, wire.told[1].flow.id);
    assert_eq!(wire.end(), ["begin", "hello example.com"]);
}

#[test]
fn a_hello_that_completes_the_handshake_comes_after_the_begin() {
    let bytes = Sample::new("example.com").bytes();
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE[..2]);
    with_payload(&mut wire, A, 0, 0, &bytes);
    assert_eq!(wire.end(), ["begin", "hello example.com"]);
}

#[test]
fn part_of_a_hello_is_told_before_the_end_without_a_fingerprint() {
    let bytes = Sample::new("example.com").and((0x6399, vec![1; 1600])).bytes();
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE);
    with_payload(&mut wire, A, 0, 0, &bytes[..1400]);
    wire.say(&[Say(B, RST | ACK, 0, 1400, 0)]);
    assert_eq!(wire.end(), ["begin", "part of a hello example.com", "end reset.remote"]);
    let What::ClientHello { hello } = &wire.told[1].what else { panic!("a hello") };
    assert_eq!(hello.ja4, None);
}

#[test]
fn what_a_connection_says_later_is_no_hello_and_neither_is_what_is_not_asked_for() {
    let bytes = Sample::new("example.com").bytes();
    let mut wire = Wire::new();
    wire.say(&HANDSHAKE);
    with_payload(&mut wire, A, 0, 0, b"EHLO example.com\r\n");
    with_payload(&mut wire, A, 18, 0, &bytes);
    assert_eq!(wire.end(), ["begin"]);
    let mut wire = Wire::new();
    wire.flows.settings.hellos = false;
    wire.say(&HANDSHAKE);
    with_payload(&mut wire, A, 0, 0, &bytes);
    assert_eq!(wire.end(), ["begin"]);
}
