use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    capture::{KernelTime, WallTime},
    config::rules::{Action, Rule, Rules},
    flow::{Direction, EndReason, Evidence, FailReason, Flow, FlowId, Fold, Owner, Role, Source, Stamp, Traffic},
    owner::{Place, Process},
};

fn select(change: impl FnOnce(&mut config::Config)) -> Select {
    let mut config = config::Config::default();
    change(&mut config);
    Select::new(&config, Arc::default())
}

fn rules(texts: &[&str]) -> Rules {
    Rules(texts.iter().map(|text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))).collect())
}

fn filtering(texts: &[&str]) -> Select {
    select(|config| config.capture.filter = rules(texts))
}

fn owner(pid: u32, uid: u32, name: &str) -> Owner {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Owner {
        pid,
        uid,
        comm,
        cgroup: 1,
        since: KernelTime(0),
        role: Role::Connector,
        source: Source::Connect,
        begin: None,
    }
}

fn event(what: What) -> FlowEvent {
    FlowEvent {
        at: Stamp { time: KernelTime(0), wall: WallTime(0), observed: WallTime(0) },
        flow: Flow {
            netns: crate::capture::NetnsId::UNKNOWN,
            interface: 0,
            id: Some(FlowId(7)),
            community_id: None,
            source: ([10, 0, 0, 1], 40_000).into(),
            destination: ([192, 0, 2, 1], 443).into(),
            direction: Some(Direction::Outgoing),
            local: false,
            owner: Some(owner(1, 1000, "curl")),
            tunnel: None,
        },
        what,
    }
}

const BEGIN: What = What::Begin { handshake: None };

fn end() -> What {
    let traffic = Traffic {
        counted: true,
        source_bytes: 0,
        destination_bytes: 0,
        source_segments: 0,
        destination_segments: 0,
        retransmits: 0,
        rtt: None,
        delta: None,
    };
    What::End { cause: Some(EndReason::Fin.by(Evidence::State)), duration: None, traffic }
}

fn failed(fold: Option<Fold>) -> What {
    What::Failed { cause: FailReason::Refused.by(Evidence::SocketError), attempts: 1, fold }
}

/// What the pipeline does with an event. Returns whether it becomes a record.
fn told(select: &mut Select, enriched: &Enriched<'_>) -> bool {
    match select.look(enriched.event) {
        Look::Record => true,
        Look::LeaveOut => false,
        Look::AskOwner => select.decide(enriched),
    }
}

fn tells(select: &mut Select, event: &FlowEvent) -> bool {
    told(select, &Enriched::bare(event))
}

/// Told, unselected, made, filtered, sampled.
fn counts(select: &Select) -> [u64; 5] {
    let (e, r) = (&select.ledger.events, &select.ledger.records);
    [&e.told, &e.unselected, &r.made, &r.filtered, &r.sampled].map(crate::ledger::Counter::get)
}

#[test]
fn events_that_were_not_asked_for_are_no_records_and_are_counted_apart() {
    let mut select = select(|config| config.capture.events = Events::ENDS.and(Events::FAILED));
    let is = [BEGIN, end(), failed(None)].map(|what| tells(&mut select, &event(what)));
    assert_eq!(is, [false, true, true]);
    assert_eq!(counts(&select), [3, 1, 2, 0, 0]);
}

#[test]
fn rules_that_all_include_mean_no_others_unless_it_is_said() {
    let kept = |texts: &[&str], default| {
        let mut select = select(|config| {
            config.capture.filter = rules(texts);
            config.capture.filter_default = default;
        });
        tells(&mut select, &event(BEGIN))
    };
    assert!(kept(&[], None));
    assert!(!kept(&["include port=80"], None));
    assert!(kept(&["exclude port=80"], None));
    assert!(kept(&["include port=80", "exclude port=81"], None));
    assert!(kept(&["include port=80"], Some(Action::Include)));
    assert!(!kept(&["exclude port=80"], Some(Action::Exclude)));
    assert!(!kept(&[], Some(Action::Exclude)));
}

