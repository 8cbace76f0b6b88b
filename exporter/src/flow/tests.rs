use flowtel_common::event::{ACTIVE, Connect, Established, PASSIVE, SynAck, mapped};
use proptest::prelude::*;

use super::*;

const OWN: u32 = 4242;
const MS: u64 = 1_000_000;

struct Scene {
    flows: Flows,
    ledger: Arc<Ledger>,
    told: Vec<Begin>,
}

impl Scene {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let flows = Flows::new(&config::Flow::default(), BootId::new([1; 16]), Some(OWN), Arc::clone(&ledger));
        Self { flows, ledger, told: Vec::new() }
    }

    fn on(&mut self, time: u64, event: Event) {
        let read = match event {
            Event::Connect(_) => &self.ledger.kernel.connect,
            Event::SynAck(_) => &self.ledger.kernel.syn_ack,
            Event::Established(_) => &self.ledger.kernel.established,
        };
        read.read.add(1);
        self.flows.on(&KernelEvent {
            time: KernelTime(time),
            wall: WallTime(1_000_000 * MS + time),
            read: WallTime(0),
            event,
        });
    }

    fn settle(&mut self, now: u64) {
        let told = &mut self.told;
        self.flows.settle(KernelTime(now), |FlowEvent::Begin(begin)| told.push(begin));
    }

    fn flush(&mut self) -> &[Begin] {
        let told = &mut self.told;
        self.flows.flush(|FlowEvent::Begin(begin)| told.push(begin));
        &self.told
    }
}

fn connect(cookie: u64, pid: u32) -> Event {
    Event::Connect(Connect {
        kind: event::CONNECT,
        tgid: pid,
        time: 0,
        cookie,
        tid: pid,
        uid: 7,
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
    })
}

fn syn_ack(cookie: u64) -> Event {
    Event::SynAck(SynAck { kind: event::SYN_ACK, reserved: 0, time: 0, cookie })
}

fn established(cookie: u64, how: u32, local: (u8, u16), remote: (u8, u16), srtt_us: u32) -> Event {
    let address = |last: u8| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    Event::Established(Established {
        kind: event::ESTABLISHED,
        how,
        time: 0,
        cookie,
        local: address(local.0),
        remote: address(remote.0),
        local_port: local.1,
        remote_port: remote.1,
        srtt_us,
        retransmits: 0,
        segments_in: 2,
    })
}

const CLIENT: (u8, u16) = (1, 40_000);
const SERVER: (u8, u16) = (2, 80);

#[test]
fn an_outgoing_flow_begins_at_the_answer_and_its_handshake_starts_with_the_call() {
    let mut scene = Scene::new();
    scene.on(10 * MS, connect(5, 99));
    scene.on(22 * MS, syn_ack(5));
    scene.on(22 * MS + 1000, established(5, ACTIVE, CLIENT, SERVER, 12_000));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!(begin.direction, Direction::Outgoing);
    assert_eq!(
        (begin.source.to_string(), begin.destination.to_string()),
        ("192.0.2.1:40000".into(), "192.0.2.2:80".into())
    );
    assert_eq!(begin.handshake, Some(Duration::from_millis(12)));
    assert_eq!(begin.time, KernelTime(22 * MS));
    assert_eq!(begin.wall, WallTime(1_000_022 * MS));
    assert_eq!(begin.connector.map(|c| (c.pid, c.uid)), Some((99, 7)));
    assert!(!begin.local);
}

#[test]
fn an_incoming_flow_has_the_peer_as_its_source() {
    let mut scene = Scene::new();
    scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 60_321));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!(begin.direction, Direction::Incoming);
    assert_eq!(begin.source.to_string(), "192.0.2.1:40000");
    assert_eq!(begin.handshake, Some(Duration::from_micros(60_321)));
    assert_eq!(begin.connector, None);
}

#[test]
fn a_round_trip_time_that_is_not_known_for_certain_is_no_handshake_duration() {
    for srtt in [0, 1000, 65_000] {
        let mut scene = Scene::new();
        scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, srtt));
        assert_eq!(scene.flush()[0].handshake, None, "{srtt} µs");
    }
}

#[test]
fn crossing_syns_are_outgoing_on_both_sides() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.on(2, connect(6, 98));
    scene.on(3, established(5, PASSIVE, CLIENT, SERVER, 0));
    scene.on(4, established(6, PASSIVE, SERVER, CLIENT, 0));
    let told = scene.flush();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|b| b.direction == Direction::Outgoing && b.local && b.handshake.is_none()));
    assert_eq!(told[0].source, told[1].destination);
    assert_eq!(told[0].community_id, told[1].community_id);
}

