//! The kernel's list of TCP sockets of one network namespace (sock_diag(7)): requests go in, [`Socket`]s come out. It needs no
//! rights, and answers for the namespace in which the socket was opened, whichever thread asks.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use flowtel_common::event::{Counters, state};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{
        ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
        nlas::{Nla, TcpInfo},
    },
};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt},
};

/// INET_DIAG_CGROUP_ID (include/uapi/linux/inet_diag.h): since Linux 5.9.
const CGROUP_ID: u16 = 21;
/// SO_NETNS_COOKIE (include/uapi/asm-generic/socket.h): since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// How long the kernel may take for an answer: it answers within the call.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel fills at most 32 KiB at a time.
pub const BUFFER: usize = 64 << 10;
/// More than the answer about one socket.
const ANSWER: usize = 4 << 10;
/// The most datagrams of a list that was given up which are read and thrown away.
const MOST_LEFT: usize = 1 << 16;
/// Bytes of a message's head, and of `inet_diag_msg` (include/uapi/linux/inet_diag.h); where in the last the
/// cookie stands.
const HEAD: usize = 16;
const SOCKET: usize = 72;
const COOKIE: usize = 4 + 40;
/// The timer of what waits in a closed socket's place (inet_twsk_diag_fill, net/ipv4/inet_diag.c).
const TIMER_OF_REST: u8 = 3;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The list changed in a way that may have left sockets out.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A way to ask for the sockets of one network namespace.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

/// A TCP socket, as the list shows it.
#[derive(Debug, Clone)]
pub struct Socket {
    /// SO_COOKIE.
    pub cookie: u64,
    /// Its [`state`].
    pub state: u32,
    /// The socket itself is over: what is listed waits in its place for the peer's FIN, or for stragglers, and shows that as
    /// a state of its own (tw_substate, inet_twsk_diag_fill in net/ipv4/inet_diag.c).
    pub over: bool,
    /// Its own address, as the application sees it; IPv4 where it is a mapped one.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Inode of its file; 0 where no process holds one.
    pub inode: u32,
    /// The cgroup that it was made in; 0 where it is not told.
    pub cgroup: u64,
    /// What it has counted so far.
    pub counters: Counters,
    /// Whether it asked for the connection, where its counters prove it: see [`initiated`].
    pub active: Option<bool>,
    /// How to ask for it again.
    pub key: Key,
}

/// What names one socket to the kernel.
#[derive(Debug, Clone)]
pub struct Key {
    family: u8,
    id: SocketId,
}

// === impl Key

impl Key {
    /// The interface that the socket is bound to; 0: none.
    pub fn interface(&self) -> u32 {
        self.id.interface_id
    }
}

// === impl Diag

impl Diag {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel has no sock_diag, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The namespace's cookie, as bpf_get_netns_cookie gives it; 0 where the kernel does not tell.
    pub fn namespace(&self) -> u64 {
        let mut cookie = 0u64;
        let mut len = size_of_val(&cookie) as libc::socklen_t;
        // SAFETY: pointer and length are those of `cookie`, which any bytes are a value of.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        if result == 0 { cookie } else { 0 }
    }

    /// Gives every TCP socket in one of `states` to `each`, IPv4 and IPv6. One that changes its place in the kernel's tables
    /// meanwhile may be missed, or come twice.
    ///
    /// # Errors
    /// The kernel refuses the request, or does not answer.
    pub fn list(&mut self, states: StateFlags, mut each: impl FnMut(Socket)) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        self.throw_away(&mut buffer);
        for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            self.ask((family, id), states.clone(), ExtensionFlags::INFO, NLM_F_DUMP)?;
            loop {
                match self.answer(&mut buffer, &mut each) {
                    Ok(true) => {}
                    Ok(false) => break,
                    // No list of this protocol (inet_diag_lock_handler, net/ipv4/inet_diag.c).
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                        return Err(io::Error::new(e.kind(), "the kernel's module tcp_diag is not there"));
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// The socket that `key` names, as it is now; `None` where it is over, whatever waits in its place.
    ///
    /// # Errors
    /// As for [`Self::list`].
    pub fn look(&mut self, key: &Key) -> io::Result<Option<Socket>> {
        self.ask((key.family, key.id.clone()), StateFlags::all(), ExtensionFlags::INFO, 0)?;
        let mut found = None;
        match self.answer(&mut [0; ANSWER], &mut |socket| found = Some(socket)) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(None),
            Err(e) => Err(e),
            Ok(_) => Ok(found.filter(|s| !s.over && s.state != state::CLOSE)),
        }
    }

    fn ask(
        &mut self,
        (family, id): (u8, SocketId),
        states: StateFlags,
        details: ExtensionFlags,
        flags: u16,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: details, states, socket_id: id };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Whether the socket between these addresses is there, and not over. It is looked for by its addresses: one that is bound to
    /// a device is not found.
    ///
    /// # Errors
    /// As for [`Self::list`].
    pub fn is_there(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        cookie: u64,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        let key = Key::new(local, remote, cookie);
        self.ask((key.family, key.id), StateFlags::all(), ExtensionFlags::empty(), 0)?;
        let mut there = false;
        match self.brief(buffer, &mut |_| there = true) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(false),
            Err(e) => Err(e),
            Ok(_) => Ok(there),
        }
    }

