//! What clients say first over TLS: put together, and told once, as that of its flow.

use flowtel_common::event::{AT_LISTENER, HELLO, Hello as Part, IN, OUT};

use super::*;
use crate::{
    capture::Clock,
    tls::{Hello, sample::Sample},
};

/// The socket that listens.
const LISTENER: u64 = 77;

impl Scene {
    /// A segment of a hello passes, from the client's side with cookie 5 or to the server's with another one.
    fn says(&mut self, time: u64, cookie: u64, way: u32, (at, bytes): (usize, &[u8])) {
        let ((near, local_port), (far, remote_port)) = if cookie == 5 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let address = |last| mapped(u32::from_ne_bytes([192, 0, 2, last]));
        let part = Part {
            kind: HELLO,
            length: bytes.len() as u32,
            time,
            cookie,
            local: address(near),
            remote: address(far),
            local_port,
            remote_port,
            at: at as u32,
            way,
            cut: 0,
        };
        self.ledger.kernel.hello.read.add(1);
        self.flows.hello(&part, bytes, &Clock::measure());
    }

    /// Joined, own, unused, evicted; none is open.
    fn fates(&self) -> [u64; 4] {
        let kind = &self.ledger.kernel.hello;
        assert_eq!(kind.open(), 0, "each has a fate");
        [&kind.joined, &kind.own, &kind.unused, &kind.evicted].map(|count| count.get())
    }
}

fn hellos(told: &[FlowEvent]) -> Vec<(&FlowEvent, Hello)> {
    let said = |event: &'_ FlowEvent| -> Option<Hello> {
        let What::ClientHello { hello } = &event.what else { return None };
        Some((**hello).clone())
    };
    told.iter().filter_map(|event| Some((event, said(event)?))).collect()
}

fn words(told: &[FlowEvent]) -> Vec<&'static str> {
    let word = |event: &FlowEvent| match event.what {
        What::Begin { .. } => "begin",
        What::ClientHello { .. } => "hello",
        What::End { .. } => "end",
        _ => "other",
    };
    told.iter().map(word).collect()
}

/// A server's side, taken by the listener.
fn taken(cookie: u64) -> Event {
    let Event::Established(mut established) = established(cookie, PASSIVE, SERVER, CLIENT, 100) else {
        unreachable!("it is one")
    };
    established.listener = LISTENER;
    Event::Established(established)
}

#[test]
fn a_hello_is_told_between_its_flow_s_begin_and_end_with_the_owner() {
    let bytes = Sample::new("example.com").bytes();
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    // It is read before the events of the same reading are taken.
    scene.says(3 * MS, 5, OUT, (0, &bytes));
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    // All in one reading.
    scene.on(4 * MS, close_by_fin(5, CLIENT, SERVER, Counters::default()));
    scene.settle(5 * MS);
    let told = scene.flush();
    assert_eq!(words(told), ["begin", "hello", "end"]);
    let [begin, hello, _] = told else { panic!("three") };
    assert_eq!((hello.flow.id, hello.flow.owner), (begin.flow.id, begin.flow.owner));
    assert!(hello.flow.owner.is_some() && hello.at.time == KernelTime(3 * MS));
    let [(_, said)] = &hellos(told)[..] else { panic!("one hello") };
    assert_eq!(said.server_name.as_deref(), Some("example.com"));
    assert!(said.ja4.is_some());
    assert_eq!(scene.fates(), [1, 0, 0, 0]);
}

#[test]
fn it_is_told_while_the_flow_is_open_and_a_repeated_one_is_not() {
    let bytes = Sample::new("example.com").bytes();
    let mut scene = Scene::new();
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.says(3 * MS, 5, OUT, (0, &bytes));
    scene.settle(4 * MS);
    scene.settle(20 * MS);
    assert_eq!(words(&scene.told), ["begin", "hello"]);
    scene.says(200 * MS, 5, OUT, (0, &bytes));
    scene.settle(300 * MS);
    assert!(scene.flows.is_quiet());
    assert_eq!((words(scene.flush()), scene.fates()), (vec!["begin", "hello"], [1, 0, 1, 0]));
}

