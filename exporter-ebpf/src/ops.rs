//! The life cycle of sockets: the only proof on every kernel that a handshake was completed, and the end of it.

use core::{intrinsics::likely, ptr::read_volatile};

use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    programs::SockOpsContext,
};
use flowtel_common::{
    event::{self, Address, Close, Established, mapped, state},
    tally,
};

use crate::{
    emit::{FLOWS, answered_at, emit},
    socket::AF_INET,
};

// include/uapi/linux/bpf.h: the callbacks ...
const TCP_CONNECT_CB: u32 = 3;
const ACTIVE_ESTABLISHED_CB: u32 = 4;
const PASSIVE_ESTABLISHED_CB: u32 = 5;
const STATE_CB: u32 = 10;
const TCP_LISTEN_CB: u32 = 11;
/// ... and the flag that asks for STATE_CB.
const STATE_CB_FLAG: i32 = 1 << 2;

/// Reports a completed handshake and, where `ENDS` are wanted, a socket's end. `NETNS`: bpf_get_netns_cookie is there for
/// sockops (Linux 6.1 and newer).
///
/// What is wanted is a constant of each program: a variable of the object, though the verifier knows its value, is a load
/// that was measured to miss the cache at almost every run.
#[inline(always)]
pub fn callback<const ENDS: bool, const NETNS: bool>(ctx: &SockOpsContext) {
    const BEGINS_ONLY: u32 =
        1 << ACTIVE_ESTABLISHED_CB | 1 << PASSIVE_ESTABLISHED_CB | 1 << STATE_CB | 1 << TCP_LISTEN_CB;
    const ALL: u32 = BEGINS_ONLY | 1 << TCP_CONNECT_CB;
    let op = ctx.op();
    // Most runs are the kernel's questions for a setting: out at once, on the first cache line of the program.
    if likely((if ENDS { ALL } else { BEGINS_ONLY }) >> (op & 31) & 1 == 0) {
        return;
    }
    match op {
        // Children inherit a listener's flag, and need not be given it one by one.
        TCP_LISTEN_CB => watch(ctx),
        TCP_CONNECT_CB if ENDS => watch(ctx),
        ACTIVE_ESTABLISHED_CB => {
            if ENDS {
                watch(ctx);
            }
            established::<NETNS>(ctx, event::ACTIVE);
        }
        // Comes just before SYN_RECV → ESTABLISHED, but with Fast Open at the SYN: it proves nothing, and only switches
        // on the callback that does, for children of listeners that are older than flowtel.
        PASSIVE_ESTABLISHED_CB => watch(ctx),
        STATE_CB => match (ctx.arg(0), ctx.arg(1)) {
            (state::SYN_RECV, state::ESTABLISHED) => established::<NETNS>(ctx, event::PASSIVE),
            (state::CLOSE, _) => {}
            (old, state::CLOSE) if ENDS => close(ctx, old),
            _ => {}
        },
        _ => {}
    }
}

/// Asks for the socket's changes of state. Flags that other programs have set stay.
#[inline(always)]
fn watch(ctx: &SockOpsContext) {
    let flags = ctx.cb_flags() as i32;
    if flags & STATE_CB_FLAG == 0 {
        let _ = ctx.set_cb_flags(flags | STATE_CB_FLAG);
    }
}

#[inline(always)]
fn established<const NETNS: bool>(ctx: &SockOpsContext, how: u32) {
    let ops = ctx.ops;
    emit::<Established>(&FLOWS, tally::ESTABLISHED, |record| {
        // SAFETY: `record` is a reserved record of this type and `ops` the program's context; every field is written.
        unsafe {
            (*record).kind = event::ESTABLISHED;
            (*record).how = how;
            let cookie = bpf_get_socket_cookie(ops.cast());
            (*record).time = if how == event::ACTIVE { answered_at(cookie) } else { bpf_ktime_get_boot_ns() };
            (*record).cookie = cookie;
            (*record).reserved = 0;
            (*record).local = address(ops, &raw const (*ops).local_ip4, &raw const (*ops).local_ip6);
            (*record).remote = address(ops, &raw const (*ops).remote_ip4, &raw const (*ops).remote_ip6);
            // The local port is in host order, the remote one in network order in the upper half.
            (*record).local_port = (*ops).local_port as u16;
            (*record).remote_port = u32::from_be((*ops).remote_port) as u16;
            (*record).srtt_us = (*ops).srtt_us >> 3;
            (*record).retransmits = (*ops).total_retrans;
            (*record).netns = if NETNS { bpf_get_netns_cookie(ops.cast()) } else { 0 };
        }
    });
}

#[inline(always)]
fn close(ctx: &SockOpsContext, old_state: u32) {
    let ops = ctx.ops;
    if old_state == state::LISTEN {
        return;
    }
    emit::<Close>(&FLOWS, tally::CLOSE, |record| {
        // SAFETY: `record` is a reserved record of this type and `ops` the program's context; every field is written.
        unsafe {
            (*record).kind = event::CLOSE;
            (*record).old_state = old_state;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(ops.cast());
            (*record).local = address(ops, &raw const (*ops).local_ip4, &raw const (*ops).local_ip6);
            (*record).remote = address(ops, &raw const (*ops).remote_ip4, &raw const (*ops).remote_ip6);
            (*record).local_port = (*ops).local_port as u16;
            (*record).remote_port = u32::from_be((*ops).remote_port) as u16;
            (*record).reserved = 0;
            (*record).counters.bytes_acked = (*ops).bytes_acked;
            (*record).counters.bytes_received = (*ops).bytes_received;
            (*record).counters.segments_in = (*ops).segs_in;
            (*record).counters.segments_out = (*ops).segs_out;
            (*record).counters.retransmits = (*ops).total_retrans;
            (*record).counters.srtt_us = (*ops).srtt_us >> 3;
        }
    });
}

/// The address in whichever of two members of the context the socket's family says.
///
/// Both are read, and volatile: a load whose place in the context depends on a condition is refused by the verifier.
///
/// # Safety
/// `v4` and `v6` point at members of `ops`, which is the program's context.
#[inline(always)]
unsafe fn address(ops: *const bpf_sock_ops, v4: *const u32, v6: *const [u32; 4]) -> Address {
    let v6: *const u32 = v6.cast();
    // SAFETY: as the caller promises; the four words are the array's.
    let (v4, v6) = unsafe {
        let word = |i: usize| read_volatile(v6.add(i));
        (read_volatile(v4), [word(0), word(1), word(2), word(3)])
    };
    // SAFETY: as above.
    if unsafe { (*ops).family } == AF_INET { mapped(v4) } else { v6 }
}