    /// Asks for the list of one family's sockets, to be read by [`Self::next`]. No other question may come in between. What is
    /// left of a list that was given up is thrown away first.
    ///
    /// # Errors
    /// As for [`Self::list`].
    pub fn begin(&mut self, six: bool, states: StateFlags, buffer: &mut [u8]) -> io::Result<()> {
        self.throw_away(buffer);
        let of = if six { (AF_INET6, SocketId::new_v6()) } else { (AF_INET, SocketId::new_v4()) };
        self.ask(of, states, ExtensionFlags::empty(), NLM_F_DUMP)
    }

    /// Reads one datagram of a list, some hundred sockets: gives the cookie of each. Returns whether more follow.
    ///
    /// # Errors
    /// As for [`Self::list`]; and the list may not be whole.
    pub fn next(&mut self, buffer: &mut [u8], each: &mut dyn FnMut(u64)) -> io::Result<bool> {
        self.brief(buffer, each)
    }

    /// Reads what is left of a list that was given up: the kernel refuses another one before its end (EBUSY).
    fn throw_away(&self, buffer: &mut [u8]) {
        for _ in 0..MOST_LEFT {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, length)) if length > buffer.len() => return Err(io::ErrorKind::InvalidData.into()),
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads one datagram for the cookies of sockets that are not over. Returns whether more follow.
    fn brief(&self, buffer: &mut [u8], each: &mut dyn FnMut(u64)) -> io::Result<bool> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let length = self.receive(buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut more = true;
        let mut answers = false;
        while rest.len() >= HEAD {
            let word = |at: usize| rest.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            let half = |at: usize| rest.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes);
            let (length, kind, flags, sequence) = (word(0) as usize, half(4), half(6), word(8));
            let message = rest.get(HEAD..length).ok_or_else(broken)?;
            if sequence == self.sequence {
                answers = true;
                match kind {
                    _ if flags & NLM_F_DUMP_INTR != 0 => return Err(io::ErrorKind::Interrupted.into()),
                    NLMSG_DONE => return Ok(false),
                    NLMSG_ERROR => match word(HEAD).cast_signed() {
                        0 => return Ok(false),
                        code => return Err(io::Error::from_raw_os_error(code.saturating_abs())),
                    },
                    SOCK_DIAG_BY_FAMILY if message.len() >= SOCKET => {
                        more = flags & netlink_packet_core::NLM_F_MULTIPART != 0;
                        let [low, high] = [COOKIE, COOKIE + 4].map(|at| u64::from(word(HEAD + at)));
                        let [_, state, timer, ..] = *message else { return Err(broken()) };
                        if timer != TIMER_OF_REST && u32::from(state) != state::CLOSE {
                            each(high << 32 | low);
                        }
                    }
                    _ => return Err(broken()),
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        // Else it belongs to a question that was given up: the answer to this one follows.
        if answers { Ok(more) } else { self.brief(buffer, each) }
    }

    /// Reads one datagram. Returns whether more follow.
    fn answer(&self, buffer: &mut [u8], each: &mut dyn FnMut(Socket)) -> io::Result<bool> {
        let length = self.receive(buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut more = true;
        let mut answers = false;
        while rest.len() >= 16 {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            let step = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(step..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            answers = true;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(false),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(false),
                    Some(code) => return Err(io::Error::from_raw_os_error(code.get().saturating_abs())),
                },
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    more = message.header.flags & netlink_packet_core::NLM_F_MULTIPART != 0;
                    each(Socket::from(&response));
                }
                _ => {}
            }
        }
        // Else it belongs to a question that was given up: the answer to this one follows.
        if answers { Ok(more) } else { self.answer(buffer, each) }
    }
}

// === impl Key

impl Key {
    /// That of a socket between these addresses, as its own side sees it. (IPv4 is found among the sockets of IPv6, too.)
    fn new(local: SocketAddr, remote: SocketAddr, cookie: u64) -> Self {
        let mut id = if local.is_ipv4() { SocketId::new_v4() } else { SocketId::new_v6() };
        (id.source_address, id.source_port) = (local.ip(), local.port());
        (id.destination_address, id.destination_port) = (remote.ip(), remote.port());
        // Two words, the lower one first: as in `Socket::from`.
        let [low, high] = [cookie as u32, (cookie >> 32) as u32].map(u32::to_ne_bytes);
        id.cookie.iter_mut().zip(low.into_iter().chain(high)).for_each(|(to, byte)| *to = byte);
        Self { family: if local.is_ipv4() { AF_INET } else { AF_INET6 }, id }
    }
}

#[cfg(test)]
impl Key {
    /// Of no socket.
    pub fn sample() -> Self {
        Self { family: AF_INET, id: SocketId::new_v4() }
    }
}

// === impl Socket

impl Socket {
    fn from(response: &InetResponse) -> Self {
        let header = &response.header;
        let id = &header.socket_id;
        let mut counters = Counters::default();
        // Of what waits in a socket's place there is no tcp_info, though it was asked for.
        let (mut active, mut cgroup, mut over) = (None, 0, true);
        for nla in &response.nlas {
            match nla {
                Nla::TcpInfo(info) => {
                    over = false;
                    counters = Counters {
                        bytes_acked: info.bytes_acked,
                        bytes_received: info.bytes_received,
                        segments_in: info.segs_in,
                        segments_out: info.segs_out,
                        retransmits: info.total_retrans,
                        srtt_us: info.rtt,
                    };
                    active = initiated(header.state.into(), info);
                }
                Nla::Other(nla) if netlink_packet_core::Nla::kind(nla) == CGROUP_ID => {
                    let mut bytes = [0; 8];
                    if netlink_packet_core::Nla::value_len(nla) == bytes.len() {
                        netlink_packet_core::Nla::emit_value(nla, &mut bytes);
                        cgroup = u64::from_ne_bytes(bytes);
                    }
                }
                _ => {}
            }
        }
        // Two words, the lower one first, each in the machine's order (sock_diag_save_cookie, net/core/sock_diag.c).
        let [a, b, c, d, e, f, g, h] = id.cookie;
        let [low, high] = [[a, b, c, d], [e, f, g, h]].map(|word| u64::from(u32::from_ne_bytes(word)));
        let plain = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
        Self {
            cookie: high << 32 | low,
            state: header.state.into(),
            over,
            local: plain(id.source_address, id.source_port),
            remote: plain(id.destination_address, id.destination_port),
            inode: header.inode,
            cgroup,
            counters,
            active,
            key: Key { family: header.family, id: id.clone() },
        }
    }
}

/// Whether a socket asked for its connection. Its own SYN is among the bytes that were acknowledged where it did, and only
/// there; among the bytes that it sent it never is (tcp_snd_una_update and __tcp_transmit_skb, net/ipv4). So with nothing
/// on its way the difference tells: 1 or 0. `None` while something is, and where the difference is another: a connection
/// that was made by TCP_REPAIR, or with data in its SYN.
fn initiated(state: u32, info: &TcpInfo) -> Option<bool> {
    let own_fin = match state {
        state::ESTABLISHED | state::CLOSE_WAIT => 0,
        state::FIN_WAIT2 => 1,
        _ => return None,
    };
    if info.unacked != 0 {
        return None;
    }
    let payload = info.bytes_sent.checked_sub(info.bytes_retrans)?;
    match info.bytes_acked.checked_sub(payload)?.checked_sub(own_fin)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    };

