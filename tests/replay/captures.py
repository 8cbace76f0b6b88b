"""Captures, one for each way in which a connection's packets are carried: made by scapy where it knows the headers, from the
standard's words where it doesn't. Each holds the same: a connection by IPv4 and one by IPv6, from SYN to both FINs, and one
attempt that is refused.

Nothing of flowtel is used here: tshark and flowtel read the same file, and this says only what to expect of the two."""
import logging
import struct

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import (  # noqa: E402
    GRE, IP, LLC, PPP, SNAP, TCP, UDP, CookedLinux, Dot11, Dot11QoS, Dot1AD, Dot1Q, Dot3, Ether, IPv6, L2TP, PPPoE, RadioTap,
    Raw, raw,
)
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III  # noqa: E402
from scapy.contrib.geneve import GENEVE  # noqa: E402
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer  # noqa: E402
from scapy.contrib.mpls import MPLS  # noqa: E402
from scapy.contrib.nsh import NSH  # noqa: E402
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop  # noqa: E402
from scapy.layers.ipsec import AH  # noqa: E402
from scapy.layers.vxlan import VXLAN  # noqa: E402

MACS = dict(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def story():
    """The packets of two connections and an attempt, as scapy's IP packets."""
    for v6 in (False, True):
        a, b = ("2001:db8::a", "2001:db8::b") if v6 else ("10.9.0.1", "10.9.0.2")

        def say(forth, ports, flags, seq, ack, payload=b"", a=a, b=b, v6=v6):
            network = IPv6 if v6 else IP
            ends = dict(src=a, dst=b) if forth else dict(src=b, dst=a)
            sport, dport = ports if forth else ports[::-1]
            packet = network(**ends) / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)
            return packet / Raw(payload) if payload else packet

        ports = (40001, 8080)
        yield say(True, ports, "S", 1000, 0)
        yield say(False, ports, "SA", 5000, 1001)
        yield say(True, ports, "A", 1001, 5001)
        yield say(True, ports, "PA", 1001, 5001, b"a question")
        yield say(False, ports, "PA", 5001, 1011, b"an answer, which is longer")
        yield say(True, ports, "FA", 1011, 5027)
        yield say(False, ports, "FA", 5027, 1012)
        yield say(True, ports, "A", 1012, 5028)
        yield say(True, (40002, 81), "S", 7000, 0)
        yield say(False, (40002, 81), "RA", 0, 7001)


def kind(packet):
    return 0x0800 if packet.version == 4 else 0x86DD


def ether(packet, type_=None):
    return Ether(**MACS, type=type_ or kind(packet)) / packet


def typed(number, head):
    """In Ethernet behind this EtherType and these bytes."""
    return lambda p: raw(Ether(**MACS, type=number)) + head(p) + raw(p)


def snap(packet):
    return raw(LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=kind(packet))) + raw(packet)


def ppp(packet):
    return struct.pack(">H", 0x21 if packet.version == 4 else 0x57) + raw(packet)


def outer(rest, proto=None):
    """In another host's IPv4 packet."""
    ip = IP(src="192.0.2.1", dst="192.0.2.2", **({} if proto is None else {"proto": proto}))
    return ether(ip / rest)


def outer6(rest, number):
    return ether(IPv6(src="2001:db8:f::1", dst="2001:db8:f::2", nh=number) / rest)


def udp(port, rest):
    return outer(UDP(sport=54321, dport=port) / rest)


def gre(packet, **fields):
    return outer(GRE(proto=kind(packet), **fields) / packet)


def wifi(packet, qos=False, four=False):
    flags = "to-DS+from-DS" if four else "to-DS"
    frame = Dot11(type=2, subtype=8 if qos else 0, FCfield=flags, addr1="02:00:00:00:00:09", addr2=MACS["src"],
                  addr3=MACS["dst"], **({"addr4": "02:00:00:00:00:07"} if four else {}))
    return raw(frame / Dot11QoS() if qos else frame) + snap(packet)


