//! Packets that arrive: which of them answers a SYN of ours.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock},
    programs::SkBuffContext,
};
use flowtel_common::{
    event::{self, SynAck},
    packet, tally,
};

use crate::{
    direct::Direct,
    emit::{FLOWS, emit},
};

/// SOCK_STREAM (include/linux/net.h).
const SOCK_STREAM: u32 = 1;
/// BPF_TCP_SYN_SENT (include/uapi/linux/bpf.h).
const SYN_SENT: u32 = 2;

/// Reports a SYN-ACK at a socket that asked for a connection.
#[inline(always)]
pub fn packet(ctx: &SkBuffContext) {
    let Some(flags) = packet::tcp_flags(&Direct::of(ctx)) else { return };
    if !flags.is_syn_ack() || !asked(ctx.skb.skb) {
        return;
    }
    emit::<SynAck>(&FLOWS, tally::SYN_ACK, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe {
            (*record).kind = event::SYN_ACK;
            (*record).reserved = 0;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(ctx.skb.skb.cast());
        }
    });
}

/// Whether the packet's socket is one in SYN_SENT. A raw socket's, a listener's and the kernel's control socket's
/// packets are not answers to anything.
#[inline(always)]
fn asked(skb: *mut __sk_buff) -> bool {
    // SAFETY: `skb` is the program's context; each pointer is tested for null before it is used, as the verifier asks.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return false;
        }
        let sk = bpf_sk_fullsock(sk);
        !sk.is_null() && (*sk).type_ == SOCK_STREAM && (*sk).state == SYN_SENT
    }
}