#[test]
fn what_is_not_known_matches_no_condition() {
    let mut nowhere = event(failed(None));
    nowhere.flow.source = ([0, 0, 0, 0], 0).into();
    nowhere.flow.direction = None;
    nowhere.flow.owner = None;
    for rule in [
        "source=0.0.0.0/0",
        "source_port=1-65535",
        "direction=outgoing,incoming",
        "user=0-4294967295",
        "process=*",
        "process=/*",
        "cgroup=/*",
        "container=*",
        "address=::/0",
    ] {
        assert!(tells(&mut filtering(&[&format!("exclude {rule}")]), &nowhere), "{rule}");
    }
    assert!(!tells(&mut filtering(&["exclude address=0.0.0.0/0"]), &nowhere), "its destination is known");
}

#[test]
fn the_process_behind_a_flow_is_matched_by_all_its_names() {
    let event = event(BEGIN);
    let process = Process::named("curl-8", "/usr/bin/curl-8");
    let place = Place {
        container_id: Some("4f2c0123456789ab".into()),
        path: "/system.slice/docker-4f2c0123456789ab.scope".into(),
        ..Place::default()
    };
    let enriched = Enriched { process: Some(process), place: Some(place.into()), ..Enriched::bare(&event) };
    for (rule, matches) in [
        ("process=curl", true),
        ("process=curl-8", true),
        ("process=cur?", true),
        ("process=wget,curl*", true),
        ("process=/usr/bin/curl-8", true),
        ("process=/usr/*", true),
        ("process=/usr/bin/curl", false),
        ("process=url", false),
        ("user=1000", true),
        ("user=0-999", false),
        ("container=4f2c01234567", true),
        ("container=4f2c*", true),
        ("container=2c", false),
        ("cgroup=/system.slice", true),
        ("cgroup=/system.slice/", true),
        ("cgroup=/system", false),
        ("cgroup=/", true),
        ("cgroup=*/docker-*.scope", true),
        ("cgroup=/system.slice/docker", false),
        ("process=curl user=0", false),
    ] {
        let mut select = filtering(&[&format!("exclude {rule}")]);
        assert_eq!(told(&mut select, &enriched), !matches, "{rule}");
        assert_eq!(counts(&select), [1, 0, 1, u64::from(matches), 0]);
    }
}

#[test]
fn a_flow_that_changes_its_owner_keeps_the_fate_of_its_begin() {
    for (rule, kept) in [("exclude process=late", true), ("exclude process=early", false)] {
        let mut select = filtering(&[rule]);
        let mut begin = event(BEGIN);
        begin.flow.owner = Some(owner(1, 0, "early"));
        let mut end = event(end());
        end.flow.owner = Some(owner(2, 0, "late"));
        assert_eq!([&begin, &end].map(|event| tells(&mut select, event)), [kept; 2]);
        // Once only: nothing stays behind, and an end without a begin is taken as it is.
        assert!(select.decided.is_empty());
        assert_eq!(tells(&mut select, &end), !kept);
    }
}

#[test]
fn an_update_has_the_fate_of_its_begin_however_many_there_are_and_whoever_owns_it_by_then() {
    for (rule, kept) in [("exclude process=late", true), ("exclude process=early", false)] {
        let mut select = filtering(&[rule]);
        let mut begin = event(BEGIN);
        begin.flow.owner = Some(owner(1, 0, "early"));
        let What::End { traffic, .. } = end() else { panic!("an end") };
        let mut update = event(What::Update { duration: None, traffic });
        update.flow.owner = Some(owner(2, 0, "late"));
        let mut end = event(end());
        end.flow.owner = update.flow.owner;
        let fates = [&begin, &update, &update, &end].map(|event| tells(&mut select, event));
        assert_eq!(fates, [kept; 4]);
        assert!(select.decided.is_empty());
    }
}

#[test]
fn new_rules_do_not_tear_apart_what_was_decided_by_an_owner() {
    let mut select = filtering(&["exclude process=curl"]);
    assert!(!tells(&mut select, &event(BEGIN)));
    select.replace_filter(Filter::new(&Rules::default(), None));
    assert!(!tells(&mut select, &event(end())));
    assert!(tells(&mut select, &event(BEGIN)));
}