def nflog(packet):
    def field(number, value):
        return struct.pack("<HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack(">BBH", 2 if packet.version == 4 else 10, 0, 0) + field(1, bytes(4)) + field(9, raw(packet))


def mac_in_mac(packet):
    head = Ether(**MACS, type=0x88A8)
    return raw(head) + struct.pack(">HHI", 7, 0x88E7, 0x00ABCDEF) + raw(ether(packet))


def teredo(packet, head=b""):
    # Whatever is to be carried is IPv6: an IPv4 packet goes by 4in6 within it.
    inner = packet if packet.version == 6 else IPv6(src="2001:0::1", dst="2001:0::2", nh=4) / packet
    return udp(3544, Raw(head + raw(inner)))


def pseudowire(packet, control):
    # tshark tells a frame from a control word by vendors' numbers that it knows.
    frame = Ether(src="00:00:0c:00:00:01", dst="00:00:0c:00:00:02", type=kind(packet)) / packet
    return raw(ether(MPLS(label=17, s=1) / Raw(control + raw(frame)), 0x8847))


def labels(packet):
    return ether(MPLS(label=17, s=0) / MPLS(label=18, s=1) / Raw(raw(packet)), 0x8847)


AUTH = bytes([0, 1, 0, 0]) + bytes(9)
ORIGIN = bytes([0, 0, 1, 2, 3, 4, 5, 6])
ETHERNET, RAW, PPP_LINE, CISCO, WIFI, SLL, RADIO, FRELAY, NFLOG, SLL2, NULL, LOOP = (
    1, 101, 9, 104, 105, 113, 127, 107, 239, 276, 0, 108)

# Name, link type, the bytes of a packet, and flowtel.tunnel.type by IP version (None: none).
LINKS = [
    ("ethernet", ETHERNET, lambda p: raw(ether(p))),
    ("vlan", ETHERNET, lambda p: raw(Ether(**MACS) / Dot1Q(vlan=5, type=kind(p)) / p)),
    ("qinq", ETHERNET, lambda p: raw(Ether(**MACS) / Dot1AD(vlan=5) / Dot1Q(vlan=6, type=kind(p)) / p)),
    ("vlan-12-tags", ETHERNET, lambda p: raw(Ether(**MACS, type=0x8100)) + bytes([0, 5, 0x81, 0]) * 11
        + struct.pack(">HH", 5, kind(p)) + raw(p)),
    ("pbb", ETHERNET, mac_in_mac),
    ("mpls", ETHERNET, lambda p: raw(labels(p))),
    ("mpls-ethernet", ETHERNET, lambda p: pseudowire(p, b"")),
    ("mpls-ethernet-control-word", ETHERNET, lambda p: pseudowire(p, bytes(4))),
    ("pppoe", ETHERNET, lambda p: raw(Ether(**MACS, type=0x8864) / PPPoE(sessionid=7) / Raw(ppp(p)))),
    ("llc-snap", ETHERNET, lambda p: raw(Dot3(**MACS) / Raw(snap(p)))),
    ("nsh", ETHERNET, lambda p: raw(Ether(**MACS, type=0x894F) / NSH(nextproto=3, mdtype=2, length=2) / ether(p))),
    ("ppp", PPP_LINE, lambda p: b"\xff\x03" + ppp(p)),
    ("cisco-hdlc", CISCO, lambda p: struct.pack(">HH", 0x0F00, kind(p)) + raw(p)),
    ("frame-relay", FRELAY, lambda p: bytes([0x18, 0x41, 3, 0xCC if p.version == 4 else 0x8E]) + raw(p)),
    ("802.11", WIFI, wifi),
    ("802.11-qos", WIFI, lambda p: wifi(p, qos=True)),
    ("802.11-4-address", WIFI, lambda p: wifi(p, four=True)),
    ("radiotap", RADIO, lambda p: raw(RadioTap()) + wifi(p, qos=True)),
    ("prism", 119, lambda p: struct.pack("<II", 0x44, 144) + bytes(136) + wifi(p)),
    ("avs", 163, lambda p: struct.pack(">II", 0x80211001, 64) + bytes(56) + wifi(p)),
    ("nflog", NFLOG, nflog),
    ("sll", SLL, lambda p: raw(CookedLinux(proto=kind(p))) + raw(p)),
    ("sll2", SLL2, lambda p: struct.pack(">HHIHBB8s", kind(p), 0, 2, 1, 0, 6, bytes(8)) + raw(p)),
    ("loopback", NULL, lambda p: struct.pack("<I", 2 if p.version == 4 else 30) + raw(p)),
    ("openbsd-loopback", LOOP, lambda p: struct.pack(">I", 2 if p.version == 4 else 24) + raw(p)),
    ("raw", RAW, raw),
    ("hop-by-hop", RAW, lambda p: raw(p) if p.version == 4 else raw(
        IPv6(src=p.src, dst=p.dst) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / p.payload)),
]
TUNNELS = [
    ("ip-in-ip", lambda p: outer(p, 4 if p.version == 4 else 41), ("ipip", "6in4")),
    ("in-ipv6", lambda p: outer6(p, 4 if p.version == 4 else 41), ("4in6", "6in6")),
    ("gre", gre, "gre"),
    ("gre-checksum", lambda p: gre(p, chksum_present=1), "gre"),
    ("gre-key-sequence", lambda p: gre(p, key_present=1, key=7, seqnum_present=1, seqence_number=9), "gre"),
    ("gre-ethernet", lambda p: outer(GRE(proto=0x6558) / ether(p)), "gre"),
    ("gre-ppp", lambda p: outer(Raw(struct.pack(">HHHHI", 0x3001, 0x880B, len(raw(p)) + 4, 7, 1) + b"\xff\x03" + ppp(p)), 47), "gre"),
    ("erspan-1", lambda p: outer(GRE(proto=0x88BE) / ether(p)), "erspan"),
    ("erspan-2", lambda p: outer(GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II(ver=1) / ether(p)), "erspan"),
    ("erspan-3", lambda p: outer(GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III(ver=2) / ether(p)), "erspan"),
    ("etherip", lambda p: outer(Raw(b"\x30\0" + raw(ether(p))), 97), "etherip"),
    ("mpls-in-ip", lambda p: outer(MPLS(label=17, s=1) / Raw(raw(p)), 137), "mpls"),
    ("mpls-in-udp", lambda p: udp(6635, MPLS(label=17, s=1) / Raw(raw(p))), "mpls"),
    ("teredo", teredo, ("4in6", "teredo")),
    ("teredo-authentication-origin", lambda p: teredo(p, AUTH + ORIGIN), ("4in6", "teredo")),
    ("vxlan", lambda p: udp(4789, VXLAN(vni=7) / ether(p)), "vxlan"),
    ("vxlan-gpe", lambda p: udp(4790, Raw(bytes([12, 0, 0, 3, 0, 0, 7, 0]) + raw(ether(p)))), "vxlan"),
    ("geneve", lambda p: udp(6081, GENEVE(proto=0x6558, vni=7) / ether(p)), "geneve"),
    ("geneve-options", lambda p: udp(6081, Raw(bytes([2, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 1, 0, 0, 0, 0])
        + raw(ether(p)))), "geneve"),
    ("geneve-ip", lambda p: udp(6081, Raw(struct.pack(">HHI", 0, kind(p), 0x700) + raw(p))), "geneve"),
    ("gtp-u", lambda p: udp(2152, GTP_U_Header(teid=7) / p), "gtp"),
    ("gtp-u-sequence", lambda p: udp(2152, GTP_U_Header(teid=7, S=1, seq=9) / p), "gtp"),
    ("gtp-u-extension", lambda p: udp(2152, GTP_U_Header(teid=7, E=1, next_ex=0x85)
        / GTPPDUSessionContainer(type=0, QFI=5) / p), "gtp"),
    ("l2tp", lambda p: udp(1701, L2TP(hdr=["length"], version=2, tunnel_id=1, session_id=2) / Raw(b"\xff\x03" + ppp(p))), "l2tp"),
    ("authentication", lambda p: outer(AH(nh=4 if p.version == 4 else 41, payloadlen=4, icv=bytes(12)) / p, 51), ("ipip", "6in4")),
    ("vxlan-in-gre-in-vlan", lambda p: Ether(**MACS) / Dot1Q(vlan=5) / IP(src="192.0.2.1", dst="192.0.2.2")
        / GRE(proto=0x0800) / IP(src="192.0.2.3", dst="192.0.2.4") / UDP(sport=5, dport=4789) / VXLAN(vni=7) / ether(p), "vxlan"),
    ("ipip-in-gtp-in-mpls", lambda p: ether(MPLS(label=17, s=1) / Raw(raw(
        IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=7)
        / IP(src="192.0.2.3", dst="192.0.2.4", proto=4 if p.version == 4 else 41) / p)), 0x8847), ("ipip", "6in4")),
]


