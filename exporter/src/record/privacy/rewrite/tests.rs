use proptest::prelude::*;

use super::*;
use crate::{
    config::{self, AttributeNames, HashedNames},
    record::schema,
};

/// A record's fields with these attributes, and a body that tells all.
fn record(attributes: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    wire::fixed64(&mut out, log_record::TIME, 7);
    wire::any_string(&mut out, log_record::BODY, b"outgoing tcp 10.1.2.3:4000 -> 10.9.8.7:443");
    attributes(&mut out);
    out
}

fn rewritten(settings: &config::Record, key: Option<&[u8]>, before: &[u8]) -> Vec<u8> {
    let policy = Policy::new(settings, key).expect("a policy");
    let mut out = b"before".to_vec();
    out.extend_from_slice(before);
    let ids = Ids { flow: 5, record: 9 };
    Rewriter::new(Arc::new(policy)).rewrite(&mut out, 6, ids, |out| out.extend_from_slice(b" open"));
    assert!(out.starts_with(b"before"), "what stands before stays");
    out.split_off(6)
}

fn body(record: &[u8]) -> String {
    let mut rest = record;
    let field = std::iter::from_fn(|| Field::next(&mut rest)).find(|field| field.tag == BODY).expect("a body");
    match Any::of(field.payload) {
        Some(Any::Text(text)) => String::from_utf8(text.to_vec()).expect("UTF-8"),
        _ => panic!("a body is a text"),
    }
}

fn addresses(out: &mut Vec<u8>) {
    wire::string_attribute(out, schema::DIRECTION, b"outgoing");
    wire::string_attribute(out, schema::SOURCE_ADDRESS, b"10.1.2.3");
    wire::int_attribute(out, schema::SOURCE_PORT, 4000);
    wire::string_attribute(out, schema::DESTINATION_ADDRESS, b"2001:db8:1:2:3::4");
    wire::int_attribute(out, schema::DESTINATION_PORT, 443);
}

#[test]
fn addresses_are_cut_to_their_networks_in_attributes_and_body() {
    let mut settings =
        config::Record { shorten: config::Shorten { ipv4: Some(24), ipv6: Some(48) }, ..Default::default() };
    let out = rewritten(&settings, None, &record(addresses));
    assert_eq!(body(&out), "outgoing tcp 10.1.2.0:4000 -> [2001:db8:1::]:443 open");
    let text = String::from_utf8_lossy(&out);
    assert!(!text.contains("10.1.2.3") && !text.contains("2001:db8:1:2"), "{text}");
    settings.shorten = config::Shorten { ipv4: Some(0), ipv6: Some(128) };
    let out = rewritten(&settings, None, &record(addresses));
    assert_eq!(body(&out), "outgoing tcp 0.0.0.0:4000 -> [2001:db8:1:2:3::4]:443 open");
}

