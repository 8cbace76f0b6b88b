//! The life cycle of sockets: the only proof on every kernel that a handshake was completed, and the end of it.

use core::{hint::black_box, intrinsics::likely};

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    programs::SockOpsContext,
};
use flowtel_common::{
    event::{self, Close, Established, state},
    kernel::{EXTENDED_ERROR, SKB_CB, SOCK_ERR, SOCK_ERR_SOFT, SOCK_ERRORS, SOCK_LAST_ERROR, SOCK_OWNED, TCP_WRITTEN},
    packet::Flags,
    tally,
};

use crate::{
    emit::{Count, FLOWS, OWNERS, answered_at, asked_again, instant, keep, promise, taken_by},
    kernel, netns,
    socket::{self, Counted},
    task,
};

// include/uapi/linux/bpf.h: the callbacks ...
const TCP_CONNECT_CB: u32 = 3;
const ACTIVE_ESTABLISHED_CB: u32 = 4;
const PASSIVE_ESTABLISHED_CB: u32 = 5;
const RTO_CB: u32 = 8;
const RETRANS_CB: u32 = 9;
const STATE_CB: u32 = 10;
const TCP_LISTEN_CB: u32 = 11;
const RTT_CB: u32 = 12;
const PARSE_HDR_OPT_CB: u32 = 13;
const HDR_OPT_LEN_CB: u32 = 14;
const WRITE_HDR_OPT_CB: u32 = 15;
/// ... and the flags that ask for RTO_CB, RETRANS_CB, STATE_CB and PARSE_HDR_OPT_CB.
const RTO_CB_FLAG: i32 = 1 << 0;
const RETRANS_CB_FLAG: i32 = 1 << 1;
const STATE_CB_FLAG: i32 = 1 << 2;
const PARSE_ALL_HDR_OPT_CB_FLAG: i32 = 1 << 4;
/// The flag that asks for PARSE_HDR_OPT_CB on segments with options that the kernel does not know, which are rare: a
/// socket's memory that the peer's FIN came.
const FIN_CAME_FLAG: i32 = 1 << 5;

/// Reports a completed handshake and, where `ENDS` are wanted, a socket's end. `NETNS`: bpf_get_netns_cookie is there for
/// sockops (Linux 6.1 and newer).
///
/// What is wanted is a constant of each program: a variable of the object, though the verifier knows its value, is a load
/// that was measured to miss the cache at almost every run.
#[inline(always)]
pub fn callback<const ENDS: bool, const NETNS: bool>(ctx: &SockOpsContext) {
    const BEGINS_ONLY: u32 = 1 << TCP_CONNECT_CB
        | 1 << ACTIVE_ESTABLISHED_CB
        | 1 << PASSIVE_ESTABLISHED_CB
        | 1 << STATE_CB
        | 1 << TCP_LISTEN_CB;
    /// Callbacks that other programs ask for. Whoever sets the flags overwrites all of them: these are occasions to ask again.
    const OTHERS: u32 = 1 << RTT_CB | 1 << HDR_OPT_LEN_CB | 1 << WRITE_HDR_OPT_CB;
    const ALL: u32 = BEGINS_ONLY | OTHERS | 1 << RTO_CB | 1 << RETRANS_CB | 1 << PARSE_HDR_OPT_CB;
    let op = ctx.op();
    // Most runs are the kernel's questions for a setting: out at once, on the first cache line of the program.
    if likely((if ENDS { ALL } else { BEGINS_ONLY }) >> (op & 31) & 1 == 0) {
        return;
    }
    let how = match op {
        // Children inherit a listener's flag, and need not be given it one by one.
        TCP_LISTEN_CB => {
            watch(ctx, STATE_CB_FLAG);
            return task::listens(cookie(ctx));
        }
        TCP_CONNECT_CB => return asks::<ENDS>(ctx),
        ACTIVE_ESTABLISHED_CB => {
            if ENDS {
                watch(ctx, STATE_CB_FLAG);
            }
            event::ACTIVE
        }
        // With Fast Open it comes at the SYN, and proves nothing: only SYN_RECV → ESTABLISHED does then.
        PASSIVE_ESTABLISHED_CB => {
            watch(ctx, STATE_CB_FLAG);
            if !is_complete(ctx) {
                return;
            }
            promise(cookie(ctx));
            event::PASSIVE
        }
        STATE_CB => match (ctx.arg(0), ctx.arg(1)) {
            (state::SYN_RECV, state::ESTABLISHED) => {
                if keep(cookie(ctx)) {
                    return;
                }
                event::PASSIVE
            }
            (state::CLOSE, _) => return,
            (state::LISTEN, state::CLOSE) => return unlistens(ctx),
            (old, state::CLOSE) if ENDS => return close(ctx, old),
            (_, state::FIN_WAIT1) if ENDS => return await_fin(ctx),
            _ => return,
        },
        PARSE_HDR_OPT_CB if ENDS => return fin_came(ctx),
        RTO_CB if ENDS => return expires(ctx),
        RETRANS_CB if ENDS => return again(ctx),
        _ if ENDS => return ask_again(ctx),
        _ => return,
    };
    // One copy for both, which the compiler would make two of: cold code is what a run costs.
    established::<NETNS>(ctx, black_box(how));
}

