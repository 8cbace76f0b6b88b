//! A captured frame in; its innermost (or outermost) IP packet that holds TCP or UDP out, and the tunnel that carried it.
//!
//! Each header says what follows it: [`Layer::step`] goes from one to the next, a loop over them does the rest, so no
//! nesting costs stack. What a header is: `ether` (VLAN tags, PBB, MPLS, PPPoE, LLC), `ppp` (and what else serial lines
//! speak), `wifi`, `wrap` (headers that capture programs put in front), `ip`, `gre`, `udp` (tunnels over UDP).
//!
//! Must never read past the captured bytes, nor take more than [`MOST_LAYERS`] steps: every byte may be hostile. Tags and
//! labels that stand in a row count as one step and take at least two bytes each, so the packet's end bounds them.

mod ether;
mod gre;
pub mod ip;
mod ppp;
#[cfg(test)]
mod tests;
mod udp;
mod wifi;
mod wrap;

pub use wrap::Wrap;

/// The most headers that are walked in one packet. Real traffic has about ten at most: a GTP-U tunnel over VXLAN over MPLS.
pub const MOST_LAYERS: usize = 32;

/// Which IP packet of a tunnel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Decapsulate {
    /// The outermost: tunnels are not looked into
    Outer,
    /// The innermost
    #[default]
    Inner,
}

/// What carried a packet inside of another IP packet: the values of `flowtel.tunnel.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IPv4 in IPv4 (RFC 2003).
    IpInIp,
    /// IPv6 in IPv4 (RFC 4213).
    SixInFour,
    /// IPv4 in IPv6 (RFC 2473).
    FourInSix,
    /// IPv6 in IPv6 (RFC 2473).
    SixInSix,
    /// GRE (RFC 2784), with whatever it carries: IP, Ethernet, PPP (PPTP), MPLS.
    Gre,
    /// A mirrored port's frames in GRE.
    Erspan,
    /// EtherIP (RFC 3378).
    EtherIp,
    /// Ethernet right in IPv6 (SRv6: RFC 8986).
    Srv6,
    /// MPLS in IP or UDP (RFC 4023, RFC 7510).
    Mpls,
    /// Teredo (RFC 4380).
    Teredo,
    /// VXLAN (RFC 7348), and with the generic protocol extension.
    Vxlan,
    /// GENEVE (RFC 8926).
    Geneve,
    /// GTP-U, version 1 or 0 (3GPP TS 29.281, 29.060).
    Gtp,
    /// L2TP, version 2 (RFC 2661).
    L2tp,
    /// LISP (RFC 9300).
    Lisp,
    /// CAPWAP (RFC 5415): what access points send their controller.
    Capwap,
    /// `TaZmen` sniffer protocol: frames that an access point has captured.
    Tzsp,
}

/// The header that a packet's bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// IPv4 or IPv6, as its first bits say.
    Ip,
    /// Ethernet.
    Ethernet,
    /// What follows this EtherType.
    Type(u16),
    /// 802.2 LLC.
    Llc,
    /// MPLS labels.
    Mpls,
    /// A network service header (RFC 8300).
    Nsh,
    /// PPP, with its address and control bytes or without.
    Ppp,
    /// Cisco HDLC.
    CiscoHdlc,
    /// PPP or Cisco HDLC, as the first byte says.
    Serial,
    /// Frame relay.
    FrameRelay,
    /// 802.11.
    Wifi {
        /// The driver filled the header up to a multiple of four.
        padded: bool,
        /// The first two bytes may be in the wrong order.
        swapped: bool,
    },
    /// GRE.
    Gre,
    /// What a capture program wrote in front.
    Wrap(Wrap),
}

/// Bytes of a packet from one of its headers on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest<'a> {
    /// What was captured of them.
    pub bytes: &'a [u8],
    /// How many they were on the wire.
    pub whole: usize,
}