#[test]
fn failures_are_never_sampled_away() {
    let mut select = select(|config| config.capture.sample = 0.0);
    let fold = Fold { count: 9, duration: Duration::ZERO, destination_ports: 3 };
    let mut folded = event(failed(Some(fold)));
    folded.flow.id = None;
    let is = [event(BEGIN), event(end()), event(failed(None)), folded].map(|event| tells(&mut select, &event));
    assert_eq!(is, [false, false, true, true]);
    assert_eq!(counts(&select), [4, 0, 4, 0, 2]);
}

#[test]
fn a_sample_is_as_large_as_it_was_asked_for_and_a_part_of_any_larger_one() {
    let boot = crate::flow::BootId::new([5; 16]);
    let mut kept = [0; 3];
    for n in 0..10_000u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let mut event = event(BEGIN);
        event.flow.id = Some(FlowId::new(&boot, n.into(), ([a, b, c, d], 1).into(), ([192, 0, 2, 1], 443).into()));
        let is = [0.1, 0.5, 1.0].map(|ratio| Sample::new(ratio).keeps(&event));
        assert!(is.is_sorted());
        (0..3).for_each(|i| kept[i] += u32::from(is[i]));
    }
    assert!((900..1100).contains(&kept[0]) && (4800..5200).contains(&kept[1]) && kept[2] == 10_000, "{kept:?}");
}

// === against a plain model

/// Rules over a small world, so that they often match.
fn rule() -> impl Strategy<Value = (bool, Rule)> {
    let net = prop::sample::select(vec!["", "10.0.0.0/8", "10.0.0.1", "192.0.2.0/24", "fd00::/8", "0.0.0.0/0"]);
    let port = prop::sample::select(vec!["", "443", "1-1023", "40000-49999,22"]);
    let way = prop::sample::select(vec!["", "outgoing", "incoming"]);
    let local = prop::sample::select(vec!["", "true", "false"]);
    let process = prop::sample::select(vec!["", "", "curl", "ngin?", "/usr/*"]);
    let user = prop::sample::select(vec!["", "", "0", "1000-1999"]);
    let nets = (net.clone(), net.clone(), net);
    let ports = (port.clone(), port.clone(), port);
    (any::<bool>(), nets, ports, way, local, process, user).prop_map(
        |(include, (source, destination, address), (sport, dport, either), way, local, process, user)| {
            let mut text = if include { "include" } else { "exclude" }.to_owned();
            for (key, value) in [
                ("source", source),
                ("destination", destination),
                ("address", address),
                ("source_port", sport),
                ("destination_port", dport),
                ("port", either),
                ("direction", way),
                ("local", local),
                ("process", process),
                ("user", user),
            ] {
                if !value.is_empty() {
                    text += &format!(" {key}={value}");
                }
            }
            (include, text.parse().expect("a rule"))
        },
    )
}

fn flows() -> impl Strategy<Value = FlowEvent> {
    let ip = prop::sample::select(vec!["10.0.0.1", "10.9.9.9", "192.0.2.1", "198.51.100.1", "fd00::1", "2001:db8::1"]);
    let port = prop::sample::select(vec![22u16, 443, 8080, 40_000, 65_535]);
    let whose =
        prop::option::of((prop::sample::select(vec![0u32, 1000, 65_534]), prop::sample::select(vec!["curl", "nginx"])));
    let way = prop::option::of(prop::sample::select(vec![Direction::Outgoing, Direction::Incoming]));
    (ip.clone(), port.clone(), ip, port, way, any::<bool>(), whose, any::<u128>()).prop_map(
        |(a, ap, b, bp, direction, local, who, id)| {
            let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
            let mut event = event(BEGIN);
            event.flow = Flow {
                id: Some(FlowId(id)),
                source: SocketAddr::new(ip(a), ap),
                destination: SocketAddr::new(ip(b), bp),
                direction,
                local,
                owner: who.map(|(uid, name)| owner(1, uid, name)),
                ..event.flow
            };
            event
        },
    )
}

