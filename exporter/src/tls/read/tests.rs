use proptest::prelude::*;

use super::*;
use crate::tls::sample::{Sample, protocols, server_name, signatures, versions};

fn whole(sample: &Sample) -> Hello {
    match read(&sample.bytes()) {
        Read::Whole(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn ja4(hello: &Hello) -> &str {
    hello.ja4.as_ref().expect("a fingerprint").as_str()
}

#[test]
fn a_hello_says_its_name_protocols_versions_and_fingerprint() {
    let hello = whole(&Sample::new("WWW.Example.com"));
    assert_eq!(hello.server_name.as_deref(), Some("www.example.com"));
    assert_eq!(hello.protocols, ["h2", "http/1.1"]);
    assert_eq!(hello.versions, ["1.3", "1.2"]);
    assert!(hello.whole && !hello.ech);
    assert!(ja4(&hello).starts_with("t13d0305h2_"), "{}", ja4(&hello));
    assert!(whole(&Sample::new("a").and((0xfe0d, vec![0; 9]))).ech);
    // Of a server's own name only the first, of its type.
    let mut none = Sample::new("a");
    none.extensions.retain(|(kind, _)| ![0, 16].contains(kind));
    let none = whole(&none);
    assert_eq!((none.server_name.as_deref(), none.protocols.len()), (None, 0));
    assert!(ja4(&none).starts_with("t13i030300_"), "{}", ja4(&none));
}

#[test]
fn without_a_list_of_versions_the_message_has_the_highest() {
    for (version, text, short) in [
        (0x0300, "3.0", "s3"),
        (0x0301, "1.0", "10"),
        (0x0302, "1.1", "11"),
        (0x0303, "1.2", "12"),
        (0x7f1c, "0x7f1c", "00"),
    ] {
        let hello = whole(&Sample { version, ciphers: vec![5], extensions: vec![] });
        assert_eq!(hello.versions, [text]);
        assert_eq!(&ja4(&hello)[..10], format!("t{short}i010000"));
        assert!(ja4(&hello).ends_with("_000000000000"), "no extensions at all");
    }
}

#[test]
fn what_is_not_in_order_is_not_said_and_the_rest_is() {
    // Lists that claim to be longer than they are; a second name; a name of no type that is known.
    let mut odd = Sample::new("right.example");
    odd.extensions[2] = (16, vec![0, 200, 2, b'h']);
    odd.extensions[4] = (13, vec![0, 99]);
    let odd = whole(&odd.and(server_name(b"second.example")));
    assert_eq!((odd.server_name.as_deref(), odd.protocols.len()), (Some("right.example"), 0));
    assert_eq!(odd.versions, ["1.3", "1.2"]);
    let mut other = Sample::new("x");
    other.extensions[1].1[2] = 7;
    assert_eq!(whole(&other).server_name, None);
    // Odd names are shown so that they act on nothing; GREASE is no protocol.
    let odd = Sample { extensions: vec![protocols(&[b"\x0a\x0a", b"h2\x1b"])], ..Sample::new("x") };
    assert_eq!(whole(&odd).protocols, [r"h2\027"]);
}

#[test]
fn lists_are_bounded() {
    let many: Vec<&[u8]> = vec![b"h2"; 100];
    let mut extensions = vec![protocols(&many), versions(&[0x0303; 100]), signatures(&[0x0403; 1000])];
    extensions.extend((0..200).map(|n| (0x4000 + n, vec![])));
    let hello = whole(&Sample { extensions, ..Sample::new("x") });
    assert_eq!((hello.protocols.len(), hello.versions.len()), (MOST_LISTED, MOST_LISTED));
    assert_eq!(&ja4(&hello)[..10], "t12i0399h2");
}

#[test]
fn other_protocols_and_other_messages_are_no_hello() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x",
        &[22, 3, 3, 0, 4, 2, 0, 0, 0],       // ServerHello
        &[23, 3, 3, 0, 4, 1, 0, 0, 0],       // application data
        &[22, 9, 9, 0, 4, 1, 0, 0, 0],       // no version of TLS
        &[22, 3, 1, 0, 8, 1, 0, 0, 2, 3, 3], // too short to be one
        &[22, 3, 1, 0, 0, 0],
        &[22, 3, 1, 0, 0, 22, 3],
    ] {
        match read(bytes) {
            Read::Nothing => {}
            Read::Part(hello) => assert!(hello == Hello::default(), "{bytes:?}"),
            Read::Whole(hello) => panic!("{bytes:?}: {hello:?}"),
        }
    }
    assert_eq!(read(b"GET / HTTP/1.1\r\n"), Read::Nothing);
    assert_eq!(read(&[22, 3, 3, 0, 4, 2, 0, 0, 0]), Read::Nothing);
}

fn samples() -> impl Strategy<Value = Sample> {
    let extension = prop_oneof![
        "[a-zA-Z0-9.-]{1,40}".prop_map(|name| server_name(name.as_bytes())),
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..5)
            .prop_map(|names| protocols(&names.iter().map(Vec::as_slice).collect::<Vec<_>>())),
        proptest::collection::vec(any::<u16>(), 0..6).prop_map(|values| versions(&values)),
        proptest::collection::vec(any::<u16>(), 0..20).prop_map(|values| signatures(&values)),
        (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60)),
    ];
    (any::<u16>(), proptest::collection::vec(any::<u16>(), 0..40), proptest::collection::vec(extension, 0..12))
        .prop_map(|(version, ciphers, extensions)| Sample { version, ciphers, extensions })
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        // Behind a head that is right.
        let _ = read(&[&[22, 3, 1, 0x40, 0, 1, 0, 2, 0, 3, 3][..], &bytes].concat());
    }

    #[test]
    fn a_hello_in_many_records_says_what_it_says_in_one(sample in samples(), most in 1usize..400) {
        let one = read(&sample.bytes());
        prop_assert!(matches!(one, Read::Whole(_)), "{:?}", one);
        prop_assert_eq!(read(&sample.records(most)), one.clone());
        // What follows it is of no matter.
        prop_assert_eq!(read(&[&sample.bytes()[..], &[20, 3, 3, 0, 1, 1]].concat()), one);
    }

    #[test]
    fn a_part_has_no_fingerprint_and_says_nothing_that_the_whole_does_not(
        sample in samples(), at in any::<prop::sample::Index>(), records in 20usize..4000,
    ) {
        let bytes = sample.records(records);
        let cut = at.index(bytes.len());
        let Read::Whole(whole) = read(&bytes) else { return Err(TestCaseError::fail("not whole")) };
        match read(&bytes[..cut]) {
            Read::Part(part) => {
                prop_assert!(part.ja4.is_none() && !part.whole);
                prop_assert!(part.server_name.is_none() || part.server_name == whole.server_name);
                prop_assert!(part.protocols.is_empty() || part.protocols == whole.protocols);
                prop_assert!(part.versions.is_empty() || part.versions == whole.versions);
                prop_assert!(!part.ech || whole.ech);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
