use std::sync::Arc;

use flowtel_common::event::{
    self, ACTIVE, Accept, Call, Caller, Close, Counters, Established, Event, Fin, IN, Instant, OUT, PASSIVE, Refused,
    Release, Segment, Update, mapped, state,
};
use proptest::prelude::*;

use super::*;
use crate::{
    capture::{KernelEvent, kind_of},
    config,
    ledger::Ledger,
};

mod failures;
mod hellos;
mod owners;
mod updates;

const OWN: u32 = 4242;
const MS: u64 = 1_000_000;

struct Scene {
    flows: Flows,
    ledger: Arc<Ledger>,
    told: Vec<FlowEvent>,
    recording: Option<Vec<(u64, Event)>>,
}

impl Scene {
    /// The events that a script tells.
    fn recorded(script: impl FnOnce(&mut Self)) -> Vec<(u64, Event)> {
        let mut scene = Self::new();
        scene.recording = Some(Vec::new());
        script(&mut scene);
        scene.recording.unwrap_or_default()
    }

    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let flows = Flows::new(&config::Config::default(), BootId::new([1; 16]), Some(OWN), Arc::clone(&ledger));
        Self { flows, ledger, told: Vec::new(), recording: None }
    }

    fn on(&mut self, time: u64, event: Event) {
        if let Some(recording) = &mut self.recording {
            recording.push((time, event));
            return;
        }
        kind_of(&event, &self.ledger.kernel).read.add(1);
        let wall = WallTime(1_000_000 * MS + time);
        self.flows.on(&KernelEvent { time: KernelTime(time), wall, read: WallTime(0), event });
    }

    fn settle(&mut self, now: u64) {
        let told = &mut self.told;
        self.flows.settle(KernelTime(now), |event| told.push(event.clone()));
    }

    fn flush(&mut self) -> &[FlowEvent] {
        let told = &mut self.told;
        self.flows.flush(|event| told.push(event.clone()));
        &self.told
    }
}

fn handshake(event: &FlowEvent) -> Option<Duration> {
    let What::Begin { handshake } = event.what else { panic!("no begin: {event:?}") };
    handshake
}

fn end(event: &FlowEvent) -> (EndReason, Option<Duration>, Traffic) {
    let What::End { cause: Some(cause), duration, traffic } = event.what else { panic!("no end: {event:?}") };
    (cause.reason, duration, traffic)
}

fn failure(event: &FlowEvent) -> (FailReason, u32, Option<Fold>) {
    let What::Failed { cause, attempts, fold } = event.what else { panic!("no failure: {event:?}") };
    (cause.reason, attempts, fold)
}

fn call(kind: u32, cookie: u64, pid: u32, port: u16) -> Call {
    let comm = *b"curl\0\0\0\0\0\0\0\0\0\0\0\0";
    Call {
        caller: Caller { kind, tgid: pid, time: 0, cookie, cgroup: 1, tid: pid, uid: 7, comm },
        netns: 1,
        address: mapped(u32::from_ne_bytes([192, 0, 2, 2])),
        port,
        refusal: 0,
        reserved_2: 0,
    }
}

fn connect(cookie: u64, pid: u32) -> Event {
    Event::Connect(call(event::CONNECT, cookie, pid, 80))
}

fn bind(cookie: u64, pid: u32) -> Event {
    Event::Bind(call(event::BIND, cookie, pid, 0).caller)
}

/// The caller is known where `pid` is not 0.
fn listen(cookie: u64, pid: u32) -> Event {
    Event::Listen(call(event::LISTEN, cookie, pid, 0).caller)
}

fn unlisten(cookie: u64) -> Event {
    Event::Unlisten(instant(event::UNLISTEN, cookie))
}

fn instant(kind: u32, cookie: u64) -> Instant {
    Instant { kind, reserved: 0, time: 0, cookie }
}

fn syn_again(cookie: u64) -> Event {
    Event::SynAgain(instant(event::SYN_AGAIN, cookie))
}

fn used_again(cookie: u64) -> Event {
    Event::UsedAgain(instant(event::USED_AGAIN, cookie))
}

