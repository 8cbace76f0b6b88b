//! Why a flow ended, or an attempt failed. UAPI tells no error number, so the state that the socket came from and what
//! was seen before it decide. Pure functions.

use std::time::Duration;

use flowtel_common::event::{self, state};

use crate::capture::KernelTime;

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// By FIN.
    Fin,
    /// This side reset it.
    ResetLocal,
    /// The peer reset it.
    ResetRemote,
    /// Nothing came any more.
    Timeout,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// A reset answered the SYN.
    Refused,
    /// Nothing answered the SYNs.
    TimedOut,
    /// There is no way there: no route, or an ICMP message said so.
    Unreachable,
    /// The local side gave it up.
    Aborted,
}

/// What was seen of a flow before its socket was closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The peer's FIN, last.
    pub fin_in: Option<KernelTime>,
    /// The peer's reset, last.
    pub reset_in: Option<KernelTime>,
    /// The own reset.
    pub reset_out: bool,
}

/// What was seen of an attempt before its socket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// When the last SYN left.
    pub last_syn: KernelTime,
    /// A reset answered it.
    pub reset_in: bool,
    /// The process dropped the socket.
    pub released: bool,
    /// What its retransmission timer did ([`event::Close::timer`]).
    pub timer: u8,
}

/// A reset that closes a socket does so while it is received, or when the process that holds the socket's lock lets go.
/// One that came earlier was forged, or out of window.
pub(super) const RESET_CLOSES_WITHIN: Duration = Duration::from_millis(50);
/// The least retransmission time-out, less some slack (TCP_RTO_MIN is 200 ms).
pub(super) const LEAST_RTO: Duration = Duration::from_millis(190);
/// The time-out of a first SYN (TCP_TIMEOUT_INIT is 1 s), less some slack: timers were seen 8 ms early.
const SYN_RTO: Duration = Duration::from_millis(900);

/// Why a flow ended whose socket went from `old_state` to CLOSE at `at`. `all_acknowledged`: the peer had acknowledged all
/// that was sent ([`flowtel_common::event::Close::all_acknowledged`]). A local reset leaves after this: then
/// [`EndReason::ResetLocal`] it was.
pub fn end(old_state: u32, at: KernelTime, seen: &Seen, all_acknowledged: bool) -> EndReason {
    if seen.reset_in.is_some_and(|t| within(t, at, RESET_CLOSES_WITHIN)) {
        return EndReason::ResetRemote;
    }
    if seen.reset_out {
        return EndReason::ResetLocal;
    }
    // Where the own FIN was not acknowledged, a timer gave up.
    if own_fin_acknowledged(old_state, all_acknowledged) { EndReason::Fin } else { EndReason::Timeout }
}

/// Whether the own FIN was acknowledged when the socket went from `old_state` to CLOSE. `all_acknowledged`: as for [`end`].
pub fn own_fin_acknowledged(old_state: u32, all_acknowledged: bool) -> bool {
    match old_state {
        state::FIN_WAIT2 | state::TIME_WAIT => true,
        // Both FINs are out. It is closed by the acknowledgement of the own one, or by a timer.
        state::CLOSING | state::LAST_ACK => all_acknowledged,
        _ => false,
    }
}

/// Whether the peer's FIN had come, in order, when the socket went from `old_state` to CLOSE.
/// `fin_in`: it came while the own one was out, as the socket remembers it ([`flowtel_common::event::Close::fin_in`]) or a FIN in time showed.
pub fn peer_fin_came(old_state: u32, fin_in: bool) -> bool {
    match old_state {
        state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING | state::TIME_WAIT => true,
        // The FIN itself closes such a socket; after close() the rest is a TIME_WAIT that nobody sees, and no FIN came.
        state::FIN_WAIT1 | state::FIN_WAIT2 => fin_in,
        _ => false,
    }
}

/// Why an attempt failed whose socket went from SYN_SENT to CLOSE at `at`.
pub fn failure(at: KernelTime, asked: &Asked) -> FailReason {
    if asked.reset_in {
        FailReason::Refused
    } else if asked.released {
        FailReason::Aborted
    } else if was_silence(at, asked) {
        FailReason::TimedOut
    } else {
        FailReason::Unreachable
    }
}

