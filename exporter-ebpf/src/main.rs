//! flowtel's kernel programs: they report facts, and keep no state.
//!
//! | program | attach point | reports |
//! |---|---|---|
//! | [`flowtel_in`] | cgroup_skb ingress | `SynAck` |
//! | [`flowtel_ops`] | sockops | `Established` |
//! | [`flowtel_connect4`], [`flowtel_connect6`] | cgroup/connect4, connect6 | `Connect` |
//!
//! Every program allows: no packet and no call is ever changed, held or denied. Everything used is UAPI of Linux 5.10
//! (no kprobe, no CO-RE), and every event is lost or written whole, and counted either way.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the only way to an atomic add on this target; see emit::add")]

mod connect;
mod direct;
mod emit;
mod ingress;
mod ops;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock_addr, sock_ops},
    programs::{SkBuffContext, SockAddrContext, SockOpsContext},
};

/// What a cgroup program answers so that packet or call goes on.
const ALLOW: i32 = 1;

/// Sees every packet that arrives at a socket below the cgroup.
#[cgroup_skb(ingress)]
pub fn flowtel_in(ctx: SkBuffContext) -> i32 {
    ingress::packet(&ctx);
    ALLOW
}

/// Follows the life of TCP sockets below the cgroup.
#[sock_ops]
pub fn flowtel_ops(ctx: SockOpsContext) -> u32 {
    ops::callback(&ctx);
    ALLOW as u32
}

/// Sees each connect() of an AF_INET socket.
#[cgroup_sock_addr(connect4)]
pub fn flowtel_connect4(ctx: SockAddrContext) -> i32 {
    connect::call(&ctx);
    ALLOW
}

/// Sees each connect() of an AF_INET6 socket, to an IPv4-mapped address too.
#[cgroup_sock_addr(connect6)]
pub fn flowtel_connect6(ctx: SockAddrContext) -> i32 {
    connect::call(&ctx);
    ALLOW
}

/// Never reached: nothing here panics. The linker wants it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers ask for a licence compatible with the kernel's (include/linux/license.h).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