fn accept(cookie: u64, pid: u32) -> Event {
    Event::Accept(Accept {
        netns: 1,
        kind: event::ACCEPT,
        tgid: pid,
        time: 0,
        cookie,
        cgroup: 9,
        tid: pid,
        uid: 8,
        comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
        remote: mapped(0),
        remote_port: 0,
        local_port: 0,
        certain: 1,
    })
}

fn release(cookie: u64, state: u32) -> Event {
    Event::Release(Release { kind: event::RELEASE, tgid: 1, time: 0, cookie, state, uncounted: 0, unroutable: [0; 4] })
}

fn fin(cookie: u64, way: u32) -> Event {
    let (counters, state) = (Counters::default(), state::ESTABLISHED);
    Event::Fin(Fin { kind: event::FIN, way, time: 0, cookie, counters, ahead: 0, state })
}

fn reset(cookie: u64, way: u32) -> Event {
    Event::Reset(Segment {
        kind: event::RESET,
        way,
        time: 0,
        cookie,
        cgroup: 1,
        local: mapped(0),
        remote: mapped(0),
        local_port: 1,
        remote_port: 1,
        state: state::ESTABLISHED,
        counters: Counters::default(),
        ahead: 0,
        fin_in: 0,
    })
}

fn close(cookie: u64, old_state: u32, local: (u8, u16), remote: (u8, u16), counters: Counters) -> Event {
    let address = |last: u8| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    Event::Close(Close {
        interface: 0,
        netns_inode: 0,
        kind: event::CLOSE,
        old_state,
        time: 0,
        cookie,
        local: address(local.0),
        remote: address(remote.0),
        local_port: local.1,
        remote_port: remote.1,
        fin_in: 0,
        marks: event::ALL_ACKNOWLEDGED,
        timer: event::TIMER_UNKNOWN,
        error: event::ERROR_UNKNOWN,
        counters,
    })
}

/// From FIN_WAIT2, by the peer's FIN.
fn close_by_fin(cookie: u64, local: (u8, u16), remote: (u8, u16), counters: Counters) -> Event {
    let Event::Close(close) = close(cookie, state::FIN_WAIT2, local, remote, counters) else {
        unreachable!("it is one")
    };
    Event::Close(Close { fin_in: 1, ..close })
}

fn refused(remote: (u8, u16), port: u16) -> Event {
    let address = |last: u8| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    Event::Refused(Refused {
        kind: event::REFUSED,
        proven: 1,
        time: 0,
        local: address(2),
        remote: address(remote.0),
        local_port: port,
        remote_port: remote.1,
        netns_inode: 0,
    })
}

fn established(cookie: u64, how: u32, local: (u8, u16), remote: (u8, u16), srtt_us: u32) -> Event {
    Event::Established(handshake_of(cookie, how, local, remote, srtt_us))
}

/// Taken by the listening socket `listener`.
fn taken(cookie: u64, listener: u64) -> Event {
    Event::Established(Established { listener, ..handshake_of(cookie, PASSIVE, SERVER, CLIENT, 0) })
}

fn handshake_of(cookie: u64, how: u32, local: (u8, u16), remote: (u8, u16), srtt_us: u32) -> Established {
    let address = |last: u8| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    Established {
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
        data_segments_in: 0,
        netns: 1,
        listener: 0,
        interface: 0,
        reserved_2: 0,
    }
}

const CLIENT: (u8, u16) = (1, 40_000);
const SERVER: (u8, u16) = (2, 80);

#[test]
fn an_outgoing_flow_begins_at_the_answer_and_its_handshake_starts_with_the_call() {
    let mut scene = Scene::new();
    scene.on(10 * MS, connect(5, 99));
    scene.on(22 * MS, established(5, ACTIVE, CLIENT, SERVER, 12_000));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!(begin.flow.direction, Some(Direction::Outgoing));
    assert_eq!(
        (begin.flow.source.to_string(), begin.flow.destination.to_string()),
        ("192.0.2.1:40000".into(), "192.0.2.2:80".into())
    );
    assert_eq!(handshake(begin), Some(Duration::from_millis(12)));
    assert_eq!(begin.at.time, KernelTime(22 * MS));
    assert_eq!(begin.at.wall, WallTime(1_000_022 * MS));
    assert_eq!(begin.flow.owner.map(|o| (o.pid, o.uid, o.role)), Some((99, 7, Role::Connector)));
    assert!(!begin.flow.local);
}

