//! A link type's number in, the header that its frames begin with out: <https://www.tcpdump.org/linktypes.html>.

use super::layers::{Layer, Wrap};

/// How the bytes of captured packets begin: a `LINKTYPE_` number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(u16);

// === impl Link

impl Link {
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IP itself.
    pub const RAW: Self = Self(101);

    /// By its number.
    pub const fn from_number(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The header of its frames; `None` where it is not known here.
    pub const fn layer(self) -> Option<Layer> {
        const fn behind(bytes: u8, next: &'static Layer) -> Layer {
            Layer::Wrap(Wrap::Fixed(bytes, next))
        }
        Some(match self.0 {
            1 => Layer::Ethernet,
            // 12 and 14 are DLT_RAW of some systems, 228 and 229 raw IPv4 and IPv6.
            12 | 14 | 101 | 228 | 229 => Layer::Ip,
            // BSD's loopback: an address family in the byte order of the machine that captured, or of the network. The
            // number differs from system to system; the packet's own version says enough.
            0 | 108 => behind(4, &Layer::Ip),
            6 => Layer::Wrap(Wrap::TokenRing),
            7 => Layer::Wrap(Wrap::Arcnet(2)),
            8 => behind(16, &Layer::Ip),
            10 => behind(13, &Layer::Llc),
            // ATM: RFC 1483, and Linux' classical IP.
            11 | 100 | 106 => Layer::Llc,
            // PPP, in which Cisco HDLC may be: the first byte tells.
            9 | 50 => Layer::Serial,
            // PPPoE's session header, without Ethernet's.
            51 => behind(6, &Layer::Ppp),
            104 => Layer::CiscoHdlc,
            105 => Layer::WIFI,
            107 => Layer::FrameRelay,
            // OpenBSD's IPsec interface.
            109 => behind(12, &Layer::Ip),
            113 => Layer::Wrap(Wrap::Sll),
            117 => Layer::Wrap(Wrap::Pflog),
            119 | 163 => Layer::Wrap(Wrap::Prism),
            // IP over Fibre Channel.
            122 => behind(16, &Layer::Llc),
            123 => behind(4, &Layer::Llc),
            127 => Layer::Wrap(Wrap::Radiotap),
            129 => Layer::Wrap(Wrap::Arcnet(4)),
            // IP over FireWire.
            138 => Layer::Wrap(Wrap::Typed(18)),
            166 => Layer::Wrap(Wrap::Pppd),
            178 => Layer::Wrap(Wrap::Juniper(&Layer::Ethernet)),
            179 => Layer::Wrap(Wrap::Juniper(&Layer::Ppp)),
            180 => Layer::Wrap(Wrap::Juniper(&Layer::FrameRelay)),
            181 => Layer::Wrap(Wrap::Juniper(&Layer::CiscoHdlc)),
            192 => Layer::Wrap(Wrap::Ppi),
            197 => Layer::Wrap(Wrap::Erf),
            // The three with a byte of direction.
            204 => behind(1, &Layer::Ppp),
            205 => behind(1, &Layer::CiscoHdlc),
            206 => behind(1, &Layer::FrameRelay),
            219 => Layer::Mpls,
            // Solaris' ipnet.
            226 => behind(24, &Layer::Ip),
            239 => Layer::Wrap(Wrap::Nflog),
            // Hilscher's analyzers: without and with the preamble.
            240 => behind(4, &Layer::Ethernet),
            241 => behind(12, &Layer::Ethernet),
            258 => Layer::Wrap(Wrap::Pktap),
            // Ethernet with its preamble.
            274 => behind(8, &Layer::Ethernet),
            276 => Layer::Wrap(Wrap::Sll2),
            // A switch's tag in front, or between addresses and type: Broadcom's two, Marvell's two.
            282 => behind(4, &Layer::Ethernet),
            281 | 284 => Layer::Wrap(Wrap::Typed(18)),
            285 => Layer::Wrap(Wrap::Typed(22)),
            _ => return None,
        })
    }

    /// What it is, of those that are met and hold no IP that could be found here.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            99 => "Symantec Firewall",
            114 => "LocalTalk",
            130..=137 | 141 | 142 | 167 | 194 | 200 | 222 | 238 => "Juniper",
            140 => "SS7 MTP2",
            143 => "DOCSIS",
            144 => "IrDA",
            147..=162 => "for private use",
            165 => "BACnet",
            177 => "LAPD",
            187 | 201 | 251 | 254 | 255 | 256 | 272 => "Bluetooth",
            186 | 189 | 220 | 249 | 266 => "USB",
            195 | 215 | 230 | 283 => "IEEE 802.15.4",
            203 => "LAPD",
            209 => "IPMB",
            227 => "CAN",
            231 => "D-Bus",
            242 => "IP over InfiniBand",
            247 => "InfiniBand",
            252 => "Wireshark's exported PDUs",
            253 => "netlink",
            279 => "Zigbee",
            _ => return None,
        })
    }
}
