//! Hand-made IPv4 segments, for peers that no kernel plays: a description goes in, a packet on the wire comes out, and the
//! other way round. Everything happens inside a namespace, with addresses that nobody there has: its kernel drops the
//! answers without a word.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice},
};

use crate::{
    netns::{Namespace, WIRE},
    sys,
};

/// The first SYN's flag.
pub const SYN: u8 = 2;
/// A reset.
pub const RST: u8 = 4;
/// An acknowledgement.
pub const ACK: u8 = 16;
/// A SYN answered.
pub const SYN_ACK: u8 = SYN | ACK;

const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const ETHERNET_HEADER: usize = 14;
const TCP: u8 = 6;

/// A TCP segment over IPv4, without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// From.
    pub source: SocketAddrV4,
    /// To.
    pub destination: SocketAddrV4,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The flags' byte.
    pub flags: u8,
    /// Bytes of payload, all the same.
    pub payload: usize,
}

/// A forger in a namespace: sees what arrives on the wire, and sends whatever it likes.
pub struct Forge {
    tap: OwnedFd,
    raw: OwnedFd,
}

/// Both ends of a wire at the level of frames.
pub struct Frames {
    tap: OwnedFd,
}

impl Segment {
    /// The segment that answers this one, from the other side.
    pub fn answer(&self, sequence: u32, acknowledgement: u32, flags: u8) -> Self {
        Self { source: self.destination, destination: self.source, sequence, acknowledgement, flags, payload: 0 }
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        let first = *packet.first()?;
        if first >> 4 != 4 || *packet.get(9)? != TCP {
            return None;
        }
        let tcp = usize::from(first & 15) * 4;
        let data = tcp + usize::from(packet.get(tcp + 12)? >> 4) * 4;
        Some(Self {
            source: SocketAddrV4::new(word(12)?.into(), half(tcp)?),
            destination: SocketAddrV4::new(word(16)?.into(), half(tcp + 2)?),
            sequence: word(tcp + 4)?,
            acknowledgement: word(tcp + 8)?,
            flags: *packet.get(tcp + 13)?,
            payload: usize::from(half(2)?).saturating_sub(data),
        })
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let len = IP_HEADER + TCP_HEADER + self.payload;
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(len)?.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, TCP, 0, 0]); // the kernel fills in the header's checksum
        packet.extend(self.source.ip().octets());
        packet.extend(self.destination.ip().octets());
        packet.extend(self.source.port().to_be_bytes());
        packet.extend(self.destination.port().to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.acknowledgement.to_be_bytes());
        packet.extend([(TCP_HEADER as u8 / 4) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        packet.resize(len, b'x');
        let sum = tcp_checksum(&packet)?;
        packet[IP_HEADER + 16..IP_HEADER + 18].copy_from_slice(&sum.to_be_bytes());
        Ok(packet)
    }
}

/// The checksum of a packet's segment, whose own place for it holds zeros; the IP header has no options.
fn tcp_checksum(packet: &[u8]) -> Result<u16> {
    // Addresses and segment lie together.
    let words = packet[12..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or_default()));
    let mut sum = words.sum::<u32>() + u32::from(TCP) + u32::try_from(packet.len() - IP_HEADER)?;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    Ok(!(sum as u16))
}

impl Forge {
    /// A forger at this namespace's end of the wire.
    ///
    /// # Errors
    /// The kernel refuses packet or raw sockets.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        namespace.run("forge", || {
            let raw =
                net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(net::ipproto::RAW))
                    .context("opening a raw socket")?;
            let tap = sys::packet_socket(libc::SOCK_DGRAM, netdevice::name_to_index(&raw, WIRE)?);
            Ok(Self { tap: tap.context("opening a packet socket")?, raw })
        })
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        net::sendto(&self.raw, &segment.bytes()?, SendFlags::empty(), &segment.destination)?;
        Ok(())
    }

    /// Waits for the next segment to `to` for which `wanted` holds.
    ///
    /// # Errors
    /// None comes within `limit`.
    pub fn receive(&self, to: Ipv4Addr, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        let mut buffer = [0; 2048];
        let start = Instant::now();
        loop {
            let n = receive(&self.tap, &mut buffer, limit.saturating_sub(start.elapsed()))?;
            if let Some(segment) = Segment::parse(&buffer[..n])
                && *segment.destination.ip() == to
                && wanted(&segment)
            {
                return Ok(segment);
            }
        }
    }
}

/// Sends segments as the kernel sends its refusals: from a raw socket of TCP. The kernel writes the IP header, with its own
/// address. It is called in the namespace that they come from.
///
/// # Errors
/// The kernel refuses raw sockets.
pub fn send_as_kernel(segments: &[Segment]) -> Result<()> {
    let raw = net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(net::ipproto::TCP))?;
    for segment in segments {
        net::sendto(&raw, &segment.bytes()?[IP_HEADER..], SendFlags::empty(), &segment.destination)?;
    }
    Ok(())
}

