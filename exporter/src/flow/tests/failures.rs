//! Attempts that become no flow: why, how often they were tried, and when.

use super::*;

/// A socket that was closed in SYN_SENT after `retransmits`.
fn given_up(cookie: u64, retransmits: u32) -> Close {
    let counters = Counters { retransmits, segments_out: 1 + retransmits, ..Counters::default() };
    let Event::Close(close) = close(cookie, state::SYN_SENT, CLIENT, SERVER, counters) else {
        unreachable!("it is one")
    };
    close
}

#[test]
fn failures_say_why_and_how_often_it_was_tried() {
    type Case<'a> = (&'a [(u64, Event)], Close, FailReason);
    let expired = Close { timer: event::TIMER_EXPIRED, ..given_up(5, 1) };
    let cases: [Case<'_>; 5] = [
        (&[(3, reset(5, IN))], given_up(5, 0), FailReason::Refused),
        (&[(2, release(5, state::SYN_SENT))], given_up(5, 0), FailReason::Aborted),
        (&[(1003, syn_again(5))], expired, FailReason::TimedOut),
        (&[(1003, syn_again(5))], given_up(5, 1), FailReason::Other),
        (&[], Close { error: 113, ..given_up(5, 0) }, FailReason::Unreachable),
    ];
    for (between, close, reason) in cases {
        let mut scene = Scene::new();
        scene.on(MS, connect(5, 99));
        let last = between.last().map_or(2, |(at, _)| *at);
        for (at, event) in between {
            scene.on(at * MS, *event);
        }
        scene.on((last + 1) * MS, Event::Close(close));
        let [told] = scene.flush() else { panic!("one failure") };
        assert_eq!(failure(told), (reason, close.counters.retransmits + 1, None));
        assert_eq!(told.flow.owner.map(|o| o.pid), Some(99));
        assert_eq!(scene.ledger.kernel.connect.open(), 0);
    }
}

#[test]
fn an_attempt_without_a_syn_fails_when_its_socket_is_dropped_or_used_again_and_is_unreachable_only_where_that_is_known()
{
    let Event::Release(dropped) = release(5, state::CLOSE) else { unreachable!("it is one") };
    let unroutable = |last: u8| mapped(u32::from_ne_bytes([192, 0, 2, last]));
    let cases = [
        (connect(5, 99), FailReason::Other, None),
        (Event::Release(dropped), FailReason::Other, None),
        // There was no route for an earlier call on the same socket.
        (Event::Release(Release { unroutable: unroutable(3), ..dropped }), FailReason::Other, None),
        (
            Event::Release(Release { unroutable: unroutable(2), ..dropped }),
            FailReason::Unreachable,
            Some(Evidence::State),
        ),
    ];
    for (next, reason, source) in cases {
        let mut scene = Scene::new();
        scene.on(MS, connect(5, 99));
        scene.on(2 * MS, next);
        let [told] = scene.flush() else { panic!("one failure") };
        assert_eq!(told.what, What::Failed { cause: Cause { reason, source }, attempts: 0, fold: None });
        assert!(told.flow.source.ip().is_unspecified());
        assert_eq!(told.flow.destination.to_string(), "192.0.2.2:80");
    }
}

#[test]
fn a_call_that_a_program_refused_is_denied_at_its_own_time_even_where_its_socket_is_kept() {
    for ends in [Some(release(5, state::CLOSE)), Some(connect(5, 99)), None] {
        let mut scene = Scene::new();
        scene.on(MS, Event::Connect(Call { refusal: 1, ..call(event::CONNECT, 5, 99, 80) }));
        if let Some(ends) = ends {
            scene.on(2 * MS, ends);
        }
        scene.settle(1002 * MS);
        let [told] = &scene.told[..] else { panic!("one failure: {:?}", scene.told) };
        assert_eq!(told.what, What::Failed { cause: FailReason::Denied.by(Evidence::Call), attempts: 0, fold: None });
        assert_eq!(told.at.time, KernelTime(MS));
    }
    // A later program allowed it after all.
    let mut scene = Scene::new();
    scene.on(MS, Event::Connect(Call { refusal: 1, ..call(event::CONNECT, 5, 99, 80) }));
    scene.on(22 * MS, established(5, ACTIVE, CLIENT, SERVER, 12_000));
    scene.settle(2000 * MS);
    let [begin] = scene.flush() else { panic!("one begin") };
    assert_eq!(handshake(begin), Some(Duration::from_millis(21)));
}

#[test]
fn a_fast_open_that_was_never_written_is_aborted_when_it_is_closed_and_nothing_before() {
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.settle(700_000 * MS);
    assert!(scene.flush().is_empty(), "what becomes of it nobody knows");
    let mut scene = Scene::new();
    scene.on(MS, connect(5, 99));
    scene.on(5000 * MS, release(5, state::SYN_SENT));
    scene.settle(5009 * MS);
    assert!(scene.told.is_empty(), "its end may still be told");
    scene.settle(5021 * MS);
    let [told] = &scene.told[..] else { panic!("one failure: {:?}", scene.told) };
    assert_eq!(told.what, What::Failed { cause: FailReason::Aborted.by(Evidence::Call), attempts: 0, fold: None });
    assert_eq!(told.at.time, KernelTime(5000 * MS));
    assert_eq!(scene.ledger.kernel.connect.open(), 0);
}

#[test]
fn a_fast_open_that_was_never_completed_is_an_attempt_that_failed_and_no_flow() {
    let Event::Close(unknown) = close(6, state::SYN_RECV, SERVER, CLIENT, Counters::default()) else {
        unreachable!("it is one")
    };
    let cases = [(unknown.error, FailReason::Other), (110, FailReason::TimedOut), (104, FailReason::Aborted)];
    for (error, reason) in cases {
        let mut scene = Scene::new();
        scene.on(MS, Event::Close(Close { error, ..unknown }));
        let [told] = scene.flush() else { panic!("one failure") };
        assert_eq!(failure(told).0, reason);
        assert_eq!(told.flow.direction, Some(Direction::Incoming));
    }
}
