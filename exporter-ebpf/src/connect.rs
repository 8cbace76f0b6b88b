//! Calls of connect(): who asks, and when.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
        generated::bpf_get_current_comm,
    },
    programs::SockAddrContext,
};
use flowtel_common::{
    event::{self, COMM_LEN, Connect},
    tally,
};

use crate::emit::{OWNERS, emit};

/// SOCK_STREAM (include/linux/net.h).
const SOCK_STREAM: u32 = 1;
/// IPPROTO_TCP. An MPTCP socket's subflows are TCP sockets, and connect by this hook too.
const IPPROTO_TCP: u32 = 6;

/// Reports a call for a TCP socket.
#[inline(always)]
pub fn call(ctx: &SockAddrContext) {
    let call = ctx.sock_addr;
    // SAFETY: `call` is the program's context.
    if unsafe { (*call).type_ != SOCK_STREAM || (*call).protocol != IPPROTO_TCP } {
        return;
    }
    emit::<Connect>(&OWNERS, tally::CONNECT, |record| {
        // SAFETY: `record` is a reserved record of this type and `call` the program's context; every field is written.
        unsafe {
            let ids = bpf_get_current_pid_tgid();
            (*record).kind = event::CONNECT;
            (*record).tgid = (ids >> 32) as u32;
            (*record).tid = ids as u32;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(call.cast());
            (*record).uid = bpf_get_current_uid_gid() as u32;
            // Straight into the record. It fails only without a current task, and then zeroes what it was given.
            let _ = bpf_get_current_comm((&raw mut (*record).comm).cast(), COMM_LEN as u32);
        }
    });
}
