//! System calls on TCP sockets: who asks for a connection, takes one, binds a port, drops a socket. (Who listens is told
//! with the socket's states.)

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_netns_cookie,
        bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
        generated::{bpf_get_current_comm, bpf_get_retval},
    },
    programs::{SockAddrContext, SockContext},
};
use flowtel_common::{
    event::{self, Accept, Address, COMM_LEN, Call, Caller, Release, mapped, state},
    kernel::{INET_ROUTE_TO, SOCK_GSO_TYPE},
    tally,
};

use crate::{
    dns,
    emit::{OWNERS, emit, instant},
    kernel, netns, socket, task,
};

/// IPPROTO_TCP. An MPTCP socket's subflows are TCP sockets, and come by these hooks too.
const IPPROTO_TCP: u32 = 6;

/// Which member of a context holds the address.
#[derive(Clone, Copy, PartialEq)]
pub enum Family {
    V4,
    V6,
}

/// The address of a call: of the member that the hook's family says.
#[inline(always)]
pub fn address(ctx: &SockAddrContext, family: Family) -> Address {
    let call = ctx.sock_addr;
    // SAFETY: `call` is the program's context; the family is a constant of each program.
    unsafe {
        match family {
            Family::V4 => mapped((*call).user_ip4),
            Family::V6 => {
                let words = &raw const (*call).user_ip6;
                [(*words)[0], (*words)[1], (*words)[2], (*words)[3]]
            }
        }
    }
}

/// The port of a call.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the program's context.
    u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16)
}

#[inline(always)]
fn is_tcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the program's context.
    unsafe { (*ctx.sock_addr).type_ == socket::STREAM && (*ctx.sock_addr).protocol == IPPROTO_TCP }
}

/// Whether it is a UDP socket.
#[inline(always)]
pub fn is_udp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the program's context.
    unsafe { (*ctx.sock_addr).type_ == socket::DATAGRAM }
}

/// Reports connect(): who asks and, where `FAILURES` are wanted, for what. (What was reached, the handshake tells.) `VERDICT`:
/// bpf_get_retval is there (Linux 5.18 and newer), which says whether a program that ran before this one refuses the call.
#[inline(always)]
pub fn connect<const FAILURES: bool, const VERDICT: bool>(ctx: &SockAddrContext, family: Family) {
    if !is_tcp(ctx) {
        // A resolver's socket. (Before names are wanted nothing leaves that would be noted, and this costs a port's look.)
        if is_udp(ctx) {
            dns::send(ctx, family);
        }
        return;
    }
    if !FAILURES {
        emit::<Caller>(&OWNERS, tally::CONNECT, |record| {
            // SAFETY: `record` is a reserved record of this type; every field is written.
            unsafe { caller(record, event::CONNECT, bpf_get_socket_cookie(ctx.sock_addr.cast())) }
        });
        return;
    }
    // SAFETY: the program's context; the socket is tested for null.
    let netns = unsafe {
        let netns = bpf_get_netns_cookie(ctx.sock_addr.cast());
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if !sk.is_null() {
            netns::note(netns, sk);
        }
        netns
    };
    emit::<Call>(&OWNERS, tally::CONNECT, |record| {
        // SAFETY: `record` is a reserved record of this type; with `caller` every field is written.
        unsafe {
            caller(&raw mut (*record).caller, event::CONNECT, bpf_get_socket_cookie(ctx.sock_addr.cast()));
            (*record).netns = netns;
            (*record).address = address(ctx, family);
            (*record).port = port(ctx);
            (*record).refusal = if VERDICT { bpf_get_retval().unsigned_abs() as u16 } else { 0 };
            (*record).reserved_2 = 0;
        }
    });
}

/// Reports accept(). Who asks for a peer's name has taken nothing: where the kernel tells one from the other, that is left out.
#[inline(always)]
pub fn accept(ctx: &SockAddrContext, family: Family) {
    if !is_tcp(ctx) {
        return;
    }
    let certain = match task::call() {
        task::Call::Accept => 1,
        task::Call::Name => return,
        task::Call::Unknown => 0,
    };
    emit::<Accept>(&OWNERS, tally::ACCEPT, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written. The socket is tested for null.
        unsafe {
            let ids = bpf_get_current_pid_tgid();
            (*record).kind = event::ACCEPT;
            (*record).tgid = (ids >> 32) as u32;
            (*record).tid = ids as u32;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(ctx.sock_addr.cast());
            (*record).cgroup = bpf_get_current_cgroup_id();
            (*record).uid = bpf_get_current_uid_gid() as u32;
            let _ = bpf_get_current_comm((&raw mut (*record).comm).cast(), COMM_LEN as u32);
            (*record).remote = address(ctx, family);
            (*record).remote_port = port(ctx);
            let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
            (*record).local_port = if sk.is_null() { 0 } else { (*sk).src_port as u16 };
            (*record).certain = certain;
            (*record).netns = bpf_get_netns_cookie(ctx.sock_addr.cast());
        }
    });
}