#[test]
fn an_incoming_flow_has_the_peer_as_its_source() {
    let mut scene = Scene::new();
    scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 60_321));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!(begin.flow.direction, Some(Direction::Incoming));
    assert_eq!(begin.flow.source.to_string(), "192.0.2.1:40000");
    assert_eq!(handshake(begin), Some(Duration::from_micros(60_321)));
    assert_eq!(begin.flow.owner, None);
}

#[test]
fn a_round_trip_time_that_is_not_known_for_certain_is_no_handshake_duration() {
    for srtt in [0, 1000, 65_000] {
        let mut scene = Scene::new();
        scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, srtt));
        assert_eq!(handshake(&scene.flush()[0]), None, "{srtt} µs");
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
    assert!(
        told.iter().all(|b| b.flow.direction == Some(Direction::Outgoing) && b.flow.local && handshake(b).is_none())
    );
    assert_eq!(told[0].flow.source, told[1].flow.destination);
    assert_eq!(told[0].flow.community_id, told[1].flow.community_id);
}

#[test]
fn of_crossing_syns_too_the_own_one_is_no_payload() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.on(3, established(5, PASSIVE, CLIENT, SERVER, 0));
    let counters = Counters { bytes_acked: 302, bytes_received: 41, ..Counters::default() };
    scene.on(5, fin(5, IN));
    scene.on(5, close(5, state::FIN_WAIT2, CLIENT, SERVER, counters));
    let traffic = end(&scene.flush()[1]).2;
    assert_eq!((traffic.source_bytes, traffic.destination_bytes), (300, 40));
}

#[test]
fn the_two_ends_on_one_host_know_of_each_other_and_share_a_community_id_but_no_flow_id() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(4, established(6, PASSIVE, SERVER, CLIENT, 0));
    let [client, server] = scene.flush() else { panic!("two begins") };
    let (client, server) = (&client.flow, &server.flow);
    assert!(client.local && server.local);
    assert_eq!((client.source, client.destination), (server.source, server.destination));
    assert_eq!(client.community_id, server.community_id);
    assert_ne!(client.id, server.id);
}

#[test]
fn a_begin_is_told_ten_milliseconds_after_it_happened_and_only_once() {
    let mut scene = Scene::new();
    scene.on(100 * MS, established(6, PASSIVE, SERVER, CLIENT, 0));
    scene.on(100 * MS, accept(6, 44));
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
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(4, established(6, PASSIVE, SERVER, CLIENT, 0));
    assert!(scene.flush().is_empty());
    assert_eq!(scene.ledger.kernel.established.own.get(), 2);
    assert_eq!(scene.ledger.kernel.connect.own.get(), 1);
}

#[test]
fn a_socket_used_again_after_a_failed_call_is_a_flow_of_its_last_call() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS, reset(5, IN));
    scene.on(2 * MS + 1, close(5, state::SYN_SENT, CLIENT, SERVER, Counters::default()));
    scene.on(20 * MS, connect(5, 99));
    scene.on(25 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    let [failed, begin] = scene.flush() else { panic!("a failure and a begin") };
    assert_eq!(failure(failed).0, FailReason::Refused);
    assert_eq!(handshake(begin), Some(Duration::from_millis(5)));
}

#[test]
fn an_outgoing_flow_whose_call_was_lost_is_still_told_without_owner_and_handshake() {
    let mut scene = Scene::new();
    scene.on(3, established(5, ACTIVE, CLIENT, SERVER, 12_345));
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!((begin.flow.direction, handshake(begin), begin.flow.owner), (Some(Direction::Outgoing), None, None));
}