#[test]
fn segments_are_put_together_and_of_one_that_lacks_its_rest_there_is_no_fingerprint() {
    let bytes = Sample::new("example.com").and((0x6399, vec![1; 1600])).bytes();
    let (first, rest) = bytes.split_at(1400);
    let mut scene = Scene::new();
    scene.on(MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.says(2 * MS, 5, OUT, (first.len(), rest));
    scene.settle(30 * MS);
    assert_eq!(words(&scene.told), ["begin"]);
    scene.says(31 * MS, 5, OUT, (0, first));
    scene.settle(50 * MS);
    let [(_, said)] = &hellos(scene.flush())[..] else { panic!("one") };
    assert!(said.whole && said.ja4.is_some());
    assert_eq!(scene.fates(), [2, 0, 0, 0]);

    let mut scene = Scene::new();
    scene.on(MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.says(2 * MS, 5, OUT, (0, first));
    scene.settle(1000 * MS);
    assert_eq!(words(&scene.told), ["begin"], "its rest may come");
    scene.settle(1600 * MS);
    let told = scene.flush();
    let [(event, said)] = &hellos(told)[..] else { panic!("one") };
    assert_eq!((said.whole, said.ja4, said.server_name.as_deref()), (false, None, Some("example.com")));
    assert_eq!(event.at.time, KernelTime(2 * MS));
    // What comes after that is too late.
    scene.says(1700 * MS, 5, OUT, (first.len(), rest));
    assert_eq!((hellos(scene.flush()).len(), scene.fates()), (1, [1, 0, 1, 0]));
}

#[test]
fn a_hello_at_a_listening_socket_is_that_of_the_socket_made_of_it() {
    let bytes = Sample::new("example.com").and((0x6399, vec![1; 1600])).bytes();
    let (first, rest) = bytes.split_at(1400);
    let mut scene = Scene::new();
    scene.says(2 * MS, LISTENER, IN | AT_LISTENER, (0, first));
    scene.says(4 * MS, 6, IN, (first.len(), rest));
    scene.on(3 * MS, taken(6));
    scene.settle(5 * MS);
    let told = scene.flush();
    assert_eq!(words(told), ["begin", "hello"]);
    let [(event, said)] = &hellos(told)[..] else { panic!("one") };
    assert_eq!(event.flow.id, told[0].flow.id);
    assert_eq!(event.flow.direction, Some(Direction::Incoming));
    assert!(said.whole && event.at.time == KernelTime(3 * MS), "not before the begin");
    assert_eq!(scene.fates(), [2, 0, 0, 0]);

    // Another connection of the same listener, and one of another listener at the same ends, get nothing.
    let mut scene = Scene::new();
    scene.says(2 * MS, LISTENER + 1, IN | AT_LISTENER, (0, &bytes));
    scene.on(3 * MS, taken(6));
    scene.settle(5 * MS);
    scene.settle(2000 * MS);
    assert_eq!((words(scene.flush()), scene.fates()), (vec!["begin"], [0, 0, 1, 0]));
}

#[test]
fn what_is_no_hello_and_what_is_flowtel_s_own_is_not_told() {
    let bytes = Sample::new("example.com").bytes();
    let mut scene = Scene::new();
    scene.on(MS, connect(5, OWN));
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.says(3 * MS, 5, OUT, (0, &bytes));
    scene.on(MS, established(9, ACTIVE, (3, 1), (4, 2), 0));
    scene.says(3 * MS, 9, OUT, (0, &[22, 1, 2, 3, 4, 1, 0, 0, 0, 0]));
    scene.says(3 * MS, 9, OUT, (10, b"x"));
    scene.settle(5 * MS);
    // A byte alone proves nothing.
    scene.says(6 * MS, 11, OUT, (0, &[22]));
    let told = scene.flush();
    assert!(hellos(told).is_empty(), "{told:#?}");
    assert_eq!(scene.fates(), [0, 1, 3, 0]);
}

#[test]
fn of_a_flow_whose_begin_was_not_seen_it_is_told_once_without_direction() {
    let bytes = Sample::new("example.com").bytes();
    let mut scene = Scene::new();
    scene.says(3 * MS, 5, OUT, (0, &bytes));
    scene.settle(5 * MS);
    scene.says(203 * MS, 5, OUT, (0, &bytes));
    scene.settle(205 * MS);
    let told = scene.flush();
    let [(event, _)] = &hellos(told)[..] else { panic!("one: {told:#?}") };
    assert_eq!(event.flow.direction, None);
    assert_eq!(event.flow.destination.port(), SERVER.1);
    assert_eq!(scene.fates(), [1, 0, 1, 0]);
}

#[test]
fn more_than_there_is_room_for_are_told_as_they_are_or_counted() {
    let mut scene = Scene::new();
    let bytes = Sample::new("example.com").bytes();
    for n in 0..5000 {
        scene.says(MS + n, 100 + n, OUT, (0, &bytes[..100]));
        scene.says(MS + n, LISTENER + n, IN | AT_LISTENER, (0, &bytes[..100]));
    }
    assert_eq!(hellos(scene.flush()).len(), 5000);
    assert_eq!(scene.fates(), [5000, 0, 4096, 904]);
}
