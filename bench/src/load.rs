//! The load: connections as fast as they go. Each is made, carries one byte each way, and is closed by the client.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    ending::with_us,
    namespaces::{Namespaces, SERVER},
};

/// Threads at each end.
pub const THREADS: usize = 4;
/// The first server port: one a thread.
const PORT: u16 = 7000;

/// Makes `connections` between two namespaces. Returns how long that took.
pub fn run(namespaces: &Namespaces, connections: usize) -> Result<Duration> {
    let mut server = End::start(&namespaces.server, &["load-server".into(), connections.to_string()])?;
    server.line()?;
    let mut client = End::start(&namespaces.client, &["load-client".into(), connections.to_string()])?;
    let took: u64 = client.line()?.trim().parse().context("the client's answer")?;
    client.finish()?;
    server.finish()?;
    Ok(Duration::from_nanos(took))
}

/// One end, in a process and a namespace of its own.
struct End(Child);

impl End {
    fn start(namespace: &str, arguments: &[String]) -> Result<Self> {
        // Not `ip netns exec`: that makes a mount namespace of its own, and every record would have to say so.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg(std::env::current_exe()?).args(arguments);
        Ok(Self(with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().context("no standard output")?;
        // No byte follows the one line: nothing is lost in this buffer.
        if BufReader::new(stdout).read_line(&mut line)? == 0 {
            bail!("an end of the load said nothing");
        }
        Ok(line)
    }

    fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { bail!("an end of the load ended with {status}") }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn port(thread: usize) -> SocketAddr {
    let ip = SERVER.parse().expect("an address");
    SocketAddr::new(ip, PORT + thread as u16)
}

/// How many of `all` thread number `thread` does.
fn share(all: usize, thread: usize) -> usize {
    all / THREADS + usize::from(thread < all % THREADS)
}

/// `load-client N`.
pub fn client(connections: usize) -> Result<()> {
    let start = Instant::now();
    in_threads(|thread| {
        let mut byte = [7];
        for _ in 0..share(connections, thread) {
            let mut stream = TcpStream::connect(port(thread)).context("connect")?;
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
        }
        Ok(())
    })?;
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

/// `load-server N`.
pub fn server(connections: usize) -> Result<()> {
    let listeners: Vec<TcpListener> =
        (0..THREADS).map(|thread| TcpListener::bind(port(thread))).collect::<std::io::Result<_>>()?;
    println!("ready");
    in_threads(|thread| {
        let mut byte = [0];
        for _ in 0..share(connections, thread) {
            let (mut stream, _) = listeners[thread].accept()?;
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
            // Until the client has closed, so that TIME_WAIT is its.
            let _ = stream.read(&mut byte)?;
        }
        Ok(())
    })
}

fn in_threads(work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("a thread of the load panicked")))
    })
}
