//! A namespace's wire in, a capture out: what tcpdump would write, by a packet socket of our own.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, netdevice},
};

use crate::{
    netns::{Namespace, WIRE, joined},
    sys,
    wait::wall,
};

/// Larger than any segment on its way through the host.
const LARGEST: usize = 128 << 10;
/// Bytes of packets that may wait to be read.
const BUFFER: i32 = 64 << 20;

/// A capture being made.
pub struct Sniffer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u8>>>,
}

impl Sniffer {
    /// Captures what passes the wire at this end.
    ///
    /// # Errors
    /// As socket(2) and bind(2).
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let tap = namespace.run("sniffer", || {
            let any = net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let tap = sys::tap(netdevice::name_to_index(any, WIRE)?).context("opening a packet socket")?;
            sys::set_option(&tap, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER.to_ne_bytes())?;
            Ok(tap)
        })?;
        let stop = Arc::<AtomicBool>::default();
        let over = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("sniffer".into()).spawn(move || capture(&tap, &over))?;
        Ok(Self { stop, thread })
    }

    /// The capture so far, as a pcap file of Ethernet frames with times in nanoseconds.
    ///
    /// # Errors
    /// Reading failed.
    pub fn stop(self) -> Result<Vec<u8>> {
        self.stop.store(true, Relaxed);
        joined(self.thread.join())
    }
}

fn capture(tap: &OwnedFd, stop: &AtomicBool) -> Result<Vec<u8>> {
    // pcap-savefile(5).
    let mut file = Vec::new();
    for number in [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, LARGEST as u32, 1] {
        file.extend(u32::to_le_bytes(number));
    }
    let mut frame = vec![0; LARGEST];
    loop {
        // Before looking: what came before the stop is still read.
        let last = stop.load(Relaxed);
        let ready = poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
        if ready == 0 {
            if last {
                return Ok(file);
            }
            continue;
        }
        let (_, length) = net::recv(tap, &mut frame[..], RecvFlags::DONTWAIT)?;
        let (time, length) = (wall(), length.min(LARGEST));
        for number in [time / 1_000_000_000, time % 1_000_000_000, length as u64, length as u64] {
            file.extend(u32::try_from(number)?.to_le_bytes());
        }
        file.extend(&frame[..length]);
    }
}