#[test]
fn an_attempt_without_answer_is_forgotten_after_its_age() {
    let mut scene = Scene::new();
    scene.on(1, connect(5, 99));
    scene.on(1, syn_again(5));
    scene.settle(600_000 * MS);
    assert_eq!(scene.flows.open_attempts(), 1);
    scene.settle(600_001 * MS);
    assert_eq!(scene.flows.open_attempts(), 0);
    assert_eq!(scene.ledger.kernel.connect.unused.get(), 1);
    assert!(scene.flush().is_empty());
}

/// 100 bytes there, 200 back, closed by the client: as the kernel counts them.
fn a_whole_life(scene: &mut Scene) {
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS + 1, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(2 * MS + 2, established(6, PASSIVE, SERVER, CLIENT, 77));
    scene.on(2 * MS + 3, accept(6, 44));
    let counters = |bytes_acked, bytes_received| Counters {
        bytes_acked,
        bytes_received,
        segments_in: 5,
        segments_out: 6,
        retransmits: 0,
        srtt_us: 40,
    };
    // The server's FIN meets a socket whose own is out, which its end tells; what the server sees its states tell.
    scene.on(3 * MS + 6, close_by_fin(5, CLIENT, SERVER, counters(102, 201)));
    scene.on(3 * MS + 7, close(6, state::LAST_ACK, SERVER, CLIENT, counters(201, 101)));
}

#[test]
fn a_flow_that_ends_by_fin_tells_its_bytes_its_duration_and_its_owner_on_both_sides() {
    let mut scene = Scene::new();
    a_whole_life(&mut scene);
    let [_, begin, client, server] = scene.flush() else { panic!("two begins and two ends") };
    assert_eq!(begin.flow.owner.map(|o| (o.pid, o.role, o.cgroup)), Some((44, Role::Acceptor, 9)));
    for side in [client, server] {
        let (reason, duration, traffic) = end(side);
        assert_eq!(reason, EndReason::Fin);
        assert!(duration.is_some_and(|d| d > Duration::from_micros(900) && d < Duration::from_millis(2)));
        assert_eq!((traffic.source_bytes, traffic.destination_bytes), (100, 200));
        assert!(side.flow.local);
    }
    assert_eq!(client.flow.owner.map(|o| o.pid), Some(99));
    assert_eq!((end(client).2.source_segments, end(server).2.source_segments), (6, 5));
    let kernel = &scene.ledger.kernel;
    for (name, kind) in kernel.kinds() {
        assert_eq!((kind.open(), kind.unused.get()), (0, 0), "{name}");
    }
    assert_eq!(scene.flows.open_flows(), 0);
}

#[test]
fn of_what_came_to_a_socket_that_was_closing_the_fin_is_no_byte_where_it_came() {
    let counters = Counters { bytes_acked: 102, bytes_received: 201, ..Counters::default() };
    let received = |after: Option<Event>, closed: Event| {
        let mut scene = Scene::new();
        scene.on(MS, established(5, ACTIVE, CLIENT, SERVER, 0));
        after.into_iter().for_each(|event| scene.on(2 * MS, event));
        scene.on(3 * MS, closed);
        end(&scene.flush()[1]).2.destination_bytes
    };
    assert_eq!(received(None, close_by_fin(5, CLIENT, SERVER, counters)), 200);
    // Dropped by its process: the FIN will come to a TIME_WAIT one, or never.
    assert_eq!(received(None, close(5, state::FIN_WAIT2, CLIENT, SERVER, counters)), 201);
    // The FIN of one that a flowtel before this one followed.
    assert_eq!(received(Some(fin(5, IN)), close(5, state::FIN_WAIT2, CLIENT, SERVER, counters)), 200);
    // Where its states tell that a FIN came it counts once.
    assert_eq!(received(None, close(5, state::CLOSING, CLIENT, SERVER, counters)), 200);
}

#[test]
fn a_local_reset_that_leaves_after_its_socket_was_closed_is_still_the_reason() {
    let mut scene = Scene::new();
    scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 0));
    // Never accepted, its listener closed: nobody drops it.
    scene.on(3 * MS, close(6, state::CLOSE_WAIT, SERVER, CLIENT, Counters::default()));
    scene.on(3 * MS + 10, reset(6, OUT));
    assert_eq!(end(&scene.flush()[1]).0, EndReason::ResetLocal);
}

