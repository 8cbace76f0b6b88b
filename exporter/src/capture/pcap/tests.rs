//! Captures made by hand: what is read of them, and how they break.

use std::{io::Read, net::SocketAddr};

use flate2::{Compression, write::GzEncoder};
use flowtel_common::packet::Flags;
use proptest::prelude::*;

use super::{sample::*, *};

const ACK: u8 = Flags::ACK;
const TIME: u64 = 1_795_341_600_123_456_000;

fn a() -> SocketAddr {
    "10.0.0.1:40000".parse().expect("an endpoint")
}

fn b() -> SocketAddr {
    "10.0.0.2:80".parse().expect("an endpoint")
}

fn a6() -> SocketAddr {
    "[2001:db8::1]:40000".parse().expect("an endpoint")
}

fn b6() -> SocketAddr {
    "[2001:db8::2]:80".parse().expect("an endpoint")
}

/// All segments of a capture, or how it broke.
fn segments(file: impl Read + Send + 'static) -> (Vec<Segment>, Option<Error>) {
    let mut segments = Vec::new();
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(e) => return (segments, Some(e)),
    };
    loop {
        let more = reader.next(|packet| match decode(packet, Decapsulate::Inner) {
            Content::Segment(segment) => segments.push(segment),
            other => panic!("{other:?}"),
        });
        match more {
            Ok(true) => {}
            Ok(false) => return (segments, None),
            Err(e) => return (segments, Some(e)),
        }
    }
}

fn expected(i: u64, v6: bool) -> Segment {
    let (source, destination) = if v6 { (a6(), b6()) } else { (a(), b()) };
    Segment {
        time: KernelTime(TIME + i * 1000),
        source,
        destination,
        flags: Flags(ACK),
        sequence: 7,
        acknowledgement: 9,
        payload: 5,
        tunnel: None,
    }
}

fn packet(v6: bool) -> Vec<u8> {
    let (source, destination) = if v6 { (a6(), b6()) } else { (a(), b()) };
    tcp(source, destination, ACK, (7, 9), b"hello")
}

#[test]
fn every_link_type_holds_the_same_segment() {
    for v6 in [false, true] {
        for wrap in [ethernet, vlans, cooked, cooked2, loopback, raw] {
            let frame = wrap(&packet(v6));
            let link = Link::from_number(frame.0);
            for big in [false, true] {
                let (found, error) = segments(std::io::Cursor::new(pcap(&[(TIME, frame.clone())], big)));
                assert!(error.is_none(), "{link:?} {error:?}");
                assert_eq!(found, [expected(0, v6)], "{link:?}");
            }
        }
    }
}

#[test]
fn pcapng_has_interfaces_of_different_kinds_and_clocks() {
    let wraps = [ethernet, cooked, vlans, cooked2, loopback, raw];
    let frames: Vec<_> = (0..6u64).map(|i| (TIME + i * 1000, wraps[i as usize](&packet(i % 2 == 1)))).collect();
    let once = pcapng(&frames);
    let (found, error) = segments(std::io::Cursor::new(once.clone()));
    assert!(error.is_none(), "{error:?}");
    for (i, found) in found.iter().enumerate() {
        let expected = expected(i as u64, i % 2 == 1);
        assert!(found.time.0.abs_diff(expected.time.0) < 1000, "{found:?}");
        assert_eq!(Segment { time: expected.time, ..*found }, expected);
    }
    // A second section begins with interfaces of its own.
    let (twice, error) = segments(std::io::Cursor::new([once.clone(), once].concat()));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(twice.len(), 12);
}

/// Gives a few bytes at a time.
struct Drip(std::io::Cursor<Vec<u8>>);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(7);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_slow_pipe_and_gzip_give_the_same() {
    let frames: Vec<_> = (0..100).map(|i| (TIME + i * 1000, ethernet(&packet(false)))).collect();
    for file in [pcap(&frames, false), pcapng(&frames)] {
        let (plain, error) = segments(std::io::Cursor::new(file.clone()));
        assert!(error.is_none() && plain.len() == 100, "{error:?}");
        let (dripped, error) = segments(Drip(std::io::Cursor::new(file.clone())));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(dripped, plain);
        for (how, packed) in packed(&file) {
            let (unpacked, error) = segments(Drip(std::io::Cursor::new(packed.clone())));
            assert!(error.is_none(), "{how}: {error:?}");
            assert_eq!(unpacked, plain, "{how}");
            // Two packed parts, one behind the other, are one stream.
            let (first, second) = file.split_at(file.len() / 2);
            let both = [first, second].map(|part| packed_by(how, part)).concat();
            let (unpacked, error) = segments(std::io::Cursor::new(both));
            assert!(error.is_none(), "{how}: {error:?}");
            assert_eq!(unpacked, plain, "{how}, two parts");
            let (_, error) = segments(std::io::Cursor::new(packed[..packed.len() / 2].to_vec()));
            assert!(error.is_some(), "{how}, cut off");
        }
    }
}

