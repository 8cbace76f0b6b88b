//! What is told of open flows.

use super::*;

/// What a socket has counted: sequence numbers, and a segment for each hundred of them.
fn counters(bytes_acked: u64, bytes_received: u64) -> Counters {
    let segments = |bytes: u64| (bytes / 100) as u32 + 3;
    Counters {
        bytes_acked,
        bytes_received,
        segments_in: segments(bytes_received),
        segments_out: segments(bytes_acked),
        retransmits: (bytes_acked / 1000) as u32,
        srtt_us: 40,
    }
}

fn update(cookie: u64, state: u32, counters: Counters) -> Event {
    let client = cookie == 5;
    let ((near, local_port), (far, remote_port)) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let address = |last| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    Event::Update(Update {
        kind: event::UPDATE,
        state,
        time: 0,
        cookie,
        local: address(near),
        remote: address(far),
        local_port,
        remote_port,
        interface: 0,
        counters,
        netns_inode: 0,
        marks: 0,
    })
}

fn config() -> config::Config {
    let mut config = config::Config::default();
    config.flow.update = config::Span(Duration::from_secs(300));
    config
}

fn scene(config: &config::Config) -> Scene {
    let mut scene = Scene::new();
    scene.flows = Flows::new(config, BootId::new([1; 16]), Some(OWN), Arc::clone(&scene.ledger));
    scene
}

/// What updates and ends tell, with its delta.
fn passed(told: &[FlowEvent]) -> Vec<(Traffic, Option<Delta>)> {
    let of = |event: &FlowEvent| match event.what {
        What::Update { traffic, .. } | What::End { traffic, .. } => Some((traffic, traffic.delta)),
        _ => None,
    };
    told.iter().filter_map(of).collect()
}

/// Bytes of source and destination, and what of them passed since the last time.
type Bytes = (u64, u64, Option<(i64, i64)>);

fn bytes(told: &[FlowEvent]) -> Vec<Bytes> {
    let of = |(traffic, delta): (Traffic, Option<Delta>)| {
        let delta = delta.map(|delta| (delta.source_bytes, delta.destination_bytes));
        (traffic.source_bytes, traffic.destination_bytes, delta)
    };
    passed(told).into_iter().map(of).collect()
}

#[test]
fn an_open_flow_tells_what_passed_and_what_of_it_since_the_last_time_and_its_end_the_rest() {
    let mut scene = scene(&config());
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(100 * MS, update(5, state::ESTABLISHED, counters(101, 200)));
    scene.settle(120 * MS);
    scene.on(200 * MS, update(5, state::CLOSE_WAIT, counters(1001, 501)));
    scene.settle(220 * MS);
    scene.on(300 * MS, close(5, state::LAST_ACK, CLIENT, SERVER, counters(1202, 501)));
    let told = scene.flush();
    assert_eq!(bytes(told), [(100, 200, Some((100, 200))), (1000, 500, Some((900, 300))), (1200, 500, Some((200, 0)))]);
    let [begin, first, ..] = told else { panic!("a begin and an update") };
    assert_eq!((first.flow.id, first.flow.owner), (begin.flow.id, begin.flow.owner));
    assert_eq!(first.at.time, KernelTime(100 * MS));
    let What::Update { duration, .. } = first.what else { panic!("an update") };
    assert_eq!(duration, Some(Duration::from_millis(98)));
    let kind = &scene.ledger.kernel.update;
    assert_eq!((kind.joined.get(), kind.open()), (2, 0));
}