/// Whether a socket that PASSIVE_ESTABLISHED_CB comes for has got more than the SYN of a Fast Open: then its handshake is
/// complete, and the change of its state follows at once. (It is not waited for: another program may take that callback away.)
#[inline(always)]
fn is_complete(ctx: &SockOpsContext) -> bool {
    // SAFETY: `sk` is a full socket.
    sock(ctx).is_some_and(|sk| unsafe { socket::segments_in(sk) } > 1)
}

/// The socket (SO_COOKIE).
#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the program's context.
    unsafe { bpf_get_socket_cookie(ctx.ops.cast()) }
}

/// Another program's callback: where that program has set the flags, it may have overwritten flowtel's.
#[inline(always)]
fn ask_again(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() as i32;
    if flags & STATE_CB_FLAG == 0 && ctx.set_cb_flags(flags | STATE_CB_FLAG).is_ok() {
        asked_again();
    }
}

/// A SYN is about to leave: where `ENDS` are wanted, asks for what becomes of it. The socket's sequence numbers are set just
/// after this (tcp_connect, then tcp_connect_init, net/ipv4/tcp_output.c), and nothing clears them when a connection ends
/// (tcp_done, tcp_disconnect): none is there only before its first SYN.
#[inline(always)]
fn asks<const ENDS: bool>(ctx: &SockOpsContext) {
    if ENDS {
        watch(ctx, STATE_CB_FLAG | RETRANS_CB_FLAG | RTO_CB_FLAG);
    }
    // SAFETY: the program's context.
    if unsafe { (*ctx.ops).snd_nxt } != 0 {
        instant(&FLOWS, tally::USED_AGAIN, event::USED_AGAIN, cookie(ctx));
    }
}

/// A listening socket is closed, or listens no longer.
#[inline(always)]
fn unlistens(ctx: &SockOpsContext) {
    instant(&OWNERS, tally::UNLISTEN, event::UNLISTEN, cookie(ctx));
}

/// The retransmission timer ran out (tcp_write_timeout, net/ipv4/tcp_timer.c). Where the kernel gives up a SYN with it, the
/// socket is closed next, and remembers why by the flag that is taken away: nothing else tells silence from an ICMP message,
/// and nobody's timer runs out after that.
#[inline(always)]
fn expires(ctx: &SockOpsContext) {
    let Some(sk) = sock(ctx) else { return };
    ask_again(ctx);
    // SAFETY: `sk` is a full socket.
    if ctx.arg(2) != 0 && unsafe { (*sk).state } == state::SYN_SENT {
        let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 & !RTO_CB_FLAG);
    }
}

/// The own FIN leaves: asks for each segment that comes from now on, for one of them may be the peer's FIN. The states tell
/// it everywhere but here: from FIN_WAIT2 a socket goes to CLOSE when the peer's FIN comes, and also when its process has
/// dropped it and the FIN is left to a TIME_WAIT one.
#[inline(always)]
fn await_fin(ctx: &SockOpsContext) {
    let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 | PARSE_ALL_HDR_OPT_CB_FLAG);
}

/// A segment came that is within the window, and the socket is locked (tcp_validate_incoming, net/ipv4/tcp_input.c). With
/// the peer's FIN nothing more is asked, and the socket remembers it. (Two bits, for other programs may use one of them.)
#[inline(always)]
fn fin_came(ctx: &SockOpsContext) {
    ask_again(ctx);
    // SAFETY: the program's context.
    if unsafe { (*ctx.ops).skb_tcp_flags } & u32::from(Flags::FIN) != 0 {
        let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 & !PARSE_ALL_HDR_OPT_CB_FLAG | FIN_CAME_FLAG);
    }
}

