//! An HTTP proxy on 127.0.0.1: tunnels by CONNECT, and requests that name the whole URL, which are passed on as they are.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use anyhow::Result;

/// The longest head that is read.
const MOST: usize = 16 << 10;

/// A proxy, which goes on until the process ends.
pub struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
    forwarded: Arc<AtomicUsize>,
}

// === impl Proxy

impl Proxy {
    /// Starts one.
    ///
    /// # Errors
    /// There is no port, or no thread.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Self { address: listener.local_addr()?, tunnels: Arc::default(), forwarded: Arc::default() };
        let counts = (Arc::clone(&proxy.tunnels), Arc::clone(&proxy.forwarded));
        thread::Builder::new().name("proxy".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = counts.clone();
                // A client that breaks off is none of the proxy's business.
                thread::spawn(move || drop(serve(stream, &counts.0, &counts.1)));
            }
        })?;
        Ok(proxy)
    }

    /// What the environment's variables say of it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many tunnels it made.
    pub fn tunnels(&self) -> usize {
        self.tunnels.load(SeqCst)
    }

    /// How many connections it passed on without a tunnel.
    pub fn forwarded(&self) -> usize {
        self.forwarded.load(SeqCst)
    }
}

fn serve(mut client: TcpStream, tunnels: &AtomicUsize, forwarded: &AtomicUsize) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 || head.len() == MOST {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default();
    let server = if text.starts_with("CONNECT ") {
        let server = TcpStream::connect(target)?;
        tunnels.fetch_add(1, SeqCst);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        server
    } else {
        let authority = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let mut server = TcpStream::connect(authority)?;
        forwarded.fetch_add(1, SeqCst);
        server.write_all(&head)?;
        server
    };
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        // The other direction says how it ended.
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    io::copy(&mut from_server, &mut to_client)?;
    to_client.shutdown(Shutdown::Both)
}
