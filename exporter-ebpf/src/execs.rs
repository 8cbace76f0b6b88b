//! Processes: which program one runs from now on, of which other one it is a copy. Cold code: a start of a program costs the
//! kernel hundreds of microseconds, this one less than one.
//!
//! The path of a program is walked from its file to the root of its mount namespace, as d_path() does (fs/d_path.c), and
//! written a name after the other, from the innermost on: user space turns them round. Without the lock that d_path() takes:
//! a directory on the way that is renamed in this very microsecond is told by either name.

use core::{arch::asm, mem::MaybeUninit, ptr::null};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns,
        generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user_str},
    },
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
    programs::{RawTracePointContext, TracePointContext},
};
use flowtel_common::{
    exec::{
        ARGUMENT, CALLED, ENTRY, EXEC, Exec, FORK, Fork, HOST, NAMES, OTHER, OnCpu, REMOVED, ROOTLESS, Shared, WHOLE,
    },
    kernel as at,
};

use crate::{
    emit::{add, look},
    kernel::{member, offset},
};

/// What processes run. User space sets the size before loading.
#[map(name = "EXECS")]
static EXECS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);

/// This CPU's counters of both kinds of records.
#[map(name = "EXEC_TALLIES")]
static TALLIES: PerCpuArray<OnCpu> = PerCpuArray::with_max_entries(1, 0);

/// What user space reads beside the ring, by mapping it.
#[map(name = "EXECS_SHARED")]
static SHARED: Array<Shared> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where a record is put together.
#[map(name = "EXEC_SCRATCH")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A map that user space can map (include/uapi/linux/bpf.h).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Set by user space: the first argument is wanted.
#[unsafe(no_mangle)]
static ARGUMENTS: u8 = 0;

/// A record of the largest size, and more: as long as the mask of its length lets the verifier think.
#[repr(C)]
struct Scratch {
    head: Exec,
    text: [u8; LENGTHS as usize + 1 + ARGUMENT],
    /// Bytes of names so far.
    length: u32,
}

/// The mask of lengths of text: they are less than half of it.
const LENGTHS: u32 = 0x1fff;
const _: () = assert!(NAMES + ARGUMENT < LENGTHS as usize);

/// The most names and mounts on the way from a file to the root: of deeper ones the path is not told.
const MOST_STEPS: u32 = 48;
/// Pid namespaces within each other (MAX_PID_NS_LEVEL).
const MOST_PID_NAMESPACES: u32 = 32;
/// The longest name (NAME_MAX).
const LONGEST: u32 = 255;
/// The most bytes of a name that come with its entry.
const SHORT: usize = 40;
/// Where the last entry may begin.
const MOST: u32 = 4095;

type Address = *const u8;

/// A process runs another program: with the file's own path, by the kernel's structures.
#[inline(always)]
pub fn exec(ctx: &RawTracePointContext) {
    let (task, binary): (Address, Address) = (ctx.arg(0), ctx.arg(2));
    let Some((tallies, scratch)) = places() else { return };
    // SAFETY: both are values of maps, which live as long as the program; the scratch is this CPU's, and a program does not
    // interrupt itself.
    unsafe {
        add(&raw mut (*tallies).execs[0]);
        let head = &raw mut (*scratch).head;
        begin(head, EXEC);
        (*scratch).length = 0;
        let Walk { mut flags, namespace, inode } = walk(get(binary, at::BINARY_FILE), scratch);
        let host = host(tallies, task);
        if !namespace.is_null() && host != 0 {
            flags |= if host == namespace as u64 { HOST } else { OTHER };
        }
        (*head).flags = flags;
        (*head).inode = 0;
        (*head).device = 0;
        if flags != WHOLE | HOST {
            // Only the file itself says which one it is.
            (*head).inode = get(inode, at::INODE_NUMBER);
            (*head).device = get(get(inode, at::INODE_FILE_SYSTEM), at::FILE_SYSTEM_DEVICE);
        }
        let mut length = mask::<LENGTHS>((&raw const (*scratch).length).read_volatile());
        (*head).names = length;
        if (&raw const ARGUMENTS).read_volatile() != 0 {
            let place = (&raw mut (*scratch).text).cast::<u8>().add(length as usize);
            let from: u64 = get(get(task, at::TASK_MM), at::MM_ARGUMENTS);
            let read = bpf_probe_read_user_str(place.cast(), ARGUMENT as u32, from as *const _);
            if read > 0 && read <= ARGUMENT as i64 {
                (*head).argument = read as u32;
                length += read as u32;
            }
        }
        send(tallies, scratch, length);
    }
}

