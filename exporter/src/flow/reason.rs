//! Why a flow ended, or an attempt failed, and how that is known. In: what a closed socket says of itself, and what was seen
//! before it closed. Out: a [`Cause`]. Pure functions. They never guess: what nothing proves is no cause.

use std::time::Duration;

use flowtel_common::event::{self, Close, state};

use super::{Cause, EndReason, Evidence, FailReason};
use crate::capture::KernelTime;

/// What was seen of a flow before its socket was closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The peer's FIN, last.
    pub fin_in: Option<KernelTime>,
    /// The peer's reset, last.
    pub reset_in: Option<KernelTime>,
    /// The own reset.
    pub reset_out: bool,
    /// TCP need not have counted its bytes ([`event::UNCOUNTED`]).
    pub uncounted: bool,
}

/// What was seen of an attempt before its socket was closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// A reset answered it.
    pub reset_in: bool,
    /// The process dropped the socket.
    pub released: bool,
    /// It was the socket's first: what the socket had heard of before it was closed is about this one.
    pub first: bool,
}

/// A reset that closes a socket does so while it is received, or when the process that holds the socket's lock lets go.
/// One that came earlier was forged, or out of window.
pub(super) const RESET_CLOSES_WITHIN: Duration = Duration::from_millis(50);
/// The least retransmission time-out, less some slack (TCP_RTO_MIN is 200 ms).
pub(super) const LEAST_RTO: Duration = Duration::from_millis(190);

/// Error numbers as the kernel keeps them in a socket (include/uapi/asm-generic/errno.h), by what they mean for a connection.
mod errno {
    pub const RESET: [i32; 2] = [libc::ECONNRESET, libc::EPIPE];
    /// What ICMP's "destination unreachable" becomes, but for "port unreachable" (icmp_err_convert, net/ipv4/icmp.c;
    /// tab_unreach, net/ipv6/icmp.c), and "time exceeded"; and a host's own interface that is down.
    pub const UNREACHABLE: [i32; 8] = [
        libc::EACCES,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::ENETDOWN,
        libc::ENONET,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
    ];
}

/// Why a flow ended whose socket went to CLOSE at `at`; `None` where nothing proves a cause. A local reset leaves after this:
/// then [`EndReason::ResetLocal`] it was.
pub fn end(close: &Close, at: KernelTime, seen: &Seen) -> Option<Cause<EndReason>> {
    match error(close) {
        None | Some(0) => {}
        Some(libc::ECONNABORTED) => return Some(EndReason::ResetLocal.by(Evidence::SocketError)),
        Some(reset) if errno::RESET.contains(&reset) => return Some(EndReason::ResetRemote.by(Evidence::SocketError)),
        Some(libc::ETIMEDOUT) => return Some(EndReason::Timeout.by(Evidence::SocketError)),
        // An ICMP message never closes an established socket. Where a timer does, its error is what a message last said
        // (tcp_write_err); but it may be left from long ago (IP_RECVERR) where something else closes the socket.
        Some(_) if seen.reset_out => return Some(EndReason::ResetLocal.by(Evidence::Segment)),
        Some(_) => return Some(EndReason::Timeout.by(Evidence::SocketError)),
    }
    if seen.reset_in.is_some_and(|t| within(t, at, RESET_CLOSES_WITHIN)) {
        return Some(EndReason::ResetRemote.by(Evidence::Segment));
    }
    if seen.reset_out {
        return Some(EndReason::ResetLocal.by(Evidence::Segment));
    }
    if own_fin_acknowledged(close) {
        let shown = matches!(close.old_state, state::CLOSING | state::LAST_ACK) && has(close, event::ALL_WRITTEN);
        return Some(EndReason::Fin.by(if shown { Evidence::Segment } else { Evidence::State }));
    }
    // Where the socket's error can't be had, nothing but a timer closes such a socket and sends nothing. (Of the socket that a
    // process closes with TCP_REPAIR that is not so.)
    error(close).is_none().then(|| EndReason::Timeout.by(Evidence::State))
}

