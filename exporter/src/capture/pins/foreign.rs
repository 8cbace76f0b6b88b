//! Which layout another version's flowtel left: its map may be larger or smaller than this one's, and says its layout in its
//! first word whatever comes behind it (BPF_MAP_LOOKUP_ELEM of bpf(2), include/uapi/linux/bpf.h).

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::{MapData, MapType};

use super::handover::Handover;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
/// The largest value that is read: many times what any version writes.
const MOST_BYTES: u32 = 1 << 16;

/// The layout in which the map at `path` was written, where it is another one than this flowtel's.
pub(super) fn layout(path: &Path) -> Option<u64> {
    let map = MapData::from_pin(path).ok()?;
    let info = map.info().ok()?;
    let size = info.value_size();
    if info.map_type().ok()? != MapType::Array || info.key_size() != 4 || !(8..=MOST_BYTES).contains(&size) {
        return None;
    }
    Handover::foreign(first_word(&map, size)?)
}

/// The first word of a map's first value, of `size` bytes.
fn first_word(map: &MapData, size: u32) -> Option<u64> {
    #[repr(C)]
    struct Lookup {
        map: i32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = 0_u32;
    let mut value = vec![0_u64; usize::try_from(size).ok()?.div_ceil(8)];
    let lookup = Lookup {
        map: map.fd().as_fd().as_raw_fd(),
        key: &raw const key as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are those of the command; the kernel reads four bytes of the key, and writes `size` bytes, the
    // map's own size of a value, for which there is room. All outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, &raw const lookup, size_of::<Lookup>()) };
    (result == 0).then(|| value.first().copied())?
}