fn packed(file: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    ["gzip", "zstd", "lz4", "xz"].map(|how| (how, packed_by(how, file)))
}

fn packed_by(how: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let done = match how {
        "gzip" => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(bytes).and_then(|()| packed.finish())
        }
        "zstd" => zstd::encode_all(bytes, 1),
        "lz4" => {
            let mut packed = lz4_flex::frame::FrameEncoder::new(Vec::new());
            packed.write_all(bytes).and_then(|()| packed.finish().map_err(std::io::Error::other))
        }
        _ => {
            let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 1);
            packed.write_all(bytes).and_then(|()| packed.finish())
        }
    };
    done.expect("memory")
}

#[test]
fn a_packed_stream_that_asks_for_too_much_memory_is_refused() {
    let file = pcap(&[(TIME, ethernet(&packet(false)))], false);
    // A window of 2 GiB, and a dictionary of 4 GiB less one.
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    zstd.window_log(31).expect("a window");
    std::io::Write::write_all(&mut zstd, &file).expect("memory");
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).expect("options");
    options.dict_size(1 << 30);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).expect("memory");
    let mut xz = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    std::io::Write::write_all(&mut xz, &file).expect("memory");
    for packed in [zstd.finish().expect("memory"), xz.finish().expect("memory")] {
        let (found, error) = segments(std::io::Cursor::new(packed));
        assert!(found.is_empty() && matches!(error, Some(Error::Read { .. })), "{error:?}");
    }
}

