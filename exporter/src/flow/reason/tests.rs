use flowtel_common::event::Counters;

use super::*;

const MS: u64 = 1_000_000;
const AT: KernelTime = KernelTime(100_000 * MS);

fn ago(ms: u64) -> Option<KernelTime> {
    Some(KernelTime(AT.0 - ms * MS))
}

/// A socket whose error this kernel does not say.
fn closed(old_state: u32) -> Close {
    Close {
        interface: 0,
        netns_inode: 0,
        kind: event::CLOSE,
        old_state,
        time: AT.0,
        cookie: 1,
        local: event::mapped(0),
        remote: event::mapped(0),
        local_port: 1,
        remote_port: 1,
        fin_in: 0,
        marks: event::ALL_ACKNOWLEDGED,
        timer: event::TIMER_RUNS,
        error: event::ERROR_UNKNOWN,
        counters: Counters { segments_out: 1, ..Counters::default() },
    }
}

fn with_error(old_state: u32, error: i32) -> Close {
    Close { error: error as u8, ..closed(old_state) }
}

fn ended(old_state: u32, seen: Seen) -> Option<Cause<EndReason>> {
    end(&closed(old_state), AT, &seen)
}

#[test]
fn a_reset_from_the_peer_closes_at_once_and_one_long_before_was_forged() {
    let seen = Seen { reset_in: ago(1), ..Seen::default() };
    assert_eq!(ended(state::ESTABLISHED, seen), Some(EndReason::ResetRemote.by(Evidence::Segment)));
    let seen = Seen { reset_in: ago(5000), fin_in: ago(1), ..Seen::default() };
    assert_eq!(ended(state::LAST_ACK, seen), Some(EndReason::Fin.by(Evidence::State)));
}

#[test]
fn a_reset_that_left_is_a_local_one_in_whatever_state() {
    let seen = Seen { reset_out: true, ..Seen::default() };
    for old_state in [state::ESTABLISHED, state::CLOSE_WAIT, state::FIN_WAIT1] {
        assert_eq!(ended(old_state, seen), Some(EndReason::ResetLocal.by(Evidence::Segment)));
    }
}

#[test]
fn a_last_ack_that_never_came_is_a_time_out_and_one_that_came_is_not() {
    let ended = |old_state, marks, error| end(&Close { marks, error, ..closed(old_state) }, AT, &Seen::default());
    let timed_out = Some(EndReason::Timeout.by(Evidence::SocketError));
    for both_fins_out in [state::LAST_ACK, state::CLOSING] {
        let all = event::ALL_ACKNOWLEDGED;
        assert_eq!(ended(both_fins_out, all, event::ERROR_UNKNOWN), Some(EndReason::Fin.by(Evidence::State)));
        let known = all | event::ALL_WRITTEN;
        assert_eq!(ended(both_fins_out, known, event::ERROR_UNKNOWN), Some(EndReason::Fin.by(Evidence::Segment)));
        assert_eq!(ended(both_fins_out, 0, event::ERROR_UNKNOWN), Some(EndReason::Timeout.by(Evidence::State)));
        assert_eq!(ended(both_fins_out, event::ALL_WRITTEN, libc::ETIMEDOUT as u8), timed_out);
    }
    // Of what was sent before the FIN all may be acknowledged; were the FIN too, the state would be FIN_WAIT2.
    assert_eq!(ended(state::FIN_WAIT1, event::ALL_ACKNOWLEDGED, libc::ETIMEDOUT as u8), timed_out);
    assert_eq!(ended(state::FIN_WAIT2, 0, 0), Some(EndReason::Fin.by(Evidence::State)));
    // The peer acknowledged the FIN and fell silent then.
    assert_eq!(ended(state::FIN_WAIT2, 0, libc::ETIMEDOUT as u8), timed_out);
}

#[test]
fn the_sockets_error_says_how_it_ended_and_without_one_nothing_is_made_up() {
    let seen = |reset_out| Seen { reset_out, ..Seen::default() };
    let cases = [
        (libc::ECONNRESET, false, Some(EndReason::ResetRemote.by(Evidence::SocketError))),
        (libc::EPIPE, false, Some(EndReason::ResetRemote.by(Evidence::SocketError))),
        (libc::ETIMEDOUT, false, Some(EndReason::Timeout.by(Evidence::SocketError))),
        // Keep-alive gives up with a reset.
        (libc::ETIMEDOUT, true, Some(EndReason::Timeout.by(Evidence::SocketError))),
        (libc::ECONNABORTED, false, Some(EndReason::ResetLocal.by(Evidence::SocketError))),
        // What ICMP said last, when the timer gave up; or long ago.
        (libc::EHOSTUNREACH, false, Some(EndReason::Timeout.by(Evidence::SocketError))),
        (libc::EHOSTUNREACH, true, Some(EndReason::ResetLocal.by(Evidence::Segment))),
        (0, true, Some(EndReason::ResetLocal.by(Evidence::Segment))),
        // TCP_REPAIR.
        (0, false, None),
    ];
    for (error, reset_out, cause) in cases {
        assert_eq!(end(&with_error(state::ESTABLISHED, error), AT, &seen(reset_out)), cause, "{error} {reset_out}");
    }
    assert_eq!(ended(state::ESTABLISHED, Seen::default()), Some(EndReason::Timeout.by(Evidence::State)));
}

