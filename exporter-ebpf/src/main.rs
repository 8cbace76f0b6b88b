//! flowtel's kernel programs: they report facts, and keep no state but the DNS queries that await an answer, which network
//! namespaces were reported, and on request when an open flow is reported next, and which ClientHello goes on.
//!
//! | program | attach point | reports |
//! |---|---|---|
//! | [`flowtel_in`] | cgroup_skb ingress | `Fin`, `Reset`, `Dns`; notes SYN-ACKs, and what comes to listeners |
//! | [`flowtel_out`] | cgroup_skb egress | `Fin`, `Reset`, `Refused`; notes DNS queries |
//! | [`flowtel_out_updates`] | cgroup_skb egress | the same, and `Update` |
//! | [`flowtel_in_tls`], [`flowtel_out_tls`], [`flowtel_out_all`] | cgroup_skb | the same, and `Hello` |
//! | [`flowtel_ops`] | sockops | `Established`, `Close`, `SynAgain`, `UsedAgain`, `Listen`, `Unlisten` |
//! | [`flowtel_connect4`], [`flowtel_connect6`] | cgroup/connect4, connect6 | `Connect` |
//! | [`flowtel_accept4`], [`flowtel_accept6`] | cgroup/getpeername4, getpeername6 | `Accept` |
//! | [`flowtel_bind4`], [`flowtel_bind6`] | cgroup/post_bind4, post_bind6 | `Bind` |
//! | [`flowtel_release`] | cgroup/sock_release | `Release`, `Unlisten` |
//! | [`flowtel_send4`], [`flowtel_send6`] | cgroup/sendmsg4, sendmsg6 | notes where an unconnected socket sends DNS queries |
//! | [`flowtel_exec`], [`flowtel_fork`] | raw tracepoints sched_process_exec, sched_process_fork | `Exec`, `Fork` |
//! | [`flowtel_called`], [`flowtel_made`] | the same as plain tracepoints | the same, where the kernel has no BTF |
//!
//! Those of begins have lean forms (`_lean`, `_takers`), for where nothing else is wanted, `flowtel_in` and `flowtel_out` forms for names
//! without ends (`_names`), and `flowtel_ops` ones for where the network namespace is not asked for, or sockops can't tell it:
//! before Linux 6.1 (`_nonetns`). `flowtel_connect4` and `flowtel_connect6` have forms for Linux before 5.18 (`_noverdict`).
//! User space chooses.
//!
//! Every program allows: no packet and no call is ever changed, held or denied. Everything used is UAPI of Linux 5.10
//! (no kprobe, no CO-RE), and every event is lost or written whole, and counted either way.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the only way to an atomic add on this target; see emit::add")]

mod calls;
mod direct;
mod dns;
mod emit;
mod execs;
mod kernel;
mod netns;
mod ops;
mod packets;
mod socket;
mod task;
mod tls;
mod updates;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, raw_tracepoint, sock_ops, tracepoint},
    programs::{RawTracePointContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext, TracePointContext},
};

use crate::calls::Family;

/// What a cgroup program answers so that packet or call goes on.
const ALLOW: i32 = 1;

/// Sees every packet that arrives at a socket below the cgroup.
#[cgroup_skb(ingress)]
pub fn flowtel_in(ctx: SkBuffContext) -> i32 {
    packets::arrives::<true, true, true, false>(&ctx);
    ALLOW
}

/// The same with TLS ClientHellos.
#[cgroup_skb(ingress)]
pub fn flowtel_in_tls(ctx: SkBuffContext) -> i32 {
    packets::arrives::<true, true, true, true>(&ctx);
    ALLOW
}

/// The same for begins and names.
#[cgroup_skb(ingress)]
pub fn flowtel_in_names(ctx: SkBuffContext) -> i32 {
    packets::arrives::<false, true, true, false>(&ctx);
    ALLOW
}

/// The same for begins alone.
#[cgroup_skb(ingress)]
pub fn flowtel_in_lean(ctx: SkBuffContext) -> i32 {
    packets::arrives::<false, false, false, false>(&ctx);
    ALLOW
}

/// The same for begins, and for the listeners that take connections.
#[cgroup_skb(ingress)]
pub fn flowtel_in_takers(ctx: SkBuffContext) -> i32 {
    packets::arrives::<false, false, true, false>(&ctx);
    ALLOW
}

/// Sees every packet that leaves a socket below the cgroup.
#[cgroup_skb(egress)]
pub fn flowtel_out(ctx: SkBuffContext) -> i32 {
    packets::leaves::<true, false, false>(&ctx);
    ALLOW
}

/// The same with updates of open flows.
#[cgroup_skb(egress)]
pub fn flowtel_out_updates(ctx: SkBuffContext) -> i32 {
    packets::leaves::<true, true, false>(&ctx);
    ALLOW
}

/// As [`flowtel_out`], with TLS ClientHellos.
#[cgroup_skb(egress)]
pub fn flowtel_out_tls(ctx: SkBuffContext) -> i32 {
    packets::leaves::<true, false, true>(&ctx);
    ALLOW
}

