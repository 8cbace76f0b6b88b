//! Events and begins as the kernel and the flow stage make them, numbered so that each is another connection.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use flowtel::{
    capture::{
        KernelEvent, KernelTime, NetnsId, WallTime,
        event::{self, Call, Caller, Close, Counters, Established, Event, mapped, state},
    },
    flow::{BootId, CommunityId, Direction, Flow, FlowEvent, FlowId, Owner, Role, Source, Stamp, What},
};

pub const BOOT: BootId = BootId::new([7; 16]);
const SERVER_PORT: u16 = 443;

fn at(time: u64, event: Event) -> KernelEvent {
    let wall = WallTime(1_790_000_000_000_000_000 + time);
    KernelEvent { time: KernelTime(time), wall, read: wall, event }
}

fn comm() -> [u8; 16] {
    *b"load-generator\0\0"
}

fn client(n: u64) -> (u32, u16) {
    let [.., a, b] = (n / 50_000).to_be_bytes();
    (u32::from_ne_bytes([10, 0, a, b]), (n % 50_000) as u16 + 1025)
}

/// What the kernel reports of connection number `n`, which was asked for at `time`.
pub fn events(n: u64, time: u64) -> [KernelEvent; 2] {
    let ((address, port), server) = (client(n), u32::from_ne_bytes([10, 1, 0, 1]));
    let caller =
        Caller { kind: event::CONNECT, tgid: 4242, time, cookie: n, cgroup: 1, tid: 4242, uid: 1000, comm: comm() };
    let connect = Call { caller, netns: 1, address: mapped(server), port: SERVER_PORT, refusal: 0, reserved_2: 0 };
    let established = Established {
        kind: event::ESTABLISHED,
        how: event::ACTIVE,
        time: time + 61_000,
        cookie: n,
        local: mapped(address),
        remote: mapped(server),
        local_port: port,
        remote_port: SERVER_PORT,
        srtt_us: 60,
        retransmits: 0,
        segments_in: 2,
        data_segments_in: 0,
        netns: 1,
        listener: 0,
        interface: 0,
        reserved_2: 0,
    };
    [at(time, Event::Connect(connect)), at(established.time, Event::Established(established))]
}

/// And when its socket is closed.
pub fn close(n: u64, time: u64) -> KernelEvent {
    let ((address, port), server) = (client(n), u32::from_ne_bytes([10, 1, 0, 1]));
    let counters = Counters {
        bytes_acked: 1000,
        bytes_received: 2000,
        segments_in: 5,
        segments_out: 6,
        retransmits: 0,
        srtt_us: 61,
    };
    let close = Close {
        kind: event::CLOSE,
        old_state: state::LAST_ACK,
        time,
        cookie: n,
        local: mapped(address),
        remote: mapped(server),
        local_port: port,
        remote_port: SERVER_PORT,
        fin_in: 0,
        marks: event::ALL_ACKNOWLEDGED | event::ALL_WRITTEN,
        timer: event::TIMER_UNKNOWN,
        error: event::ERROR_UNKNOWN,
        counters,
        interface: 0,
        netns_inode: 0,
    };
    at(time, Event::Close(close))
}

/// The begin of connection number `n`.
pub fn begin(n: u64, ipv6: bool) -> FlowEvent {
    let (address, port) = client(n);
    let v4 = Ipv4Addr::from(address.to_ne_bytes());
    let (source, destination): (IpAddr, IpAddr) = if ipv6 {
        let base = Ipv6Addr::new(0x2001, 0xdb8, 0x1f, 0x2a03, 0x8c5a, 0x11ff, 0, 0).to_bits();
        (Ipv6Addr::from_bits(base | u128::from(v4.to_bits())).into(), Ipv6Addr::from_bits(base | 1 << 24).into())
    } else {
        (v4.into(), Ipv4Addr::new(10, 1, 0, 1).into())
    };
    let (source, destination) = (SocketAddr::new(source, port), SocketAddr::new(destination, SERVER_PORT));
    let wall = WallTime(1_790_000_000_000_000_000 + n * 1000);
    FlowEvent {
        at: Stamp { time: KernelTime(n * 1000), wall, observed: wall },
        flow: Flow {
            tunnel: None,
            id: Some(FlowId::new(&BOOT, n, source, destination)),
            community_id: Some(CommunityId::tcp(source, destination)),
            source,
            destination,
            direction: Some(Direction::Outgoing),
            local: false,
            netns: NetnsId::new(1),
            interface: 0,
            owner: Some(Owner {
                pid: 4242,
                uid: 1000,
                comm: comm(),
                cgroup: 1,
                since: KernelTime(n * 1000),
                role: Role::Connector,
                source: Source::Connect,
                begin: None,
            }),
        },
        what: What::Begin { handshake: Some(Duration::from_micros(61)) },
    }
}