    use super::*;

    /// Both ends of a connection over loopback.
    fn pair(address: IpAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        (client, listener.accept().expect("the other end").0)
    }

    fn find(diag: &mut Diag, stream: &TcpStream) -> Option<Socket> {
        let local = stream.local_addr().expect("an address");
        let mut found = None;
        let states = StateFlags::all() - StateFlags::LISTEN;
        diag.list(states, |socket| {
            if socket.local == local {
                found = Some(socket);
            }
        })
        .expect("a list");
        found
    }

    /// How many of these the list has, read piece by piece.
    fn listed(diag: &mut Diag, six: bool, cookies: &[u64]) -> usize {
        let (mut buffer, mut found) = (vec![0; BUFFER], 0);
        let states = StateFlags::all() - StateFlags::LISTEN;
        // One that is given up does no harm to the next.
        diag.begin(six, states.clone(), &mut buffer).expect("asked");
        diag.begin(six, states, &mut buffer).expect("asked again");
        while diag.next(&mut buffer, &mut |cookie| found += usize::from(cookies.contains(&cookie))).expect("a part") {}
        found
    }

    #[test]
    fn both_ends_are_listed_and_their_counters_prove_who_asked() {
        let mut diag = match Diag::open().and_then(|mut diag| diag.list(StateFlags::LISTEN, |_| {}).map(|()| diag)) {
            Ok(diag) => diag,
            Err(e) => return eprintln!("not tested: {e}"),
        };
        let mut buffer = vec![0; BUFFER];
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let (mut client, mut server) = pair(address);
            client.write_all(&[1; 100]).expect("sent");
            server.read_exact(&mut [0; 100]).expect("received");
            let (one, other) = (find(&mut diag, &client).expect("one"), find(&mut diag, &server).expect("other"));
            assert_eq!((one.state, one.remote), (state::ESTABLISHED, other.local));
            assert_ne!(one.cookie, other.cookie);
            assert_eq!(other.active, Some(false));
            assert_eq!(other.counters.bytes_received, 100);
            // Until the acknowledgement is there nobody can tell.
            let sure = |diag: &mut Diag, stream: &TcpStream| {
                (0..200).find_map(|_| {
                    std::thread::yield_now();
                    find(diag, stream).and_then(|socket| socket.active)
                })
            };
            assert_eq!(sure(&mut diag, &client), Some(true));
            client.shutdown(Shutdown::Write).expect("half closed");
            assert_eq!(server.read(&mut [0]).expect("an end"), 0);
            assert_eq!(sure(&mut diag, &client), Some(true));
            assert_eq!(diag.look(&other.key).expect("a look").map(|s| s.state), Some(state::CLOSE_WAIT));
            for half in [&one, &other] {
                assert!(diag.is_there(half.local, half.remote, half.cookie, &mut buffer).expect("a look"));
                let other = half.cookie ^ 1 << 40;
                assert!(!diag.is_there(half.local, half.remote, other, &mut buffer).expect("a look"));
            }
            assert_eq!(listed(&mut diag, address.is_ipv6(), &[one.cookie, other.cookie]), 2);
            // Nor does one that is given up to a look.
            diag.begin(false, StateFlags::all(), &mut buffer).expect("asked");
            assert!(diag.is_there(one.local, one.remote, one.cookie, &mut buffer).expect("a look"));
            // What waits for the peer's FIN in a closed socket's place is listed as if it were the socket.
            assert_eq!(find(&mut diag, &client).map(|half| half.over), Some(false));
            let place = client.local_addr().expect("an address");
            drop(client);
            assert!(diag.look(&one.key).expect("a look").is_none());
            let mut waits = None;
            diag.list(StateFlags::FIN_WAIT2, |socket| waits = waits.or((socket.local == place).then_some(socket.over)))
                .expect("a list");
            assert_eq!(waits, Some(true));
            assert!(!diag.is_there(one.local, one.remote, one.cookie, &mut buffer).expect("a look"));
            assert_eq!(listed(&mut diag, address.is_ipv6(), &[one.cookie, other.cookie]), 1);
            drop(server);
            // An instant for the last acknowledgement.
            let gone = (0..1000).any(|_| {
                std::thread::yield_now();
                matches!((diag.look(&one.key), diag.look(&other.key)), (Ok(None), Ok(None)))
            });
            assert!(gone, "a socket that was closed is still there");
        }
    }
}
