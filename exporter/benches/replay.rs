//! What a replay costs: a capture of many connections, from its bytes to sealed batches.

use std::{
    io::Cursor,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowtel::{
    capture::pcap::Reader,
    config::Config,
    flow::flags::{FlagFlows, REPLAY, Settings},
    ledger::Ledger,
    queue::Queue,
    record::{Encoder, Form, Limits, Observer, resource},
    replay::Replay,
};

#[expect(dead_code, reason = "the unit tests use the rest of it")]
#[path = "../src/capture/pcap/sample.rs"]
mod sample;
use sample::{Frame, ethernet, pcap, tcp};

const CONNECTIONS: u32 = 200_000;
const PACKETS: u64 = CONNECTIONS as u64 * 8;
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 17;

/// Connections of eight packets each, 64 at a time side by side.
fn capture() -> Vec<u8> {
    let server: SocketAddr = ([192, 0, 2, 7], 443).into();
    let story = |i: u32, step: usize| -> Frame {
        let client = (Ipv4Addr::from(0x0a00_0000 + (i >> 14)), 1024 + (i & 0x3fff) as u16).into();
        let there = |flags, s: u32, a: u32, n: usize| ethernet(&tcp(client, server, flags, (100 + s, a), &vec![0; n]));
        let back =
            |flags, s: u32, a: u32, n: usize| ethernet(&tcp(server, client, flags, (900 + s, 100 + a), &vec![0; n]));
        match step {
            0 => there(SYN, 0, 0, 0),
            1 => back(SYN | ACK, 0, 1, 0),
            2 => there(ACK, 1, 901, 0),
            3 => there(ACK, 1, 901, 200),
            4 => back(ACK, 1, 201, 1000),
            5 => there(FIN, 201, 1901, 0),
            6 => back(FIN, 1001, 202, 0),
            _ => there(ACK, 202, 1902, 0),
        }
    };
    let mut frames = Vec::new();
    let mut time = 1_795_341_600_000_000_000;
    for group in 0..CONNECTIONS / 64 {
        for step in 0..8 {
            for i in 0..64 {
                time += 1000;
                frames.push((time, story(group * 64 + i, step)));
            }
        }
    }
    pcap(&frames, false)
}

fn replay(file: &Arc<[u8]>) -> u64 {
    let config = Config::default();
    let ledger = Arc::new(Ledger::default());
    let settings = Settings { attempts: 131_072, flows: 131_072, local: Vec::new(), update: None, hellos: false };
    let host = resource::Host { name: "bench".into(), id: None };
    let limits = Limits { records: 8192, bytes: 1 << 20, age: config.export.batch.max_age.0 };
    let encoder = Encoder::new(
        &resource::build(&config.record, &host, &Observer::WHOLE_HOST),
        (REPLAY, 0),
        Form::default(),
        limits,
    );
    let queue = Queue::new(&config.queue, Arc::clone(&ledger));
    let (_stop, stopped) = mpsc::channel();
    let flows = FlagFlows::new(settings, Arc::clone(&ledger));
    let mut stage = Replay::new(flows, &config, encoder, queue.clone(), stopped, false, Arc::clone(&ledger));
    let mut reader = Reader::new(Cursor::new(Arc::clone(file))).expect("a capture");
    while reader.next(|packet| assert!(stage.packet(packet))).expect("in order") {
        while let Some(lease) = queue.try_lease() {
            ledger.records.delivered.add(lease.done().into());
        }
    }
    stage.finish();
    ledger.records.made.get()
}

fn benches(c: &mut Criterion) {
    let file: Arc<[u8]> = capture().into();
    let records = replay(&file);
    assert_eq!(records, 2 * u64::from(CONNECTIONS / 64 * 64));
    let mut group = c.benchmark_group("replay");
    group.sample_size(10);
    group.throughput(Throughput::Elements(records));
    group.bench_function(format!("records of {PACKETS} packets"), |b| b.iter(|| replay(&file)));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