#[test]
fn what_is_left_out_is_in_no_alias_and_not_in_the_body() {
    let mut settings = config::Record::default();
    settings.attributes.exclude = AttributeNames::new(["addresses", "flowtel.destination.dns.names"]);
    let out = rewritten(
        &settings,
        None,
        &record(|out| {
            addresses(out);
            wire::string_attribute(out, schema::CLIENT_ADDRESS, b"10.1.2.3");
            wire::string_attribute(out, schema::TRACEE_DST, b"2001:db8:1:2:3::4");
            wire::string_attribute(out, schema::COMMUNITY_ID, b"1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
            wire::strings_attribute(out, schema::DESTINATION_NAMES, &["example.com"]);
            wire::strings_attribute(out, schema::TRACEE_DST_DNS, &["example.com"]);
            wire::string_attribute(out, schema::DESTINATION_NAMES_STATE, b"fresh");
            wire::string_attribute(out, schema::EXECUTABLE_NAME, b"curl");
            wire::int_attribute(out, schema::PID, 7);
        }),
    );
    assert_eq!(body(&out), "outgoing tcp ? -> ? curl[7] open");
    let text = String::from_utf8_lossy(&out);
    for gone in ["10.1.2.3", "2001:db8", "example", "fresh", "1:LQU9", "community"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert!(text.contains("source.port") && text.contains("curl"));
}

#[test]
fn the_same_value_has_the_same_hash_wherever_it_stands_and_another_key_gives_another() {
    let mut settings = config::Record::default();
    settings.hash.attributes = HashedNames::new(["addresses", "names", "users", "process.pid"]);
    let before = record(|out| {
        wire::string_attribute(out, schema::SOURCE_ADDRESS, b"10.0.0.5");
        wire::string_attribute(out, schema::DESTINATION_ADDRESS, b"10.0.0.5");
        wire::string_attribute(out, schema::TRACEE_SRC, b"10.0.0.5");
        wire::string_attribute(out, schema::COMMUNITY_ID, b"1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        wire::string_attribute(out, schema::UID, b"00000000000000000000000000000009");
        wire::string_attribute(out, schema::FLOW_ID, b"00000000000000000000000000000005");
        wire::strings_attribute(out, schema::DESTINATION_NAMES, &["example.com", "example.org"]);
        wire::int_attribute(out, schema::USER_ID, 1000);
        wire::int_attribute(out, schema::PID, 7);
    });
    let key = b"0123456789abcdef";
    let out = rewritten(&settings, Some(key), &before);
    let text = String::from_utf8_lossy(&out).into_owned();
    // As openssl has it; see `hash.rs`.
    assert_eq!(
        text.matches("hmac-057685d31af9dfa090c1afb0396ac8e5").count(),
        5,
        "three attributes, twice in the body: {text}"
    );
    for gone in
        ["10.0.0.5", "example", "1:LQU9", "00000000000000000000000000000009", "00000000000000000000000000000005"]
    {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert!(text.contains("flowtel.flow.community_id") && text.contains("flowtel.flow.id"));
    assert_eq!(out, rewritten(&settings, Some(key), &before));
    let other = rewritten(&settings, Some(b"0123456789abcdeg"), &before);
    assert!(!String::from_utf8_lossy(&other).contains("hmac-057685d3"));
}

#[test]
fn ids_of_one_flow_stay_one_id_and_records_stay_apart() {
    let mut settings = config::Record::default();
    settings.hash.attributes = HashedNames::new(["addresses"]);
    let policy = Policy::new(&settings, Some(b"0123456789abcdef")).expect("a policy");
    assert_eq!(policy.id(5), policy.id(5));
    assert!(policy.id(5) != policy.id(6) && policy.id(5) != 5);
    settings.hash.attributes = HashedNames::new(["containers"]);
    let policy = Policy::new(&settings, Some(b"0123456789abcdef")).expect("a policy");
    assert_eq!(policy.id(5), 5, "addresses are shown anyway, so the ids can stay");
}

#[test]
fn only_what_is_included_stays() {
    let mut settings = config::Record::default();
    settings.attributes.include = AttributeNames::new(["destination.address", "destination.port"]);
    let out = rewritten(
        &settings,
        None,
        &record(|out| {
            addresses(out);
            wire::string_attribute(out, schema::UID, b"00000000000000000000000000000009");
            wire::string_attribute(out, schema::SERVER_ADDRESS, b"2001:db8:1:2:3::4");
            wire::string_attribute(out, schema::CLIENT_ADDRESS, b"10.1.2.3");
        }),
    );
    assert_eq!(body(&out), "tcp ? -> [2001:db8:1:2:3::4]:443 open");
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("log.record.uid") && text.contains("server.address"), "{text}");
    assert!(!text.contains("source.") && !text.contains("client.") && !text.contains("10.1.2.3"), "{text}");
}

#[test]
fn no_settings_no_policy() {
    assert!(Policy::new(&config::Record::default(), None).is_none());
    assert!(Policy::new(&config::Record::default(), Some(b"0123456789abcdef")).is_none());
}

proptest! {
    #[test]
    fn whatever_stands_there_is_read_without_a_panic(bytes: Vec<u8>) {
        let mut settings = config::Record::default();
        settings.hash.attributes = HashedNames::new(["addresses", "names", "users"]);
        settings.shorten.ipv4 = Some(8);
        rewritten(&settings, Some(b"0123456789abcdef"), &bytes);
    }
}
