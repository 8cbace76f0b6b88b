//! The bytes of a packet: by direct access (two pointers that the verifier compares, 7 ns) where every packet comes by, and
//! by bpf_skb_load_bytes (some 20 ns more) where few do: what the verifier knows of a pointer is lost as soon as the
//! compiler computes it a second time.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};
use flowtel_common::packet::Packet;

/// The linear part of a packet, from its IP header on.
pub struct Direct {
    start: usize,
    end: usize,
}

impl Direct {
    /// The packet of a cgroup_skb program.
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext) -> Self {
        // SAFETY: the context pointer is the program's own argument; the verifier turns both loads into packet pointers.
        unsafe { Self { start: (*ctx.skb.skb).data as usize, end: (*ctx.skb.skb).data_end as usize } }
    }
}

impl Packet for Direct {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let from = self.start + at;
        if from + N > self.end {
            return None;
        }
        // SAFETY: `from..from + N` was just compared with the packet's end; the verifier proves it again. An array of
        // bytes has alignment 1.
        Some(unsafe { *(from as *const [u8; N]) })
    }
}

/// The `N` bytes at `at`, copied out by the kernel; `None` where the packet ends before.
#[inline(always)]
pub fn load<const N: usize>(ctx: &SkBuffContext, at: usize) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the program's context, and room for `N` bytes, which are all written where the helper says 0.
    unsafe {
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), at as u32, bytes.as_mut_ptr().cast(), N as u32) != 0 {
            return None;
        }
        Some(bytes.assume_init())
    }
}