/// Whether a rule matches, by its text: word by word.
fn model(rule: &Rule, event: &FlowEvent, path: Option<&str>) -> bool {
    let text = rule.to_string();
    let in_net = |ip: IpAddr, nets: &str| {
        nets.split(',').any(|net| {
            let (base, bits) = net.split_once('/').expect("a network");
            let (base, bits): (IpAddr, u32) = (base.parse().expect("an address"), bits.parse().expect("bits"));
            match (ip, base) {
                (IpAddr::V4(ip), IpAddr::V4(base)) => {
                    (0..bits).all(|i| (ip.to_bits() ^ base.to_bits()) << i >> 31 == 0)
                }
                (IpAddr::V6(ip), IpAddr::V6(base)) => {
                    (0..bits).all(|i| (ip.to_bits() ^ base.to_bits()) << i >> 127 == 0)
                }
                _ => false,
            }
        })
    };
    let in_range = |n: u32, ranges: &str| {
        ranges.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().expect("a number")..=last.parse().expect("a number")).contains(&n)
        })
    };
    let flow = &event.flow;
    text.split(' ').skip(1).all(|word| {
        let (key, values) = word.split_once('=').expect("a condition");
        match key {
            "source" => in_net(flow.source.ip(), values),
            "destination" => in_net(flow.destination.ip(), values),
            "address" => in_net(flow.source.ip(), values) || in_net(flow.destination.ip(), values),
            "source_port" => in_range(flow.source.port().into(), values),
            "destination_port" => in_range(flow.destination.port().into(), values),
            "port" => [flow.source, flow.destination].iter().any(|end| in_range(end.port().into(), values)),
            "direction" => flow.direction.is_some_and(|d| d.as_str() == values),
            "local" => flow.local.to_string() == values,
            "user" => flow.owner.is_some_and(|o| in_range(o.uid, values)),
            "process" => match values {
                "curl" => flow.owner.is_some_and(|o| o.name() == b"curl"),
                "ngin?" => flow.owner.is_some_and(|o| o.name() == b"nginx"),
                "/usr/*" => path.is_some_and(|path| path.starts_with("/usr/")),
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
    })
}

proptest! {
    #[test]
    fn the_first_rule_that_matches_decides_for_begin_and_end(
        rules in prop::collection::vec(rule(), 0..6),
        flows in prop::collection::vec((flows(), prop::sample::select(vec![None, Some("/usr/bin/curl"), Some("/opt/x")])), 1..8),
        ratio in prop::sample::select(vec![0.0, 0.3, 1.0]),
    ) {
        let mut select = select(|config| {
            config.capture.filter = Rules(rules.iter().map(|(_, rule)| rule.clone()).collect());
            config.capture.sample = ratio;
        });
        let default = rules.is_empty() || rules.iter().any(|(include, _)| !include);
        let (mut filtered, mut sampled) = (0, 0);
        let mut fates = Vec::new();
        for (event, path) in &flows {
            let process = path.map(|path| Process::named("x", path));
            let enriched = Enriched { process, ..Enriched::bare(event) };
            let first = rules.iter().find(|(_, rule)| model(rule, event, *path));
            let kept = first.map_or(default, |(include, _)| *include);
            let drawn = event.flow.id.is_some_and(|id| (id.0 as f64) < ratio * 2f64.powi(128));
            prop_assert_eq!(told(&mut select, &enriched), kept && drawn);
            fates.push(kept && drawn);
            filtered += u64::from(!kept);
            sampled += u64::from(kept && !drawn);
        }
        prop_assert_eq!(counts(&select), [flows.len() as u64, 0, flows.len() as u64, filtered, sampled]);
        // By its end the process has another name, or none.
        for ((begin, _), fate) in flows.iter().zip(fates) {
            let mut end = FlowEvent { what: end(), ..begin.clone() };
            end.flow.owner = None;
            prop_assert_eq!(tells(&mut select, &end), fate);
        }
        prop_assert!(select.decided.is_empty());
    }
}