#[test]
fn the_sockets_error_says_why_an_attempt_failed() {
    let cases = [
        (libc::ECONNREFUSED, FailReason::Refused),
        (libc::ETIMEDOUT, FailReason::TimedOut),
        (libc::EHOSTUNREACH, FailReason::Unreachable),
        (libc::ENETUNREACH, FailReason::Unreachable),
        (libc::EACCES, FailReason::Unreachable),
        (libc::ENOPROTOOPT, FailReason::Unreachable),
        (libc::ECONNABORTED, FailReason::Aborted),
        (libc::EPROTO, FailReason::Other),
    ];
    for (error, reason) in cases {
        let close = with_error(state::SYN_SENT, error);
        assert_eq!(failure(&close, &Asked::default()), reason.by(Evidence::SocketError));
        // Whatever came before: the application is told this.
        assert_eq!(
            failure(&close, &Asked { reset_in: true, released: true, first: false }),
            reason.by(Evidence::SocketError)
        );
    }
}

#[test]
fn without_an_error_only_what_was_seen_counts() {
    let asked = |reset_in, released| Asked { reset_in, released, first: true };
    for error in [0, event::ERROR_UNKNOWN.into()] {
        let close = with_error(state::SYN_SENT, error);
        assert_eq!(failure(&close, &asked(true, false)), FailReason::Refused.by(Evidence::Segment));
        assert_eq!(failure(&close, &asked(false, true)), FailReason::Aborted.by(Evidence::Call));
        let expired = Close { timer: event::TIMER_EXPIRED, ..close };
        let known = close.error != event::ERROR_UNKNOWN;
        let told = if known { FailReason::Other.unknown() } else { FailReason::TimedOut.by(Evidence::Timer) };
        assert_eq!(failure(&expired, &asked(false, false)), told);
        assert_eq!(failure(&close, &asked(false, false)), FailReason::Other.unknown());
        // shutdown(), connect(AF_UNSPEC); but not a connect() that itself fails before a SYN has left.
        let in_call = Close { marks: event::IN_CALL, ..close };
        assert_eq!(failure(&in_call, &asked(false, false)), FailReason::Aborted.by(Evidence::Call));
        let unsent = Close { counters: Counters::default(), ..in_call };
        assert_eq!(failure(&unsent, &asked(false, false)), FailReason::Other.unknown());
        // A reset that came while a call had the socket, and whose error another thread has taken.
        assert_eq!(failure(&in_call, &asked(true, false)), FailReason::Refused.by(Evidence::Segment));
    }
}

#[test]
fn half_a_handshake_that_is_reset_was_refused_or_given_up_by_whoever_did_not_ask() {
    let reset = with_error(state::SYN_RECV, libc::ECONNRESET);
    assert_eq!(half(&reset, &Asked::default(), true), FailReason::Refused.by(Evidence::SocketError));
    assert_eq!(half(&reset, &Asked::default(), false), FailReason::Aborted.by(Evidence::SocketError));
    let silent = with_error(state::SYN_RECV, libc::ETIMEDOUT);
    assert_eq!(half(&silent, &Asked::default(), false), FailReason::TimedOut.by(Evidence::SocketError));
    assert_eq!(half(&closed(state::SYN_RECV), &Asked::default(), false), FailReason::Other.unknown());
}

#[test]
fn what_a_first_attempt_had_heard_of_when_it_was_given_up_is_its_cause_and_of_later_ones_nobody_knows() {
    let heard = Close { marks: event::HEARD | event::IN_CALL, ..with_error(state::SYN_SENT, libc::EHOSTUNREACH) };
    let asked = |first| Asked { released: true, first, ..Asked::default() };
    assert_eq!(failure(&heard, &asked(true)), FailReason::Unreachable.by(Evidence::SocketError));
    assert_eq!(failure(&heard, &asked(false)), FailReason::Aborted.by(Evidence::Call));
}
