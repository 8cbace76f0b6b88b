//! Responses in, what they prove out.

use proptest::prelude::*;

use super::*;
use crate::dns::sample::{A as TYPE_A, AAAA, HTTPS, Message as Sample, NS, QUESTION, wire, *};

/// Address, names and seconds to live of each proof.
fn proofs(bytes: &[u8]) -> Result<Vec<(String, String, u64)>, Malformed> {
    cut(bytes, false)
}

fn cut(bytes: &[u8], truncated: bool) -> Result<Vec<(String, String, u64)>, Malformed> {
    let mut parser = Parser::default();
    let response = parser.parse(bytes, truncated)?;
    Ok(response.proofs().map(|p| (p.address.to_string(), p.names.to_owned(), p.ttl.as_secs())).collect())
}

fn one(address: &str, names: &str, ttl: u64) -> Result<Vec<(String, String, u64)>, Malformed> {
    Ok(vec![(address.into(), names.into(), ttl)])
}

fn question(name: &str) -> Sample {
    Sample::response(&wire(name), TYPE_A)
}

#[test]
fn an_address_has_the_name_that_was_asked_for() {
    let message = question("example.com").a(QUESTION, 300, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "example.com", 300));
    let message = Sample::response(&wire("example.com"), AAAA).aaaa(QUESTION, 300, "2001:db8::1");
    assert_eq!(proofs(message.bytes()), one("2001:db8::1", "example.com", 300));
}

#[test]
fn captured_messages_are_read() {
    let six = proofs(SIX_ADDRESSES).expect("a response");
    assert_eq!(six.len(), 6);
    assert_eq!(six[0], ("64.233.164.100".into(), "google.com".into(), 239));
    assert!(six.iter().all(|(_, names, ttl)| names == "google.com" && *ttl == 239));
    assert_eq!(proofs(MIXED_CASE_AND_EDNS), one("203.0.113.80", "proxy.golang.org", 60));
    assert_eq!(proofs(ONLY_AN_ALIAS), Ok(vec![]));
    assert_eq!(proofs(NO_DATA), Ok(vec![]));
}

#[test]
fn the_question_is_told_with_its_type() {
    let mut parser = Parser::default();
    let mut of = |kind| {
        let message = Sample::response(&wire("A.Example"), kind);
        parser.parse(message.bytes(), false).map(|r| (r.question.name.to_owned(), r.question.kind))
    };
    assert_eq!(of(TYPE_A), Ok(("a.example".into(), Kind::A)));
    assert_eq!(of(AAAA), Ok(("a.example".into(), Kind::Aaaa)));
    assert_eq!(of(HTTPS), Ok(("a.example".into(), Kind::Other(65))));
}

#[test]
fn a_chain_of_three_aliases_is_followed_in_whatever_order_its_records_stand() {
    let (b, c, d) = (wire("b.example"), wire("c.example"), wire("d.example"));
    let names = "a.example b.example c.example d.example";
    let in_order =
        question("a.example").cname(QUESTION, 300, &b).cname(&b, 20, &c).cname(&c, 100, &d).a(&d, 60, [192, 0, 2, 1]);
    assert_eq!(proofs(in_order.bytes()), one("192.0.2.1", names, 20));
    let reversed =
        question("a.example").a(&d, 60, [192, 0, 2, 1]).cname(&c, 100, &d).cname(&b, 20, &c).cname(QUESTION, 300, &b);
    assert_eq!(proofs(reversed.bytes()), one("192.0.2.1", names, 20));
}

