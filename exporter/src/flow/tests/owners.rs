//! Who took a connection: whoever was seen to accept it, else whoever listens on the socket that took it, else nobody.

use super::*;

/// Process, role, how that is known, and the process that the begin named.
fn owner(told: &FlowEvent) -> Option<(u32, Role, Source, Option<u32>)> {
    told.flow.owner.map(|owner| (owner.pid, owner.role, owner.source, owner.begin.map(std::num::NonZeroU32::get)))
}

const NGINX: Option<(u32, Role, Source, Option<u32>)> = Some((44, Role::Acceptor, Source::Accept, None));
const MASTER: Option<(u32, Role, Source, Option<u32>)> = Some((55, Role::Listener, Source::Listener, None));

/// An accept() or a getpeername(): the kernel can't tell.
fn asks(cookie: u64, pid: u32) -> Event {
    let Event::Accept(accept) = accept(cookie, pid) else { unreachable!("made by accept") };
    Event::Accept(Accept { certain: 0, ..accept })
}

fn ends(cookie: u64) -> Event {
    close(cookie, state::LAST_ACK, SERVER, CLIENT, Counters::default())
}

#[test]
fn a_listener_stands_in_for_an_acceptor_that_was_not_seen() {
    let mut scene = Scene::new();
    scene.on(MS, listen(3, 55));
    scene.on(2 * MS, taken(6, 3));
    scene.on(2 * MS, taken(7, 0));
    scene.settle(50 * MS);
    assert!(scene.told.is_empty(), "it may still be accepted");
    scene.settle(52 * MS);
    let [known, unknown] = scene.told.as_slice() else { panic!("two begins") };
    assert_eq!((owner(known), owner(unknown)), (MASTER, None));
}

#[test]
fn of_listeners_on_one_port_the_one_is_named_that_took_it() {
    let mut scene = Scene::new();
    // Two addresses, SO_REUSEPORT, two families, two namespaces: all the same, each a socket of its own.
    scene.on(1, listen(3, 55));
    scene.on(2, listen(4, 66));
    scene.on(3, bind(5, 77)); // never listens
    scene.on(4, taken(6, 4));
    scene.on(5, taken(7, 3));
    scene.on(6, taken(8, 5));
    let pids: Vec<_> = scene.flush().iter().map(|told| told.flow.owner.map(|owner| owner.pid)).collect();
    assert_eq!(pids, [Some(66), Some(55), None]);
}

#[test]
fn where_the_caller_of_listen_is_not_known_it_is_who_bound_and_without_a_bind_nobody() {
    let mut scene = Scene::new();
    scene.on(1, bind(3, 55));
    scene.on(2, listen(3, 0));
    scene.on(3, listen(4, 0));
    scene.on(4, bind(5, 66));
    scene.on(5, release(5, state::CLOSE));
    scene.on(6, listen(5, 0));
    scene.on(7, taken(6, 3));
    scene.on(7, taken(7, 4));
    scene.on(7, taken(8, 5));
    let owners: Vec<_> = scene.flush().iter().map(owner).collect();
    assert_eq!(owners, [MASTER, None, None]);
}

#[test]
fn a_listener_that_is_closed_is_forgotten_and_one_that_listens_again_is_anew() {
    let mut scene = Scene::new();
    scene.on(1, listen(3, 66));
    scene.on(2, unlisten(3));
    scene.on(3, taken(6, 3));
    scene.on(4, listen(3, 55));
    scene.on(5, taken(7, 3));
    let owners: Vec<_> = scene.flush().iter().map(owner).collect();
    assert_eq!(owners, [None, MASTER]);
}

#[test]
fn an_acceptor_that_was_quicker_than_the_begin_is_the_owner_all_the_same() {
    for accepts in [accept, asks] {
        let mut scene = Scene::new();
        scene.on(1, listen(3, 55));
        scene.on(10, accepts(6, 44));
        scene.on(20, accepts(7, 78)); // getpeername() on a socket from before
        scene.settle(30);
        scene.on(40, taken(6, 3));
        scene.settle(20 * MS);
        assert_eq!(owner(&scene.told[0]), NGINX);
        scene.settle(1001 * MS);
        let accept = &scene.ledger.kernel.accept;
        assert_eq!((accept.joined.get(), accept.unused.get(), accept.open()), (1, 1, 0));
    }
}

