//! Members of the kernel's own structures, read where the running kernel's BTF says they are. For cold code only: each read
//! is a helper call, and each offset a load that may miss the cache.

use core::{mem::MaybeUninit, ptr::read_volatile};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use flowtel_common::kernel::{LEN, Offsets};

/// Set by user space before the programs are loaded; see [`flowtel_common::kernel`].
#[unsafe(no_mangle)]
static OFFSETS: Offsets = [0; LEN];

/// The offset with this index; `None` where this kernel did not say it.
#[inline(always)]
pub fn offset(member: usize) -> Option<u32> {
    // SAFETY: an element of a static. Volatile, for the compiler must not take the zeros above for the values.
    let offset = unsafe { read_volatile((&raw const OFFSETS).cast::<u32>().add(member)) };
    if offset == 0 { None } else { Some(offset) }
}

/// The value of the member with this index in the structure at `base`, a kernel address; `None` where its place is not known,
/// or can't be read. `T` is the member's own type.
#[inline(always)]
pub fn member<T: Copy>(base: *const u8, member: usize) -> Option<T> {
    read(base.wrapping_add(offset(member)? as usize))
}

/// The value at a kernel address; `None` where it can't be read.
#[inline(always)]
pub fn read<T: Copy>(address: *const u8) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes the whole value, or fails and zeroes it; it checks the address itself.
    let failed =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address.cast()) } != 0;
    // SAFETY: as above.
    if failed { None } else { Some(unsafe { value.assume_init() }) }
}
