use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Result<Rule, String> {
    text.parse()
}

fn table(json: &str) -> Result<Rules, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

#[test]
fn a_text_and_a_table_say_the_same() {
    let text = "exclude src=10.1.2.3/8,fd00::1 dst=192.0.2.7 addr=::/0 sport=1-1023 dport=https,8000-8999 port=22 direction=incoming \
                local=false process=\"my server\",/usr/bin/* pid=7 uid=0,1000-1999 cgroup=/kubepods.slice container=4f2c*";
    let should = Rule {
        action: Action::Exclude,
        source: nets(&["10.0.0.0/8", "fd00::1/128"]),
        destination: nets(&["192.0.2.7/32"]),
        address: nets(&["::/0"]),
        source_port: vec![1..=1023],
        destination_port: vec![443..=443, 8000..=8999],
        port: vec![22..=22],
        direction: vec![Way::Incoming],
        local: Some(false),
        process: vec![Pattern("my server".into()), Pattern("/usr/bin/*".into())],
        pid: vec![7..=7],
        user: vec![0..=0, 1000..=1999],
        cgroup: vec![Pattern("/kubepods.slice".into())],
        container: vec![Pattern("4f2c*".into())],
    };
    assert_eq!(rule(text), Ok(should.clone()));
    let json = r#"[{ "action": "exclude", "source": ["10.1.2.3/8", "fd00::1"], "destination": "192.0.2.7", "address": "::/0",
        "source_port": "1-1023", "destination_port": [443, "8000-8999"], "port": "ssh", "direction": "incoming", "local": false,
        "process": ["my server", "/usr/bin/*"], "pid": 7, "user": [0, "1000-1999"], "cgroup": "/kubepods.slice",
        "container": ["4f2c*"] }]"#;
    assert_eq!(table(json), Ok(Rules(vec![should])));
}

#[test]
fn several_rules_stand_in_one_text() {
    let rules = parse::rules(" include port=22 ;\n\nexclude ; exclude process=\"a;b\"\n").expect("rules");
    let texts: Vec<_> = rules.0.iter().map(Rule::to_string).collect();
    assert_eq!(texts, ["include port=22", "exclude", "exclude process=\"a;b\""]);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, says) in [
        ("", "found nothing"),
        ("drop port=5", "expected \"include\" or \"exclude\", found \"drop\""),
        ("include port", "expected a condition such as port=443, found \"port\""),
        ("include =5", "unknown condition \"\""),
        ("include prot=22", "unknown condition \"prot\"; did you mean \"port\"?"),
        ("include proto=tcp", "unknown condition \"proto\"; did you mean \"port\"?; there are source (src)"),
        ("include port=", "port: expected a value, found none"),
        ("include port=1,,2", "port: expected a value, found none"),
        ("include port=0", "port: expected a port from 1 to 65535"),
        ("include port=9-1", "found \"9-1\""),
        ("include port=65536", "found \"65536\""),
        ("include destination_port=1 dport=2", "dport: this condition is there twice"),
        ("include src=10.0.0.0/33", "src: expected an address or a network"),
        ("include src=example.com", "found \"example.com\""),
        ("include src=::ffff:10.0.0.0/104", "IPv4 addresses in their own form"),
        ("include direction=out", "expected \"outgoing\" or \"incoming\", found \"out\""),
        ("include local=yes", "expected true or false"),
        ("include local=true,false", "expected one of true and false"),
        ("include uid=root", "expected a user id"),
        ("include cgroup=system.slice", "expected a path from the root"),
        ("include process=\"a", "expected a quote at the end"),
        ("include process=\"a\"b", "expected a comma or a blank"),
        ("include port=1; exclude", "found another behind it"),
    ] {
        let said = rule(text).expect_err(text);
        assert!(said.contains(says), "{text}: {said}");
    }
    let long = format!("include process={}", "a".repeat(MAX_PATTERN + 1));
    assert!(rule(&long).is_err_and(|e| e.contains("at most 256 characters")));
    for (json, says) in [
        (r#"["exclude", {"port": 5}]"#, "rule 2: expected action"),
        (r#"[{"action": "include", "port": []}]"#, "rule 1: port: expected a value"),
        (r#"[{"action": ["include", "exclude"]}]"#, "expected action"),
        (r#"[{"action": "include", "source_prot": 5}]"#, "unknown condition \"source_prot\""),
        ("[5]", "rule 1: invalid type"),
    ] {
        let said = table(json).expect_err(json);
        assert!(said.contains(says), "{json}: {said}");
    }
    assert!(parse::rules(&"include;".repeat(MAX_RULES + 1)).is_err_and(|e| e.contains("at most 256 rules")));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let net = || {
        let four = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, n)| IpNet::new(a.into(), n));
        let six = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, n)| IpNet::new(a.into(), n));
        prop::collection::vec(prop_oneof![four, six].prop_map(|net| net.expect("a length within limits").trunc()), 0..3)
    };
    let port = || prop::collection::vec((1u16.., 1u16..).prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3);
    let ids = || prop::collection::vec(any::<(u32, u32)>().prop_map(|(a, b)| a.min(b)..=a.max(b)), 0..3);
    let pattern = |start: &'static str| {
        let text = "[^\\p{White_Space}][^\\n\\r]{0,8}[^\\p{White_Space}]";
        prop::collection::vec(text.prop_map(move |text| Pattern(format!("{start}{text}"))), 0..3)
    };
    let way = prop::collection::vec(prop::sample::select(vec![Way::Outgoing, Way::Incoming]), 0..3);
    let action = prop::sample::select(vec![Action::Include, Action::Exclude]);
    let first = (action, net(), net(), net(), (port(), port(), port()), way);
    (first, any::<Option<bool>>(), pattern(""), (ids(), ids()), pattern("/"), pattern("")).prop_map(
        |(
            (action, source, destination, address, (source_port, destination_port, port), direction),
            local,
            process,
            (pid, user),
            cgroup,
            container,
        )| Rule {
            action,
            source,
            destination,
            address,
            source_port,
            destination_port,
            port,
            direction,
            local,
            process,
            pid,
            user,
            cgroup,
            container,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(rules in prop::collection::vec(any_rule(), 0..4)) {
        let rules = Rules(rules);
        let json = serde_json::to_string(&rules).expect("a list");
        prop_assert_eq!(table(&json), Ok(rules.clone()));
        let text = rules.0.iter().map(Rule::to_string).collect::<Vec<_>>().join("; ");
        prop_assert_eq!(parse::rules(&text), Ok(rules));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}") {
        let _ = parse::rules(&text);
    }
}
