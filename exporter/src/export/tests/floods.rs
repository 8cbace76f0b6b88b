//! Receivers that never come to an end: before the answer, beside it, or within it. What they send is paid for by the
//! request, and then the connection is dropped.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use rustix::time::{ClockId, clock_gettime};

use super::{verdict::Verdict, *};
use crate::export::build::{Otlp, Transport};

/// More than any request may cost: what is granted at first and for each, what a socket's buffer held when it was dropped, and
/// what a single read may take past the end.
const MOST: u64 = 1 << 20;

/// What a server sends.
#[derive(Clone, Copy)]
struct Flood {
    name: &'static str,
    /// Once.
    begin: &'static [u8],
    /// On and on.
    again: &'static [u8],
    /// In writes of so many bytes.
    piece: usize,
}

const fn flood(name: &'static str, begin: &'static [u8], again: &'static [u8]) -> Flood {
    Flood { name, begin, again, piece: 64 << 10 }
}

/// An empty SETTINGS frame, as each HTTP/2 server begins, and an acknowledgement of the client's.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// By HTTP/1.1.
const HTTP1: [Flood; 5] = [
    flood("100-continue", b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    flood("103", b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"),
    flood("a head without an end", b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    flood("trailers without an end", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    Flood { piece: 1, ..flood("100-continue byte by byte", b"", b"HTTP/1.1 100 Continue\r\n\r\n") },
];

/// By HTTP/2.
const HTTP2: [Flood; 6] = [
    flood("PRIORITY", SETTINGS, b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10"),
    flood("WINDOW_UPDATE", SETTINGS, b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x01"),
    flood("PING", SETTINGS, b"\0\0\x08\x06\0\0\0\0\0flowtel!"),
    flood("SETTINGS", SETTINGS, b"\0\0\0\x04\0\0\0\0\0"),
    flood("frames of no known type", SETTINGS, b"\0\0\0\x77\0\0\0\0\x01"),
    // :status 100 by the literal form, without END_STREAM.
    flood("informational headers", SETTINGS, b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03100"),
];

/// A server that floods each connection, and how many it has seen.
fn server(flood: Flood) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    // It ends with the process.
    std::thread::spawn(move || {
        let bytes = flood.again.repeat((flood.piece / flood.again.len()).max(1));
        while let Ok((mut stream, _)) = listener.accept() {
            seen.fetch_add(1, SeqCst);
            let _ = stream.set_nodelay(true);
            let mut some = [0; 24];
            if stream.read(&mut some).is_err() || stream.write_all(flood.begin).is_err() {
                continue;
            }
            while bytes.chunks(flood.piece.min(bytes.len())).all(|piece| stream.write_all(piece).is_ok()) {}
        }
    });
    (address, connections)
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time")
}

/// Sends three requests one after the other, and returns the CPU time that each took.
async fn withstands(flood: Flood, target: impl Fn(String) -> Target) -> Duration {
    let (address, connections) = server(flood);
    let settings = Settings { timeout: LONG, concurrency: 1, ..settings(target(format!("http://{address}"))) };
    let Ok(Transport::Otlp(otlp)) = Transport::build(&settings) else { panic!("the settings are right") };
    let otlp: Arc<Otlp> = otlp;
    let (before, begun) = (tokio::time::Instant::now(), cpu());
    for n in 1..=3 {
        let spent = otlp.spent();
        let verdict = otlp.send(batch(0, 3).bytes).await;
        let Verdict::Retry { reason, .. } = &verdict else { panic!("{}: {verdict:?}", flood.name) };
        assert!(otlp.spent() - spent < MOST, "{}: {} bytes: {reason}", flood.name, otlp.spent() - spent);
        assert_eq!(connections.load(SeqCst), n, "{}: each is dropped: {reason}", flood.name);
    }
    assert!(before.elapsed() < LONG, "{}: it is the budget that ends it, not the time-out", flood.name);
    (cpu() - begun) / 3
}

#[tokio::test]
async fn interim_responses_and_heads_without_end_are_dropped() {
    for flood in HTTP1 {
        let cpu = withstands(flood, |url| Target::Http { url }).await;
        eprintln!("{}: {cpu:?} of CPU time a request", flood.name);
    }
}

#[tokio::test]
async fn frames_without_end_are_dropped() {
    for flood in HTTP2 {
        let cpu = withstands(flood, |url| Target::Grpc { url }).await;
        eprintln!("{}: {cpu:?} of CPU time a request", flood.name);
    }
}

#[tokio::test]
async fn who_floods_is_named_in_the_log_and_the_records_wait() {
    let (address, _) = server(HTTP2[0]);
    let exporter = Exporter::build(&settings(Target::Grpc { url: format!("http://{address}") })).expect("right");
    let error = exporter.probe(LONG).await.expect_err("it never answers");
    assert!(error.retryable && error.to_string().contains("far more than an answer"), "{error}");
    assert!(error.to_string().contains("means harm"), "{error}");
}
