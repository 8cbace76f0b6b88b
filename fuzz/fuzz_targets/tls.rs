//! Any bytes as a connection's beginning, cut into segments in any order: no panic, bounded memory; what came in order and in one
//! piece is read the same way; and a hello that isn't whole has no fingerprint.
//!
//! The input is a list of segments: two bytes that say where it lies, two of length, then its bytes.

#![no_main]

use flowtel::tls::{Assembly, MOST, MOST_LISTED, Read, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut assembly = Assembly::default();
    let mut rest = data;
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*c, *d])).min(tail.len());
        let (bytes, next) = tail.split_at(length);
        assembly.add(u32::from(u16::from_be_bytes([*a, *b])), bytes);
        rest = next;
        assert!(assembly.bytes().len() <= MOST);
        let found = assembly.read();
        assert_eq!(found, read(assembly.bytes()));
        check(&found);
    }
    check(&read(data));
});

fn check(read: &Read) {
    let (hello, whole) = match read {
        Read::Nothing => return,
        Read::Part(hello) => (hello, false),
        Read::Whole(hello) => (hello, true),
    };
    assert!(hello.ja4.is_none() || whole && hello.whole);
    assert!(hello.protocols.len() <= MOST_LISTED && hello.versions.len() <= MOST_LISTED);
    let texts = hello.server_name.iter().chain(&hello.protocols).chain(&hello.versions);
    assert!(texts.clone().all(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())));
    if let Some(ja4) = &hello.ja4 {
        assert!(ja4.as_str().len() == 36 && ja4.as_str().bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
    }
}