/// Whether nothing at all answered the SYN.
fn was_silence(at: KernelTime, asked: &Asked) -> bool {
    match asked.timer {
        event::TIMER_EXPIRED => true,
        event::TIMER_RUNS => false,
        // The SYN is older than the programs: an ICMP message comes sooner than the next SYN would, as a rule.
        _ => !within(asked.last_syn, at, SYN_RTO),
    }
}

fn within(earlier: KernelTime, later: KernelTime, limit: Duration) -> bool {
    u128::from(later.since(earlier)) < limit.as_nanos()
}

// === impl EndReason

impl EndReason {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::ResetLocal => "reset.local",
            Self::ResetRemote => "reset.remote",
            Self::Timeout => "timeout",
        }
    }
}

// === impl FailReason

impl FailReason {
    /// As it stands in a record (`error.type`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const AT: KernelTime = KernelTime(100_000 * MS);

    fn ago(ms: u64) -> Option<KernelTime> {
        Some(KernelTime(AT.0 - ms * MS))
    }

    fn ended(old_state: u32, seen: Seen) -> EndReason {
        end(old_state, AT, &seen, true)
    }

    #[test]
    fn a_reset_from_the_peer_closes_at_once_and_one_long_before_was_forged() {
        let seen = Seen { reset_in: ago(1), ..Seen::default() };
        assert_eq!(ended(state::ESTABLISHED, seen), EndReason::ResetRemote);
        let seen = Seen { reset_in: ago(5000), fin_in: ago(1), ..Seen::default() };
        assert_eq!(ended(state::LAST_ACK, seen), EndReason::Fin);
    }

    #[test]
    fn a_reset_that_left_is_a_local_one_in_whatever_state() {
        let seen = Seen { reset_out: true, ..Seen::default() };
        for old_state in [state::ESTABLISHED, state::CLOSE_WAIT, state::FIN_WAIT1] {
            assert_eq!(ended(old_state, seen), EndReason::ResetLocal);
        }
    }

    #[test]
    fn a_last_ack_that_never_came_is_a_time_out_and_one_that_came_is_not() {
        let ended = |old_state, all_acknowledged| end(old_state, AT, &Seen::default(), all_acknowledged);
        for both_fins_out in [state::LAST_ACK, state::CLOSING] {
            assert_eq!(ended(both_fins_out, true), EndReason::Fin);
            assert_eq!(ended(both_fins_out, false), EndReason::Timeout);
        }
        // Of what was sent before the FIN all may be acknowledged; were the FIN too, the state would be FIN_WAIT2.
        assert_eq!(ended(state::FIN_WAIT1, true), EndReason::Timeout);
        assert_eq!(ended(state::FIN_WAIT2, false), EndReason::Fin);
    }

    #[test]
    fn silence_is_a_time_out() {
        assert_eq!(ended(state::ESTABLISHED, Seen::default()), EndReason::Timeout);
    }

    #[test]
    fn failures_are_told_apart_by_what_came_first_and_when() {
        let asked = |ms: u64, reset_in, released| Asked {
            last_syn: KernelTime(AT.0 - ms * MS),
            reset_in,
            released,
            timer: event::TIMER_UNKNOWN,
        };
        assert_eq!(failure(AT, &asked(1, true, false)), FailReason::Refused);
        assert_eq!(failure(AT, &asked(1, false, true)), FailReason::Aborted);
        assert_eq!(failure(AT, &asked(992, false, false)), FailReason::TimedOut);
        assert_eq!(failure(AT, &asked(40, false, false)), FailReason::Unreachable);
        // The timer knows better, where it was asked.
        let timer = |ms, timer| failure(AT, &Asked { timer, ..asked(ms, false, false) });
        assert_eq!(timer(500, event::TIMER_EXPIRED), FailReason::TimedOut);
        assert_eq!(timer(1950, event::TIMER_RUNS), FailReason::Unreachable);
    }
}
