//! What the DNS room costs: an answer taken in, and an address looked up, with few and with many names held.
//!
//! cargo bench -p flowtel --bench dns

use std::{hint::black_box, net::Ipv4Addr, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use flowtel::{
    capture::KernelTime,
    config,
    dns::{Answer, Asker, Dns, Reader, parse::Parser},
};

const SECOND: u64 = 1_000_000_000;

/// An answer as a content network gives it: one alias, two addresses, `n` and its neighbour.
/// A cgroup's only user, in the only namespace.
fn asker(cgroup: u64) -> Asker {
    Asker { cgroup, netns: 1, uid: 0 }
}

/// The same, connecting; or somebody who is not known.
fn reader(cgroup: Option<u64>) -> Reader {
    Reader { netns: 1, owner: cgroup.map(|cgroup| (cgroup, 0)), hosts: true }
}

fn answer(n: u32) -> Vec<u8> {
    let mut message = b"\x12\x34\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00".to_vec();
    let label = format!("host{n:06}");
    message.push(label.len() as u8);
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\x03com\x00\x00\x01\x00\x01");
    let alias = b"\x04edge\x03cdn\x04test\x00";
    message.extend_from_slice(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00");
    message.push(alias.len() as u8);
    let pointer = (0xc000 | message.len() as u16).to_be_bytes();
    message.extend_from_slice(alias);
    for address in [2 * n, 2 * n + 1] {
        message.extend_from_slice(&pointer);
        message.extend_from_slice(b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
        message.extend_from_slice(&ip(address).octets());
    }
    message
}

fn ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + n)
}

/// A stage that holds names for `addresses`, from a hundred containers, and the answers that gave them.
fn filled(addresses: u32) -> (Dns, Vec<Vec<u8>>) {
    let config = config::Dns {
        max_addresses: 1 << 20,
        max_bytes: config::Bytes(1 << 30),
        hosts_file: "".into(),
        ..config::Dns::default()
    };
    let mut dns = Dns::new(&config, Arc::default());
    let answers: Vec<_> = (0..addresses / 2).map(answer).collect();
    for (n, payload) in answers.iter().enumerate() {
        dns.on(&Answer {
            time: KernelTime(100 * SECOND),
            asker: asker(n as u64 % 100),
            asked: payload.get(12..).unwrap_or_default(),
            payload,
            truncated: false,
        });
    }
    (dns, answers)
}

fn benches(c: &mut Criterion) {
    let message = answer(1);
    let mut parser = Parser::default();
    let proofs = parser.parse(&message, false).map(|response| response.proofs().count());
    assert_eq!(proofs, Ok(2), "the message is what it should be");
    c.bench_function("dns/parse", |b| {
        b.iter(|| parser.parse(black_box(&message), false).map(|response| response.proofs().count()));
    });
    for addresses in [1_000, 100_000] {
        let (mut dns, answers) = filled(addresses);
        let mut time = 100 * SECOND;
        let mut n = 0;
        c.bench_with_input(BenchmarkId::new("dns/answer_seen_again", addresses), &(), |b, ()| {
            b.iter(|| {
                // A prime step: neighbours in time are no neighbours in memory.
                n = (n + 7_919) % answers.len();
                time += 1_000;
                let cgroup = n as u64 % 100;
                dns.on(&Answer {
                    time: KernelTime(time),
                    asker: asker(cgroup),
                    asked: answers[n].get(12..).unwrap_or_default(),
                    payload: &answers[n],
                    truncated: false,
                });
            });
        });
        let mut n = 0;
        c.bench_with_input(BenchmarkId::new("dns/look_up", addresses), &(), |b, ()| {
            b.iter(|| {
                n = (n + 7_919) % addresses;
                let names = dns.names(ip(n).into(), &reader(Some(u64::from(n / 2 % 100))), KernelTime(time));
                black_box(names.map(|names| names.as_slice().len()))
            });
        });
        let mut n = 0;
        c.bench_with_input(BenchmarkId::new("dns/look_up_unknown", addresses), &(), |b, ()| {
            b.iter(|| {
                n = (n + 7_919) % addresses;
                black_box(dns.names(ip(0x0080_0000 + n).into(), &reader(None), KernelTime(time)).is_some())
            });
        });
    }
    // At the bound each new answer forgets an old one.
    let mut dns = Dns::new(&config::Dns { hosts_file: "".into(), ..config::Dns::default() }, Arc::default());
    let answers: Vec<_> = (0..200_000).map(answer).collect();
    let mut n = 0;
    c.bench_function("dns/new_answer_at_the_bound", |b| {
        b.iter(|| {
            n = (n + 7_919) % answers.len();
            let cgroup = n as u64 % 100;
            dns.on(&Answer {
                time: KernelTime(100 * SECOND),
                asker: asker(cgroup),
                asked: answers[n].get(12..).unwrap_or_default(),
                payload: &answers[n],
                truncated: false,
            });
        });
    });
}

criterion_group!(dns, benches);
criterion_main!(dns);
