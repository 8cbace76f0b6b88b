//! System calls: one list of those that the running program makes, and for some which arguments they may have. Every other is
//! refused with EPERM, counted, and named in the log once (`security.seccomp`).
//!
//! A refusal comes as a signal (SECCOMP_RET_TRAP) to the thread that made the call: its handler notes the number and answers for
//! the kernel. A thread that blocks all signals and makes a call off the list dies with the process; the C library does so
//! around clone(2) alone, whose calls are on the list. (A filter that notifies another thread would need one that never waits
//! for whoever it answers.)
//!
//! Must never let a process or a namespace be made, a program be executed, memory become code, or a BPF program or map be made.

use std::{
    collections::BTreeMap,
    io,
    str::FromStr as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

use crate::config::Seccomp;

/// Commands of bpf(2) that the running program uses (include/uapi/linux/bpf.h), and what for. All of them take a descriptor
/// of a map that the start opened. Loading, attaching, pinning and asking for programs are over with the start.
pub const BPF: [(i32, &str, &str); 3] = [
    (1, "BPF_MAP_LOOKUP_ELEM", "counters of the programs"),
    (2, "BPF_MAP_UPDATE_ELEM", "the handover and the notes of capture.pin"),
    (3, "BPF_MAP_DELETE_ELEM", "older connections that are over"),
];

/// Calls that are allowed whatever their arguments. A name that an architecture doesn't have is left out there.
const FREE: &[&str] = &[
    // files
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "lseek",
    "close",
    "openat",
    "open",
    "fstat",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    "fcntl",
    "flock",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "dup",
    "dup2",
    "dup3",
    "pipe",
    "pipe2",
    // waiting
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "eventfd2",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "futex",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
    "wait4",
    "waitid",
    // sockets
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    "shutdown",
    // memory and threads
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "membarrier",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "sched_yield",
    "sched_getaffinity",
    "set_tid_address",
    "exit",
    "exit_group",
    "clone3",
    // signals
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "sigaltstack",
    // what it is, and what time
    "getpid",
    "gettid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "uname",
    "sysinfo",
    "getrusage",
    "times",
    "getcpu",
    "getrandom",
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "getrlimit",
];

/// How many calls were refused, and which of them were not named yet: a bit for each number.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static NAMED: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
/// Numbers below 1,024 have a bit: twice as many as there are calls.
const WORDS: usize = 16;

/// Rules by number. An empty list of rules allows every argument.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// How many system calls were refused so far.
pub fn refused() -> u64 {
    REFUSED.load(Relaxed)
}

/// Names of calls that were refused and that this was not asked about before.
pub fn news() -> Vec<String> {
    let mut names = Vec::new();
    for (word, (seen, named)) in SEEN.iter().zip(&NAMED).enumerate() {
        let new = seen.load(Relaxed) & !named.load(Relaxed);
        named.fetch_or(new, Relaxed);
        let numbers = (0..64).filter(|bit| new & 1 << bit != 0).map(|bit| word * 64 + bit);
        names
            .extend(numbers.map(|number| {
                Sysno::new(number).map_or_else(|| format!("number {number}"), |call| call.name().into())
            }));
    }
    names
}

/// Filters the calls of this process, of all its threads. With a `terminal` it may change that one's settings.
pub(super) fn confine_main(mode: Seccomp, terminal: bool) -> io::Result<()> {
    let action = match mode {
        Seccomp::Off => return Ok(()),
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Enforce => {
            answer_for_the_kernel()?;
            SeccompAction::Trap
        }
    };
    // The C library goes on with clone(2), whose flags can be looked at, only where the kernel seems not to have this one.
    let clone3: Rules = number("clone3").map(|number| (number, Vec::new())).into_iter().collect();
    apply(filter(clone3, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))?)?;
    apply(filter(main_rules(terminal)?, action, SeccompAction::Allow)?)
}

/// Filters the calls of this process by these rules: any other is refused.
pub(crate) fn confine(rules: Vec<(&str, Vec<SeccompRule>)>, mode: Seccomp) -> io::Result<()> {
    let action = match mode {
        Seccomp::Off => return Ok(()),
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Enforce => SeccompAction::Errno(errno(libc::EPERM)),
    };
    let rules = rules.into_iter().filter_map(|(name, rules)| Some((number(name)?, rules))).collect();
    apply(filter(rules, action, SeccompAction::Allow)?)
}

