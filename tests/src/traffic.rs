//! Real servers and clients: an address goes in, a connection that was made, used and closed comes out, with everything
//! that a record about it must say.
//!
//! [`dial`] and [`connect`] work in the calling thread, whose network namespace and name they have; servers answer from
//! threads of their own.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{self, AddressFamily, Protocol, SocketFlags, SocketType, sockopt},
};

use crate::{
    netns::Namespace,
    wait::{patient, wall},
};

/// How long an answer on a connection may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections that may wait for accept().
const BACKLOG: i32 = 4096;
/// Threads that accept and answer, for each server.
const ANSWERERS: usize = 4;

/// The name of the thread that binds a server's port.
pub const SERVER: &str = "server";
/// The name of the threads that accept.
pub const ANSWERER: &str = "answerer";

/// A server that sends back what it gets, until it is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A connection that was made.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The initiator's endpoint, as it sees it.
    pub client: SocketAddr,
    /// The endpoint that it asked for.
    pub server: SocketAddr,
    /// Name of the thread that asked.
    pub thread: String,
    /// The wall clock before the call of connect().
    pub before: u64,
    /// And when the connection was surely there on both sides.
    pub after: u64,
}

// === impl Server

impl Server {
    /// A TCP server in the namespace.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self> {
        Self::with(namespace, address, None, |_| Ok(()))
    }

    /// A server of another protocol, or with options that `prepare` sets before it is bound.
    ///
    /// # Errors
    /// As socket(2), bind(2), or `prepare`'s.
    pub fn with(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        protocol: Option<Protocol>,
        prepare: impl FnOnce(&OwnedFd) -> Result<()> + Send,
    ) -> Result<Self> {
        let address = address.into();
        let listener = namespace.run(SERVER, || listen(address, protocol, prepare))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        for _ in 0..ANSWERERS {
            let (listener, stop) = (listener.try_clone()?, Arc::clone(&stop));
            threads.push(thread::Builder::new().name(ANSWERER.into()).spawn(move || answer(&listener, &stop))?);
        }
        Ok(Self { address, stop, threads })
    }

    /// Where it listens, at the port on another address.
    pub fn at(&self, address: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(address.into(), self.address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // It panics never; and in a drop there is nobody to tell.
            let _ = thread.join();
        }
    }
}

/// A listener in the calling thread's namespace, whose caller accepts by himself.
///
/// # Errors
/// As socket(2), bind(2), or `prepare`'s.
pub fn listen(
    address: SocketAddr,
    protocol: Option<Protocol>,
    prepare: impl FnOnce(&OwnedFd) -> Result<()>,
) -> Result<TcpListener> {
    let socket = socket(address, protocol)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    prepare(&socket)?;
    net::bind(&socket, &address).with_context(|| format!("binding to {address}"))?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn answer(listener: &TcpListener, stop: &AtomicBool) {
    let step = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Relaxed) {
        let ready = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&step));
        if ready.is_ok_and(|n| n > 0)
            && let Ok((stream, _)) = listener.accept()
        {
            // A client that breaks off is the client's affair.
            let _ = echo(stream);
        }
    }
}

/// Sends back what comes, to its end.
///
/// # Errors
/// The stream's.
pub fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

// === clients

/// A socket for the address's family; TCP unless another protocol is named.
///
/// # Errors
/// As socket(2).
pub fn socket(address: SocketAddr, protocol: Option<Protocol>) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)?)
}

/// Connects to `to`, sends a byte, waits for it to come back, and closes.
///
/// # Errors
/// Any step fails.
pub fn dial(to: impl Into<SocketAddr>) -> Result<Connection> {
    let to = to.into();
    dial_on(socket(to, None)?, to)
}

/// As [`dial`], on a socket that is there already.
///
/// # Errors
/// Any step fails.
pub fn dial_on(socket: OwnedFd, to: SocketAddr) -> Result<Connection> {
    let (mut connection, stream) = connect(socket, to)?;
    exchange(&stream)?;
    connection.after = wall();
    finish(stream)?;
    Ok(connection)
}

/// Connects only.
///
/// # Errors
/// As connect(2).
pub fn connect(socket: OwnedFd, to: SocketAddr) -> Result<(Connection, TcpStream)> {
    let before = wall();
    net::connect(&socket, &to).with_context(|| format!("connecting to {to}"))?;
    let after = wall();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let connection =
        Connection { client: plain(stream.local_addr()?), server: plain(to), thread: thread_name(), before, after };
    Ok((connection, stream))
}

/// Sends a byte and waits for it to come back: then the connection is there on both sides.
///
/// # Errors
/// It does not come back.
pub fn exchange(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"x").context("sending a byte")?;
    let mut byte = [0];
    stream.read_exact(&mut byte).context("waiting for the byte's return")?;
    ensure!(byte == *b"x", "another byte came back");
    Ok(())
}

/// Closes in order and waits until the server has closed too.
///
/// # Errors
/// The server does not.
pub fn finish(mut stream: TcpStream) -> Result<()> {
    stream.shutdown(Shutdown::Write)?;
    ensure!(stream.read(&mut [0])? == 0, "bytes after the end");
    Ok(())
}

/// Resets the connection at close, so that nothing of it stays.
///
/// # Errors
/// As setsockopt(2).
pub fn reset_at_close(socket: impl AsFd) -> Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// `n` connections from each of `threads` threads at once. All addresses are in the namespace that the threads enter.
///
/// # Errors
/// One connection fails.
pub fn burst(namespace: &Namespace, to: SocketAddr, threads: usize, n: usize) -> Result<Vec<Connection>> {
    let clients = (0..threads)
        .map(|i| namespace.spawn(&format!("burst-{i}"), move || (0..n).map(|_| dial(to)).collect::<Result<Vec<_>>>()));
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let mut connections = Vec::new();
    for client in clients {
        connections.extend(crate::netns::joined(client.join())?);
    }
    Ok(connections)
}

/// The name that the kernel has for this thread: 15 bytes.
fn thread_name() -> String {
    thread::current().name().unwrap_or_default().chars().take(15).collect()
}

/// Without the IPv6 clothes of an IPv4 address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
