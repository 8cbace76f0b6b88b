//! Answers in, names out, through the room's door.

use std::{io::Write as _, net::IpAddr, time::Duration};

use super::{
    sample::{A, CNAME, Message, NO_DATA, QUESTION, SIX_ADDRESSES, wire},
    *,
};

const SECOND: u64 = 1_000_000_000;

fn dns(hosts: &str) -> Dns {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(hosts.as_bytes()).expect("written");
    Dns::new(&config::Dns { hosts_file: file.path().into(), ..config::Dns::default() }, Arc::default())
}

fn on(dns: &mut Dns, seconds: u64, payload: &[u8], truncated: bool) {
    let asked = payload.get(12..).unwrap_or_default();
    dns.on(&Answer { time: KernelTime(seconds * SECOND), cgroup: 7, asked, payload, truncated });
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_answer_names_all_its_addresses() {
    let mut dns = dns("");
    on(&mut dns, 100, SIX_ADDRESSES, false);
    for address in ["64.233.164.100", "64.233.164.139", "64.233.164.138"] {
        let names = dns.names(ip(address), Some(7), KernelTime(103 * SECOND)).expect("names");
        assert_eq!(names.as_slice(), ["google.com"]);
        assert_eq!((names.state.as_str(), names.age), ("fresh", Some(Duration::from_secs(3))));
    }
    assert_eq!((dns.ledger.dns.read.get(), dns.ledger.dns.parsed.get(), dns.ledger.dns.stored.get()), (1, 1, 6));
}

#[test]
fn a_name_with_aliases_is_given_before_them() {
    let mut dns = dns("");
    let edge = wire("edge.example");
    let message =
        Message::response(&wire("a.example"), A).record(QUESTION, CNAME, 60, &edge).a(&edge, 60, [192, 0, 2, 1]);
    on(&mut dns, 100, message.bytes(), false);
    let names = dns.names(ip("::ffff:192.0.2.1"), None, KernelTime(100 * SECOND)).expect("names");
    assert_eq!(names.as_slice(), ["a.example", "edge.example"]);
}

#[test]
fn each_answer_has_one_fate() {
    let mut dns = dns("");
    let whole = Message::response(&wire("a.example"), A).a(QUESTION, 60, [192, 0, 2, 1]);
    let whole = whole.bytes();
    on(&mut dns, 100, whole, false);
    on(&mut dns, 100, whole, true); // longer than this, and yet something was learned
    on(&mut dns, 100, NO_DATA, false);
    on(&mut dns, 100, &whole[..whole.len() - 1], false);
    on(&mut dns, 100, &whole[..whole.len() - 1], true);
    on(&mut dns, 100, &whole[..14], true);
    on(&mut dns, 100, b"?", false);
    let l = &dns.ledger.dns;
    let fates = [&l.parsed, &l.without_address, &l.malformed, &l.truncated].map(|c| c.get());
    assert_eq!(fates, [2, 1, 2, 2]);
    assert_eq!(l.read.get(), fates.iter().sum::<u64>());
    assert_eq!((l.stored.get(), l.renewed.get()), (1, 1));
}

#[test]
fn the_hosts_file_stands_between_fresh_and_expired_names() {
    let mut dns = dns("192.0.2.1 static.example\n192.0.2.2 other.example\n");
    let message = Message::response(&wire("a.example"), A).a(QUESTION, 60, [192, 0, 2, 1]);
    on(&mut dns, 100, message.bytes(), false);
    let at = |seconds| {
        let names = dns.names(ip("192.0.2.1"), Some(7), KernelTime(seconds * SECOND)).expect("names");
        (names.state, names.as_slice().join(" "))
    };
    assert_eq!(at(99), (State::Static, "static.example".into()));
    assert_eq!(at(159), (State::Fresh, "a.example".into()));
    assert_eq!(at(161), (State::Static, "static.example".into()));
    assert!(dns.names(ip("192.0.2.2"), None, KernelTime(0)).is_some());
}

#[test]
fn ticks_give_memory_back() {
    let mut dns = dns("");
    on(&mut dns, 100, SIX_ADDRESSES, false);
    dns.tick(KernelTime(100 * SECOND));
    assert_eq!(dns.ledger.dns.held(), 6);
    dns.tick(KernelTime(5_000 * SECOND));
    assert_eq!(dns.ledger.dns.held(), 0);
}