#[test]
fn a_fast_open_that_is_accepted_a_round_trip_before_it_begins_has_its_acceptor() {
    let mut scene = Scene::new();
    scene.on(MS, accept(6, 44));
    scene.settle(300 * MS);
    scene.on(310 * MS, taken(6, 0));
    assert_eq!(scene.flush().iter().map(owner).collect::<Vec<_>>(), [NGINX]);
}

#[test]
fn getpeername_of_somebody_else_changes_no_owner() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.on(2 * MS, established(5, ACTIVE, CLIENT, SERVER, 0));
    scene.on(2 * MS, taken(6, 3));
    scene.on(3 * MS, accept(5, 1));
    scene.on(3 * MS, accept(6, 44));
    scene.on(4 * MS, accept(6, 45));
    let owners: Vec<_> = scene.flush().iter().filter_map(|told| told.flow.owner).map(|o| o.pid).collect();
    assert_eq!(owners, [99, 44]);
    assert_eq!(scene.ledger.kernel.accept.unused.get(), 2);
}

#[test]
fn accept_that_comes_late_names_the_taker_at_the_end_and_says_whom_the_begin_named() {
    let mut scene = Scene::new();
    scene.on(1, listen(3, 55));
    for cookie in [6, 7] {
        scene.on(2, taken(cookie, 3));
    }
    scene.on(2, taken(8, 0));
    scene.settle(60 * MS);
    assert_eq!(scene.told.iter().map(owner).collect::<Vec<_>>(), [MASTER, MASTER, None]);
    scene.on(300 * MS, accept(6, 44));
    scene.on(300 * MS, accept(7, 55));
    scene.on(300 * MS, accept(8, 44));
    for (at, cookie) in [(301, 6), (302, 7), (303, 8)] {
        scene.on(at * MS, ends(cookie));
    }
    let same = Some((55, Role::Acceptor, Source::Accept, None));
    let another = Some((44, Role::Acceptor, Source::Accept, Some(55)));
    assert_eq!(scene.flush()[3..].iter().map(owner).collect::<Vec<_>>(), [another, same, NGINX]);
}

#[test]
fn what_may_be_an_onlooker_is_believed_only_until_the_begin_is_told() {
    let mut scene = Scene::new();
    scene.on(1, listen(3, 55));
    scene.on(2, taken(6, 3));
    scene.on(2, taken(7, 3));
    scene.on(40 * MS, asks(6, 44));
    scene.settle(60 * MS);
    scene.on(300 * MS, asks(7, 44));
    scene.on(301 * MS, ends(6));
    scene.on(302 * MS, ends(7));
    assert_eq!(scene.flush().iter().map(owner).collect::<Vec<_>>(), [NGINX, MASTER, NGINX, MASTER]);
}

#[test]
fn a_listener_whose_process_is_gone_is_not_named() {
    let mut scene = Scene::new();
    scene.flows.ask_lives(|owner| owner.pid != 66);
    scene.on(1, listen(3, 66));
    scene.on(1, listen(4, 55));
    for (cookie, listener) in [(6, 3), (7, 4), (8, 3)] {
        scene.on(2, taken(cookie, listener));
    }
    scene.on(3, accept(8, 66)); // seen to accept: it was there
    scene.on(4, ends(6));
    scene.settle(5);
    // From here on it is gone, too, but it was there later than the begin.
    scene.flows.ask_lives(|_| false);
    scene.settle(60 * MS);
    scene.on(70 * MS, ends(7));
    let accepted = Some((66, Role::Acceptor, Source::Accept, None));
    assert_eq!(scene.flush().iter().map(owner).collect::<Vec<_>>(), [None, MASTER, accepted, None, MASTER]);
}
