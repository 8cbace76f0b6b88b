//! A system call of another process: its number and arguments go in, what the kernel answers comes out. The process is stopped
//! (ptrace(2)), its own registers say that it makes the call, and afterwards it goes on as if nothing had happened. So the
//! answer is that of the running program, with its rights and its filter, and the program needs no code for it.
//!
//! x86-64 alone: others have other registers.

use std::{io, mem::MaybeUninit};

use anyhow::{Context as _, Result, bail, ensure};

/// An argument.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// A number.
    Is(i64),
    /// The address of this text, with a zero behind it.
    Text(&'static str),
}

impl From<i64> for Argument {
    fn from(number: i64) -> Self {
        Self::Is(number)
    }
}

impl From<i32> for Argument {
    fn from(number: i32) -> Self {
        Self::Is(number.into())
    }
}

impl From<&'static str> for Argument {
    fn from(text: &'static str) -> Self {
        Self::Text(text)
    }
}

/// A stopped process, or one thread of it.
pub struct Stopped {
    pid: libc::pid_t,
    /// Its own.
    before: libc::user_regs_struct,
    /// What lay where texts are written to.
    memory: Vec<(u64, libc::c_long)>,
}

/// More instructions than the handler of a refusal has, in a build without optimization.
const MOST_STEPS: u32 = 100_000;

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: u64, data: u64) -> Result<libc::c_long> {
    // SAFETY: the kernel checks number and addresses; of this process only `data` of PTRACE_GETREGS is written to, and that is as
    // large as it has to be.
    let result = unsafe { libc::ptrace(request, pid, address, data) };
    ensure!(result >= 0 || request == libc::PTRACE_PEEKDATA, "ptrace {request}: {}", io::Error::last_os_error());
    Ok(result)
}

/// Waits until it is stopped, and returns by which signal.
fn wait(pid: libc::pid_t) -> Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: the status is written to, and nothing else.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    ensure!(waited == pid, "waitpid: {}", io::Error::last_os_error());
    ensure!(libc::WIFSTOPPED(status), "it has ended instead of stopping: {status:#x}");
    Ok(libc::WSTOPSIG(status))
}

impl Stopped {
    /// Stops a thread, which has to wait for something in the kernel.
    ///
    /// # Errors
    /// It is gone, or may not be stopped.
    pub fn stop(pid: u32) -> Result<Self> {
        let pid = libc::pid_t::try_from(pid)?;
        ptrace(libc::PTRACE_ATTACH, pid, 0, 0)?;
        wait(pid)?;
        Ok(Self { pid, before: registers(pid)?, memory: Vec::new() })
    }

    /// Has it make a system call, and returns the answer: an error as a negative number. Where a filter refuses by a signal, the
    /// process's own handler decides the answer.
    ///
    /// # Errors
    /// It ends, or does not come back.
    pub fn call(&mut self, number: libc::c_long, arguments: &[Argument]) -> Result<i64> {
        let mut regs = self.before;
        let instruction = self.before.rip - 2;
        let word = ptrace(libc::PTRACE_PEEKDATA, self.pid, instruction, 0)?;
        ensure!(word & 0xffff == 0x050f, "it does not wait in a system call");
        let mut values = [0_u64; 6];
        // Below what the x86-64 ABI lets a function use without asking.
        let mut free = (self.before.rsp - 8192) & !7;
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Is(number) => number.cast_unsigned(),
                Argument::Text(text) => {
                    let at = free;
                    let mut bytes = text.as_bytes().to_vec();
                    bytes.resize((bytes.len() / 8 + 1) * 8, 0);
                    for word in bytes.chunks_exact(8) {
                        self.memory.push((free, ptrace(libc::PTRACE_PEEKDATA, self.pid, free, 0)?));
                        let word = u64::from_le_bytes(word.try_into()?);
                        ptrace(libc::PTRACE_POKEDATA, self.pid, free, word)?;
                        free += 8;
                    }
                    at
                }
            };
        }
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = values;
        regs.rax = number.cast_unsigned();
        regs.rip = instruction;
        // Nothing is to be made again when it goes on.
        regs.orig_rax = u64::MAX;
        // The handler's frame is to lie below the texts.
        regs.rsp = self.before.rsp - 16384;
        set_registers(self.pid, &regs)?;
        let mut signal = 0;
        for _ in 0..MOST_STEPS {
            ptrace(libc::PTRACE_SINGLESTEP, self.pid, 0, signal)?;
            signal = match wait(self.pid)? {
                libc::SIGTRAP => 0,
                other => u64::from(other.unsigned_abs()),
            };
            let now = registers(self.pid)?;
            if signal == 0 && now.rip == self.before.rip {
                return Ok(now.rax.cast_signed());
            }
        }
        bail!("no answer to the call {number} after {MOST_STEPS} instructions")
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (at, word) in self.memory.iter().rev() {
            let _ = ptrace(libc::PTRACE_POKEDATA, self.pid, *at, word.cast_unsigned());
        }
        // It is gone, or goes on where it was: the call that it waits in is made again.
        let _ = set_registers(self.pid, &self.before);
        let _ = ptrace(libc::PTRACE_DETACH, self.pid, 0, 0);
    }
}

fn registers(pid: libc::pid_t) -> Result<libc::user_regs_struct> {
    let mut regs = MaybeUninit::<libc::user_regs_struct>::uninit();
    ptrace(libc::PTRACE_GETREGS, pid, 0, regs.as_mut_ptr() as u64).context("its registers")?;
    // SAFETY: the kernel has filled them, or there would have been an error.
    Ok(unsafe { regs.assume_init() })
}

fn set_registers(pid: libc::pid_t, regs: &libc::user_regs_struct) -> Result<()> {
    ptrace(libc::PTRACE_SETREGS, pid, 0, std::ptr::from_ref(regs) as u64).map(drop).context("its registers")
}
