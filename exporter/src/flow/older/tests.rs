use std::{net::SocketAddr, sync::Arc};

use flowtel_common::event::{ACTIVE, Established, Event, IN, OUT, Update, mapped};

use super::*;
use crate::{
    capture::WallTime,
    config,
    flow::{BootId, Flows},
    ledger::Ledger,
};

const MS: u64 = 1_000_000;
const START: u64 = 1000 * MS;
const COOKIE: u64 = 7;

struct Scene {
    opened: Vec<FlowEvent>,
    flows: Flows,
    ledger: Arc<Ledger>,
}

fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

fn connection() -> Found {
    Found {
        active: Some(true),
        counters: Counters { bytes_acked: 101, bytes_received: 300, srtt_us: 1000, ..Counters::default() },
        ..Found::sample(COOKIE, address(1, 40_000), address(2, 80))
    }
}

impl Scene {
    fn new() -> Self {
        Self::of(&config::Config::default())
    }

    fn of(config: &config::Config) -> Self {
        let ledger = Arc::new(Ledger::default());
        let flows = Flows::new(config, BootId::new([1; 16]), None, Arc::clone(&ledger));
        Self { opened: Vec::new(), flows, ledger }
    }

    /// One that records updates.
    fn updating() -> Self {
        let mut config = config::Config::default();
        config.flow.update = config::Span(std::time::Duration::from_secs(300));
        Self::of(&config)
    }

    fn with(connections: Vec<Found>) -> Self {
        Self::new().finding(connections)
    }

    fn finding(mut self, connections: Vec<Found>) -> Self {
        let listing = Listing {
            time: KernelTime(START),
            connections,
            left: Vec::new(),
            listeners: Vec::new(),
            namespaces: Vec::new(),
        };
        self.finds(listing, |_| false);
        self
    }

    fn finds(&mut self, mut listing: Listing, began: impl Fn(u64) -> bool) {
        let mut older = Vec::new();
        let open = |event: &FlowEvent| self.opened.push(event.clone());
        self.flows.found(&mut listing, &Clock::measure(), began, open, |found, is| older.push((found.cookie, is)));
        assert!(older.iter().all(|(cookie, is)| self.flows.is_older(*cookie) == *is));
    }

    fn on(&mut self, time: u64, event: Event) {
        let wall = WallTime(time);
        self.flows.on(&KernelEvent { time: KernelTime(time), wall, read: wall, event });
    }

    fn gone(&mut self, alive: u64, time: u64, state: u32) {
        let counters = Counters::default();
        let gone = Gone { cookie: COOKIE, time: KernelTime(time), alive: KernelTime(alive), state, counters };
        self.flows.gone(&gone, &Clock::measure());
    }

    fn told(&mut self) -> Vec<FlowEvent> {
        let mut told = std::mem::take(&mut self.opened);
        self.flows.flush(|event| told.push(event.clone()));
        told
    }

    /// What passed by each update, and what of it since the one before: bytes of source and destination.
    fn updates(&mut self) -> Vec<[(i64, i64); 2]> {
        let of = |event: &FlowEvent| match event.what {
            What::Update { traffic: Traffic { source_bytes, destination_bytes, delta: Some(delta), .. }, .. } => {
                Some([(source_bytes as i64, destination_bytes as i64), (delta.source_bytes, delta.destination_bytes)])
            }
            _ => None,
        };
        self.told().iter().filter_map(of).collect()
    }

    /// The one end that was told.
    fn end(&mut self) -> (EndReason, u64, u64) {
        let told = self.told();
        let mut ends = told.iter().filter_map(|event| match event.what {
            What::End { cause, duration: None, traffic } => {
                Some((cause?.reason, traffic.source_bytes, traffic.destination_bytes))
            }
            _ => None,
        });
        match (ends.next(), ends.next()) {
            (Some(end), None) => end,
            _ => panic!("not one end: {told:#?}"),
        }
    }
}

fn segment(kind: u32, way: u32, state: u32, (bytes_acked, bytes_received): (u64, u64), ahead: u32) -> Event {
    after(false, kind, way, state, (bytes_acked, bytes_received), ahead)
}

fn after(
    fin_came: bool,
    kind: u32,
    way: u32,
    state: u32,
    (bytes_acked, bytes_received): (u64, u64),
    ahead: u32,
) -> Event {
    let counters = Counters { bytes_acked, bytes_received, ..Counters::default() };
    if kind == event::FIN {
        return Event::Fin(Fin { kind, way, time: 0, cookie: COOKIE, counters, ahead, state });
    }
    Event::Reset(Segment {
        kind,
        way,
        time: 0,
        cookie: COOKIE,
        cgroup: 1,
        local: mapped(0),
        remote: mapped(0),
        local_port: 1,
        remote_port: 1,
        state,
        counters,
        ahead,
        fin_in: u32::from(fin_came),
    })
}

