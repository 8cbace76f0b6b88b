//! The thread that runs, where helpers of the hook don't tell or don't suffice: read where the kernel's BTF says it lies. For
//! calls that are rare, or made once a connection.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_ktime_get_boot_ns};
use flowtel_common::{
    event::{self, COMM_LEN, Caller},
    kernel::{
        CGROUP_NODE, CRED_UID, CSS_SET_CGROUP, NODE_ID, TASK_CGROUPS, TASK_COMM, TASK_CRED, TASK_PID, TASK_STACK,
        TASK_TGID,
    },
    tally,
};

use crate::{
    emit::{Count, OWNERS},
    kernel::{member, read},
};

/// A pointer of the kernel's.
type Pointer = *const u8;

/// Which system call the thread is in, of those that run the hooks of getpeername.
pub enum Call {
    /// accept() or accept4().
    Accept,
    /// getpeername(), or getsockopt() for SO_PEERNAME: it looks at a socket that is there.
    Name,
    /// It can't be told: no BTF, another architecture, a thread of the kernel or of io_uring.
    Unknown,
}

/// The registers of an x86-64 thread as they were when it entered the kernel: the last six of `struct pt_regs`, from
/// `orig_ax` on (arch/x86/include/asm/ptrace.h; the order is ABI).
#[repr(C)]
#[derive(Clone, Copy)]
struct Registers {
    number: u64,
    ip: u64,
    code_segment: u16,
    rest: [u16; 3],
    flags: u64,
    stack_pointer: u64,
    stack_segment: u16,
    rest_2: [u16; 3],
}

/// Reports listen(): who calls it, where the kernel says that. sockops has no helper for it before Linux 6.12, but the caller
/// is the thread that runs (inet_listen, net/ipv4/af_inet.c).
#[inline(always)]
pub fn listens(cookie: u64) {
    let Some(count) = Count::seen(tally::LISTEN) else { return };
    // No closure: several programs use this, see `packets::segment`.
    let Some(mut reserved) = OWNERS.reserve::<Caller>(0) else { return count.lost() };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is a reserved record of this type; every field is written.
    unsafe {
        (*record).kind = event::LISTEN;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).cookie = cookie;
        let task = bpf_get_current_task() as Pointer;
        (*record).tgid = member(task, TASK_TGID).unwrap_or(0);
        (*record).tid = member(task, TASK_PID).unwrap_or(0);
        (*record).cgroup = cgroup(task).unwrap_or(0);
        // Without its user a process is not told of.
        (*record).uid = match uid(task) {
            Some(uid) => uid,
            None => {
                (*record).tgid = 0;
                0
            }
        };
        let comm = member::<[u64; COMM_LEN / 8]>(task, TASK_COMM).unwrap_or([0; _]);
        (&raw mut (*record).comm).cast::<[u64; COMM_LEN / 8]>().write(comm);
    }
    reserved.submit(count.wake_up(&OWNERS));
}

#[inline(always)]
fn uid(task: Pointer) -> Option<u32> {
    member(member::<Pointer>(task, TASK_CRED)?, CRED_UID)
}

#[inline(always)]
fn cgroup(task: Pointer) -> Option<u64> {
    let group = member::<Pointer>(member::<Pointer>(task, TASK_CGROUPS)?, CSS_SET_CGROUP)?;
    member(member::<Pointer>(group, CGROUP_NODE)?, NODE_ID)
}

/// The system call that the thread is in.
#[inline(always)]
pub fn call() -> Call {
    // SAFETY: no requirement.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let Some(stack) = member::<Pointer>(task, TASK_STACK) else { return Call::Unknown };
    let Some((registers, at)) = registers(stack) else { return Call::Unknown };
    // x86-64 and x32 (arch/x86/entry/syscalls/syscall_64.tbl), then i386 (syscall_32.tbl). What another table has under
    // one of these numbers runs no hook of getpeername.
    match registers.number as u32 & !X32 {
        43 | 288 | 364 => Call::Accept,
        52 | 55 | 542 | 368 | 365 => Call::Name,
        // socketcall (include/uapi/linux/net.h).
        102 => match read::<u32>(at.wrapping_sub(BX_BEFORE_NUMBER)) {
            Some(5 | 18) => Call::Accept,
            Some(7 | 15) => Call::Name,
            _ => Call::Unknown,
        },
        _ => Call::Unknown,
    }
}

/// __X32_SYSCALL_BIT.
const X32: u32 = 0x4000_0000;
/// How far before `orig_ax` the first argument of an i386 call lies.
const BX_BEFORE_NUMBER: usize = 80;

/// The thread's registers as it came from user space, and where they lie. They are the last thing on its stack, whose size
/// BTF does not say: 16 KiB, or 32 with KASAN; and with FRED 16 bytes are left free behind them (arch/x86/include/asm,
/// page_64_types.h and thread_info.h). The segments of user space tell when they are found.
#[inline(always)]
fn registers(stack: Pointer) -> Option<(Registers, Pointer)> {
    for top in [16 << 10, (16 << 10) - 16, 32 << 10, (32 << 10) - 16] {
        let at = stack.wrapping_add(top - size_of::<Registers>());
        if let Some(registers) = read::<Registers>(at)
            && matches!(registers.code_segment, USER_CODE | USER_CODE_32)
            && registers.stack_segment == USER_DATA
        {
            return Some((registers, at));
        }
    }
    None
}

/// __USER_CS, __USER32_CS, __USER_DS (arch/x86/include/asm/segment.h).
const USER_CODE: u16 = 0x33;
const USER_CODE_32: u16 = 0x23;
const USER_DATA: u16 = 0x2b;
