//! Processes that listen and accept in every way that makes it hard to say who took a connection: what one is to do comes in
//! as words, connections are answered.
//!
//! `listen ADDRESS HOW...` makes a listener, says its address, and takes connections from it. How:
//! - `reuseport`, `v6only`: the socket's options; `unbound`: listen() without bind(); `nobody`: as a user without any right;
//! - `bind`: only binds; at the next line of its input it ends;
//! - `binds=N`: then binds and closes as many sockets more, and says so;
//! - `leave`: another process takes from the listener, and this one ends; `exec`: becomes another program that takes;
//! - and what `take` knows.
//!
//! `take HOW...` takes connections from the listener that is its standard input. How:
//! - `named`: asks accept() for the peer's address, and says it; `after=MS`: each accept() comes so late; `once`: ends then.
//!
//! `look` asks who is the peer of its standard input, says so, and ends.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{self, AddressFamily, sockopt},
};

use crate::{child, traffic, wait};

/// Somebody without any right.
pub const NOBODY: u32 = 65534;

/// See above.
///
/// # Errors
/// A call fails.
pub fn listen(words: &str) -> Result<()> {
    let (address, how) = words.split_once(' ').unwrap_or((words, ""));
    let address: SocketAddr = address.parse()?;
    let is = |word: &str| how.split(' ').any(|one| one == word);
    if is("nobody") {
        rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(NOBODY))?;
    }
    let socket = traffic::socket(address, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is("reuseport") {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, is("v6only"))?;
    }
    if !is("unbound") {
        net::bind(&socket, &address).with_context(|| format!("binding to {address}"))?;
    }
    if is("bind") {
        say(&net::getsockname(&socket).map(SocketAddr::try_from)??.to_string())?;
        std::io::stdin().read_line(&mut String::new())?;
        return Ok(());
    }
    net::listen(&socket, 128)?;
    let listener = TcpListener::from(socket);
    say(&listener.local_addr()?.to_string())?;
    if let Some(binds) = how.split(' ').find_map(|word| word.strip_prefix("binds=")) {
        for _ in 0..binds.parse()? {
            let socket = net::socket(AddressFamily::INET, net::SocketType::STREAM, None)?;
            net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
        }
        say("bound")?;
    }
    if is("leave") || is("exec") {
        let mut command = Command::new(std::env::current_exe()?);
        // Nobody ends what is left to itself.
        command
            .env(child::VARIABLE, if is("leave") { "take once" } else { "take" })
            .stdin(Stdio::from(OwnedFd::from(listener)));
        if is("exec") {
            return Err(command.exec().into());
        }
        command.spawn()?;
        return Ok(());
    }
    take_from(&listener, how)
}

/// See above.
///
/// # Errors
/// A call fails.
pub fn take(how: &str) -> Result<()> {
    take_from(&TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?), how)
}

/// See above.
///
/// # Errors
/// It is no connection.
pub fn look() -> Result<()> {
    let stream = TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    say(&stream.peer_addr()?.to_string())
}

fn take_from(listener: &TcpListener, how: &str) -> Result<()> {
    let after = how.split(' ').find_map(|word| word.strip_prefix("after=")).map(str::parse).transpose()?;
    loop {
        poll(&mut [PollFd::new(listener, PollFlags::IN)], None)?;
        if let Some(after) = after {
            wait::pause(wait::patient(Duration::from_millis(after)));
        }
        let stream = if how.split(' ').any(|word| word == "named") {
            let (stream, peer) = listener.accept()?;
            say(&peer.to_string())?;
            stream
        } else {
            TcpStream::from(net::accept(listener)?)
        };
        traffic::echo(stream)?;
        if how.split(' ').any(|word| word == "once") {
            return Ok(());
        }
    }
}

fn say(words: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{words}")?)
}
