//! Answers in, names out, through the room's door.

use std::{io::Write as _, net::IpAddr, time::Duration};

use super::{
    sample::{A, CNAME, Message, NO_DATA, QUESTION, SIX_ADDRESSES, wire},
    *,
};

const SECOND: u64 = 1_000_000_000;

const ASKER: Asker = Asker { cgroup: 7, netns: 1, uid: 0 };
/// Who asked, connecting.
const READER: Reader = Reader { netns: 1, owner: Some((7, 0)), hosts: true };
/// Who connects is not known.
const ANYBODY: Reader = Reader { netns: 1, owner: None, hosts: true };

fn dns(hosts: &str) -> Dns {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(hosts.as_bytes()).expect("written");
    Dns::new(&config::Dns { hosts_file: file.path().into(), ..config::Dns::default() }, Arc::default())
}

fn on(dns: &mut Dns, seconds: u64, payload: &[u8], truncated: bool) {
    let asked = payload.get(12..).unwrap_or_default();
    dns.on(&Answer { time: KernelTime(seconds * SECOND), asker: ASKER, asked, payload, truncated });
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_answer_names_all_its_addresses() {
    let mut dns = dns("");
    on(&mut dns, 100, SIX_ADDRESSES, false);
    for address in ["64.233.164.100", "64.233.164.139", "64.233.164.138"] {
        let names = dns.names(ip(address), &READER, KernelTime(103 * SECOND)).expect("names");
        assert_eq!(names.as_slice(), ["google.com"]);
        assert_eq!((names.state.as_str(), names.age), ("fresh", Some(Duration::from_secs(3))));
    }
    assert_eq!((dns.ledger.dns.read.get(), dns.ledger.dns.parsed.get(), dns.ledger.dns.stored.get()), (1, 1, 6));
}

#[test]
fn connections_to_name_servers_are_counted_for_what_is_asked_over_them_is_not_seen() {
    let dns = dns("");
    for port in [53, 443, 853, 53, 5353] {
        dns.connects(port);
    }
    assert_eq!((dns.ledger.dns.over_tcp.get(), dns.ledger.dns.over_tls.get()), (2, 1));
    assert!(dns.ledger.to_string().contains("name servers: 3 connections = 2 over TCP + 1 over TLS"));
}

#[test]
fn a_name_with_aliases_is_given_before_them() {
    let mut dns = dns("");
    let edge = wire("edge.example");
    let message =
        Message::response(&wire("a.example"), A).record(QUESTION, CNAME, 60, &edge).a(&edge, 60, [192, 0, 2, 1]);
    on(&mut dns, 100, message.bytes(), false);
    let names = dns.names(ip("::ffff:192.0.2.1"), &ANYBODY, KernelTime(100 * SECOND)).expect("names");
    assert_eq!(names.as_slice(), ["a.example", "edge.example"]);
}

const PTR: u16 = 12;

fn reverse(mode: config::Reverse, hosts: &str) -> Dns {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(hosts.as_bytes()).expect("written");
    let config = config::Dns { hosts_file: file.path().into(), reverse: mode, ..config::Dns::default() };
    Dns::new(&config, Arc::default())
}

#[test]
fn a_reverse_look_up_names_its_address_where_nothing_else_does_and_where_that_is_wanted() {
    let pointer =
        Message::response(&wire("1.2.0.192.in-addr.arpa"), PTR).record(QUESTION, PTR, 60, &wire("Host.example"));
    let at = |dns: &Dns, seconds| {
        let names = dns.names(ip("192.0.2.1"), &READER, KernelTime(seconds * SECOND));
        names.map(|names| (names.as_slice().join(" "), names.state.as_str(), names.age))
    };
    let mut off = reverse(config::Reverse::Off, "");
    on(&mut off, 100, pointer.bytes(), false);
    assert_eq!(at(&off, 101), None);
    assert_eq!(off.ledger.dns.without_address.get(), 1);

    let mut dns = reverse(config::Reverse::Observed, "");
    on(&mut dns, 100, pointer.bytes(), false);
    let told = |age| Some(("host.example".to_owned(), "reverse", Some(Duration::from_secs(age))));
    assert_eq!(at(&dns, 99), None, "not yet");
    assert_eq!(at(&dns, 101), told(1));
    assert_eq!(at(&dns, 600), told(500), "within the grace time, too");
    assert_eq!((dns.ledger.dns.parsed.get(), dns.ledger.dns.held()), (1, 1));
    // Whatever else is known of the address, also what is over, is what somebody asked for.
    let forward = Message::response(&wire("www.example"), A).a(QUESTION, 60, [192, 0, 2, 1]);
    on(&mut dns, 200, forward.bytes(), false);
    assert_eq!(at(&dns, 201).map(|names| names.0).as_deref(), Some("www.example"));
    assert_eq!(at(&dns, 300).map(|names| names.1), Some("expired"));
    let mut known = reverse(config::Reverse::Observed, "192.0.2.1 fixed.example");
    on(&mut known, 100, pointer.bytes(), false);
    assert_eq!(at(&known, 101).map(|names| names.1), Some("static"));
}

#[test]
fn a_reverse_look_up_proves_only_the_address_that_it_asks_about() {
    let delegated = wire("1.0/25.2.0.192.in-addr.arpa");
    let asked = wire("1.2.0.192.in-addr.arpa");
    let mut dns = reverse(config::Reverse::Observed, "");
    let chain = Message::response(&asked, PTR)
        .record(QUESTION, CNAME, 60, &delegated)
        .record(&delegated, PTR, 60, &wire("a.example"))
        .record(&delegated, PTR, 60, &wire("b.example"))
        .record(&wire("2.2.0.192.in-addr.arpa"), PTR, 60, &wire("other.example"))
        .record(&delegated, PTR, 60, &wire(""));
    on(&mut dns, 100, chain.bytes(), false);
    let names =
        |dns: &Dns, address| dns.names(ip(address), &ANYBODY, KernelTime(101 * SECOND)).map(|n| n.as_slice().join(" "));
    assert!(
        names(&dns, "192.0.2.1").is_some_and(|names| names == "b.example a.example" || names == "a.example b.example")
    );
    assert_eq!(names(&dns, "192.0.2.2"), None);
    // Another type was asked for, or another name.
    let mut dns = reverse(config::Reverse::Observed, "");
    on(&mut dns, 100, Message::response(&asked, A).record(QUESTION, PTR, 60, &wire("a.example")).bytes(), false);
    on(
        &mut dns,
        100,
        Message::response(&wire("a.example"), PTR).record(QUESTION, PTR, 60, &wire("b.example")).bytes(),
        false,
    );
    assert_eq!(names(&dns, "192.0.2.1"), None);
    assert_eq!(dns.ledger.dns.without_address.get(), 2);
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
        let names = dns.names(ip("192.0.2.1"), &READER, KernelTime(seconds * SECOND)).expect("names");
        (names.state, names.as_slice().join(" "))
    };
    assert_eq!(at(99), (State::Static, "static.example".into()));
    assert_eq!(at(159), (State::Fresh, "a.example".into()));
    assert_eq!(at(161), (State::Static, "static.example".into()));
    assert!(dns.names(ip("192.0.2.2"), &ANYBODY, KernelTime(0)).is_some());
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