/// Reports bind().
#[inline(always)]
pub fn bind(ctx: &SockContext) {
    let sk = ctx.sock;
    // SAFETY: `sk` is the program's context.
    if unsafe { (*sk).type_ != socket::STREAM || (*sk).protocol != IPPROTO_TCP } {
        return;
    }
    emit::<Caller>(&OWNERS, tally::BIND, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe { caller(record, event::BIND, bpf_get_socket_cookie(sk.cast())) }
    });
}

/// Reports that a process dropped a socket in SYN_SENT, or a closed one without a peer: that is all that is ever heard of a
/// connection for which there was no route. (What becomes of an established one its last segments tell.) And one in a
/// SOCKMAP, which it leaves before it is closed; and that a listening socket goes: the states of one that is older than the
/// programs are not told.
#[inline(always)]
pub fn release(ctx: &SockContext) {
    let sk = ctx.sock;
    // SAFETY: `sk` is the program's context.
    let (kind, protocol, state) = unsafe { ((*sk).type_, (*sk).protocol, (*sk).state) };
    if kind != socket::STREAM || protocol != IPPROTO_TCP {
        return;
    }
    if state == state::LISTEN {
        // SAFETY: as above.
        instant(&OWNERS, tally::UNLISTEN, event::UNLISTEN, unsafe { bpf_get_socket_cookie(sk.cast()) });
        return;
    }
    // A connection that is over leaves its peer's port in the socket; one for which no SYN could leave takes it back
    // (tcp_v4_connect, `failure`), as does whoever lets the socket be used again (tcp_disconnect).
    // SAFETY: as above.
    let unasked = state == state::CLOSE && unsafe { socket::remote_port(sk) } == 0;
    let given_up = state == state::SYN_SENT || unasked;
    // The context is the kernel's socket itself (__cgroup_bpf_run_filter_sk, kernel/bpf/cgroup.c).
    let uncounted = !given_up && state != state::CLOSE && socket::is_uncounted(sk.cast());
    if !(given_up || uncounted) {
        return;
    }
    emit::<Release>(&OWNERS, tally::RELEASE, |record| {
        // SAFETY: `record` is a reserved record of this type; every field is written.
        unsafe {
            (*record).kind = event::RELEASE;
            (*record).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = bpf_get_socket_cookie(sk.cast());
            (*record).state = state;
            (*record).uncounted = uncounted as u32;
            (*record).unroutable = if unasked { unroutable(sk) } else { [0; 4] };
        }
    });
}

/// The address to which there was no route. The kernel notes where to a route is asked for (IPv4: tcp_v4_connect,
/// ip_route_connect_init) or whom the socket is to reach (IPv6: tcp_v6_connect) before it looks for the route; and only when
/// it has found one, whom the socket is to reach, or how its segments are cut. All of it stays when the call fails.
#[inline(always)]
fn unroutable(sk: *mut bpf_sock) -> Address {
    // SAFETY: `sk` is the program's context; volatile, for no load's place may depend on a condition.
    let (v4, v6) = unsafe {
        let words: *const u32 = (&raw const (*sk).dst_ip6).cast();
        let word = |i: usize| read_volatile(words.add(i));
        (read_volatile(&raw const (*sk).dst_ip4), [word(0), word(1), word(2), word(3)])
    };
    let is_mapped = v6[0] | v6[1] == 0 && v6[2] == 0xffff_u32.to_be();
    // SAFETY: as above.
    if is_mapped || unsafe { (*sk).family } == socket::AF_INET {
        return match kernel::member::<u32>(sk.cast(), INET_ROUTE_TO) {
            Some(asked) if asked != v4 => mapped(asked),
            _ => [0; 4],
        };
    }
    match kernel::member::<u32>(sk.cast(), SOCK_GSO_TYPE) {
        Some(0) => v6,
        _ => [0; 4],
    }
}

/// Writes who calls, and when.
///
/// # Safety
/// `record` is memory of a reserved record.
#[inline(always)]
unsafe fn caller(record: *mut Caller, kind: u32, cookie: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        let ids = bpf_get_current_pid_tgid();
        (*record).kind = kind;
        (*record).tgid = (ids >> 32) as u32;
        (*record).tid = ids as u32;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).cookie = cookie;
        (*record).cgroup = bpf_get_current_cgroup_id();
        (*record).uid = bpf_get_current_uid_gid() as u32;
        // Straight into the record. It fails only without a current task, and then zeroes what it was given.
        let _ = bpf_get_current_comm((&raw mut (*record).comm).cast(), COMM_LEN as u32);
    }
}
