use std::{io::Write as _, net::Ipv4Addr};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn parsed(text: &str) -> (Vec<(String, Vec<String>)>, u64) {
    let ignored = Counter::default();
    let names = parse(text.as_bytes(), &ignored);
    let mut names: Vec<_> =
        names.iter().map(|(a, n)| (a.to_string(), n.iter().map(ToString::to_string).collect())).collect();
    names.sort();
    (names, ignored.get())
}

#[test]
fn lines_give_an_address_its_names_and_comments_are_passed_over() {
    let (names, ignored) = parsed(
        "# comment\n127.0.0.1\tlocalhost Localhost.localdomain. # here\r\n\n  10.0.0.1 db db.example\n10.0.0.1 DB other\n\
         ::ffff:10.0.0.2 mapped\nfe80::1%eth0 router\n0.0.0.0 ads.example\n#10.0.0.9 no\n",
    );
    let of = |a: &str, n: &[&str]| (a.to_owned(), n.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(
        names,
        [
            of("10.0.0.1", &["db", "db.example", "other"]),
            of("10.0.0.2", &["mapped"]),
            of("127.0.0.1", &["localhost", "localhost.localdomain"]),
            of("fe80::1", &["router"]),
        ]
    );
    assert_eq!(ignored, 0);
}

#[test]
fn lines_that_cannot_be_used_are_counted_and_the_rest_is_kept() {
    let (names, ignored) = parsed("10.0.0.1\nno-address name\n10.0.0.300 name\n10.0.0.2 b\u{fc}cher\n10.0.0.3 ok\n");
    assert_eq!(names.len(), 1);
    assert_eq!(ignored, 4);
}

#[test]
fn an_address_has_sixteen_names_at_most() {
    let line: String = (0..100).map(|i| format!(" name{i}")).collect();
    let (names, _) = parsed(&format!("10.0.0.1{line}\n"));
    assert_eq!(names[0].1.len(), MAX_NAMES);
}

#[test]
fn a_changed_file_is_read_again_after_ten_seconds_and_not_before() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"10.0.0.1 one\n").expect("written");
    let ignored = Counter::default();
    let address = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1));
    let mut hosts = Hosts::read(file.path(), KernelTime(100 * SECOND), &ignored);
    let names = |hosts: &Hosts| hosts.names(address).map(|n| n.as_slice().join(" "));
    assert_eq!(names(&hosts).as_deref(), Some("one"));
    file.write_all(b"10.0.0.1 two\n").expect("written");
    hosts.tick(KernelTime(109 * SECOND), &ignored);
    assert_eq!(names(&hosts).as_deref(), Some("one"));
    hosts.tick(KernelTime(110 * SECOND), &ignored);
    assert_eq!(names(&hosts).as_deref(), Some("one two"));
    file.close().expect("removed");
    hosts.tick(KernelTime(120 * SECOND), &ignored);
    assert_eq!(names(&hosts), None);
}

#[test]
fn what_is_no_file_gives_no_names_and_does_not_block() {
    let ignored = Counter::default();
    for path in ["/nonexistent", "/", "/dev/zero", ""] {
        let hosts = Hosts::read(Path::new(path), KernelTime(0), &ignored);
        assert!(hosts.names(IpAddr::from(Ipv4Addr::LOCALHOST)).is_none(), "{path}");
    }
}

#[test]
fn names_of_the_hosts_file_are_static_and_have_no_age() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"10.0.0.1 one\n").expect("written");
    let hosts = Hosts::read(file.path(), KernelTime(0), &Counter::default());
    let names = hosts.names("::ffff:10.0.0.1".parse().expect("an address")).expect("names");
    assert_eq!((names.state, names.age), (State::Static, None));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_within_the_bounds(
        text in proptest::collection::vec(proptest::prop_oneof![
            proptest::prelude::any::<u8>(),
            proptest::sample::select(b"1.:%# \nab".to_vec()),
        ], 0..300)
    ) {
        for names in parse(&text, &Counter::default()).values() {
            assert!(!names.is_empty() && names.len() <= MAX_NAMES);
            assert!(names.iter().all(|n| n.len() <= text::MAX_NAME && !n.contains(|c: char| !c.is_ascii_graphic())));
        }
    }
}
