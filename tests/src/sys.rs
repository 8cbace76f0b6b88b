//! System calls that neither std nor rustix offers: plain values in, results out, `unsafe` nowhere else.

use std::{
    ffi::c_int,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Sets a socket option to `value`'s bytes.
///
/// # Errors
/// As setsockopt(2).
pub fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of one slice.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `tcp_info` of a TCP socket, as far as `struct tcp_info` of libc goes.
///
/// # Errors
/// As getsockopt(2).
pub fn tcp_info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: `tcp_info` is integers only: zeros are a value of it.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: pointer and length are those of `info`, which the kernel fills at most.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// A packet socket on one interface. `kind`: `SOCK_DGRAM` for packets from their IP header on, `SOCK_RAW` for frames.
///
/// # Errors
/// As socket(2) and bind(2).
pub fn packet_socket(kind: c_int, interface: u32) -> io::Result<OwnedFd> {
    packet_socket_of(libc::ETH_P_IP, kind, interface)
}

/// As [`packet_socket`], for frames of every protocol, those that leave too.
///
/// # Errors
/// As socket(2) and bind(2).
pub fn tap(interface: u32) -> io::Result<OwnedFd> {
    packet_socket_of(libc::ETH_P_ALL, libc::SOCK_RAW, interface)
}

fn packet_socket_of(protocol: c_int, kind: c_int, interface: u32) -> io::Result<OwnedFd> {
    let protocol = (protocol as u16).to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, protocol.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `sockaddr_ll` is integers only: zeros are a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: pointer and length are those of `address`.
    let result = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Has `command`'s process killed when the thread that starts it ends: a scenario that dies leaves nothing running.
pub fn die_with_me(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
}

/// Has `command`'s process begin in the cgroup whose `cgroup.procs` this is.
pub fn begin_in(command: &mut Command, processes: std::fs::File) {
    // SAFETY: between fork and exec only write(2) is called: it allocates nothing and takes no lock.
    unsafe {
        // 0 is whoever writes it (Documentation/admin-guide/cgroup-v2.rst).
        command.pre_exec(move || rustix::io::write(&processes, b"0").map(drop).map_err(io::Error::from));
    }
}

/// A thread of another process that stands still, until this is dropped. Its process does not notice: there is no signal, as
/// SIGSTOP would be, which stops all threads.
#[derive(Debug)]
pub struct Halted {
    thread: libc::pid_t,
    /// Only the thread that began to trace may end it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Halted {
    /// Halts a thread, by its id.
    ///
    /// # Errors
    /// As ptrace(2).
    pub fn at(thread: u32) -> io::Result<Self> {
        let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
        ptrace(libc::PTRACE_SEIZE, thread)?;
        // From here on it is let go whatever happens.
        let halted = Self { thread, _not_send: std::marker::PhantomData };
        ptrace(libc::PTRACE_INTERRUPT, thread)?;
        // SAFETY: the kernel is told to store no status.
        if unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Gone already: as wanted.
        let _ = ptrace(libc::PTRACE_DETACH, self.thread);
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    // SAFETY: these requests take neither address nor data: both are 0, and nothing is read or written there.
    let result = unsafe { libc::ptrace(request, thread, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a process that connects to `address` and ends, and waits for its end. Whether it could connect it does not say.
/// It borrows this one's memory, as after vfork(2): to copy that would take ten times as long.
///
/// # Errors
/// As clone(2), or the address is none of IPv4.
pub fn fork_and_connect(address: std::net::SocketAddr) -> io::Result<()> {
    extern "C" fn connect(to: *mut libc::c_void) -> libc::c_int {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        // SAFETY: `to` is the address that the parent, which waits, keeps alive.
        unsafe { libc::connect(fd, to.cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t) };
        0
    }
    const STACK: usize = 64 << 10;
    let std::net::SocketAddr::V4(v4) = address else { return Err(io::Error::other("no IPv4 address")) };
    let mut to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has a stack of its own, whose end is aligned, and calls nothing but socket(2) and connect(2): it
    // allocates nothing and takes no lock. This thread goes on when it has ended, so stack and address outlive it.
    let child = unsafe { libc::clone(connect, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut to).cast()) };
    // SAFETY: the kernel is told to store no status.
    if child < 0 || unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A word of the attributes of bpf(2) that holds two half-words.
pub fn halves(low: u32, high: u32) -> u64 {
    let [a, b, c, d] = low.to_ne_bytes();
    let [e, f, g, h] = high.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The system call bpf(2): its command and its attributes, as words in the machine's order. Returns what it does: a
/// descriptor, or 0.
///
/// # Errors
/// As bpf(2).
pub fn bpf(command: c_int, attributes: &[u64]) -> io::Result<c_int> {
    // SAFETY: pointer and length are those of one slice; the kernel checks what the attributes point at, and only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes) as libc::c_uint) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

/// As [`bpf`], for commands that return a descriptor.
///
/// # Errors
/// As bpf(2).
pub fn bpf_opened(command: c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the kernel has just opened it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