/// What an argument must be. Of an `int` the kernel takes the lower 32 bits, and so does the filter; of what is longer all 64.
#[derive(Debug, Clone)]
pub(crate) struct Argument(u8, Len, Op, u64);

impl Argument {
    /// The argument with this index (from 0), an `int`, has this value.
    pub(crate) fn int(index: u8, value: impl Into<i64>) -> Self {
        let value: i64 = value.into();
        // As the lower half has it.
        Self(index, Len::Dword, Op::Eq, value as u64 & 0xffff_ffff)
    }

    /// Of its bits in `mask`, all of them in the lower half, those of `value` are set and no other.
    pub(crate) fn bits(index: u8, mask: u64, value: u64) -> Self {
        Self(index, Len::Dword, Op::MaskedEq(mask), value)
    }

    /// A null pointer.
    pub(crate) fn null(index: u8) -> Self {
        Self(index, Len::Qword, Op::Eq, 0)
    }
}

/// All of these conditions.
pub(crate) fn rule(arguments: &[Argument]) -> io::Result<SeccompRule> {
    let condition =
        |Argument(index, len, op, value): &Argument| SeccompCondition::new(*index, len.clone(), op.clone(), *value);
    let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn errno(number: libc::c_int) -> u32 {
    number.unsigned_abs()
}

fn number(name: &str) -> Option<i64> {
    Sysno::from_str(name).ok().map(|call| i64::from(call.id()))
}

fn filter(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> io::Result<BpfProgram> {
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, machine).map_err(io::Error::other)?;
    filter.try_into().map_err(|e: seccompiler::BackendError| io::Error::other(e))
}

fn apply(program: BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&program).map_err(io::Error::other)
}