/// As [`flowtel_out_updates`], with TLS ClientHellos.
#[cgroup_skb(egress)]
pub fn flowtel_out_all(ctx: SkBuffContext) -> i32 {
    packets::leaves::<true, true, true>(&ctx);
    ALLOW
}

/// The same for names.
#[cgroup_skb(egress)]
pub fn flowtel_out_names(ctx: SkBuffContext) -> i32 {
    packets::leaves::<false, false, false>(&ctx);
    ALLOW
}

/// Follows the life of TCP sockets below the cgroup.
#[sock_ops]
pub fn flowtel_ops(ctx: SockOpsContext) -> u32 {
    ops::callback::<true, true>(&ctx);
    ALLOW as u32
}

/// The same for begins alone.
#[sock_ops]
pub fn flowtel_ops_lean(ctx: SockOpsContext) -> u32 {
    ops::callback::<false, true>(&ctx);
    ALLOW as u32
}

/// As [`flowtel_ops`], without network namespaces.
#[sock_ops]
pub fn flowtel_ops_nonetns(ctx: SockOpsContext) -> u32 {
    ops::callback::<true, false>(&ctx);
    ALLOW as u32
}

/// As [`flowtel_ops_lean`], without network namespaces.
#[sock_ops]
pub fn flowtel_ops_lean_nonetns(ctx: SockOpsContext) -> u32 {
    ops::callback::<false, false>(&ctx);
    ALLOW as u32
}

/// Sees each connect() of an AF_INET socket.
#[cgroup_sock_addr(connect4)]
pub fn flowtel_connect4(ctx: SockAddrContext) -> i32 {
    calls::connect::<true, true>(&ctx, Family::V4);
    ALLOW
}

/// The same before Linux 5.18, where nobody can ask whether another program refuses the call.
#[cgroup_sock_addr(connect4)]
pub fn flowtel_connect4_noverdict(ctx: SockAddrContext) -> i32 {
    calls::connect::<true, false>(&ctx, Family::V4);
    ALLOW
}

/// The same for begins and ends, without failures.
#[cgroup_sock_addr(connect4)]
pub fn flowtel_connect4_lean(ctx: SockAddrContext) -> i32 {
    calls::connect::<false, false>(&ctx, Family::V4);
    ALLOW
}

/// Sees each connect() of an AF_INET6 socket, to an IPv4-mapped address too.
#[cgroup_sock_addr(connect6)]
pub fn flowtel_connect6(ctx: SockAddrContext) -> i32 {
    calls::connect::<true, true>(&ctx, Family::V6);
    ALLOW
}

/// The same before Linux 5.18, where nobody can ask whether another program refuses the call.
#[cgroup_sock_addr(connect6)]
pub fn flowtel_connect6_noverdict(ctx: SockAddrContext) -> i32 {
    calls::connect::<true, false>(&ctx, Family::V6);
    ALLOW
}

/// The same for begins and ends, without failures.
#[cgroup_sock_addr(connect6)]
pub fn flowtel_connect6_lean(ctx: SockAddrContext) -> i32 {
    calls::connect::<false, false>(&ctx, Family::V6);
    ALLOW
}

/// Sees each accept() with an address, and each getpeername(), of an AF_INET socket.
#[cgroup_sock_addr(getpeername4)]
pub fn flowtel_accept4(ctx: SockAddrContext) -> i32 {
    calls::accept(&ctx, Family::V4);
    ALLOW
}

/// The same of an AF_INET6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn flowtel_accept6(ctx: SockAddrContext) -> i32 {
    calls::accept(&ctx, Family::V6);
    ALLOW
}

/// Sees each bind() of an AF_INET socket.
#[cgroup_sock(post_bind4)]
pub fn flowtel_bind4(ctx: SockContext) -> i32 {
    calls::bind(&ctx);
    ALLOW
}

/// Sees each bind() of an AF_INET6 socket.
#[cgroup_sock(post_bind6)]
pub fn flowtel_bind6(ctx: SockContext) -> i32 {
    calls::bind(&ctx);
    ALLOW
}

/// Sees when a process drops its last reference to a socket.
#[cgroup_sock(sock_release)]
pub fn flowtel_release(ctx: SockContext) -> i32 {
    calls::release(&ctx);
    ALLOW
}

/// Sees each sendto() and sendmsg() with an address of an unconnected AF_INET UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn flowtel_send4(ctx: SockAddrContext) -> i32 {
    dns::send(&ctx, Family::V4);
    ALLOW
}

/// The same of an AF_INET6 socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn flowtel_send6(ctx: SockAddrContext) -> i32 {
    dns::send(&ctx, Family::V6);
    ALLOW
}

/// Sees each program that a process starts.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn flowtel_exec(ctx: RawTracePointContext) -> i32 {
    execs::exec(&ctx);
    0
}

/// Sees each process that is made.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn flowtel_fork(ctx: RawTracePointContext) -> i32 {
    execs::fork(&ctx);
    0
}

/// As [`flowtel_exec`], by what the tracepoint itself says.
#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn flowtel_called(ctx: TracePointContext) -> u32 {
    execs::called(&ctx);
    0
}

/// As [`flowtel_fork`], by what the tracepoint itself says.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn flowtel_made(ctx: TracePointContext) -> u32 {
    execs::made_plain(&ctx);
    0
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