#[test]
fn forged_answers_move_no_time_and_begin_nothing() {
    let mut scene = Scene::new();
    scene.on(10 * MS, connect(5, 99));
    for time in [11, 12, 13] {
        scene.on(time * MS, syn_ack(5));
    }
    assert!(scene.flush().is_empty());
    scene.on(50 * MS, syn_ack(5));
    scene.on(50 * MS + 1, established(5, ACTIVE, CLIENT, SERVER, 0));
    assert_eq!(scene.flush()[0].handshake, Some(Duration::from_millis(40)));
    assert_eq!(scene.ledger.kernel.syn_ack.unused.get(), 3);
    assert_eq!(scene.ledger.kernel.syn_ack.joined.get(), 1);
}

#[test]
fn the_two_ends_on_one_host_know_of_each_other_and_share_a_community_id_but_no_flow_id() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.on(2, syn_ack(5));
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(4, established(6, PASSIVE, SERVER, CLIENT, 0));
    let [client, server] = scene.flush() else { panic!("two begins") };
    assert!(client.local && server.local);
    assert_eq!((client.source, client.destination), (server.source, server.destination));
    assert_eq!(client.community_id, server.community_id);
    assert_ne!(client.id, server.id);
}

#[test]
fn a_begin_is_told_ten_milliseconds_after_it_happened_and_only_once() {
    let mut scene = Scene::new();
    scene.on(100 * MS, established(6, PASSIVE, SERVER, CLIENT, 0));
    scene.settle(109 * MS);
    assert!(scene.told.is_empty());
    scene.settle(110 * MS);
    assert_eq!(scene.told.len(), 1);
    scene.settle(500 * MS);
    assert_eq!(scene.flush().len(), 1);
}

#[test]
fn both_ends_of_a_connection_of_our_own_are_left_out_and_counted() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, OWN));
    scene.on(2, syn_ack(5));
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(4, established(6, PASSIVE, SERVER, CLIENT, 0));
    assert!(scene.flush().is_empty());
    assert_eq!(scene.ledger.kernel.established.own.get(), 2);
    assert_eq!(scene.ledger.kernel.connect.own.get(), 1);
    assert_eq!(scene.ledger.kernel.syn_ack.own.get(), 1);
}

#[test]
fn a_socket_used_again_after_a_failed_call_is_a_flow_of_its_last_call() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.on(20 * MS, connect(5, 99));
    scene.on(25 * MS, syn_ack(5));
    scene.on(26 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    assert_eq!(scene.flush()[0].handshake, Some(Duration::from_millis(5)));
    assert_eq!(scene.ledger.kernel.connect.unused.get(), 1);
}

#[test]
fn an_outgoing_flow_whose_call_was_lost_is_still_told_without_owner_and_handshake() {
    let mut scene = Scene::new();
    scene.on(2, syn_ack(5));
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 12_345));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!((begin.direction, begin.handshake, begin.connector), (Direction::Outgoing, None, None));
}

#[test]
fn an_attempt_without_answer_is_forgotten_after_its_age() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.settle(600_000 * MS);
    assert_eq!(scene.flows.open_attempts(), 1);
    scene.settle(600_001 * MS);
    assert_eq!(scene.flows.open_attempts(), 0);
    assert_eq!(scene.ledger.kernel.connect.unused.get(), 1);
}

proptest! {
    /// Whatever comes in whatever order, missing or repeated: each proof of a begin is told once, every event's fate is
    /// counted, and nothing but open attempts stays behind.
    #[test]
    fn every_established_is_told_once_and_every_event_is_accounted_for(
        steps in prop::collection::vec((0u8..5, 0u64..8, prop::bool::ANY, 0u64..20), 0..300)
    ) {
        let mut scene = Scene::new();
        let (mut now, mut proofs) = (1_000_000_000u64, 0usize);
        for (step, cookie, flag, gap) in steps {
            now += gap * MS;
            // Late or early by some milliseconds now and then.
            let time = if flag { now } else { now.saturating_sub(gap * MS / 2) };
            match step {
                0 => scene.on(time, connect(cookie, if cookie == 7 { OWN } else { 99 })),
                1 => scene.on(time, syn_ack(cookie)),
                2 | 3 => {
                    proofs += 1;
                    let ends = (CLIENT, (2, cookie as u16 % 3));
                    let event = if step == 2 {
                        established(cookie, ACTIVE, ends.0, ends.1, 0)
                    } else {
                        established(cookie, PASSIVE, ends.1, ends.0, 77)
                    };
                    scene.on(time, event);
                }
                _ => scene.settle(now),
            }
        }
        scene.flush();
        let ledger = Arc::clone(&scene.ledger);
        let kernel = &ledger.kernel;
        prop_assert_eq!(scene.told.len() as u64, kernel.established.joined.get());
        prop_assert_eq!(proofs as u64, kernel.established.joined.get() + kernel.established.own.get());
        prop_assert_eq!(kernel.established.open(), 0);
        prop_assert_eq!(kernel.connect.open(), scene.flows.open_attempts() as i128);
        scene.settle(now + 700_000 * MS);
        prop_assert_eq!((kernel.connect.open(), kernel.syn_ack.open()), (0, 0));
    }
}