/// The socket's error, where it is known.
fn error(close: &Close) -> Option<i32> {
    (close.error != event::ERROR_UNKNOWN).then(|| close.error.into())
}

fn has(close: &Close, mark: u8) -> bool {
    close.marks & mark != 0
}

/// Whether the own FIN was acknowledged when the socket was closed.
pub fn own_fin_acknowledged(close: &Close) -> bool {
    match close.old_state {
        state::FIN_WAIT2 | state::TIME_WAIT => true,
        // Both FINs are out. It is closed by the acknowledgement of the own one, or by a timer.
        state::CLOSING | state::LAST_ACK => has(close, event::ALL_ACKNOWLEDGED),
        _ => false,
    }
}

/// Whether the peer's FIN had come, in order, when the socket went from `old_state` to CLOSE.
/// `fin_in`: it came while the own one was out, as the socket remembers it ([`Close::fin_in`]) or a FIN in time showed.
pub fn peer_fin_came(old_state: u32, fin_in: bool) -> bool {
    match old_state {
        state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING | state::TIME_WAIT => true,
        // The FIN itself closes such a socket; after close() the rest is a TIME_WAIT that nobody sees, and no FIN came.
        state::FIN_WAIT1 | state::FIN_WAIT2 => fin_in,
        _ => false,
    }
}

/// Why an attempt failed whose socket was closed in SYN_SENT; or in SYN_RECV, see [`half`].
pub fn failure(close: &Close, asked: &Asked) -> Cause<FailReason> {
    let by = |reason: FailReason| reason.by(Evidence::SocketError);
    // What it has heard of the application is told, too, where it asks (SO_ERROR), and then it gives up.
    match error(close).filter(|_| asked.first || !has(close, event::HEARD)) {
        Some(libc::ECONNREFUSED) => by(FailReason::Refused),
        Some(libc::ETIMEDOUT) => by(FailReason::TimedOut),
        Some(libc::ECONNABORTED) => by(FailReason::Aborted),
        Some(no_way) if errno::UNREACHABLE.contains(&no_way) => by(FailReason::Unreachable),
        None | Some(0) => seen_failure(close, asked),
        Some(_) => by(FailReason::Other),
    }
}

/// What came before, where the socket has no error: none was set, another thread has asked for it first (SO_ERROR), or the
/// kernel does not say where it is.
fn seen_failure(close: &Close, asked: &Asked) -> Cause<FailReason> {
    if asked.reset_in {
        FailReason::Refused.by(Evidence::Segment)
    } else if error(close).is_none() && close.timer == event::TIMER_EXPIRED {
        // A timer leaves an error behind. (Where the socket shows none, another program has taken the flag away.)
        FailReason::TimedOut.by(Evidence::Timer)
    } else if asked.released || has(close, event::IN_CALL) && close.counters.segments_out > 0 {
        // Where no SYN left it was connect() itself that failed: it had no port, or no memory.
        FailReason::Aborted.by(Evidence::Call)
    } else {
        FailReason::Other.unknown()
    }
}

/// Why an attempt failed whose handshake was half done: Fast Open, or SYNs that crossed. `outgoing`: this side asked, too.
pub fn half(close: &Close, asked: &Asked, outgoing: bool) -> Cause<FailReason> {
    match error(close) {
        // The peer broke off what it had begun itself, or what it was asked for.
        Some(libc::ECONNRESET) if outgoing => FailReason::Refused.by(Evidence::SocketError),
        Some(libc::ECONNRESET) => FailReason::Aborted.by(Evidence::SocketError),
        _ => failure(close, asked),
    }
}

fn within(earlier: KernelTime, later: KernelTime, limit: Duration) -> bool {
    u128::from(later.since(earlier)) < limit.as_nanos()
}

#[cfg(test)]
mod tests;
