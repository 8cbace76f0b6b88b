//! The few commands of bpf(2) that measuring needs, by the raw system call: a comparison program of two instructions
//! should not depend on a loader, and flowtel's own programs are already loaded by flowtel.

use std::{
    ffi::c_long,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Where a program is attached: `bpf_prog_type` and `bpf_attach_type` (include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub program: u32,
    pub attach: u32,
}

/// Packets that arrive at sockets.
pub const INGRESS: Kind = Kind { program: 8, attach: 0 };
/// Callbacks of TCP sockets.
pub const SOCK_OPS: Kind = Kind { program: 13, attach: 3 };
/// Program type of system calls with an address.
pub const ADDRESS: u32 = 18;
/// Program type of sockets' life.
pub const SOCKET: u32 = 9;

// bpf_cmd
const PROG_LOAD: c_long = 5;
const PROG_TEST_RUN: c_long = 10;
const PROG_GET_FD_BY_ID: c_long = 13;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const LINK_CREATE: c_long = 28;
const ENABLE_STATS: c_long = 32;

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// What the kernel knows of a program.
#[derive(Debug, Clone)]
pub struct Info {
    pub kind: u32,
    /// At most 15 bytes.
    pub name: String,
    pub run_time_ns: u64,
    pub run_count: u64,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    program: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 4],
    batch: [u32; 2],
}

/// `bpf_prog_info` up to `recursion_misses`.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    loaded: u64,
    uid: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
    interface: u32,
    gpl: u32,
    netns: [u64; 2],
    jited: [u32; 2],
    jited_pointers: [u64; 2],
    btf: [u32; 2],
    functions: u64,
    counts: [u32; 2],
    lines: [u64; 2],
    line_sizes: [u32; 4],
    tags: u64,
    run_time_ns: u64,
    run_count: u64,
    misses: u64,
}

fn bpf<T>(command: c_long, attribute: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attribute` is that command's member of `bpf_attr`, and each pointer in it is to memory that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Switches on the kernel's count of each program's runs and their time, as long as the descriptor lives.
pub fn enable_stats() -> io::Result<OwnedFd> {
    bpf(ENABLE_STATS, &mut 0u32).map(owned)
}

// === impl Program

impl Program {
    /// The least program that allows: r0 = 1; exit.
    pub fn empty(kind: Kind) -> io::Result<Self> {
        let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let mut load = Load {
            program: kind.program,
            count: 2,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            attach: kind.attach,
            ..Load::default()
        };
        load.name[..5].copy_from_slice(b"empty");
        bpf(PROG_LOAD, &mut load).map(|fd| Self(owned(fd)))
    }

    /// A program that another process has loaded.
    pub fn by_id(id: u32) -> io::Result<Self> {
        bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0]).map(|fd| Self(owned(fd)))
    }

    /// Attaches it to a cgroup, for as long as the descriptor lives.
    pub fn attach(&self, cgroup: &impl AsRawFd, kind: Kind) -> io::Result<OwnedFd> {
        bpf(LINK_CREATE, &mut [self.0.as_raw_fd() as u32, cgroup.as_raw_fd() as u32, kind.attach, 0]).map(owned)
    }

    /// Runs it `repeat` times over a packet with its Ethernet header. Returns the kernel's mean time of a run, in
    /// nanoseconds.
    pub fn test_run(&self, packet: &[u8], repeat: u32) -> io::Result<u32> {
        let mut run = TestRun {
            program: self.0.as_raw_fd() as u32,
            size_in: packet.len() as u32,
            data_in: packet.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut run)?;
        if run.answer == 1 {
            Ok(run.duration)
        } else {
            Err(io::Error::other(format!("the program answers {}, not 1: it would drop this packet", run.answer)))
        }
    }

    /// Its kind and, with [`enable_stats`], what it has cost so far.
    pub fn info(&self) -> io::Result<Info> {
        let mut raw = RawInfo::default();
        let mut attribute: [u32; 4] = [self.0.as_raw_fd() as u32, mem::size_of::<RawInfo>() as u32, 0, 0];
        let pointer = (&raw mut raw) as u64;
        attribute[2..].copy_from_slice(&[pointer as u32, (pointer >> 32) as u32]);
        bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
        let name = raw.name.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
        Ok(Info { kind: raw.kind, name, run_time_ns: raw.run_time_ns, run_count: raw.run_count })
    }
}