#[test]
fn of_a_flow_that_ends_at_once_the_end_tells_all() {
    // The acknowledgement of the peer's FIN, in FIN_WAIT2: whether that is counted only the end knows.
    let mut scene = scene(&config());
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(100 * MS, update(5, state::FIN_WAIT2, counters(102, 201)));
    scene.on(100 * MS + 1, close_by_fin(5, CLIENT, SERVER, counters(102, 201)));
    assert_eq!(bytes(scene.flush()), [(100, 200, Some((100, 200)))]);
    // The socket's next flow is another one.
    scene.told.clear();
    scene.on(200 * MS, update(5, state::ESTABLISHED, counters(101, 200)));
    scene.on(201 * MS, close(5, state::ESTABLISHED, CLIENT, SERVER, counters(101, 200)));
    scene.on(202 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    assert_eq!(passed(scene.flush()).len(), 1);
}

#[test]
fn where_no_updates_are_wanted_an_end_has_no_delta() {
    let mut scene = scene(&config::Config::default());
    a_whole_life(&mut scene);
    assert!(passed(scene.flush()).iter().all(|(_, delta)| delta.is_none()));
}

#[test]
fn of_a_flow_without_a_begin_the_first_update_has_no_delta_and_the_others_have() {
    let mut scene = scene(&config());
    for (at, received) in [(100, 200), (200, 500), (300, 500)] {
        scene.on(at * MS, update(6, state::ESTABLISHED, counters(100, received)));
        scene.settle((at + 20) * MS);
    }
    scene.on(400 * MS, close(6, state::LAST_ACK, SERVER, CLIENT, counters(901, 501)));
    let told = scene.flush();
    let all = bytes(told);
    assert_eq!(all[..3], [(100, 200, None), (100, 500, Some((0, 300))), (100, 500, Some((0, 0)))]);
    assert_eq!(all[3], (900, 500, Some((800, 0))));
    assert!(told.iter().all(|event| event.flow.id == told[0].flow.id && event.flow.direction.is_none()));
}

#[test]
fn connections_of_our_own_are_not_told() {
    let mut scene = scene(&config());
    scene.on(MS, connect(5, OWN));
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(100 * MS, update(5, state::ESTABLISHED, counters(101, 200)));
    assert!(scene.flush().is_empty());
    let kind = &scene.ledger.kernel.update;
    assert_eq!((kind.own.get(), kind.joined.get()), (1, 0));
}

#[test]
fn the_next_flowtel_goes_on_with_what_this_one_told() {
    let (mut first, mut second) = (scene(&config()), scene(&config()));
    first.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    first.on(100 * MS, update(5, state::ESTABLISHED, counters(101, 200)));
    first.on(100 * MS, update(6, state::ESTABLISHED, counters(100, 200)));
    first.flush();
    second.flows.take_up(&first.flows.leave());
    second.on(200 * MS, update(5, state::ESTABLISHED, counters(501, 300)));
    second.on(200 * MS, update(6, state::ESTABLISHED, counters(100, 700)));
    second.settle(220 * MS);
    second.on(300 * MS, close(5, state::LAST_ACK, CLIENT, SERVER, counters(702, 301)));
    assert_eq!(
        bytes(second.flush()),
        [(500, 300, Some((400, 100))), (100, 700, Some((0, 500))), (700, 300, Some((200, 0)))]
    );
}

proptest! {
    /// However often a flow is told, whatever passes in between, and wherever one flowtel follows another: the deltas of all
    /// updates and of the end add up to what the end says passed.
    #[test]
    fn the_deltas_of_updates_and_end_add_up_to_the_end(
        active: bool,
        steps in prop::collection::vec((0u8..8, 0u64..1 << 40, 0u64..1 << 20), 1..60),
    ) {
        let cookie = if active { 5 } else { 6 };
        let (local, remote) = if active { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let mut scene = scene(&config());
        scene.on(2 * MS, established(cookie, if active { ACTIVE } else { PASSIVE }, local, remote, 0));
        scene.settle(60 * MS);
        let mut now = 100;
        // The own SYN is among what was acknowledged.
        let (mut acked, mut received, mut half) = (u64::from(active), 0, false);
        let mut told = Vec::new();
        for (step, out, back) in steps {
            now += 100;
            received += back;
            acked += if half { 0 } else { out };
            match step {
                0 => {
                    let mut next = self::scene(&config());
                    scene.flush();
                    told.append(&mut scene.told);
                    next.flows.take_up(&scene.flows.leave());
                    scene = next;
                }
                1 if !half => (acked, half) = (acked + 1, true),
                2 => {}
                _ => {
                    let state = if half { state::FIN_WAIT2 } else { state::ESTABLISHED };
                    scene.on(now * MS, update(cookie, state, counters(acked, received)));
                    scene.settle((now + 20) * MS);
                }
            }
        }
        let from = if half { state::FIN_WAIT2 } else { state::ESTABLISHED };
        let mut last = close(cookie, from, local, remote, counters(acked, received + u64::from(half)));
        if let Event::Close(close) = &mut last {
            close.fin_in = if half { event::FIN_CAME } else { event::FIN_NOT_SEEN };
        }
        scene.on((now + 100) * MS, last);
        scene.flush();
        told.append(&mut scene.told);
        let all = passed(&told);
        let (end, _) = all.last().expect("an end");
        let deltas: Vec<Delta> = all.iter().map(|(_, delta)| delta.expect("a delta")).collect();
        let sum = |of: fn(&Delta) -> i64| deltas.iter().map(of).sum::<i64>();
        let [own, peer] = [acked - u64::from(active) - u64::from(half), received];
        let (source, destination) = if active { (own, peer) } else { (peer, own) };
        prop_assert_eq!((end.source_bytes, end.destination_bytes), (source, destination));
        prop_assert_eq!(sum(|d| d.source_bytes) as u64, source);
        prop_assert_eq!(sum(|d| d.destination_bytes) as u64, destination);
        // The kernel counts segments in 32 bits.
        prop_assert_eq!(sum(|d| d.source_segments.into()) as u32, end.source_segments);
        prop_assert_eq!(sum(|d| d.destination_segments.into()) as u32, end.destination_segments);
        prop_assert_eq!(sum(|d| d.retransmits.into()) as u32, end.retransmits);
    }
}