/// Asks for what is `wanted`: the socket's changes of state, and its retransmissions. Flags that other programs have set
/// stay.
#[inline(always)]
fn watch(ctx: &SockOpsContext, wanted: i32) {
    let flags = ctx.cb_flags() as i32;
    if flags & wanted != wanted {
        let _ = ctx.set_cb_flags(flags | wanted);
    }
}

/// A segment was sent again (__tcp_retransmit_skb, net/ipv4/tcp_output.c): of interest where that is a SYN.
#[inline(always)]
fn again(ctx: &SockOpsContext) {
    let Some(sk) = sock(ctx) else { return };
    ask_again(ctx);
    // SAFETY: `sk` is a full socket, and `ops` the program's context.
    if unsafe { (*sk).state } == state::SYN_SENT {
        instant(&FLOWS, tally::SYN_AGAIN, event::SYN_AGAIN, cookie(ctx));
    }
}

/// The socket. Its members are a load each, those of the context some ten instructions, and cold code is what a run costs.
#[inline(always)]
fn sock(ctx: &SockOpsContext) -> Option<*mut bpf_sock> {
    // SAFETY: the program's context.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk) }
}

#[inline(always)]
fn established<const NETNS: bool>(ctx: &SockOpsContext, how: u32) {
    let Some(sk) = sock(ctx) else { return };
    // SAFETY: `ops` is the program's context, and `sk` a full socket.
    let netns = unsafe {
        if NETNS {
            let cookie = bpf_get_netns_cookie(ctx.ops.cast());
            netns::note(cookie, sk);
            cookie
        } else {
            match netns::inode(sk) {
                0 => 0,
                inode => event::NETNS_INODE | u64::from(inode),
            }
        }
    };
    let Some(count) = Count::seen(tally::ESTABLISHED) else { return };
    // No closure: two programs use this, see `packets::segment`.
    let Some(mut reserved) = FLOWS.reserve::<Established>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is a reserved record of this type, `sk` a full socket and `ops` the program's context; every field is
    // written.
    unsafe {
        (*record).kind = event::ESTABLISHED;
        (*record).how = how;
        let cookie = bpf_get_socket_cookie(ctx.ops.cast());
        (*record).time = if how == event::ACTIVE { answered_at(cookie) } else { bpf_ktime_get_boot_ns() };
        (*record).cookie = cookie;
        socket::addresses(sk, &raw mut (*record).local, &raw mut (*record).remote);
        (*record).local_port = (*sk).src_port as u16;
        (*record).remote_port = socket::remote_port(sk);
        let trips = socket::trips(sk);
        (*record).srtt_us = trips.srtt_us;
        (*record).retransmits = trips.retransmits;
        (*record).segments_in = trips.segments_in;
        (*record).data_segments_in = trips.data_segments_in;
        (*record).netns = netns;
        (*record).interface = (*sk).bound_dev_if;
        (*record).reserved_2 = 0;
        let ports = u32::from((*record).remote_port) << 16 | u32::from((*record).local_port);
        (*record).listener = if how == event::PASSIVE { taken_by(ports, (*ctx.ops).snd_nxt) } else { 0 };
    }
    reserved.submit(count.wake_up(&FLOWS));
}

#[inline(always)]
fn close(ctx: &SockOpsContext, old_state: u32) {
    let Some(sk) = sock(ctx) else { return };
    let flags = ctx.cb_flags() as i32;
    let Some(count) = Count::seen(tally::CLOSE) else { return };
    let Some(mut reserved) = FLOWS.reserve::<Close>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        (*record).kind = event::CLOSE;
        (*record).old_state = old_state;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).cookie = bpf_get_socket_cookie(ctx.ops.cast());
        socket::addresses(sk, &raw mut (*record).local, &raw mut (*record).remote);
        (*record).local_port = (*sk).src_port as u16;
        (*record).remote_port = socket::remote_port(sk);
        // One of the two is set since the own FIN left, unless another program has overwritten both.
        (*record).fin_in = if flags & PARSE_ALL_HDR_OPT_CB_FLAG != 0 {
            event::FIN_NOT_SEEN
        } else if flags & FIN_CAME_FLAG != 0 {
            event::FIN_CAME
        } else {
            event::FIN_UNKNOWN
        };
        // Both were asked for with the SYN, and one is taken away where it expires.
        let asked = (flags & RETRANS_CB_FLAG != 0) as u8;
        (*record).timer = asked * (event::TIMER_RUNS + (flags & RTO_CB_FLAG == 0) as u8);
        let counted = socket::counters(sk, &raw mut (*record).counters);
        let cause = cause(sk, old_state, (*record).fin_in == event::FIN_CAME, &counted);
        (*record).marks = cause.marks;
        (*record).error = cause.error;
        (*record).interface = (*sk).bound_dev_if;
        (*record).netns_inode = if old_state == state::SYN_RECV { netns::inode(sk) } else { 0 };
    }
    reserved.submit(count.wake_up(&FLOWS));
}