/// Sends SYNs to `to` for `time`, `per_second` of them at most, from addresses and ports that are all different, and
/// returns how many. It is called in the namespace that they come from.
///
/// # Errors
/// The kernel refuses raw sockets.
pub fn syn_flood(to: SocketAddrV4, per_second: u32, time: Duration) -> Result<u32> {
    // One CPU sends, and with it receives, some ten thousands a second. Threads are in the namespace of who starts them.
    thread::scope(|scope| {
        let part = |first| move || flood_part(to, per_second / FLOODERS, time, first);
        let flooders: Vec<_> = (0..FLOODERS).map(|first| scope.spawn(part(first))).collect();
        flooders.into_iter().map(|flooder| flooder.join().map_err(|_| anyhow!("a flooder panicked"))?).sum()
    })
}

/// Threads of a flood.
const FLOODERS: u32 = 2;

/// A part of a flood: each of [`FLOODERS`] begins at another number.
fn flood_part(to: SocketAddrV4, per_second: u32, time: Duration, first: u32) -> Result<u32> {
    let raw = net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(net::ipproto::RAW))?;
    let (start, mut sent) = (Instant::now(), 0u32);
    loop {
        let passed = start.elapsed();
        if passed >= time {
            return Ok(sent);
        }
        let due = (passed.as_secs_f64() * f64::from(per_second)) as u32;
        let until = due.min(sent + 1000);
        for n in (sent..until).map(|n| n * FLOODERS + first) {
            let [_, a, b, c] = (n / 30_000).to_be_bytes();
            let source = SocketAddrV4::new([FLOOD[0], FLOOD[1] | (a & 1), b, c].into(), 1025 + (n % 30_000) as u16);
            let segment = Segment {
                source,
                destination: to,
                sequence: n.wrapping_mul(0x9e37_79b9),
                acknowledgement: 0,
                flags: SYN,
                payload: 0,
            };
            match net::sendto(&raw, &segment.bytes()?, SendFlags::empty(), &to) {
                // A full queue of the interface: some are lost, as in any flood.
                Ok(_) | Err(rustix::io::Errno::NOBUFS) => {}
                Err(e) => return Err(e).context("flooding"),
            }
        }
        sent = sent.max(until);
        if sent == due {
            crate::wait::pause(Duration::from_millis(1));
        }
    }
}

/// Addresses of [`syn_flood`] begin so: `FLOOD.0.0/15`, reserved for such tests (RFC 2544).
pub const FLOOD: [u8; 2] = [198, 18];

impl Frames {
    /// This namespace's end.
    ///
    /// # Errors
    /// The kernel refuses packet sockets.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        namespace.run("frames", || {
            let any = net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let tap = sys::packet_socket(libc::SOCK_RAW, netdevice::name_to_index(&any, WIRE)?);
            Ok(Self { tap: tap.context("opening a packet socket")? })
        })
    }

    /// Waits for a frame with a SYN to `to`, whatever its hardware address.
    ///
    /// # Errors
    /// None comes within `limit`.
    pub fn syn(&self, to: SocketAddrV4, limit: Duration) -> Result<Vec<u8>> {
        let mut buffer = [0; 2048];
        let start = Instant::now();
        loop {
            let n = receive(&self.tap, &mut buffer, limit.saturating_sub(start.elapsed()))?;
            let frame = &buffer[..n];
            if let Some(segment) = frame.get(ETHERNET_HEADER..).and_then(Segment::parse)
                && segment.destination == to
                && segment.flags & SYN_ACK == SYN
            {
                return Ok(frame.to_vec());
            }
        }
    }

    /// Sends a frame of TCP to another hardware address (`02:00:00:00:00:01`), with the checksum that the kernel leaves
    /// to the hardware.
    ///
    /// # Errors
    /// That is none, or the kernel refuses.
    pub fn send(&self, frame: &[u8], to: &str) -> Result<()> {
        let mut frame = frame.to_vec();
        let place = ETHERNET_HEADER + IP_HEADER + 16;
        frame.get_mut(place..place + 2).context("a frame")?.fill(0);
        let sum = tcp_checksum(&frame[ETHERNET_HEADER..])?;
        frame[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        let address = to.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
        frame.get_mut(..6).context("a frame")?.copy_from_slice(&address);
        net::send(&self.tap, &frame, SendFlags::empty())?;
        Ok(())
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8], limit: Duration) -> Result<usize> {
    let limit = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).map_err(io::Error::from)?;
    ensure!(ready > 0, "the segment that was waited for did not come");
    Ok(net::recv(socket, buffer, RecvFlags::empty())?.0)
}
