//! A captured frame in, its IP packet out. Link types by their numbers: <https://www.tcpdump.org/linktypes.html>.

/// How the bytes of captured packets begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Ethernet, with VLAN tags or without.
    Ethernet,
    /// IP itself.
    Raw,
    /// BSD loopback: an address family in the byte order of the machine that captured.
    Null,
    /// OpenBSD loopback: the same in network order.
    Loop,
    /// Linux cooked capture, version 1 (`tcpdump -i any`).
    Sll,
    /// Linux cooked capture, version 2.
    Sll2,
    /// One that is not known here, by its number.
    Other(u16),
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the number that came before 802.1ad.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// The most VLAN tags that are walked.
const MOST_TAGS: usize = 4;

// === impl Link

impl Link {
    /// By its LINKTYPE_ number.
    pub const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            // 12 and 14 are DLT_RAW of some systems, 228 and 229 raw IPv4 and IPv6.
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            108 => Self::Loop,
            113 => Self::Sll,
            276 => Self::Sll2,
            other => Self::Other(other),
        }
    }

    /// The IP packet in a frame; `None` where there is none, or not enough of it.
    pub fn ip(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Ethernet => network(frame, 12),
            Self::Raw => Some(frame),
            // The family's number differs from system to system; the packet's own version says enough.
            Self::Null | Self::Loop => frame.get(4..),
            Self::Sll => network(frame, 14),
            // The protocol stands first; 20 bytes are the header.
            Self::Sll2 => {
                let protocol = number(frame, 0)?;
                let rest = frame.get(20..)?;
                if VLAN.contains(&protocol) { network_behind_tag(rest) } else { carried(protocol, rest) }
            }
            Self::Other(_) => None,
        }
    }
}

/// What stands behind the protocol number at `at`, behind VLAN tags too.
fn network(frame: &[u8], at: usize) -> Option<&[u8]> {
    let protocol = number(frame, at)?;
    let rest = frame.get(at + 2..)?;
    if VLAN.contains(&protocol) { network_behind_tag(rest) } else { carried(protocol, rest) }
}

/// What stands behind a VLAN tag's control information.
fn network_behind_tag(mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..MOST_TAGS {
        let protocol = number(rest, 2)?;
        rest = rest.get(4..)?;
        if !VLAN.contains(&protocol) {
            return carried(protocol, rest);
        }
    }
    None
}

fn carried(protocol: u16, rest: &[u8]) -> Option<&[u8]> {
    matches!(protocol, IPV4 | IPV6).then_some(rest)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}