/// Where a header leads.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// To another header.
    To(Layer, Rest<'a>),
    /// Through a tunnel.
    Through(Tunnel, Layer, Rest<'a>),
    /// Nowhere: what it carries is not IP, or encrypted, or not to be told from other things.
    Nothing,
}

// === impl Layer

impl Layer {
    /// 802.11 as the standard has it.
    pub const WIFI: Self = Self::Wifi { padded: false, swapped: false };

    /// Reads the header; `None` where it is cut short. Of [`Layer::Ip`], which has more to tell, see [`ip::read`].
    #[inline]
    pub fn step(self, rest: Rest<'_>) -> Option<Step<'_>> {
        match self {
            Self::Ip => Some(Step::Nothing),
            Self::Ethernet => ether::ethernet(rest),
            Self::Type(number) => ether::carried(number, rest),
            Self::Llc => ether::llc(rest),
            Self::Mpls => ether::mpls(rest),
            Self::Nsh => ether::nsh(rest),
            Self::Ppp => ppp::ppp(rest),
            Self::CiscoHdlc => ppp::cisco(rest),
            Self::Serial => ppp::serial(rest),
            Self::FrameRelay => ppp::frame_relay(rest),
            Self::Wifi { padded, swapped } => wifi::data(rest, padded, swapped),
            Self::Gre => gre::gre(rest),
            Self::Wrap(wrap) => wrap.step(rest),
        }
    }
}

/// The tunnel that an IP packet is, by what its header says follows; `None` where it is none, or cut short.
pub fn tunnel<'a>(header: &ip::Header<'a>) -> Option<Step<'a>> {
    let v4 = header.source.is_ipv4();
    let rest = header.rest;
    match header.protocol {
        4 => Some(Step::Through(if v4 { Tunnel::IpInIp } else { Tunnel::FourInSix }, Layer::Ip, rest)),
        41 => Some(Step::Through(if v4 { Tunnel::SixInFour } else { Tunnel::SixInSix }, Layer::Ip, rest)),
        47 => Some(Step::Through(Tunnel::Gre, Layer::Gre, rest)),
        97 => Some(Step::Through(Tunnel::EtherIp, Layer::Ethernet, rest.skip(2)?)),
        137 => Some(Step::Through(Tunnel::Mpls, Layer::Mpls, rest)),
        143 => Some(Step::Through(Tunnel::Srv6, Layer::Ethernet, rest)),
        17 => udp::tunnel(rest),
        _ => None,
    }
}

// === impl Rest

impl<'a> Rest<'a> {
    /// What follows the next `count` bytes; `None` where fewer were captured.
    #[inline(always)]
    pub fn skip(self, count: usize) -> Option<Self> {
        Some(Self { bytes: self.bytes.get(count..)?, whole: self.whole.saturating_sub(count) })
    }

    /// `N` bytes at `at`.
    #[inline(always)]
    pub fn at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    /// The byte at `at`.
    #[inline(always)]
    pub fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// A number of 16 bits in network order at `at`.
    #[inline(always)]
    pub fn number(&self, at: usize) -> Option<u16> {
        self.at(at).map(u16::from_be_bytes)
    }
}

// === impl Tunnel

impl Tunnel {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::IpInIp,
        Self::SixInFour,
        Self::FourInSix,
        Self::SixInSix,
        Self::Gre,
        Self::Erspan,
        Self::EtherIp,
        Self::Srv6,
        Self::Mpls,
        Self::Teredo,
        Self::Vxlan,
        Self::Geneve,
        Self::Gtp,
        Self::L2tp,
        Self::Lisp,
        Self::Capwap,
        Self::Tzsp,
    ];

    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpInIp => "ipip",
            Self::SixInFour => "6in4",
            Self::FourInSix => "4in6",
            Self::SixInSix => "6in6",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::EtherIp => "etherip",
            Self::Srv6 => "srv6",
            Self::Mpls => "mpls",
            Self::Teredo => "teredo",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gtp => "gtp",
            Self::L2tp => "l2tp",
            Self::Lisp => "lisp",
            Self::Capwap => "capwap",
            Self::Tzsp => "tzsp",
        }
    }
}
