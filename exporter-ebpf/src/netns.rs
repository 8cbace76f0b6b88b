//! Network namespaces: each is reported once, before the first event that tells of a socket in it, with its inode number
//! where the kernel's BTF says where that is. Events themselves carry a cookie, which costs next to nothing.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock},
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::SkBuffContext,
};
use core::{intrinsics::likely, ptr};
use flowtel_common::{
    event::{self, Netns},
    kernel::{DEVICE_NET, NET_INODE, SKB_DEVICE, SOCK_NET},
    tally,
};

use crate::{
    emit::{Count, FLOWS},
    kernel, socket,
};

/// Namespaces that were reported. Of more than these the least recently seen are reported again: nothing is wrong then.
#[map(name = "NETNS")]
static NETNS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(4096, 0);

/// The network namespace that this CPU saw last, of those that were reported. It is gone with [`NETNS`]: a flowtel that
/// takes over what another one left pinned has to be told of all again.
#[map(name = "LAST_NETNS")]
static LAST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Reports the namespace with this cookie, which the TCP socket `sk` is in, where that was not done yet. Most of a CPU's
/// sockets are in the one that it saw last: a comparison.
#[inline(always)]
pub fn note(cookie: u64, sk: *mut bpf_sock) {
    let Some(last) = LAST.get_ptr_mut(0) else { return };
    // SAFETY: the map's value lives as long as the program. A softirq in between costs a look-up, no more.
    if likely(unsafe { last.read_volatile() } == cookie) {
        return;
    }
    // SAFETY: only whether there is a value counts.
    if unsafe { NETNS.get(&cookie) }.is_none() {
        let Some(count) = Count::seen(tally::NETNS) else { return };
        // No closure: several programs use this, see `packets::segment`.
        let Some(mut reserved) = FLOWS.reserve::<Netns>(0) else { return count.lost() };
        let record = reserved.as_mut_ptr();
        // SAFETY: `record` is a reserved record of this type; every field is written. Without a context the helper tells of
        // the initial namespace.
        unsafe {
            (*record).kind = event::NETNS;
            (*record).inode = inode(sk);
            (*record).time = bpf_ktime_get_boot_ns();
            (*record).cookie = cookie;
            (*record).host = bpf_get_netns_cookie(ptr::null_mut());
        }
        reserved.submit(count.wake_up(&FLOWS));
        let _ = NETNS.insert(&cookie, &1, BPF_ANY as u64);
    }
    // SAFETY: as above.
    unsafe { last.write_volatile(cookie) };
}

/// The inode number of the namespace that the TCP socket `sk` is in; 0 where this kernel does not say it.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
pub unsafe fn inode(sk: *mut bpf_sock) -> u32 {
    // SAFETY: as the caller promises.
    let net = unsafe { socket::of_kernel(sk) }.and_then(|sk| kernel::member::<*const u8>(sk, SOCK_NET));
    net.and_then(|net| kernel::member::<u32>(net, NET_INODE)).unwrap_or(0)
}

/// The same of the namespace that a packet leaves from: for a packet of the kernel's own socket. (The context is the kernel's
/// `struct sk_buff` itself.)
#[inline(always)]
pub fn inode_of_packet(ctx: &SkBuffContext) -> u32 {
    let net = kernel::member::<*const u8>(ctx.skb.skb.cast_const().cast(), SKB_DEVICE)
        .filter(|device| !device.is_null())
        .and_then(|device| kernel::member::<*const u8>(device, DEVICE_NET));
    net.and_then(|net| kernel::member::<u32>(net, NET_INODE)).unwrap_or(0)
}