/// What the socket itself says about why it was closed.
#[derive(Clone, Copy)]
struct Cause {
    marks: u8,
    error: u8,
}

/// Asks the kernel's socket why it is closed, where its state does not say so already. `fin_in`: the peer's FIN came, of a
/// socket from FIN_WAIT2.
///
/// # Safety
/// `sk` is a full stream socket.
#[inline(always)]
unsafe fn cause(sk: *mut bpf_sock, old_state: u32, fin_in: bool, counted: &Counted) -> Cause {
    let mut marks = if counted.sent == counted.acknowledged { event::ALL_ACKNOWLEDGED } else { 0 };
    // SAFETY: as the caller promises.
    let Some(socket) = (unsafe { socket::of_kernel(sk) }) else { return Cause { marks, error: event::ERROR_UNKNOWN } };
    if socket::is_uncounted(socket) {
        marks |= event::UNCOUNTED;
    }
    let in_order = match old_state {
        state::FIN_WAIT2 => fin_in,
        // Both FINs are out, or wait behind a closed window: that of this side may not even have been sent.
        state::LAST_ACK | state::CLOSING => {
            if let Some(written) = kernel::member::<u32>(socket, TCP_WRITTEN) {
                let all = if written == counted.acknowledged { event::ALL_ACKNOWLEDGED } else { 0 };
                marks = marks & !event::ALL_ACKNOWLEDGED | all | event::ALL_WRITTEN;
            }
            marks & event::ALL_ACKNOWLEDGED != 0
        }
        _ => false,
    };
    if in_order {
        return Cause { marks, error: event::ERROR_UNKNOWN };
    }
    // Set before the state is (tcp_reset, tcp_write_err, tcp_v4_err, tcp_v6_err, tcp_abort); what is set after it
    // (tcp_disconnect) says no more than the process's own call.
    let Some(error) = kernel::member::<u32>(socket, SOCK_ERR) else {
        return Cause { marks, error: event::ERROR_UNKNOWN };
    };
    if old_state != state::SYN_SENT || error != 0 {
        return Cause { marks, error: short(error) };
    }
    if kernel::member::<u32>(socket, SOCK_OWNED).is_some_and(|owned| owned != 0) {
        marks |= event::IN_CALL;
    }
    match heard(socket) {
        0 => Cause { marks, error: 0 },
        error => Cause { marks: marks | event::HEARD, error: short(error) },
    }
}

/// An ICMP message that came while a call had the socket locked did not close it (tcp_v4_err, tcp_v6_err). Whoever asks the
/// socket then is told of it once (SO_ERROR), and gives up; the queue of errors remembers it still. 0 where none came.
#[inline(always)]
fn heard(socket: *const u8) -> u32 {
    /// Where an error comes from (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, include/uapi/linux/errqueue.h).
    const FROM_ICMP: [u8; 2] = [2, 3];
    if let Some(soft) = kernel::member::<u32>(socket, SOCK_ERR_SOFT)
        && soft != 0
    {
        return soft;
    }
    let (Some(head), Some(cb), Some(error)) =
        (kernel::offset(SOCK_ERRORS), kernel::offset(SKB_CB), kernel::offset(EXTENDED_ERROR))
    else {
        return 0;
    };
    let Some(last) = kernel::member::<u64>(socket, SOCK_LAST_ERROR) else { return 0 };
    if last == socket as u64 + u64::from(head) {
        return 0;
    }
    match kernel::read::<[u32; 2]>((last + u64::from(cb) + u64::from(error)) as *const u8) {
        Some([errno, origin]) if FROM_ICMP.contains(&origin.to_ne_bytes()[0]) => errno,
        _ => 0,
    }
}

/// An error number as an event has it.
#[inline(always)]
fn short(error: u32) -> u8 {
    if error < event::ERROR_UNKNOWN as u32 { error as u8 } else { event::ERROR_UNKNOWN }
}