/// A process runs another program: with what the caller passed, by the tracepoint's own record. It is a stable one: the
/// place and length of the text stand behind the four common fields (8 bytes).
#[inline(always)]
pub fn called(ctx: &TracePointContext) {
    let Some((tallies, scratch)) = places() else { return };
    // SAFETY: as in `exec`; the record is read through a helper.
    unsafe {
        add(&raw mut (*tallies).execs[0]);
        let head = &raw mut (*scratch).head;
        begin(head, CALLED);
        (*head).inode = 0;
        (*head).device = 0;
        (*head).flags = 0;
        let text = (&raw mut (*scratch).text).cast::<u8>();
        let Ok(place) = ctx.read_at::<u32>(8) else { return lost(&raw mut (*tallies).execs[1]) };
        let from = ctx.as_ptr().cast::<u8>().wrapping_add((place & 0xffff) as usize);
        let read = bpf_probe_read_kernel_str(text.cast(), MOST + 1, from.cast());
        if read <= 0 || read > MOST as i64 + 1 {
            return lost(&raw mut (*tallies).execs[1]);
        }
        (*head).names = read as u32;
        send(tallies, scratch, read as u32);
    }
}

/// A process was made, by the kernel's structures.
#[inline(always)]
pub fn fork(ctx: &RawTracePointContext) {
    let (maker, child): (Address, Address) = (ctx.arg(0), ctx.arg(1));
    // Neighbours too. A thread has the id of its process.
    let [pid, tgid]: [u32; 2] = get(child, at::TASK_PID);
    if pid != tgid {
        return;
    }
    let Some(tallies) = TALLIES.get_ptr_mut(0) else { return };
    // Where nobody starts a program, this is what finds the host's mount namespace.
    host(tallies, maker);
    let of = (bpf_get_current_pid_tgid() >> 32) as u32;
    let parent: Address = get(child, at::TASK_PARENT);
    // With CLONE_PARENT it is a sister of its maker.
    let parent = if parent == maker { of } else { get(parent, at::TASK_TGID) };
    made(tallies, tgid, get(child, at::TASK_START), of, parent);
}

/// A task was made, a thread perhaps, by the tracepoint's own record: the new id stands at its end.
#[inline(always)]
pub fn made_plain(ctx: &TracePointContext) {
    // SAFETY: the record is read through a helper; user space has compared its format.
    let Ok(tgid) = (unsafe { ctx.read_at::<u32>(44) }) else { return };
    let Some(tallies) = TALLIES.get_ptr_mut(0) else { return };
    // SAFETY: no requirement.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    made(tallies, tgid, now, (bpf_get_current_pid_tgid() >> 32) as u32, 0);
}

#[inline(always)]
fn made(tallies: *mut OnCpu, tgid: u32, time: u64, of: u32, parent: u32) {
    // SAFETY: as in `exec`.
    unsafe { add(&raw mut (*tallies).forks[0]) };
    match EXECS.reserve::<Fork>(0) {
        Some(mut record) => {
            let fork = record.as_mut_ptr();
            // SAFETY: a reserved record of this type; every field is written.
            unsafe {
                (*fork).kind = FORK;
                (*fork).tgid = tgid;
                (*fork).time = time;
                (*fork).of = of;
                (*fork).parent = parent;
            }
            // SAFETY: as above.
            record.submit(unsafe { look(&raw const (*tallies).forks[0], &EXECS) });
        }
        // SAFETY: as above.
        None => unsafe { lost(&raw mut (*tallies).forks[1]) },
    }
}

