//! A block of pcap or pcapng in, the packet in it out, with its time and link type.
//!
//! Must never take a packet for one of an interface that was not described: the link type would be a guess.

use pcap_parser::{Block, PcapBlockOwned};

use super::{Link, Packet, Undecoded};
use crate::capture::KernelTime;

/// The most interfaces of one section of pcapng.
const MOST_INTERFACES: usize = 4096;
/// Type of pcapng's obsolete packet block, and the length of its head.
const OBSOLETE: u32 = 2;
const OBSOLETE_HEAD: usize = 20;
/// A packet without an interface of its own is of the first one.
const FIRST: usize = 0;

/// What holds for blocks until the next section begins. A pcap file is one section with one interface.
#[derive(Debug, Default)]
pub struct Section {
    interfaces: Vec<Interface>,
    /// Byte order of numbers that the parser leaves as they are.
    big_endian: bool,
}

/// Where packets were captured.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Link,
    resolution: Resolution,
    /// Seconds to be added.
    offset: i64,
    /// The most bytes of a packet that are kept; 0 where there is no limit.
    most: u32,
}

/// What one unit of a timestamp is.
#[derive(Debug, Clone, Copy)]
enum Resolution {
    /// 10^-n s.
    Decimal(u32),
    /// 2^-n s.
    Binary(u32),
}

// === impl Section

impl Section {
    /// Takes one block in; `on` gets the packet in it, if it is one.
    pub fn take(
        &mut self,
        block: &PcapBlockOwned<'_>,
        undecoded: &mut Undecoded,
        on: impl FnOnce(&Packet<'_>),
    ) -> Result<(), &'static str> {
        let packet = match block {
            PcapBlockOwned::Legacy(frame) => {
                let interface = self.interfaces.first().ok_or("a packet before the header")?;
                let Resolution::Decimal(digits) = interface.resolution else { return Ok(()) };
                let fraction = u64::from(frame.ts_usec) * 10u64.pow(9 - digits.min(9));
                let time = KernelTime(u64::from(frame.ts_sec) * 1_000_000_000 + fraction);
                Packet { time, link: interface.link, bytes: frame.data, whole: frame.origlen }
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = self.interface(packet.if_id as usize)?;
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let bytes = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                Packet { time: interface.time(units), link: interface.link, bytes, whole: packet.origlen }
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                let interface = self.interface(FIRST)?;
                let most = if interface.most == 0 { u32::MAX } else { interface.most };
                let captured = packet.origlen.min(most) as usize;
                let bytes = packet.data.get(..captured).unwrap_or(packet.data);
                Packet { time: KernelTime(0), link: interface.link, bytes, whole: packet.origlen }
            }
            PcapBlockOwned::NG(Block::Unknown(block)) => {
                let kind = if self.big_endian { block.block_type.swap_bytes() } else { block.block_type };
                if kind != OBSOLETE {
                    undecoded.block(kind);
                    return Ok(());
                }
                self.obsolete(block.data)?
            }
            other => return self.describe(other, undecoded),
        };
        if packet.link.layer().is_none() {
            undecoded.link(packet.link);
        }
        on(&packet);
        Ok(())
    }

    /// Takes a block that is no packet.
    fn describe(&mut self, block: &PcapBlockOwned<'_>, undecoded: &mut Undecoded) -> Result<(), &'static str> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let digits = if header.is_nanosecond_precision() { 9 } else { 6 };
                // The upper bits tell of frame check sequences.
                let link = Link::from_number((header.network.0 & 0xffff) as u16);
                let resolution = Resolution::Decimal(digits);
                self.interfaces.push(Interface { link, resolution, offset: 0, most: 0 });
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                self.interfaces.clear();
                self.big_endian = header.big_endian();
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                if self.interfaces.len() == MOST_INTERFACES {
                    return Err("more than 4,096 interfaces");
                }
                self.interfaces.push(Interface {
                    link: Link::from_number((description.linktype.0 & 0xffff) as u16),
                    resolution: Resolution::from_number(description.if_tsresol),
                    offset: description.if_tsoffset,
                    most: description.snaplen,
                });
            }
            // A vendor's own: whether it holds packets only he knows.
            PcapBlockOwned::NG(Block::Custom(custom)) => {
                let kind = if self.big_endian { custom.block_type.swap_bytes() } else { custom.block_type };
                undecoded.block(kind);
            }
            // The rest is about packets, none itself: names, statistics, keys, the journal, processes.
            PcapBlockOwned::NG(_) | PcapBlockOwned::Legacy(_) => {}
        }
        Ok(())
    }

    fn interface(&self, number: usize) -> Result<&Interface, &'static str> {
        self.interfaces.get(number).ok_or("a packet of an interface that is not there")
    }

    /// A packet as pcapng had it before 2004: interface, drops, time, captured length, length, in two bytes, two, and four
    /// each of the rest.
    fn obsolete<'a>(&self, data: &'a [u8]) -> Result<Packet<'a>, &'static str> {
        let order =
            |bytes: [u8; 4]| if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        let (head, packet) = data.split_first_chunk::<OBSOLETE_HEAD>().ok_or("a packet block without its head")?;
        let word = |i: usize| order([head[i * 4], head[i * 4 + 1], head[i * 4 + 2], head[i * 4 + 3]]);
        let number = if self.big_endian { word(0) >> 16 } else { word(0) & 0xffff };
        let interface = self.interface(number as usize)?;
        let time = interface.time(u64::from(word(1)) << 32 | u64::from(word(2)));
        let bytes = packet.get(..word(3) as usize).ok_or("a packet that is longer than its block")?;
        Ok(Packet { time, link: interface.link, bytes, whole: word(4) })
    }
}

// === impl Interface

impl Interface {
    /// A timestamp in nanoseconds since the Unix epoch; what lies before 1970 or behind 2554 is brought to these ends.
    fn time(&self, units: u64) -> KernelTime {
        let units = u128::from(units);
        let nanoseconds = match self.resolution {
            Resolution::Decimal(n) if n <= 9 => units * 10u128.pow(9 - n),
            Resolution::Decimal(n) => units / 10u128.pow((n - 9).min(38)),
            Resolution::Binary(n) => (units * 1_000_000_000) >> n,
        };
        let nanoseconds = i128::try_from(nanoseconds).unwrap_or(i128::MAX);
        let shifted = nanoseconds.saturating_add(i128::from(self.offset) * 1_000_000_000);
        KernelTime(u64::try_from(shifted.max(0)).unwrap_or(u64::MAX))
    }
}

// === impl Resolution

impl Resolution {
    /// From pcapng's `if_tsresol`.
    fn from_number(number: u8) -> Self {
        let n = u32::from(number & 0x7f);
        if number & 0x80 == 0 { Self::Decimal(n) } else { Self::Binary(n) }
    }
}
