//! Any bytes as DNS answers, through the room's door: no panic, bounded memory, and counts that balance.
//!
//! The input is a list of answers: two bytes of length, the first bit for "truncated", then the message.

#![no_main]

use std::sync::Arc;

use flowtel::{
    capture::KernelTime,
    config,
    dns::{Answer, Asker, Dns, MAX_NAMES, Reader},
    ledger::Ledger,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let ledger = Arc::new(Ledger::default());
    let config = config::Dns {
        max_addresses: 16,
        max_bytes: config::Bytes(64 << 10),
        hosts_file: "".into(),
        ..config::Dns::default()
    };
    let mut dns = Dns::new(&config, ledger.clone());
    let mut rest = data;
    let mut time = 0;
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([high & 0x7f, *low])).min(tail.len());
        let (payload, next) = tail.split_at(length);
        rest = next;
        time += 1_000_000_000 * u64::from(*low);
        let now = KernelTime(time);
        dns.on(&Answer { time: now, asker: Asker { cgroup: u64::from(low % 4), netns: 1, uid: 0 }, asked: payload.get(12..).unwrap_or_default(), payload, truncated: high & 0x80 != 0 });
        dns.tick(now);
        // Where an address stands is seldom known, but the last four bytes of a message are often one.
        if let Some(address) = payload.last_chunk::<4>()
            && let Some(names) = dns.names((*address).into(), &Reader { netns: 1, owner: None, hosts: true }, now)
        {
            assert!((1..=MAX_NAMES).contains(&names.as_slice().len()));
            assert!(names.as_slice().iter().all(|name| name.bytes().all(|b| b.is_ascii_graphic())));
        }
    }
    let l = &ledger.dns;
    let fates = [&l.parsed, &l.without_address, &l.truncated, &l.malformed, &l.unasked];
    assert_eq!(l.read.get(), fates.iter().map(|c| c.get()).sum::<u64>());
    assert!(l.held() >= 0);
});