#[inline(always)]
fn places() -> Option<(*mut OnCpu, *mut Scratch)> {
    Some((TALLIES.get_ptr_mut(0)?, SCRATCH.get_ptr_mut(0)?))
}

/// # Safety
/// `head` is memory of the scratch.
#[inline(always)]
unsafe fn begin(head: *mut Exec, kind: u32) {
    // SAFETY: as the caller promises.
    unsafe {
        (*head).kind = kind;
        (*head).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*head).time = bpf_ktime_get_boot_ns();
        (*head).argument = 0;
    }
}

/// Writes the record with `length` bytes of text.
///
/// # Safety
/// Both are values of maps.
#[inline(always)]
unsafe fn send(tallies: *mut OnCpu, scratch: *mut Scratch, length: u32) {
    let length = mask::<LENGTHS>(length);
    // SAFETY: as the caller promises; the length is within the scratch.
    unsafe {
        let record = core::slice::from_raw_parts(scratch.cast::<u8>(), size_of::<Exec>() + length as usize);
        if EXECS.output::<[u8]>(record, look(&raw const (*tallies).execs[0], &EXECS)).is_err() {
            lost(&raw mut (*tallies).execs[1]);
        }
    }
}

/// Counts a record for which there was no room, and notes when.
///
/// # Safety
/// `counter` is in a value of a map.
#[inline(always)]
unsafe fn lost(counter: *mut u64) {
    add(counter);
    if let Some(shared) = SHARED.get_ptr_mut(0) {
        // SAFETY: the map's value; user space reads the word at once.
        unsafe { (&raw mut (*shared).lost).write_volatile(bpf_ktime_get_boot_ns()) };
    }
}

/// What lies on the way from a file to the root of its mount namespace.
struct Walk {
    flags: u32,
    /// Of the outermost mount; null where that was not reached.
    namespace: Address,
    /// The file's inode.
    inode: Address,
}

/// Neighbours in `struct dentry`, from [`at::DENTRY_HELD`] on: user space has compared their places ([`at::NEIGHBOURS`]). A
/// short name lies right behind them, and comes with the same read; where it doesn't, or the name is longer, it has one of its
/// own. So an entry is told as it lies here, and its name behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    held: Address,
    above: Address,
    hash: u32,
    length: u32,
    name: Address,
    inode: Address,
}

const _: () = assert!(size_of::<Entry>() == ENTRY);

/// Neighbours in `struct mount`, from [`at::MOUNT_PARENT`] on.
#[repr(C)]
#[derive(Clone, Copy)]
struct Mount {
    around: Address,
    point: Address,
    root: Address,
}

/// Neighbours in `struct file`, from [`at::FILE_MOUNT`] on.
#[repr(C)]
#[derive(Clone, Copy)]
struct Path {
    mount: Address,
    entry: Address,
}