fn main_rules(terminal: bool) -> io::Result<Rules> {
    const EXEC: u64 = libc::PROT_EXEC as u64;
    const WRITE: u64 = libc::PROT_WRITE as u64;
    const ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
    const THREAD: u64 = libc::CLONE_THREAD as u64;
    /// Bits that would make a namespace.
    const NAMESPACES: u64 = (libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u64;
    const SOCKET_KIND: u64 = 0xf;
    let mut rules: Rules = FREE.iter().filter_map(|name| Some((number(name)?, Vec::new()))).collect();
    let mut add = |name: &str, list: &[&[Argument]]| -> io::Result<()> {
        if let Some(number) = number(name) {
            rules.insert(number, list.iter().map(|arguments| rule(arguments)).collect::<io::Result<_>>()?);
        }
        Ok(())
    };
    let int = |index, value: libc::c_int| Argument::int(index, value);
    let bits = Argument::bits;
    let of =
        |domain: libc::c_int, kind: libc::c_int| [int(0, domain), bits(1, SOCKET_KIND, kind.unsigned_abs().into())];
    let netlink = |protocol: libc::c_int| [int(0, libc::AF_NETLINK), int(2, protocol)];
    add(
        "socket",
        &[
            &of(libc::AF_INET, libc::SOCK_STREAM),
            &of(libc::AF_INET, libc::SOCK_DGRAM),
            &of(libc::AF_INET6, libc::SOCK_STREAM),
            &of(libc::AF_INET6, libc::SOCK_DGRAM),
            &of(libc::AF_UNIX, libc::SOCK_STREAM),
            &of(libc::AF_UNIX, libc::SOCK_DGRAM),
            // The resolver asks for the host's addresses; the kernel's list of sockets.
            &netlink(libc::NETLINK_ROUTE),
            &netlink(libc::NETLINK_SOCK_DIAG),
        ],
    )?;
    add("socketpair", &[&[int(0, libc::AF_UNIX)]])?;
    // A library's code comes from a file that can't be written there; nothing else becomes code.
    add("mmap", &[&[bits(2, EXEC, 0)], &[bits(2, EXEC | WRITE, EXEC), bits(3, ANONYMOUS, 0)]])?;
    add("mprotect", &[&[bits(2, EXEC, 0)]])?;
    add("clone", &[&[bits(0, THREAD | NAMESPACES, THREAD)]])?;
    let commands = BPF.map(|(command, ..)| [int(0, command)]);
    add("bpf", &commands.each_ref().map(<[_; 1]>::as_slice))?;
    let asked = [
        0x5401_i64,  // TCGETS: is it a terminal?
        0x802c_542a, // TCGETS2, which newer C libraries ask
        0x5413,      // TIOCGWINSZ
        0x5421,      // FIONBIO
        0x541b,      // FIONREAD
        0x5451,      // FIOCLEX
        0x8910,      // SIOCGIFNAME: the name of an interface
        0x2401,      // PERF_EVENT_IOC_DISABLE: a tracepoint, at the stop
    ]
    .map(|request| [Argument::int(1, request)]);
    // TCSETS, TCSETSW, TCSETSF; and TCSETS2 and so on, which newer C libraries use. Nothing types for its user with them.
    let set = [0x5402_i64, 0x5403, 0x5404, 0x402c_542b, 0x402c_542c, 0x402c_542d];
    let set = set.map(|request| [Argument::int(1, request)]);
    let set = if terminal { set.as_slice() } else { &[] };
    let ioctls: Vec<_> = asked.iter().chain(set).map(<[_; 1]>::as_slice).collect();
    add("ioctl", &ioctls)?;
    add(
        "prctl",
        &[
            &[int(0, libc::PR_SET_NAME)],
            &[int(0, libc::PR_GET_NAME)],
            // PR_SET_VMA: names for memory, by the C library and the allocator.
            &[int(0, 0x5356_4d41)],
        ],
    )?;
    // Its own limits may be asked for.
    add("prlimit64", &[&[int(0, 0), Argument::null(2)]])?;
    // A panic that aborts signals itself.
    add("tgkill", &[&[Argument::int(0, std::process::id())]])?;
    Ok(rules)
}

/// Has refused calls counted and answered with EPERM.
fn answer_for_the_kernel() -> io::Result<()> {
    // SAFETY: zeroes are a value of sigaction: no handler, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_refusal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler does what a signal handler may: it writes atomics, and the context that it was given.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// siginfo_t of SIGSYS (include/uapi/asm-generic/siginfo.h, `_sigsys`).
#[repr(C)]
struct Refusal {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    number: libc::c_int,
    machine: libc::c_uint,
}

/// The code of a signal that a filter sent (SYS_SECCOMP).
const SYS_SECCOMP: libc::c_int = 1;

extern "C" fn on_refusal(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo_t, whose SIGSYS part is laid out like this; it is read only.
    let (code, number) = unsafe { ((*info.cast::<Refusal>()).code, (*info.cast::<Refusal>()).number) };
    if code != SYS_SECCOMP {
        // Somebody sent it by hand: nothing was refused.
        return;
    }
    REFUSED.fetch_add(1, Relaxed);
    if let Ok(number) = usize::try_from(number)
        && let Some(word) = SEEN.get(number / 64)
    {
        word.fetch_or(1 << (number % 64), Relaxed);
    }
    let context = context.cast::<libc::ucontext_t>();
    let answer = -i64::from(libc::EPERM);
    // SAFETY: the kernel gives the interrupted thread's context, and takes the register of the call's answer from it.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        {
            (*context).uc_mcontext.gregs[libc::REG_RAX as usize] = answer;
        }
        #[cfg(target_arch = "aarch64")]
        {
            (*context).uc_mcontext.regs[0] = answer as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_what_every_program_needs_and_nothing_that_makes_programs_or_processes() {
        let rules = main_rules(false).expect("valid rules");
        for name in ["read", "openat", "futex", "sendto", "exit_group", "bpf", "clone"] {
            assert!(rules.contains_key(&number(name).expect("known")), "{name}");
        }
        for name in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "ptrace",
            "process_vm_writev",
            "setuid",
            "setresuid",
            "capset",
            "mount",
            "unshare",
            "setns",
            "chroot",
            "pivot_root",
            "init_module",
            "kexec_load",
            "perf_event_open",
            "open_by_handle_at",
            "io_uring_setup",
            "userfaultfd",
            "keyctl",
            "kill",
            "pidfd_open",
            "pidfd_getfd",
            "memfd_create",
            "seccomp",
            "symlink",
            "link",
            "mknodat",
        ] {
            assert!(!number(name).is_some_and(|number| rules.contains_key(&number)), "{name}");
        }
        // And it becomes a filter.
        filter(rules, SeccompAction::Trap, SeccompAction::Allow).expect("a program");
    }

    #[test]
    fn only_commands_of_maps_are_left_of_bpf() {
        assert!(BPF.iter().all(|(_, name, _)| name.starts_with("BPF_MAP_") && !name.contains("CREATE")));
    }
}
