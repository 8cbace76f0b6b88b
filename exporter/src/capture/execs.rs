//! The programs that tell of processes: attached where this kernel can tell it, and in the best way that it can. Flowtel works
//! without them.
//!
//! With BTF the kernel's own structures say which file runs, with its whole path. Without, the stable tracepoints say what the
//! caller passed; their numbers are in tracefs. These programs never stay (`capture.pin`): the next flowtel asks /proc.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{ProgramError, RawTracePoint, TracePoint},
};
use flowtel_common::kernel::{self, Offsets};

use super::programs::program_error;
use crate::config;

/// Where tracefs is, as aya looks for it.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// What a path is made of. (The host's mount namespace is told apart where the rest is known, too.)
const NEEDED: [usize; 21] = [
    kernel::TASK_TGID,
    kernel::TASK_PID,
    kernel::TASK_START,
    kernel::TASK_PARENT,
    kernel::TASK_MM,
    kernel::MM_ARGUMENTS,
    kernel::BINARY_FILE,
    kernel::FILE_MOUNT,
    kernel::FILE_DENTRY,
    kernel::DENTRY_INODE,
    kernel::INODE_NUMBER,
    kernel::INODE_FILE_SYSTEM,
    kernel::FILE_SYSTEM_DEVICE,
    kernel::DENTRY_PARENT,
    kernel::DENTRY_LENGTH,
    kernel::DENTRY_NAME,
    kernel::DENTRY_HELD,
    kernel::MOUNT_OUTSIDE,
    kernel::MOUNT_ROOT,
    kernel::MOUNT_PARENT,
    kernel::MOUNT_POINT,
];

/// What is told of processes when they start a program. `Display` says it to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Telling {
    /// The file that runs, with its whole path.
    Files,
    /// What the caller passed: for this reason no more.
    Calls(String),
    /// Nothing: nobody asks.
    Off,
    /// Nothing, for this reason.
    Nothing(String),
}

/// Whether `config` asks for it.
pub(super) fn are_wanted(config: &config::Owner) -> bool {
    config.executable && config.exec
}

/// Attaches what this kernel has.
pub(super) fn attach(ebpf: &mut Ebpf, offsets: &Offsets, config: &config::Owner) -> Telling {
    if !are_wanted(config) {
        return Telling::Off;
    }
    let place = |member: usize| offsets.get(member).copied().unwrap_or_default();
    let known = NEEDED.iter().all(|member| place(*member) != 0);
    let as_read = kernel::NEIGHBOURS.iter().all(|(one, other, behind)| place(*one) == place(*other) + behind);
    let whole = if known && !as_read {
        Err("the types of this kernel are laid out in a way that flowtel does not know".into())
    } else if known {
        files(ebpf)
    } else {
        Err("this kernel does not show its types (BTF)".into())
    };
    match whole {
        Ok(()) => Telling::Files,
        Err(reason) => match calls(ebpf) {
            Ok(()) => Telling::Calls(reason),
            Err(other) => Telling::Nothing(format!("{reason}, and {other}")),
        },
    }
}

/// Detaches them.
pub(super) fn detach(ebpf: &mut Ebpf) {
    for name in ["flowtel_exec", "flowtel_fork"] {
        if let Some(program) = ebpf.program_mut(name)
            && let Ok(program) = <&mut RawTracePoint>::try_from(program)
        {
            // Fails only for a program that was never loaded.
            let _ = program.unload();
        }
    }
    for name in ["flowtel_called", "flowtel_made"] {
        if let Some(program) = ebpf.program_mut(name)
            && let Ok(program) = <&mut TracePoint>::try_from(program)
        {
            let _ = program.unload();
        }
    }
}

fn files(ebpf: &mut Ebpf) -> Result<(), String> {
    // Whose copy a process is must be known before what it runs next.
    for (name, tracepoint) in [("flowtel_fork", "sched_process_fork"), ("flowtel_exec", "sched_process_exec")] {
        let attached = raw(ebpf, name, tracepoint).map_err(|e| format!("{name}: {}", program_error(&e)));
        if attached.is_err() {
            detach(ebpf);
            return attached;
        }
    }
    Ok(())
}

fn raw(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), ProgramError> {
    let program: &mut RawTracePoint = ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

fn calls(ebpf: &mut Ebpf) -> Result<(), String> {
    let tracefs = tracefs().ok_or("tracefs is not mounted at /sys/kernel/tracing, or may not be read")?;
    let expected = [
        ("flowtel_made", "sched_process_fork", "field:pid_t child_pid;\toffset:44;\tsize:4;"),
        ("flowtel_called", "sched_process_exec", "field:__data_loc char[] filename;\toffset:8;\tsize:4;"),
    ];
    for (name, tracepoint, field) in expected {
        let attached = plain(ebpf, &tracefs, name, tracepoint, field);
        if attached.is_err() {
            detach(ebpf);
            return attached;
        }
    }
    Ok(())
}

fn plain(ebpf: &mut Ebpf, tracefs: &Path, name: &str, tracepoint: &str, field: &str) -> Result<(), String> {
    let path = tracefs.join("events/sched").join(tracepoint).join("format");
    let format = fs::read_to_string(&path).map_err(|e| format!("{} can't be read: {e}", path.display()))?;
    if !format.contains(field) {
        return Err(format!("{} is not of the form that flowtel knows", path.display()));
    }
    let mut attach = || {
        let program: &mut TracePoint = ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?.try_into()?;
        program.load()?;
        program.attach("sched", tracepoint)
    };
    attach().map(drop).map_err(|e| format!("{name}: {}", program_error(&e)))
}

fn tracefs() -> Option<PathBuf> {
    TRACEFS.iter().map(PathBuf::from).find(|path| path.join("events/sched").is_dir())
}

// === impl Telling

impl Telling {
    /// Whether processes are told of.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::Files | Self::Calls(_))
    }
}

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => f.write_str("known from each start of a program, with its whole path"),
            Self::Calls(reason) => write!(
                f,
                "a program that is gone before /proc can be asked is known by what its caller passed, marked as \
                 `called`: {reason}"
            ),
            Self::Off => f.write_str("starts of programs are not watched (owner.exec, owner.executable)"),
            Self::Nothing(reason) => write!(
                f,
                "starts of programs can't be watched, so those that live for milliseconds have no executable: {reason}"
            ),
        }
    }
}