/// Simple and obsolete packet blocks, in either byte order.
#[test]
fn packets_without_a_time_and_of_the_old_kind_are_packets() {
    for big in [false, true] {
        let n = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let block = |kind: u32, body: &[u8]| {
            let mut padded = body.to_vec();
            padded.resize(body.len().next_multiple_of(4), 0);
            let length = n(12 + padded.len() as u32);
            [&n(kind)[..], &length, &padded, &length].concat()
        };
        let frame = ethernet(&packet(false)).1;
        let length = n(frame.len() as u32);
        let units = TIME / 1000;
        let file = [
            block(0x0a0d_0d0a, &[&n(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat()),
            block(1, &[&half(1)[..], &half(0), &n(58)].concat()),
            block(3, &[&length[..], &frame[..58]].concat()),
            block(2, &[&[0; 4][..], &n((units >> 32) as u32), &n(units as u32), &length, &length, &frame].concat()),
            block(0x0bad, &n(7)),
            block(0x77, &[]),
            block(0x77, &[]),
        ];
        let (found, error) = segments(std::io::Cursor::new(file.concat()));
        assert!(error.is_none(), "{error:?}");
        let timeless = Segment { time: KernelTime(0), ..expected(0, false) };
        assert_eq!(found, [timeless, expected(0, false)]);
        let mut reader = Reader::new(std::io::Cursor::new(file.concat())).expect("a capture");
        while reader.next(|_| {}).expect("sound") {}
        assert_eq!(reader.undecoded().to_string(), "2 blocks of type 0x77, 1 block of type 0xbad (a vendor's own)");
    }
}

#[test]
fn packets_of_an_unknown_link_type_are_counted_by_it() {
    let frames: Vec<_> = [147, 147, 1, 149].map(|link| (TIME, (link, ethernet(&packet(false)).1))).to_vec();
    let mut reader = Reader::new(std::io::Cursor::new(pcapng(&frames))).expect("a capture");
    let mut contents = Vec::new();
    while reader
        .next(|packet| contents.push(matches!(decode(packet, Decapsulate::Inner), Content::Unreadable)))
        .expect("sound")
    {}
    assert_eq!(contents, [true, true, false, true]);
    let mut all = Undecoded::default();
    all.add(reader.undecoded());
    let told = all.to_string();
    assert!(told.starts_with("2 packets of link type 147 (for private use), 1 packet of link type 149"), "{told}");
}

#[test]
fn a_capture_that_is_cut_off_is_told_up_to_there_with_the_place() {
    let frames: Vec<_> = (0..3).map(|i| (TIME + i * 1000, ethernet(&packet(false)))).collect();
    let file = pcap(&frames, false);
    let (found, error) = segments(std::io::Cursor::new(file[..file.len() - 1].to_vec()));
    assert_eq!(found.len(), 2);
    let at = 24 + 2 * (16 + 60);
    assert!(matches!(error, Some(Error::Cut { at: place }) if place == at), "{error:?}");
    let file = pcapng(&frames);
    let (found, error) = segments(std::io::Cursor::new(file[..file.len() - 20].to_vec()));
    assert_eq!(found.len(), 2);
    assert!(matches!(error, Some(Error::Cut { .. })), "{error:?}");
}

#[test]
fn damage_is_told_with_its_place_and_takes_no_memory() {
    let frames: Vec<_> = (0..3).map(|i| (TIME + i * 1000, ethernet(&packet(false)))).collect();
    let mut file = pcap(&frames, false);
    let at = 24 + 76;
    file[at + 8..at + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    let (found, error) = segments(std::io::Cursor::new(file).chain(std::io::repeat(7)));
    assert_eq!(found.len(), 1);
    assert!(matches!(error, Some(Error::Damaged { at: place, .. }) if place == at), "{error:?}");
    let mut file = pcapng(&frames);
    let end = file.len() - 16 - 92;
    file[end + 8..end + 12].copy_from_slice(&77u32.to_le_bytes());
    let (found, error) = segments(std::io::Cursor::new(file));
    assert_eq!(found.len(), 2);
    assert!(error.is_some_and(|e| e.to_string().contains("an interface that is not there")));
}

#[test]
fn what_is_no_capture_is_not_read() {
    for bytes in [&b""[..], b"hello", &[0; 4096], b"\x1f\x8bno gzip"] {
        let (found, error) = segments(std::io::Cursor::new(bytes.to_vec()));
        assert!(found.is_empty() && error.is_some(), "{bytes:?}");
    }
}

/// Decodes a raw packet.
fn content(packet: &[u8]) -> Content<'_> {
    let packet = Packet { time: KernelTime(1), link: Link::RAW, bytes: packet, whole: packet.len() as u32 };
    decode(&packet, Decapsulate::Inner)
}

#[test]
fn the_first_fragment_counts_and_the_others_do_not() {
    let mut first = packet(false);
    first[6..8].copy_from_slice(&[0x20, 0]);
    assert!(matches!(content(&first), Content::Segment(_)));
    let mut later = packet(false);
    later[6..8].copy_from_slice(&[0, 5]);
    assert_eq!(content(&later), Content::Other);
    let segment = packet(true)[40..].to_vec();
    for (offset, is) in [(0u16, true), (8, false)] {
        let header = [&[6, 0][..], &(offset | 1).to_be_bytes(), &[0, 0, 0, 1]].concat();
        let packet = ip(a6().ip(), b6().ip(), 44, &[header, segment.clone()].concat());
        assert_eq!(matches!(content(&packet), Content::Segment(_)), is, "{offset}");
        assert!(is || content(&packet) == Content::Other);
    }
    let options = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &segment].concat();
    assert!(matches!(content(&ip(a6().ip(), b6().ip(), 0, &options)), Content::Segment(_)), "hop-by-hop options");
}

#[test]
fn a_segment_longer_than_ip_can_say_has_the_frames_length() {
    let mut packet = packet(false);
    packet[2..4].copy_from_slice(&[0, 0]);
    let bytes = &packet[..];
    let packet = Packet { time: KernelTime(1), link: Link::RAW, bytes, whole: 100_040 };
    let decoded = decode(&packet, Decapsulate::Inner);
    assert!(matches!(decoded, Content::Segment(Segment { payload: 100_000, .. })), "{decoded:?}");
}

#[test]
fn a_datagram_of_a_name_server_is_one_and_others_are_not() {
    let server: SocketAddr = "10.0.0.53:53".parse().expect("an endpoint");
    let packet = udp(server, a(), b"an answer");
    let Content::Datagram(datagram) = content(&packet) else { panic!("a datagram") };
    assert_eq!((datagram.source, datagram.payload, datagram.truncated), (server, &b"an answer"[..], false));
    let Content::Datagram(datagram) = content(&packet[..packet.len() - 2]) else { panic!("a datagram") };
    assert!(datagram.truncated);
    assert_eq!(content(&udp(a(), b(), b"hello")), Content::Other);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_hang(mut file in prop::collection::vec(any::<u8>(), 0..600), kind in 0usize..3, link in any::<u8>()) {
        let head = match kind {
            0 => pcap(&[(1, (u16::from(link), Vec::new()))], false)[..24].to_vec(),
            1 => pcapng(&[(1, (u16::from(link), Vec::new()))])[..48].to_vec(),
            _ => Vec::new(),
        };
        file.splice(0..0, head);
        let length = file.len();
        if let Ok(mut reader) = Reader::new(std::io::Cursor::new(file)) {
            let mut blocks = 0;
            while let Ok(true) = reader.next(|packet| {
                decode(packet, Decapsulate::Inner);
            }) {
                blocks += 1;
                prop_assert!(blocks <= 2 * length + 16);
            }
        }
    }
}
