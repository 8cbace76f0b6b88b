//! Ports of 127.0.0.1 that are free now, and that no connection takes as its own while nobody listens there: a receiver that is
//! started late, or again, must find its port free.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result, bail};

/// The first that is tried: below are those of known services.
const FIRST: u16 = 10_000;
/// Where the kernel takes ports of connections from: its first and its last
/// (Documentation/networking/ip-sysctl.rst).
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// So many ports, all different, and different at each call as long as there are others.
///
/// # Errors
/// There are not so many.
pub fn free<const N: usize>() -> Result<[u16; N]> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string(EPHEMERAL).context(EPHEMERAL)?;
    let end: u16 = range.split_whitespace().next().context("an empty range")?.parse().context(EPHEMERAL)?;
    let Some(all) = end.checked_sub(FIRST).filter(|all| *all > 0) else { bail!("no port is below {EPHEMERAL}: {end}") };
    // Runs beside each other begin at different ones.
    let first = process::id().wrapping_mul(101);
    let mut free = [0; N];
    let mut found = free.iter_mut();
    let mut next = found.next();
    for _ in 0..all {
        let Some(place) = next else { break };
        let tried = first.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed).into());
        let port = FIRST + (tried % u32::from(all)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            *place = port;
            next = found.next();
        } else {
            next = Some(place);
        }
    }
    if next.is_some() {
        bail!("no {N} ports from {FIRST} to {end} are free")
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_different_and_no_connections_own() {
        let [a, b, c] = free().expect("three of thousands");
        let [d] = free().expect("one more");
        let all = [a, b, c, d];
        assert!(all.iter().enumerate().all(|(n, port)| !all[n + 1..].contains(port)), "{all:?}");
        let range = fs::read_to_string(EPHEMERAL).expect("Linux has it");
        let first: u16 = range.split_whitespace().next().expect("two numbers").parse().expect("a port");
        assert!(all.iter().all(|port| (FIRST..first).contains(port)), "{all:?}");
    }
}