#[test]
fn an_alias_compressed_into_the_question_and_owned_in_other_letters_is_followed() {
    // "b" and a pointer to "example" within the question "a.example".
    let b = [&[1, b'B'][..], &[0xc0, 14]].concat();
    let message = question("a.example").cname(QUESTION, 300, &b).a(&wire("b.EXAMPLE"), 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example b.example", 60));
}

#[test]
fn a_loop_of_aliases_ends_and_proves_only_what_is_on_it() {
    let (b, c) = (wire("b.example"), wire("c.example"));
    let message = question("a.example").cname(QUESTION, 300, &b).cname(&b, 300, QUESTION).a(&b, 60, [192, 0, 2, 1]).a(
        &c,
        60,
        [192, 0, 2, 2],
    );
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example b.example", 60));
    let itself = question("a.example").cname(QUESTION, 300, QUESTION);
    assert_eq!(proofs(itself.bytes()), Ok(vec![]));
}

#[test]
fn sixteen_links_are_followed_and_not_one_more() {
    let chain = |links: usize| {
        let name = |i: usize| wire(&format!("n{i}"));
        let mut message = question("n0");
        for i in 0..links {
            message = message.cname(&name(i), 300, &name(i + 1));
        }
        proofs(message.a(&name(links), 60, [192, 0, 2, 1]).bytes()).expect("a response")
    };
    assert_eq!(chain(MAX_LINKS)[0].1.split(' ').count(), MAX_LINKS + 1);
    assert_eq!(chain(MAX_LINKS + 1), []);
}

#[test]
fn of_two_aliases_of_one_name_the_first_counts() {
    let (b, c) = (wire("b.example"), wire("c.example"));
    let message = question("a.example").cname(QUESTION, 300, &b).cname(QUESTION, 300, &c).a(&c, 60, [192, 0, 2, 2]).a(
        &b,
        60,
        [192, 0, 2, 1],
    );
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example b.example", 60));
}

#[test]
fn records_that_the_question_does_not_lead_to_prove_nothing() {
    let bank = wire("bank.example");
    let message = question("a.example")
        .a(&bank, 60, [192, 0, 2, 66])
        .cname(&bank, 60, QUESTION)
        .record(QUESTION, NS, 60, &bank)
        .record(QUESTION, HTTPS, 60, b"\x00\x01\x00\x00\x04\x00\x04\xc0\x00\x02\x42")
        .a(QUESTION, 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example", 60));
    // Another class than IN.
    let mut chaos = question("a.example").a(QUESTION, 60, [192, 0, 2, 1]).bytes().to_vec();
    let class = chaos.len() - 12;
    chaos[class..class + 2].copy_from_slice(&[0, 3]);
    assert_eq!(proofs(&chaos), Ok(vec![]));
}

#[test]
fn an_error_of_the_server_proves_nothing() {
    for rcode in 1..16 {
        let message = question("a.example").a(QUESTION, 60, [192, 0, 2, 1]).with(3, 0x80 | rcode);
        assert_eq!(proofs(message.bytes()), Ok(vec![]), "{rcode}");
    }
}

#[test]
fn a_query_another_operation_and_two_questions_are_refused() {
    let message = question("a.example").a(QUESTION, 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.clone().with(2, 0x01).bytes()), Err(Malformed::NoResponse));
    assert_eq!(proofs(message.clone().with(2, 0xa1).bytes()), Err(Malformed::NoResponse));
    assert_eq!(proofs(message.clone().with(5, 0).bytes()), Err(Malformed::Question));
    assert_eq!(proofs(message.with(5, 2).bytes()), Err(Malformed::Question));
    assert_eq!(proofs(b""), Err(Malformed::Bytes));
}

#[test]
fn an_ipv4_mapped_address_is_ipv4() {
    let message = Sample::response(&wire("a.example"), AAAA).aaaa(QUESTION, 60, "::ffff:192.0.2.1");
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example", 60));
}

#[test]
fn odd_bytes_of_a_name_are_escaped_and_a_blank_never_stands_in_one() {
    let message = Sample::response(b"\x05a.b \xff\x03\x1b[m\x00", TYPE_A).a(QUESTION, 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", r"a\.b\032\255.\027[m", 60));
    let long = [&[63][..], &[0; 63], &[63], &[0; 63], &[0]].concat();
    let message = Sample::response(&long, TYPE_A).a(QUESTION, 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), Err(Malformed::Name));
}

#[test]
fn the_root_has_no_addresses() {
    let message = Sample::response(&[0], TYPE_A).a(&[0], 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), Ok(vec![]));
    let message = question("a.example").cname(QUESTION, 60, &[0]).a(&[0], 60, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), Ok(vec![]));
}

#[test]
fn a_time_to_live_with_the_first_bit_set_is_zero() {
    let message = question("a.example").a(QUESTION, 0x8000_0001, [192, 0, 2, 1]);
    assert_eq!(proofs(message.bytes()), one("192.0.2.1", "a.example", 0));
}

#[test]
fn data_of_the_wrong_length_is_malformed() {
    for length in [0, 3, 5, 16] {
        let message = question("a.example").record(QUESTION, TYPE_A, 60, &vec![1; length]);
        assert_eq!(proofs(message.bytes()), Err(Malformed::Bytes), "{length}");
    }
}

#[test]
fn pointers_forward_to_themselves_and_in_circles_are_malformed() {
    for pointer in [[0xc0, 27], [0xc0, 255], [0xff, 0xff]] {
        let message = question("a.example").a(&pointer, 60, [192, 0, 2, 1]);
        assert_eq!(proofs(message.bytes()), Err(Malformed::Bytes), "{pointer:?}");
    }
    let itself = Sample::response(&[0xc0, 12], TYPE_A);
    assert_eq!(proofs(itself.bytes()), Err(Malformed::Bytes));
}