fn update((bytes_acked, bytes_received): (u64, u64)) -> Event {
    Event::Update(Update {
        kind: event::UPDATE,
        state: state::ESTABLISHED,
        time: 0,
        cookie: COOKIE,
        local: mapped(0),
        remote: mapped(0),
        local_port: 40_000,
        remote_port: 80,
        interface: 0,
        counters: Counters { bytes_acked, bytes_received, ..Counters::default() },
        netns_inode: 0,
        marks: 0,
    })
}

#[test]
fn an_end_that_the_list_tells_has_no_less_than_the_last_update() {
    let mut scene = Scene::with(vec![connection()]);
    scene.on(START + 10 * MS, update((5001, 900)));
    scene.gone(START + 900 * MS, START + 950 * MS, state::ESTABLISHED);
    assert_eq!(scene.end(), (EndReason::Timeout, 5000, 900));
}

#[test]
fn an_update_that_was_counted_before_a_flow_was_found_is_none() {
    let mut scene = Scene::updating().finding(vec![connection()]);
    scene.on(START + MS, update((51, 200)));
    scene.on(START + 10 * MS, update((201, 400)));
    assert_eq!(scene.updates(), [[(200, 400), (100, 100)]]);
}

#[test]
fn the_next_flowtel_may_not_find_the_flow_and_not_know_its_direction_and_the_deltas_are_right_all_the_same() {
    let incoming = Found { active: Some(false), ..connection() };
    let mut first = Scene::updating().finding(vec![incoming]);
    first.on(START + 10 * MS, update((501, 900)));
    assert_eq!(first.updates(), [[(900, 501), (600, 400)]], "the peer is the source");
    let mut second = Scene::updating();
    second.flows.take_up(&first.flows.leave());
    second.on(START + 20 * MS, update((511, 1000)));
    assert_eq!(second.updates(), [[(511, 1000), (10, 100)]], "the own side comes first");
}

#[test]
fn what_is_found_is_told_as_open_once_and_what_began_since_is_not() {
    let mut scene = Scene::new();
    let other = Found { cookie: 8, ..connection() };
    let listing = Listing {
        time: KernelTime(START),
        connections: vec![connection(), other],
        left: Vec::new(),
        listeners: Vec::new(),
        namespaces: Vec::new(),
    };
    scene.finds(listing, |cookie| cookie == 8);
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].what.clone(), told[0].flow.direction), (What::Open, Some(Direction::Outgoing)));
    let found = &scene.ledger.kernel.found;
    assert_eq!((found.read.get(), found.joined.get(), found.unused.get()), (2, 1, 1));
}

#[test]
fn a_connection_whose_other_end_this_host_has_left_is_local_all_the_same() {
    for both in [true, false] {
        let mut scene = Scene::new();
        let Found { local, remote, .. } = connection();
        let left = if both { vec![(remote, local)] } else { Vec::new() };
        let (time, connections) = (KernelTime(START), vec![connection()]);
        let listing = Listing { time, connections, left, listeners: Vec::new(), namespaces: Vec::new() };
        scene.finds(listing, |_| false);
        assert_eq!(scene.told().iter().map(|told| told.flow.local).collect::<Vec<_>>(), [both]);
    }
}

#[test]
fn a_begin_that_comes_after_all_is_not_told_beside_the_open_record() {
    let mut scene = Scene::with(vec![connection()]);
    let words = |last| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    let established = |remote| {
        Event::Established(Established {
            kind: event::ESTABLISHED,
            how: ACTIVE,
            time: 0,
            cookie: COOKIE,
            local: words(1),
            remote: words(remote),
            local_port: 40_000,
            remote_port: 80,
            srtt_us: 0,
            retransmits: 0,
            segments_in: 1,
            data_segments_in: 0,
            netns: 1,
            listener: 0,
            interface: 0,
            reserved_2: 0,
        })
    };
    scene.on(START + MS, established(2));
    assert_eq!(scene.told().len(), 1);
    // The socket used again for another peer: the older flow is over, and nobody saw how. An update of it says nothing of that.
    scene.on(START + MS + 1, update((5001, 900)));
    scene.on(START + 2 * MS, established(3));
    let told = scene.told();
    assert!(matches!(told[..], [FlowEvent { what: What::Vanished, .. }, FlowEvent { what: What::Begin { .. }, .. }]));
}

#[test]
fn both_fins_and_a_socket_that_is_gone_are_an_end_with_every_byte() {
    let mut scene = Scene::with(vec![connection()]);
    // 10 more bytes and the FIN are on their way; 20 more and the peer's FIN come.
    scene.on(START + 10 * MS, segment(event::FIN, OUT, state::FIN_WAIT1, (101, 300), 11));
    scene.on(START + 20 * MS, segment(event::FIN, IN, state::FIN_WAIT2, (112, 300), 21));
    scene.gone(START + 15 * MS, START + 60 * MS, state::FIN_WAIT1);
    assert_eq!(scene.end(), (EndReason::Fin, 110, 320));
}