def pcap(link, frames):
    yield struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for i, frame in enumerate(frames):
        yield struct.pack("<IIII", 1_700_000_000, i * 1000, len(frame), len(frame)) + frame


def block(order, number, body):
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", number) + length + body + length


def pcapng(link, frames, which, order="<"):
    """pcapng with packets in `which` kind of blocks: simple (3), obsolete (2) or enhanced (6)."""
    yield block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    yield block(order, 1, struct.pack(order + "HHI", link, 0, 0))
    for i, frame in enumerate(frames):
        units = 1_700_000_000_000_000 + i * 1000
        time = struct.pack(order + "IIII", units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
        head = {
            2: struct.pack(order + "HH", 0, 0) + time,
            3: struct.pack(order + "I", len(frame)),
            6: struct.pack(order + "I", 0) + time,
        }[which]
        yield block(order, which, head + frame)


def cases():
    """Name, bytes of a capture, the tunnel's name for IPv4 and IPv6 connections."""
    packets = list(story())
    for name, link, wrap in LINKS:
        yield name, b"".join(pcap(link, [bytes(wrap(p)) for p in packets])), (None, None)
    for name, wrap, tunnel in TUNNELS:
        both = tunnel if isinstance(tunnel, tuple) else (tunnel, tunnel)
        yield name, b"".join(pcap(ETHERNET, [raw(wrap(p)) for p in packets])), both
    frames = [raw(ether(p)) for p in packets]
    for name, which in (("simple-blocks", 3), ("obsolete-blocks", 2), ("enhanced-blocks", 6)):
        for order, end in (("<", "little"), (">", "big")):
            yield f"{name}-{end}", b"".join(pcapng(ETHERNET, frames, which, order)), (None, None)
    # The server speaks before the client's ACK is captured.
    early = [raw(ether(p)) for p in hasty_server()]
    yield "server-speaks-first", b"".join(pcap(ETHERNET, frames + early)), (None, None)


def hasty_server():
    a, b = dict(src="10.9.0.3", dst="10.9.0.4"), dict(src="10.9.0.4", dst="10.9.0.3")
    there, back = dict(sport=40003, dport=25), dict(sport=25, dport=40003)
    yield IP(**a) / TCP(**there, flags="S", seq=10)
    yield IP(**b) / TCP(**back, flags="SA", seq=90, ack=11)
    yield IP(**b) / TCP(**back, flags="PA", seq=91, ack=11) / Raw(b"220 hello")
    yield IP(**a) / TCP(**there, flags="A", seq=11, ack=100)
    yield IP(**a) / TCP(**there, flags="FA", seq=11, ack=100)
    yield IP(**b) / TCP(**back, flags="FA", seq=100, ack=12)
    yield IP(**a) / TCP(**there, flags="A", seq=12, ack=101)