/// Writes the names on the way from `file` to the root of its mount namespace into the scratch.
///
/// The verifier follows each way through a step anew wherever it leaves a value of its own behind. So the length lies in memory,
/// and what can't be read is 0: then all ways through a step end alike.
///
/// # Safety
/// `scratch` is the map's value.
#[inline(always)]
unsafe fn walk(file: Address, scratch: *mut Scratch) -> Walk {
    let mut walk = Walk { flags: 0, namespace: null(), inode: null() };
    let Some(outside) = offset(at::MOUNT_OUTSIDE) else { return walk };
    let path: Path = get(file, at::FILE_MOUNT);
    let Some(held) = offset(at::DENTRY_HELD) else { return walk };
    let (mut mount, mut place) = (path.mount.wrapping_sub(outside as usize), path.entry);
    let mut on: Mount = get(mount, at::MOUNT_PARENT);
    // SAFETY: as the caller promises; an entry begins before `MOST`, and takes at most 40 bytes and a name of 255.
    unsafe {
        let text = (&raw mut (*scratch).text).cast::<u8>();
        for _ in 0..MOST_STEPS {
            if place == on.root {
                if on.around == mount {
                    walk.flags |= WHOLE;
                    walk.namespace = get(mount, at::MOUNT_NAMESPACE);
                    break;
                }
                (mount, place) = (on.around, on.point);
                on = get(mount, at::MOUNT_PARENT);
                continue;
            }
            let from = (&raw const (*scratch).length).read_volatile();
            if from > MOST {
                break;
            }
            let to = text.add(mask::<MOST>(from) as usize);
            let entry: *const Entry = to.cast();
            let source = place.wrapping_add(held as usize);
            let _ = bpf_probe_read_kernel(to.cast(), (ENTRY + SHORT) as u32, source.cast());
            if from == 0 {
                walk.inode = (&raw const (*entry).inode).read_volatile();
                if (&raw const (*entry).held).read_volatile().is_null() {
                    walk.flags |= REMOVED;
                }
            }
            let length = (&raw const (*entry).length).read_volatile();
            if length > LONGEST {
                break;
            }
            let length = mask::<LONGEST>(length);
            let name = (&raw const (*entry).name).read_volatile();
            if name != source.wrapping_add(ENTRY) || length > SHORT as u32 {
                let _ = bpf_probe_read_kernel(to.add(ENTRY).cast(), length, name.cast());
            }
            // The next one is aligned as this one.
            (&raw mut (*scratch).length).write_volatile(from + ENTRY as u32 + ((length + 7) & !7));
            let above = (&raw const (*entry).above).read_volatile();
            if above == place {
                walk.flags |= ROOTLESS;
                break;
            }
            place = above;
        }
    }
    walk
}

/// The member with this index of the structure at `base`; 0 where it is not known or can't be read.
#[inline(always)]
fn get<T: Copy>(base: Address, member: usize) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    if let Some(offset) = offset(member) {
        // SAFETY: the helper checks the address itself, and writes the whole value: zeros where it fails.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.wrapping_add(offset as usize).cast(),
            );
        }
    }
    // SAFETY: as above; integers and pointers, of which zeros are values.
    unsafe { value.assume_init() }
}

/// `value`, and its bits above `MASK` are none, where the verifier sees it: the compiler leaves out what it can prove itself.
#[inline(always)]
fn mask<const MASK: u32>(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: one instruction on one register.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK, options(pure, nomem, nostack)) };
    value as u32
}

/// Address of the host's mount namespace, which is that of the first process of the outermost pid namespace; 0 where it is
/// not known. It never changes, so each CPU looks for it once.
#[inline(always)]
fn host(tallies: *mut OnCpu, task: Address) -> u64 {
    // SAFETY: a value of a map, one word of this CPU's.
    let known = unsafe { (&raw const (*tallies).host).read_volatile() };
    if known != 0 {
        return known;
    }
    let mut pids: Address = get(get(task, at::TASK_NAMESPACES), at::NAMESPACES_PID);
    for _ in 0..MOST_PID_NAMESPACES {
        let around: Address = get(pids, at::PID_NAMESPACE_PARENT);
        if around.is_null() {
            break;
        }
        pids = around;
    }
    let init: Address = get(pids, at::PID_NAMESPACE_INIT);
    let found: u64 = get(get(init, at::TASK_NAMESPACES), at::NAMESPACES_MOUNT);
    let inode: u32 = member(found as Address, at::MOUNT_NAMESPACE_INODE).unwrap_or(0);
    // SAFETY: as above; the other is the one value of its map.
    unsafe {
        (&raw mut (*tallies).host).write_volatile(found);
        if let Some(shared) = SHARED.get_ptr_mut(0) {
            (&raw mut (*shared).host_inode).write_volatile(inode.into());
        }
    }
    found
}