#[test]
fn a_reset_from_the_peer_is_told_from_one_of_our_own() {
    for (way, reason) in [(IN, EndReason::ResetRemote), (OUT, EndReason::ResetLocal)] {
        let mut scene = Scene::new();
        scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 0));
        scene.on(2 * MS, reset(6, way));
        scene.on(2 * MS + 10, close(6, state::ESTABLISHED, SERVER, CLIENT, Counters::default()));
        assert_eq!(end(&scene.flush()[1]).0, reason);
    }
}

#[test]
fn an_end_whose_begin_was_not_seen_has_no_duration_and_no_direction() {
    let mut scene = Scene::new();
    scene.on(MS, close(6, state::LAST_ACK, SERVER, CLIENT, Counters::default()));
    let [told] = scene.flush() else { panic!("one end") };
    assert_eq!((end(told).1, told.flow.direction), (None, None));
}

#[test]
fn an_end_whose_begin_was_lost_has_the_direction_and_the_owner_of_its_call_and_no_failure_follows() {
    for (pid, told) in [(99, 1), (OWN, 0)] {
        let mut scene = Scene::new();
        scene.on(MS, connect(5, pid));
        // SYN and FIN are counted with what was acknowledged.
        let counters = Counters { bytes_acked: 12, bytes_received: 21, ..Counters::default() };
        scene.on(2 * MS, close_by_fin(5, CLIENT, SERVER, counters));
        scene.settle(700_000 * MS);
        assert_eq!(scene.flush().len(), told);
        for told in &scene.told {
            let (reason, duration, traffic) = end(told);
            assert_eq!((reason, duration), (EndReason::Fin, None));
            assert_eq!((traffic.source_bytes, traffic.destination_bytes), (10, 20));
            assert_eq!((told.flow.direction, told.flow.owner.map(|o| o.pid)), (Some(Direction::Outgoing), Some(99)));
        }
        let kernel = &scene.ledger.kernel;
        assert_eq!((kernel.connect.open(), kernel.close.open()), (0, 0));
    }
}

#[test]
fn an_attempt_whose_events_may_be_lost_is_not_told_as_never_sent() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.ledger.kernel.established.ring_full.add(1);
    scene.settle(2 * MS);
    scene.on(3 * MS, connect(6, 99));
    for cookie in [5, 6] {
        scene.on(4 * MS, release(cookie, state::SYN_SENT));
    }
    scene.settle(700_000 * MS);
    let [never_sent] = scene.flush() else { panic!("one failure: {:?}", scene.told) };
    let (boot, flow) = (BootId::new([1; 16]), &never_sent.flow);
    assert_eq!(flow.id, Some(FlowId::new(&boot, 6, flow.source, flow.destination).at(&boot, KernelTime(3 * MS))));
    let kind = &scene.ledger.kernel.connect;
    assert_eq!((kind.joined.get(), kind.unused.get(), kind.open()), (1, 1, 0));
}

#[test]
fn each_flow_of_a_socket_has_an_id_of_its_own_and_keeps_it() {
    let mut scene = Scene::new();
    let counters = Counters::default();
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS, close(5, state::SYN_SENT, CLIENT, SERVER, counters));
    for at in [10, 20] {
        scene.on(at * MS, connect(5, 99));
        scene.on(at * MS + 1, used_again(5));
        scene.on((at + 1) * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
        scene.on((at + 2) * MS, close(5, state::ESTABLISHED, CLIENT, SERVER, counters));
    }
    // Of the last one the begin is lost.
    scene.on(25 * MS, connect(5, 99));
    scene.on(25 * MS + 1, used_again(5));
    scene.on(27 * MS, close(5, state::ESTABLISHED, CLIENT, SERVER, counters));
    // What is not of an attempt is nobody's.
    scene.on(30 * MS, used_again(5));
    let ids: Vec<_> = scene.flush().iter().map(|told| told.flow.id.expect("each has one")).collect();
    let [failed, first, first_end, second, second_end, third_end] = ids[..] else { panic!("six: {ids:?}") };
    assert_eq!((first, second), (first_end, second_end));
    assert!(first != second && failed != first && failed != second);
    assert!(![failed, first, second].contains(&third_end));
    assert_eq!(
        failed,
        FlowId::new(&BootId::new([1; 16]), 5, scene.told[0].flow.source, scene.told[0].flow.destination)
    );
    let kind = &scene.ledger.kernel.used_again;
    assert_eq!((kind.joined.get(), kind.unused.get(), kind.open()), (3, 1, 0));
}