#[test]
fn half_a_close_is_none_and_the_peers_fin_alone_is_no_end_by_fin() {
    let mut scene = Scene::with(vec![connection()]);
    scene.on(START + 10 * MS, segment(event::FIN, IN, state::ESTABLISHED, (101, 300), 1));
    assert_eq!(scene.told().len(), 1);
    scene.gone(START + 900 * MS, START + 950 * MS, state::CLOSE_WAIT);
    assert_eq!(scene.end(), (EndReason::Timeout, 100, 300));
}

#[test]
fn a_reset_ends_it_unless_the_socket_outlived_it() {
    for (way, reason) in [(IN, EndReason::ResetRemote), (OUT, EndReason::ResetLocal)] {
        let mut scene = Scene::with(vec![connection()]);
        scene.on(START + 10 * MS, segment(event::RESET, way, state::ESTABLISHED, (151, 400), 0));
        scene.gone(START, START + 60 * MS, state::ESTABLISHED);
        assert_eq!(scene.end(), (reason, 150, 400));
    }
    let mut scene = Scene::with(vec![connection()]);
    scene.on(START + 10 * MS, segment(event::RESET, IN, state::ESTABLISHED, (101, 300), 0));
    scene.gone(START + 5000 * MS, START + 9000 * MS, state::ESTABLISHED);
    assert_eq!(scene.end(), (EndReason::Timeout, 100, 300));
}

#[test]
fn the_peers_fin_counts_no_byte_whether_the_own_fin_or_a_reset_tells_of_it() {
    let mut scene = Scene::with(vec![connection()]);
    scene.on(START + 10 * MS, segment(event::FIN, OUT, state::LAST_ACK, (101, 301), 1));
    scene.gone(START, START + 60 * MS, state::ESTABLISHED);
    assert_eq!(scene.end(), (EndReason::Fin, 100, 300));
    let mut scene = Scene::with(vec![connection()]);
    scene.on(START + 10 * MS, after(true, event::RESET, OUT, state::CLOSE, (101, 301), 0));
    scene.gone(START, START + 60 * MS, state::ESTABLISHED);
    assert_eq!(scene.end(), (EndReason::ResetLocal, 100, 300));
}

#[test]
fn where_a_fin_or_a_reset_may_be_lost_nobody_says_how_it_ended() {
    for (lost, told) in [(false, 1), (true, 0)] {
        let mut scene = Scene::with(vec![connection()]);
        scene.ledger.kernel.fin.ring_full.add(u64::from(lost));
        scene.gone(START + 900 * MS, START + 950 * MS, state::ESTABLISHED);
        let ends = scene.told();
        assert_eq!(ends.iter().filter(|event| matches!(event.what, What::End { .. })).count(), told);
        assert_eq!(ends.iter().filter(|event| event.what == What::Vanished).count(), 1 - told);
    }
}

#[test]
fn an_orphan_whose_fins_nobody_acknowledges_timed_out() {
    let mut scene = Scene::with(vec![connection()]);
    for after in [10, 220, 640] {
        scene.on(START + after * MS, segment(event::FIN, OUT, state::FIN_WAIT1, (101, 300), 1));
    }
    scene.gone(START + 1450 * MS, START + 1500 * MS, state::FIN_WAIT1);
    assert_eq!(scene.end(), (EndReason::Timeout, 100, 300));
}

#[test]
fn what_is_gone_is_told_once_and_a_close_before_it_counts() {
    let mut scene = Scene::with(vec![connection()]);
    scene.on(
        START + 10 * MS,
        Event::Close(Close {
            interface: 0,
            netns_inode: 0,
            kind: event::CLOSE,
            old_state: state::FIN_WAIT2,
            time: 0,
            cookie: COOKIE,
            local: mapped(0),
            remote: mapped(0),
            local_port: 1,
            remote_port: 1,
            fin_in: 0,
            marks: event::ALL_ACKNOWLEDGED,
            timer: flowtel_common::event::TIMER_UNKNOWN,
            error: event::ERROR_UNKNOWN,
            counters: Counters { bytes_acked: 112, bytes_received: 300, ..Counters::default() },
        }),
    );
    scene.gone(START, START + 60 * MS, state::FIN_WAIT2);
    assert_eq!(scene.end(), (EndReason::Fin, 110, 300));
    assert_eq!(scene.ledger.kernel.gone.unused.get(), 1);
}

#[test]
fn without_a_proof_a_listener_on_the_port_decides_and_two_decide_nothing() {
    let found = Found { active: None, ..connection() };
    assert_eq!(direction(&found, true, false), Some(Direction::Incoming));
    assert_eq!(direction(&found, false, true), Some(Direction::Outgoing));
    assert_eq!(direction(&found, false, false), Some(Direction::Outgoing));
    assert_eq!(direction(&found, true, true), None);
    assert_eq!(direction(&Found { active: Some(true), ..found }, true, false), Some(Direction::Outgoing));
}
