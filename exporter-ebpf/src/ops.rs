//! The life cycle of sockets: the only proof on every kernel that a handshake was completed.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::bpf_sock_ops,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns},
    programs::SockOpsContext,
};
use flowtel_common::{
    event::{self, Address, Established, mapped},
    tally,
};

use crate::emit::{FLOWS, emit};

// include/uapi/linux/bpf.h: the callbacks ...
const ACTIVE_ESTABLISHED_CB: u32 = 4;
const PASSIVE_ESTABLISHED_CB: u32 = 5;
const STATE_CB: u32 = 10;
/// ... the flag that asks for STATE_CB ...
const STATE_CB_FLAG: i32 = 1 << 2;
/// ... and the states it speaks of.
const ESTABLISHED: u32 = 1;
const SYN_RECV: u32 = 3;

const AF_INET: u32 = 2;

/// Reports a completed handshake.
#[inline(always)]
pub fn callback(ctx: &SockOpsContext) {
    match ctx.op() {
        ACTIVE_ESTABLISHED_CB => established(ctx, event::ACTIVE),
        // Comes just before SYN_RECV → ESTABLISHED, but with Fast Open at the SYN: it proves nothing, and only switches
        // on the callback that does. Flags that other programs have set stay.
        PASSIVE_ESTABLISHED_CB => {
            let _ = ctx.set_cb_flags(ctx.cb_flags() as i32 | STATE_CB_FLAG);
        }
        STATE_CB if ctx.arg(0) == SYN_RECV && ctx.arg(1) == ESTABLISHED => established(ctx, event::PASSIVE),
        _ => {}
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, how: u32) {
    let ops = ctx.ops;
    emit::<Established>(&FLOWS, tally::ESTABLISHED, |record| {
        // SAFETY: `record` is a reserved record of this type and `ops` the program's context; every field is written.
        unsafe {
            (*record).kind = event::ESTABLISHED;
            (*record).how = how;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(ops.cast());
            (*record).local = address(ops, &raw const (*ops).local_ip4, &raw const (*ops).local_ip6);
            (*record).remote = address(ops, &raw const (*ops).remote_ip4, &raw const (*ops).remote_ip6);
            // The local port is in host order, the remote one in network order in the upper half.
            (*record).local_port = (*ops).local_port as u16;
            (*record).remote_port = u32::from_be((*ops).remote_port) as u16;
            (*record).srtt_us = (*ops).srtt_us >> 3;
            (*record).retransmits = (*ops).total_retrans;
            (*record).segments_in = (*ops).segs_in;
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