#[test]
fn a_handshake_whose_end_had_data_or_that_was_none_has_no_duration() {
    let mut scene = Scene::new();
    let begin = |cookie, how| match established(cookie, how, SERVER, CLIENT, 60_321) {
        Event::Established(begin) => begin,
        _ => unreachable!("it is one"),
    };
    scene.on(MS, Event::Established(Established { data_segments_in: 1, ..begin(6, PASSIVE) }));
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS, Event::Established(Established { segments_in: 0, ..begin(5, ACTIVE) }));
    let told = scene.flush();
    assert_eq!(told.iter().map(handshake).collect::<Vec<_>>(), [None, None]);
}

#[test]
fn bytes_that_tcp_need_not_have_counted_are_none() {
    for by_release in [true, false] {
        let mut scene = Scene::new();
        scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 60_321));
        let Event::Close(close) = close(6, state::LAST_ACK, SERVER, CLIENT, Counters::default()) else {
            unreachable!("it is one")
        };
        let Event::Release(dropped) = release(6, state::ESTABLISHED) else { unreachable!("it is one") };
        if by_release {
            scene.on(2 * MS, Event::Release(Release { uncounted: 1, ..dropped }));
            scene.on(3 * MS, Event::Close(close));
        } else {
            scene.on(3 * MS, Event::Close(Close { marks: close.marks | event::UNCOUNTED, ..close }));
        }
        let [_, told] = scene.flush() else { panic!("begin and end") };
        let (reason, _, traffic) = end(told);
        assert_eq!((reason, traffic.counted), (EndReason::Fin, false));
        assert_eq!(scene.ledger.kernel.release.open(), 0);
    }
}

#[test]
fn three_refusals_are_three_records_and_a_scan_is_one() {
    let mut scene = Scene::new();
    for port in 1..=3 {
        scene.on(MS, refused((7, 5000), port));
    }
    for port in 1..=1000 {
        scene.on(MS + u64::from(port), refused((8, 5000), port));
    }
    scene.settle(900 * MS);
    assert!(scene.told.is_empty());
    scene.settle(1100 * MS);
    let (single, folded): (Vec<_>, Vec<_>) = scene.told.iter().partition(|told| failure(told).2.is_none());
    assert_eq!((single.len(), folded.len()), (3, 1));
    let fold = failure(folded[0]).2.expect("a fold");
    assert_eq!((fold.count, fold.destination_ports), (1000, 1000));
    assert_eq!((folded[0].flow.source.port(), folded[0].flow.destination.port()), (0, 0));
    assert_eq!(scene.ledger.kernel.refused.joined.get(), 1003);
}

#[test]
fn a_refusal_of_an_attempt_of_our_own_is_told_on_neither_side() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, OWN));
    scene.on(MS + 2, refused(CLIENT, 80));
    scene.on(MS + 3, reset(5, IN));
    scene.on(MS + 4, close(5, state::SYN_SENT, CLIENT, SERVER, Counters::default()));
    assert!(scene.flush().is_empty());
}

#[test]
fn a_kernel_worker_is_no_owner_and_whoever_calls_itself_so_is_one() {
    for (uid, cgroup, owned) in [(0, 1, false), (1000, 1, true), (0, 77, true)] {
        let mut scene = Scene::new();
        let mut call = call(event::CONNECT, 5, 99, 80);
        call.caller = Caller { uid, cgroup, comm: *b"kworker/0:0\0\0\0\0\0", ..call.caller };
        scene.on(1, Event::Connect(call));
        scene.on(2, established(5, ACTIVE, CLIENT, SERVER, 0));
        let [begin] = scene.flush() else { panic!("one begin") };
        assert_eq!(begin.flow.owner.is_some(), owned);
        assert_eq!(begin.flow.direction, Some(Direction::Outgoing));
    }
}

