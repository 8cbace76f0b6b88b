//! BPF programs of somebody else's at the places of flowtel's: a cgroup and what the program is to do come in; it runs until
//! it is dropped. A few instructions each, by the raw system call: no compiler and no loader is needed for them.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::sys::{self, halves};

// bpf_cmd (include/uapi/linux/bpf.h)
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;

/// `bpf_prog_type` and `bpf_attach_type`.
const SOCK_OPS: [u32; 2] = [13, 3];
const SENDMSG4: [u32; 2] = [18, 14];
const CONNECT4: [u32; 2] = [18, 10];

/// A callback of a TCP socket (BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB).
pub const ACTIVE_ESTABLISHED: i32 = 4;
/// Likewise.
pub const PASSIVE_ESTABLISHED: i32 = 5;
/// The flag that asks for a callback once a round trip (BPF_SOCK_OPS_RTT_CB_FLAG).
pub const RTT_FLAG: i32 = 1 << 3;

/// A program that is attached.
#[derive(Debug)]
pub struct Rival {
    _link: OwnedFd,
    program: OwnedFd,
}

/// An instruction (include/uapi/linux/bpf.h, struct bpf_insn).
const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    code as u64 | (to as u64) << 8 | (from as u64) << 12 | (offset as u16 as u64) << 16 | (value as u32 as u64) << 32
}

// === impl Rival

impl Rival {
    /// A sock_ops program that sets a socket's flags to `flags`, and thereby takes all others away, at these callbacks.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn sets_flags(cgroup: &Path, callbacks: [i32; 2], flags: i32) -> Result<Self> {
        let [one, other] = callbacks;
        let program = [
            instruction(0x61, 2, 1, 0, 0),     // r2 = ctx->op
            instruction(0x15, 2, 0, 1, one),   // if r2 == one, over the next
            instruction(0x55, 2, 0, 2, other), // if r2 != other, to the end
            instruction(0xb7, 2, 0, 0, flags), // r2 = flags
            instruction(0x85, 0, 0, 0, 59),    // bpf_sock_ops_cb_flags_set(ctx, r2)
            instruction(0xb7, 0, 0, 0, 1),     // r0 = 1
            instruction(0x95, 0, 0, 0, 0),     // exit
        ];
        Self::attach(cgroup, SOCK_OPS, &program)
    }

    /// A sendmsg4 program that has what goes to `from` go to `to` instead.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn rewrites(cgroup: &Path, from: Ipv4Addr, to: Ipv4Addr) -> Result<Self> {
        let [from, to] = [from, to].map(|address| i32::from_ne_bytes(address.octets()));
        let program = [
            instruction(0x61, 2, 1, 4, 0),    // r2 = ctx->user_ip4
            instruction(0xb4, 3, 0, 0, from), // w3 = from
            instruction(0x5d, 2, 3, 2, 0),    // if r2 != r3, to the end
            instruction(0xb4, 3, 0, 0, to),   // w3 = to
            instruction(0x63, 1, 3, 4, 0),    // ctx->user_ip4 = w3
            instruction(0xb7, 0, 0, 0, 1),    // r0 = 1
            instruction(0x95, 0, 0, 0, 0),    // exit
        ];
        Self::attach(cgroup, SENDMSG4, &program)
    }

    /// A connect4 program that refuses connections to a port.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn refuses(cgroup: &Path, port: u16) -> Result<Self> {
        let program = [
            instruction(0x61, 2, 1, 24, 0),                  // r2 = ctx->user_port
            instruction(0xb7, 0, 0, 0, 1),                   // r0 = 1
            instruction(0x55, 2, 0, 1, port.to_be().into()), // if r2 != port, to the end
            instruction(0xb7, 0, 0, 0, 0),                   // r0 = 0
            instruction(0x95, 0, 0, 0, 0),                   // exit
        ];
        Self::attach(cgroup, CONNECT4, &program)
    }

    fn attach(cgroup: &Path, [kind, attach]: [u32; 2], instructions: &[u64]) -> Result<Self> {
        // Of `bpf_attr`: type and count, instructions, licence, no log, no version and flags, the name, no device, where.
        let attributes = [
            halves(kind, u32::try_from(instructions.len())?),
            instructions.as_ptr() as u64,
            c"GPL".as_ptr() as u64,
            0,
            0,
            0,
            u64::from_ne_bytes(*b"rival\0\0\0"),
            0,
            halves(0, attach),
        ];
        let program = sys::bpf_opened(PROG_LOAD, &attributes).context("loading a rival program")?;
        let directory = File::open(cgroup)?;
        let create = [halves(program.as_raw_fd() as u32, directory.as_raw_fd() as u32), halves(attach, 0)];
        let link = sys::bpf_opened(LINK_CREATE, &create).context("attaching a rival program")?;
        Ok(Self { _link: link, program })
    }

    /// Its id.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn id(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.program.as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        id.and_then(|id| id.trim().parse().ok()).with_context(|| format!("{path} has no prog_id"))
    }
}