#[test]
fn a_cut_message_is_believed_up_to_the_cut_only_where_the_capture_says_so() {
    let whole = question("a.example").a(QUESTION, 60, [192, 0, 2, 1]).a(QUESTION, 60, [192, 0, 2, 2]);
    let bytes = &whole.bytes()[..whole.bytes().len() - 3];
    assert_eq!(proofs(bytes), Err(Malformed::Bytes));
    assert_eq!(cut(bytes, true), one("192.0.2.1", "a.example", 60));
}

#[test]
fn a_parser_that_was_used_before_gives_what_a_new_one_gives() {
    let mut parser = Parser::default();
    for bytes in [SIX_ADDRESSES, ONLY_AN_ALIAS, &SIX_ADDRESSES[..40], MIXED_CASE_AND_EDNS, NO_DATA] {
        let again: Result<Vec<_>, _> = parser.parse(bytes, false).map(|response| {
            response.proofs().map(|p| (p.address.to_string(), p.names.to_owned(), p.ttl.as_secs())).collect()
        });
        assert_eq!(again, proofs(bytes));
    }
}

#[test]
fn the_most_hostile_message_of_two_kilobytes_is_read_in_little_time() {
    // Each record's name is a pointer to that of the record before it, and all of them are the same name in the end.
    let mut message = question("a.example");
    while message.bytes().len() < 1_000 {
        let at = message.bytes().len();
        let pointer = if at < 60 { 12 } else { at - 12 - 2 };
        message = message.cname(&[0xc0 | (pointer >> 8) as u8, pointer as u8], 60, &[0xc0, 12]);
    }
    while message.bytes().len() < 2_048 - 16 {
        message = message.a(QUESTION, 60, [192, 0, 2, 1]);
    }
    let start = std::time::Instant::now();
    for _ in 0..100 {
        let _ = cut(message.bytes(), true);
    }
    assert!(start.elapsed().as_millis() < 2_000, "{:?} for 100", start.elapsed());
}

fn check(bytes: &[u8], truncated: bool) {
    let mut parser = Parser::default();
    let Ok(response) = parser.parse(bytes, truncated) else { return };
    assert!(response.proofs().count() <= MAX_RECORDS);
    for proof in response.proofs() {
        assert_eq!(proof.address, proof.address.to_canonical());
        let names: Vec<_> = proof.names.split(' ').collect();
        assert_eq!(names[0], response.question.name);
        assert!(names.len() <= MAX_LINKS + 1);
        for name in names {
            assert!(!name.is_empty() && name.len() <= text::MAX_NAME);
            assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()), "{name:?}");
        }
    }
}

/// Messages whose parts are well formed one by one, in odd combinations.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just(QUESTION.to_vec()),
        "[a-c]{1,2}(\\.[A-C]{1,2}){0,3}".prop_map(|n| wire(&n)),
        (0u8..200).prop_map(|at| vec![0xc0, at]),
        prop::collection::vec(any::<u8>(), 1..8),
    ];
    let record = (name.clone(), prop::sample::select(vec![TYPE_A, AAAA, CNAME, NS, HTTPS]), any::<u32>(), name.clone());
    (name, prop::collection::vec(record, 0..20)).prop_map(|(question, records)| {
        let start = Sample::response(&question, TYPE_A);
        let message = records.into_iter().fold(start, |message, (owner, kind, ttl, target)| match kind {
            TYPE_A => message.a(&owner, ttl, [192, 0, 2, 1]),
            AAAA => message.aaaa(&owner, ttl, "2001:db8::1"),
            kind => message.record(&owner, kind, ttl, &target),
        });
        message.bytes().to_vec()
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), truncated: bool) {
        check(&bytes, truncated);
    }

    #[test]
    fn no_message_breaks_what_is_promised_wherever_it_is_cut(bytes in messages(), at: prop::sample::Index) {
        check(&bytes, false);
        check(&bytes[..at.index(bytes.len() + 1)], true);
    }

    #[test]
    fn one_changed_byte_breaks_nothing(bytes in messages(), at: prop::sample::Index, to: u8) {
        let mut bytes = bytes;
        let at = at.index(bytes.len());
        bytes[at] = to;
        check(&bytes, false);
    }
}

#[test]
fn every_cut_of_a_message_is_either_refused_or_says_less() {
    for message in [SIX_ADDRESSES, ONLY_AN_ALIAS, MIXED_CASE_AND_EDNS, NO_DATA] {
        let whole = proofs(message).expect("a response");
        for at in 0..message.len() {
            if let Ok(part) = cut(&message[..at], true) {
                assert!(whole.starts_with(&part), "{at}");
            }
        }
    }
}