#[test]
fn nothing_is_kept_for_ends_that_nobody_wants() {
    for events in [config::Events::NETWORK_EVENTS, config::Events::FLOWS, config::Events::BEGINS] {
        let mut scene = Scene::new();
        let ledger = Arc::clone(&scene.ledger);
        let mut config = config::Config::default();
        config.capture.events = events;
        scene.flows = Flows::new(&config, BootId::new([1; 16]), None, ledger);
        let begins = events == config::Events::BEGINS;
        if begins {
            scene.on(MS, established(5, ACTIVE, CLIENT, SERVER, 0));
            scene.on(MS, established(6, PASSIVE, SERVER, CLIENT, 0));
        } else {
            a_whole_life(&mut scene);
        }
        scene.on(4 * MS, refused((7, 5000), 1));
        // The stage behind selects by name.
        assert_eq!(scene.flush().len(), if begins { 3 } else { 5 });
        assert_eq!(scene.flows.open_flows(), 0);
    }
}

#[test]
fn the_oldest_flow_of_a_full_table_ends_without_what_its_begin_knew() {
    let mut scene = Scene::new();
    let mut config = config::Config::default();
    config.flow.max_flows = 1;
    scene.flows = Flows::new(&config, BootId::new([1; 16]), None, Arc::clone(&scene.ledger));
    for cookie in [6, 7] {
        scene.on(MS, established(cookie, PASSIVE, (2, cookie as u16), CLIENT, 0));
    }
    for cookie in [6, 7] {
        scene.on(2 * MS, close(cookie, state::LAST_ACK, (2, cookie as u16), CLIENT, Counters::default()));
    }
    let ends: Vec<bool> = scene.flush().iter().skip(2).map(|told| end(told).1.is_some()).collect();
    assert_eq!(ends, [false, true]);
    assert_eq!(scene.ledger.flows_forgotten.get(), 1);
}

proptest! {
    /// Whatever comes in whatever order, missing or repeated: each proof of a begin is told once and each closed socket
    /// once, every event's fate is counted, and nothing but open attempts and flows stays behind.
    #[test]
    fn everything_is_told_once_and_every_event_is_accounted_for(
        steps in prop::collection::vec((0u8..18, 0u64..8, prop::bool::ANY, 0u64..20), 0..300)
    ) {
        let mut scene = Scene::new();
        let (mut now, mut proofs, mut closed) = (1_000_000_000u64, 0u64, 0u64);
        for (step, cookie, flag, gap) in steps {
            now += gap * MS;
            // Late or early by some milliseconds now and then.
            let time = if flag { now } else { now.saturating_sub(gap * MS / 2) };
            let server = (2, cookie as u16 % 3 + 1);
            let old_state = [state::ESTABLISHED, state::LAST_ACK, state::FIN_WAIT2, state::CLOSE_WAIT][gap as usize % 4];
            match step {
                0 => scene.on(time, connect(cookie, if cookie == 7 { OWN } else { 99 })),
                1 => { proofs += 1; scene.on(time, established(cookie, ACTIVE, CLIENT, server, 80)) }
                2 => { proofs += 1; scene.on(time, established(cookie, ACTIVE, CLIENT, server, 0)) }
                3 => { proofs += 1; scene.on(time, established(cookie, PASSIVE, server, CLIENT, 77)) }
                4 => scene.on(time, syn_again(cookie)),
                5 => scene.on(time, accept(cookie, 44)),
                6 => scene.on(time, fin(cookie, if flag { IN } else { OUT })),
                7 => scene.on(time, reset(cookie, if flag { IN } else { OUT })),
                8 => scene.on(time, release(cookie, if flag { state::CLOSE } else { state::SYN_SENT })),
                9 => { closed += 1; scene.on(time, close(cookie, old_state, server, CLIENT, Counters::default())) }
                10 => scene.on(time, close(cookie, state::SYN_SENT, CLIENT, server, Counters::default())),
                11 => scene.on(time, refused((9, cookie as u16 + 1), gap as u16 + 1)),
                12 => scene.on(time, bind(cookie, 55)),
                14 => scene.on(time, listen(cookie, if flag { 56 } else { 0 })),
                15 => scene.on(time, unlisten(cookie)),
                16 => { proofs += 1; scene.on(time, taken(cookie, gap % 8)) }
                13 => scene.on(time, used_again(cookie)),
                _ => scene.settle(now),
            }
        }
        scene.flush();
        let ledger = Arc::clone(&scene.ledger);
        let kernel = &ledger.kernel;
        let begins = scene.told.iter().filter(|told| matches!(told.what, What::Begin { .. })).count() as u64;
        let ends = scene.told.iter().filter(|told| matches!(told.what, What::End { .. })).count() as u64;
        prop_assert_eq!(begins, kernel.established.joined.get());
        prop_assert_eq!(proofs, kernel.established.joined.get() + kernel.established.own.get());
        prop_assert!(ends <= closed);
        for (name, kind) in kernel.kinds() {
            let open = if name == "connect" { scene.flows.open_attempts() as i128 } else { 0 };
            prop_assert_eq!(kind.open(), open, "{}", name);
        }
        scene.settle(now + 700_000 * MS);
        prop_assert_eq!(kernel.connect.open(), 0);
    }
}

#[test]
fn of_an_attempt_from_before_all_programs_were_attached_nobody_knows_what_became() {
    let mut scene = Scene::new();
    scene.flows.watches_since(KernelTime(2 * MS));
    scene.on(MS, connect(5, 99));
    scene.on(MS + 1, connect(6, 99));
    scene.on(3 * MS, connect(7, 99));
    // All three may have been connections that were closed in order.
    for cookie in [5, 7] {
        scene.on(4 * MS, release(cookie, state::CLOSE));
    }
    scene.settle(700_000 * MS);
    let [never_sent] = scene.flush() else { panic!("one failure: {:?}", scene.told) };
    assert_eq!(failure(never_sent).0, FailReason::Other);
    assert_eq!(never_sent.at.time, KernelTime(4 * MS));
    let kind = &scene.ledger.kernel.connect;
    assert_eq!((kind.joined.get(), kind.unused.get(), kind.open()), (1, 2, 0));
    assert!(scene.flows.leave().is_empty());
}

#[test]
fn what_one_flowtel_leaves_another_goes_on_with() {
    let mut whole = Scene::new();
    a_whole_life(&mut whole);
    whole.flush();
    let [_, _, ends @ ..] = &whole.told[..] else { panic!("two begins and two ends") };
    for cut in 1..=6 {
        let (mut first, mut second) = (Scene::new(), Scene::new());
        let mut life = Scene::recorded(a_whole_life);
        let rest = life.split_off(cut);
        life.into_iter().for_each(|(time, event)| first.on(time, event));
        first.flush();
        second.flows.take_up(&first.flows.leave());
        rest.into_iter().for_each(|(time, event)| second.on(time, event));
        second.flush();
        let told: Vec<_> = first.told.iter().chain(&second.told).collect();
        let begins = told.iter().filter(|event| matches!(event.what, What::Begin { .. })).count();
        let ended: Vec<_> = told.iter().filter(|event| matches!(event.what, What::End { .. })).collect();
        assert_eq!((begins, ended.len(), told.len()), (2, 2, 4), "cut after {cut}: {told:#?}");
        for (end, whole) in ended.into_iter().zip(ends) {
            assert_eq!((&end.what, end.flow.id), (&whole.what, whole.flow.id), "cut after {cut}");
            assert_eq!(end.flow.direction, whole.flow.direction, "cut after {cut}");
        }
        for scene in [&first, &second] {
            let kinds = scene.ledger.kernel.kinds();
            let open: i128 = kinds.iter().map(|(_, kind)| kind.open()).sum();
            assert_eq!(open, i128::from(cut == 1 && std::ptr::eq(scene, &first)), "cut after {cut}");
        }
    }
}
