use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use proptest::{prelude::*, strategy::ValueTree as _};

use super::*;
use crate::{
    capture::{KernelTime, NetnsId, pcap::Tunnel},
    config::{self, Groups},
    dns::Reader,
    flow::{CommunityId, Delta, Direction, Evidence, Flow, FlowId, Owner, Role, Source, Stamp},
    gap::Gap,
    ledger::{LOSSES, Loss},
    netns::Namespace,
    record::Observer,
    tls::{
        self, Read,
        sample::{self, Sample},
    },
};

mod privacy;

const BOOT: BootId = BootId::new([3; 16]);

fn encoder(limits: Limits) -> Encoder {
    encoder_with(Groups::default(), limits)
}

fn encoder_with(groups: Groups, limits: Limits) -> Encoder {
    let host = resource::Host { name: "host".into(), id: Some("0123456789abcdef0123456789abcdef".into()) };
    let form = Form { event_name_attribute: true, groups, ..Form::default() };
    let resource = resource::build(&config::Record::default(), &host, &Observer::WHOLE_HOST);
    Encoder::new(&resource, (BOOT, 0), form, limits)
}

const WIDE: Limits = Limits { records: 10_000, bytes: 1 << 20, age: Duration::from_secs(1) };

/// What a record should say, built as a tree from the schema's words and not from the encoder's.
fn expected(event: &FlowEvent) -> LogRecord {
    expected_folded(event, None)
}

fn expected_folded(event: &FlowEvent, folded: Option<&Fold>) -> LogRecord {
    let text = |s: &str| AnyValue { value: Some(Value::StringValue(s.to_owned())) };
    let int = |i: u64| AnyValue { value: Some(Value::IntValue(i as i64)) };
    let signed = |i: i64| AnyValue { value: Some(Value::IntValue(i)) };
    let passed = |traffic: &Traffic| {
        let mut attributes = Vec::new();
        if traffic.counted {
            attributes.push(("flowtel.source.bytes", int(traffic.source_bytes)));
            attributes.push(("flowtel.destination.bytes", int(traffic.destination_bytes)));
        }
        attributes.extend([
            ("flowtel.source.packets", int(traffic.source_segments.into())),
            ("flowtel.destination.packets", int(traffic.destination_segments.into())),
            ("flowtel.tcp.retransmits", int(traffic.retransmits.into())),
        ]);
        attributes
    };
    let delta = |traffic: &Traffic| {
        let mut attributes = Vec::new();
        if let Some(delta) = traffic.delta {
            if traffic.counted {
                attributes.push(("flowtel.delta.source.bytes", signed(delta.source_bytes)));
                attributes.push(("flowtel.delta.destination.bytes", signed(delta.destination_bytes)));
            }
            attributes.extend([
                ("flowtel.delta.source.packets", signed(delta.source_segments.into())),
                ("flowtel.delta.destination.packets", signed(delta.destination_segments.into())),
                ("flowtel.delta.tcp.retransmits", signed(delta.retransmits.into())),
            ]);
        }
        attributes
    };
    let seconds = |d: Duration| AnyValue { value: Some(Value::DoubleValue(d.as_secs_f64())) };
    let show = |e: &SocketAddr| if e.port() == 0 { e.ip().to_string() } else { e.to_string() };
    let flow = &event.flow;
    let direction = flow.direction.map(|d| if d == Direction::Outgoing { "outgoing" } else { "incoming" });
    let name = match event.what {
        What::Begin { .. } => "flowtel.tcp.flow.begin",
        What::Open => "flowtel.tcp.flow.open",
        What::Update { .. } => "flowtel.tcp.flow.update",
        What::ClientHello { .. } => "flowtel.tls.client_hello",
        What::End { .. } | What::Vanished => "flowtel.tcp.flow.end",
        What::Failed { .. } => "flowtel.tcp.flow.failed",
    };
    let id = flow.id.unwrap_or_else(|| FlowId::new(&BOOT, 0, flow.source, flow.destination));
    let what = 1 + ["begin", "open", "end", "failed", "update", "client_hello"]
        .iter()
        .position(|event| name.ends_with(event))
        .expect("one of six");
    let uid = id.0 ^ (u128::from(event.at.time.0) << 8) ^ what as u128;
    let mut attributes = vec![("event.name", text(name)), ("log.record.uid", text(&format!("{uid:032x}")))];
    attributes.extend(flow.id.map(|id| ("flowtel.flow.id", text(&format!("{:032x}", id.0)))));
    attributes
        .extend(flow.community_id.map(|id| ("flowtel.flow.community_id", text(&String::from_utf8_lossy(&id.text())))));
    attributes.extend(direction.map(|direction| ("flowtel.flow.direction", text(direction))));
    if flow.local {
        attributes.push(("flowtel.flow.local", AnyValue { value: Some(Value::BoolValue(true)) }));
    }
    let unknown = flow.source.ip().is_unspecified();
    if !unknown {
        attributes.push(("source.address", text(&flow.source.ip().to_string())));
    }
    if flow.source.port() != 0 {
        attributes.push(("source.port", int(flow.source.port().into())));
    }
    attributes.push(("destination.address", text(&flow.destination.ip().to_string())));
    if flow.destination.port() != 0 {
        attributes.push(("destination.port", int(flow.destination.port().into())));
    }
    attributes.push(("network.transport", text("tcp")));
    attributes.push(("network.type", text(if flow.destination.ip().is_ipv4() { "ipv4" } else { "ipv6" })));
    attributes.extend(flow.tunnel.map(|tunnel| ("flowtel.tunnel.type", text(tunnel.as_str()))));
    let mut body = direction.map(|d| format!("{d} ")).unwrap_or_default();
    body += &format!("tcp {} -> {}", if unknown { "?".into() } else { show(&flow.source) }, show(&flow.destination));
    if let What::Begin { handshake: Some(d) } = event.what {
        attributes.push(("flowtel.tcp.handshake.duration", seconds(d)));
    }
    if let Some(o) = &flow.owner {
        let name = String::from_utf8_lossy(o.name()).into_owned();
        let role = match o.role {
            Role::Connector => "connector",
            Role::Acceptor => "acceptor",
            Role::Listener => "listener",
        };
        attributes.extend([
            ("process.pid", int(o.pid.into())),
            ("process.real_user.id", int(o.uid.into())),
            ("thread.name", text(&name)),
            ("flowtel.process.role", text(role)),
        ]);
        let source = match o.source {
            Source::Connect => "connect",
            Source::Accept => "accept",
            Source::Listener => "listener",
            Source::Snapshot => "snapshot",
        };
        attributes.push(("flowtel.process.source", text(source)));
        attributes.extend(o.begin.map(|pid| ("flowtel.process.begin.pid", int(pid.get().into()))));
        // Neither controls nor marks that turn the direction of writing, as of U+061C and U+202E.
        let acts = |c: char| {
            c.is_control()
                || "\u{61c}\u{200e}\u{200f}".contains(c)
                || ('\u{2028}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c)
        };
        let shown: String =
            name.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect();
        body += &format!(" {shown}[{}]", o.pid);
    }
    let source = |source: Option<Evidence>| {
        source.map(|source| {
            let source = match source {
                Evidence::SocketError => "socket_error",
                Evidence::Segment => "segment",
                Evidence::Timer => "timer",
                Evidence::Call => "call",
                Evidence::State => "state",
            };
            ("flowtel.cause.source", text(source))
        })
    };
    match &event.what {
        What::Begin { .. } => {}
        What::Open => body += " open",
        What::ClientHello { hello } => {
            let list = |values: &[String]| AnyValue {
                value: Some(Value::ArrayValue(ArrayValue { values: values.iter().map(|value| text(value)).collect() })),
            };
            let yes = || AnyValue { value: Some(Value::BoolValue(true)) };
            attributes.extend(hello.server_name.as_ref().map(|name| ("flowtel.tls.server_name", text(name))));
            let lists = [("flowtel.tls.protocols", &hello.protocols), ("flowtel.tls.versions", &hello.versions)];
            attributes.extend(lists.into_iter().filter(|(_, l)| !l.is_empty()).map(|(key, l)| (key, list(l))));
            attributes.extend(hello.ja4.map(|ja4| ("flowtel.tls.ja4", text(ja4.as_str()))));
            attributes.extend(hello.ech.then(|| ("flowtel.tls.ech", yes())));
            attributes.extend((!hello.whole).then(|| ("flowtel.tls.partial", yes())));
            body += " said TLS hello";
        }
        What::Vanished => body += " ended unseen",
        // Of many together what passed since is all that means something.
        What::Update { traffic, .. } if folded.is_some() => attributes.extend(delta(traffic)),
        What::Update { duration, traffic } => {
            attributes.extend(duration.map(|d| ("flowtel.flow.duration", seconds(d))));
            attributes.extend(passed(traffic));
            attributes.extend(traffic.rtt.map(|rtt| ("flowtel.tcp.rtt", seconds(rtt))));
            attributes.extend(delta(traffic));
            body += " still open";
            if traffic.counted {
                body += &format!(": {} bytes there, {} back", traffic.source_bytes, traffic.destination_bytes);
            }
        }
        What::End { cause, duration, traffic } => {
            attributes.extend(duration.map(|d| ("flowtel.flow.duration", seconds(d))));
            attributes.extend(cause.map(|cause| ("flowtel.flow.end.reason", text(cause.reason.as_str()))));
            attributes.extend(source(cause.and_then(|cause| cause.source)));
            attributes.extend(passed(traffic));
            attributes.extend(traffic.rtt.map(|rtt| ("flowtel.tcp.rtt", seconds(rtt))));
            attributes.extend(delta(traffic));
            body += " ended";
            body += &cause.map(|cause| format!(": {}", cause.reason.as_str())).unwrap_or_default();
        }
        What::Failed { cause, attempts, fold } => {
            let reason = cause.reason;
            attributes.push(("error.type", text(reason.as_str())));
            attributes.extend(source(cause.source));
            attributes.push(("flowtel.tcp.attempts", int((*attempts).into())));
            if let Some(fold) = fold {
                attributes.push(("flowtel.fold.count", int(fold.count)));
                attributes.push(("flowtel.fold.duration", seconds(fold.duration)));
                attributes.push(("flowtel.fold.destination.ports", int(fold.destination_ports.into())));
            }
            body += &match fold {
                None => format!(" failed: {}", reason.as_str()),
                Some(fold) if fold.destination_ports > 1 => {
                    format!(" failed {} times at {} ports: {}", fold.count, fold.destination_ports, reason.as_str())
                }
                Some(fold) => format!(" failed {} times: {}", fold.count, reason.as_str()),
            };
        }
    }
    if let Some(fold) = folded {
        attributes.push(("flowtel.fold.count", int(fold.count)));
        attributes.push(("flowtel.fold.duration", seconds(fold.duration)));
        attributes.push(("flowtel.fold.destination.ports", int(fold.destination_ports.into())));
        let times = format!("{} times", fold.count);
        body = match &event.what {
            What::End { .. } => body.replace(" ended", &format!(" ended {times}")),
            What::Open | What::Vanished => format!("{body} {times}"),
            What::Update { .. } => format!("{body} still open {times}"),
            What::ClientHello { .. } => format!("{body} {times}"),
            _ => format!("{body} began {times}"),
        };
    }
    let failed = matches!(event.what, What::Failed { .. });
    LogRecord {
        time_unix_nano: event.at.wall.0,
        observed_time_unix_nano: event.at.observed.0,
        severity_number: if failed { 13 } else { 9 },
        severity_text: if failed { "WARN" } else { "INFO" }.into(),
        event_name: name.into(),
        body: Some(text(&body)),
        attributes: attributes
            .into_iter()
            .map(|(key, value)| KeyValue { key: key.into(), value: Some(value), ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

/// What the groups should say beside that.
fn expected_groups(event: &FlowEvent, names: [&[&str]; 2]) -> Vec<KeyValue> {
    let flow = &event.flow;
    let text = |s: String| Some(Value::StringValue(s));
    let list = |names: &[&str]| {
        let values = names.iter().map(|name| AnyValue { value: text((*name).into()) }).collect();
        Some(Value::ArrayValue(ArrayValue { values }))
    };
    let address = |end: &SocketAddr| (!end.ip().is_unspecified()).then(|| end.ip().to_string()).and_then(text);
    let port = |end: &SocketAddr| (end.port() != 0).then(|| Value::IntValue(end.port().into()));
    let destination = text(flow.destination.ip().to_string());
    let direction = flow.direction.map(|d| if d == Direction::Outgoing { "outgoing" } else { "incoming" });
    let all = [
        ("client.address", address(&flow.source)),
        ("client.port", port(&flow.source)),
        ("server.address", destination.clone()),
        ("server.port", port(&flow.destination)),
        ("conn_direction", direction.and_then(|d| text(d.into()))),
        ("src", address(&flow.source)),
        ("dst", destination),
        ("src_port", port(&flow.source)),
        ("dst_port", port(&flow.destination)),
        ("src_dns", list(names[0])),
        ("dst_dns", list(names[1])),
    ];
    let there = all.into_iter().filter_map(|(key, value)| Some((key, value?)));
    there
        .map(|(key, value)| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..Default::default()
        })
        .collect()
}

fn whats() -> impl Strategy<Value = What> {
    let duration = || any::<u32>().prop_map(|n| Duration::from_nanos(n.into()));
    let traffic =
        (any::<u64>(), 0..u64::from(u32::MAX), any::<[u32; 2]>(), any::<bool>(), 0u32..3, prop::option::of(duration()))
            .prop_map(|(a, b, [c, d], counted, retransmits, rtt)| Traffic {
                counted,
                source_bytes: a >> 1,
                destination_bytes: b,
                source_segments: c,
                destination_segments: d,
                retransmits,
                rtt,
                delta: (d % 2 == 0).then(|| Delta {
                    source_bytes: a as i64,
                    destination_bytes: b as i64,
                    source_segments: c as i32,
                    destination_segments: d as i32,
                    retransmits: -(retransmits as i32),
                }),
            });
    let end_reason =
        prop::sample::select(vec![EndReason::Fin, EndReason::ResetLocal, EndReason::ResetRemote, EndReason::Timeout]);
    let source = prop::sample::select(vec![
        Evidence::SocketError,
        Evidence::Segment,
        Evidence::Timer,
        Evidence::Call,
        Evidence::State,
    ]);
    let source = prop::option::of(source);
    let fail_reason = prop::sample::select(vec![
        FailReason::Refused,
        FailReason::TimedOut,
        FailReason::Unreachable,
        FailReason::Aborted,
        FailReason::Denied,
        FailReason::Other,
    ]);
    let ended = prop::option::of((end_reason, source.clone()).prop_map(|(reason, source)| Cause { reason, source }));
    let failed = (fail_reason, source).prop_map(|(reason, source)| Cause { reason, source });
    let fold = (any::<u32>(), duration(), 0u32..5000).prop_map(|(count, duration, destination_ports)| Fold {
        count: count.into(),
        duration,
        destination_ports,
    });
    prop_oneof![
        prop::option::of(duration()).prop_map(|handshake| What::Begin { handshake }),
        Just(What::Open),
        Just(What::Vanished),
        hellos().prop_map(|hello| What::ClientHello { hello: Box::new(hello) }),
        (prop::option::of(duration()), traffic.clone())
            .prop_map(|(duration, traffic)| What::Update { duration, traffic }),
        (ended, prop::option::of(duration()), traffic).prop_map(|(cause, duration, traffic)| What::End {
            cause,
            duration,
            traffic
        }),
        (failed, any::<u32>(), prop::option::of(fold)).prop_map(|(cause, attempts, fold)| What::Failed {
            cause,
            attempts,
            fold
        }),
    ]
}

/// Hellos as they are read.
fn hellos() -> impl Strategy<Value = Hello> {
    let name = "[a-z0-9.-]{1,60}";
    let extensions = (name, proptest::collection::vec("[a-z0-9/.]{1,9}", 0..4), any::<bool>(), any::<bool>());
    (extensions, any::<prop::sample::Index>()).prop_map(|((name, protocols, ech, whole), cut)| {
        let names: Vec<&[u8]> = protocols.iter().map(|name| name.as_bytes()).collect();
        let mut sample = Sample::new(&name).and(sample::protocols(&names));
        if ech {
            sample = sample.and((0xfe0d, vec![0; 20]));
        }
        let bytes = sample.bytes();
        let cut = if whole { bytes.len() } else { cut.index(bytes.len()) };
        match tls::read(&bytes[..cut]) {
            Read::Whole(hello) | Read::Part(hello) => hello,
            Read::Nothing => Hello::default(),
        }
    })
}

fn events() -> impl Strategy<Value = FlowEvent> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        Just(IpAddr::from([0; 4]))
    ];
    let port = prop_oneof![any::<u16>(), Just(0)];
    let role = prop::sample::select(vec![Role::Connector, Role::Acceptor, Role::Listener]);
    let source = prop::sample::select(vec![Source::Connect, Source::Accept, Source::Listener, Source::Snapshot]);
    let begin = any::<u32>().prop_map(std::num::NonZeroU32::new);
    let owner = (any::<u32>(), any::<u32>(), any::<[u8; 16]>(), role, source, begin).prop_map(
        |(pid, uid, comm, role, source, begin)| Owner {
            pid,
            uid,
            comm,
            cgroup: 1,
            since: KernelTime(0),
            role,
            source,
            begin,
        },
    );
    (
        (ip.clone(), port.clone(), ip, port),
        (prop::option::of(any::<u128>()), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()),
        prop::option::of(prop::sample::select(vec![Direction::Outgoing, Direction::Incoming])),
        (prop::option::of(owner), any::<bool>(), whats()),
        prop::option::of(prop::sample::select(Tunnel::ALL.to_vec())),
    )
        .prop_map(
            |((a, ap, b, bp), (id, time, wall, observed, local), direction, (owner, community, what), tunnel)| {
                let (source, destination) = (SocketAddr::new(a, ap), SocketAddr::new(b, bp));
                // What never happens: a begin that names another process than itself, an older connection in a capture.
                let ends = matches!(what, What::End { .. } | What::Vanished);
                let owner = owner.map(|owner| Owner { begin: owner.begin.filter(|_| ends), ..owner });
                let tunnel = tunnel.filter(|_| !matches!(what, What::Open));
                FlowEvent {
                    at: Stamp { time: KernelTime(time), wall: WallTime(wall), observed: WallTime(observed) },
                    flow: Flow {
                        id: id.map(FlowId),
                        community_id: community.then(|| CommunityId::tcp(source, destination)),
                        source,
                        destination,
                        direction,
                        local,
                        netns: NetnsId::UNKNOWN,
                        interface: 0,
                        owner,
                        tunnel,
                    },
                    what,
                }
            },
        )
}

fn decode(batch: &Batch) -> (Vec<LogRecord>, ExportLogsServiceRequest) {
    let (records, request) = decode_any(batch);
    records.iter().for_each(is_as_machines_are_told);
    (records, request)
}

/// Also records from which the settings leave out what the schema asks for.
fn decode_any(batch: &Batch) -> (Vec<LogRecord>, ExportLogsServiceRequest) {
    let request = ExportLogsServiceRequest::decode(batch.bytes.clone()).expect("a sealed batch is valid protobuf");
    assert_eq!(request.resource_logs.len(), 1);
    assert_eq!(request.resource_logs[0].scope_logs.len(), 1);
    (request.resource_logs[0].scope_logs[0].log_records.clone(), request)
}

/// A record has what its event always has, and nothing that it never has; values are of those that the schema lists.
fn is_as_machines_are_told(record: &LogRecord) {
    use schema::events::{Presence, presence};
    for attribute in schema::ATTRIBUTES {
        let found = record.attributes.iter().find(|found| found.key == attribute.name);
        match presence(attribute, &record.event_name) {
            Presence::Always => assert!(found.is_some(), "{} without {}", record.event_name, attribute.name),
            Presence::Never => assert!(found.is_none(), "{} with {}", record.event_name, attribute.name),
            Presence::Sometimes => {}
        }
        let value = found.and_then(|found| found.value.as_ref()).and_then(|value| value.value.as_ref());
        if let (Some(values), Some(Value::StringValue(value))) = (schema::values::values(attribute.name), value) {
            assert!(values.contains(&value.as_str()), "{}: {value}", attribute.name);
        }
    }
}

proptest! {
    #[test]
    fn every_record_decodes_to_what_the_schema_says(events in prop::collection::vec(events(), 1..20)) {
        let mut encoder = encoder(WIDE);
        // Each so often that what is remembered of it is used, and no record of another shows it.
        let events: Vec<_> = events.iter().flat_map(|event| std::iter::repeat_n(event, 5)).collect();
        for event in events.iter().chain(events.iter().rev()) {
            prop_assert_eq!(encoder.write(&Enriched::bare(event)), None);
        }
        let events: Vec<_> = events.iter().chain(events.iter().rev()).cloned().collect();
        let batch = encoder.seal().expect("records were written");
        let (records, request) = decode(&batch);
        prop_assert_eq!(batch.records as usize, events.len());
        prop_assert_eq!(Some(batch.first), events.iter().map(|e| e.at.wall.0).min());
        prop_assert_eq!(Some(batch.last), events.iter().map(|e| e.at.wall.0).max());
        for (record, event) in records.iter().zip(&events) {
            prop_assert_eq!(record, &expected(event));
        }
        let scope = &request.resource_logs[0].scope_logs[0];
        prop_assert_eq!(scope.schema_url.as_str(), schema::SCHEMA_URL);
        prop_assert_eq!(scope.scope.as_ref().map(|s| s.name.as_str()), Some("flowtel"));
        prop_assert!(request.resource_logs[0].resource.as_ref().is_some_and(|r| r.attributes.len() >= 7));
        prop_assert_eq!(encoder.seal(), None);
    }

    #[test]
    fn groups_come_behind_all_else_with_their_lists_even_where_those_are_empty(event in events(), both in any::<[bool; 2]>()) {
        let [client_server, tracee] = both;
        let mut groups = Groups::default();
        for (wanted, group) in [(client_server, Groups::CLIENT_SERVER), (tracee, Groups::TRACEE)] {
            groups = if wanted { groups.and(group) } else { groups };
        }
        let mut encoder = encoder_with(groups, WIDE);
        encoder.write(&Enriched::bare(&event));
        let hosts = "192.0.2.1 www.example web.example";
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, hosts.as_bytes()).expect("written");
        let dns = crate::dns::Dns::new(&config::Dns { hosts_file: file.path().into(), ..Default::default() }, Default::default());
        let names = dns.names(IpAddr::from([192, 0, 2, 1]), &Reader { netns: 1, owner: None, hosts: true }, KernelTime(0));
        encoder.write(&Enriched { destination_names: names, ..Enriched::bare(&event) });
        let (records, _) = decode(&encoder.seal().expect("records were written"));
        for (record, names) in records.iter().zip([&[][..], &["www.example", "web.example"]]) {
            let more = expected_groups(&event, [&[], names]).into_iter().filter(|attribute| {
                if attribute.key.contains('.') { client_server } else { tracee }
            });
            let more: Vec<_> = more.collect();
            let usual = record.attributes.len() - more.len();
            prop_assert_eq!(&record.attributes[usual..], &more);
            if names.is_empty() {
                prop_assert_eq!(&record.attributes[..usual], &expected(&event).attributes);
            }
        }
    }

    #[test]
    fn limits_cut_the_stream_into_batches_and_lose_nothing(
        events in prop::collection::vec(events(), 1..60),
        most in 1u32..20,
        kib in 2usize..16,
    ) {
        let mut encoder = encoder(Limits { records: most, bytes: kib << 10, age: Duration::from_secs(1) });
        let mut batches = Vec::new();
        for event in &events {
            batches.extend(encoder.write(&Enriched::bare(event)));
        }
        batches.extend(encoder.seal());
        let mut all = Vec::new();
        for batch in &batches {
            prop_assert!(batch.records <= most);
            prop_assert!(batch.bytes.len() <= kib << 10 || batch.records == 1);
            let (records, _) = decode(batch);
            prop_assert_eq!(records.len(), batch.records as usize);
            all.extend(records);
        }
        let wanted: Vec<LogRecord> = events.iter().map(expected).collect();
        prop_assert_eq!(all, wanted);
    }
}

proptest! {
    #[test]
    fn a_folded_begin_or_end_says_how_many_it_stands_for(event in events(), count in 2u64..1 << 40, micros: u32) {
        prop_assume!(!matches!(event.what, What::Failed { .. }));
        let fold = Fold { count, duration: Duration::from_micros(micros.into()), destination_ports: 1 };
        let mut encoder = encoder(WIDE);
        encoder.write(&Enriched { fold: Some(fold), ..Enriched::bare(&event) });
        let (records, _) = decode(&encoder.seal().expect("a record"));
        prop_assert_eq!(records, [expected_folded(&event, Some(&fold))]);
    }

    #[test]
    fn a_gap_record_says_what_is_missing_and_since_when(
        (events, total, recovered, uid) in (any::<u32>(), any::<u32>(), prop_oneof![Just(0u32), any::<u32>()], any::<u128>()),
        (wall, since) in (any::<u64>(), any::<u64>()),
        which in 0..LOSSES.len(),
    ) {
        let Loss { stage, reason, words, .. } = LOSSES[which];
        let at = Stamp { time: KernelTime(1), wall: WallTime(wall), observed: WallTime(wall) };
        let (events, total, recovered) = (events.into(), total.into(), recovered.into());
        let gap = Gap { at, uid, stage, reason, words, events, total, recovered, since: WallTime(since) };
        let mut encoder = encoder(WIDE);
        prop_assert_eq!(encoder.write_gap(&gap), None);
        let batch = encoder.seal().expect("a record");
        prop_assert_eq!((batch.records, batch.first, batch.last), (1, wall, wall));
        let text = |s: &str| AnyValue { value: Some(Value::StringValue(s.to_owned())) };
        let int = |i: u64| AnyValue { value: Some(Value::IntValue(i as i64)) };
        let time = jiff::Timestamp::from_nanosecond(since.into()).expect("within its range");
        let back = (recovered > 0).then(|| ("flowtel.gap.recovered", int(recovered)));
        let attributes = [
            ("event.name", text("flowtel.gap")),
            ("log.record.uid", text(&format!("{uid:032x}"))),
            ("flowtel.gap.events", int(events)),
            ("flowtel.gap.total", int(total)),
            ("flowtel.gap.stage", text(stage)),
            ("flowtel.gap.reason", text(reason)),
        ];
        let attributes = attributes.into_iter().chain(back).chain([("flowtel.gap.since", text(&time.to_string()))]);
        let millis = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let people = reason.replace('_', " ");
        let found = if recovered > 0 { format!("; ends found since: {recovered}") } else { String::new() };
        let record = LogRecord {
            time_unix_nano: wall,
            observed_time_unix_nano: wall,
            severity_number: 13,
            severity_text: "WARN".into(),
            event_name: "flowtel.gap".into(),
            body: Some(text(&format!("gap: {events} {words} at {stage}, {people}, since {millis}{found}"))),
            attributes: attributes
                .map(|(key, value)| KeyValue { key: key.into(), value: Some(value), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        prop_assert_eq!(decode(&batch).0, [record]);
    }
}

#[test]
fn the_age_of_the_first_record_seals_a_batch_and_so_does_a_clock_that_was_set_back() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let event = events().new_tree(&mut runner).expect("a value").current();
    let second = 1_000_000_000;
    let at = |observed| FlowEvent { at: Stamp { observed: WallTime(observed), ..event.at }, ..event.clone() };
    let mut encoder = encoder(WIDE);
    assert!(encoder.seal_if_old(WallTime(u64::MAX)).is_none(), "nothing to seal");
    encoder.write(&Enriched::bare(&at(10 * second)));
    encoder.write(&Enriched::bare(&at(11 * second - 2)));
    assert!(encoder.seal_if_old(WallTime(11 * second - 1)).is_none());
    assert_eq!(encoder.seal_if_old(WallTime(11 * second)).map(|b| b.records), Some(2));
    encoder.write(&Enriched::bare(&at(10 * second)));
    assert!(encoder.seal_if_old(WallTime(9 * second)).is_some());
}

fn shown(record: &LogRecord, key: &str) -> Option<String> {
    let value = record.attributes.iter().find(|a| a.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(n) => n.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => format!("{other:?}"),
    })
}

#[test]
fn a_record_says_its_network_namespace_and_link_local_addresses_their_interface() {
    let mut event = events().new_tree(&mut Default::default()).expect("an event").current();
    event.flow.source = "[fe80::1]:40000".parse().expect("an endpoint");
    event.flow.interface = 7;
    let namespace = |inode, cookie, host| Some(Namespace { inode, cookie, host });
    let mut wide = event.clone();
    wide.flow.source = "[2001:db8::1]:40000".parse().expect("an endpoint");
    wide.flow.destination = "[2001:db8::2]:40000".parse().expect("an endpoint");
    let bound: Arc<str> = "eth0".into();
    let mut encoder = encoder(WIDE);
    for enriched in [
        Enriched { netns: namespace(Some(4_026_531_840), Some(1), Some(true)), ..Enriched::bare(&event) },
        Enriched {
            netns: namespace(None, Some(4097), Some(false)),
            interface: Some(bound.clone()),
            ..Enriched::bare(&event)
        },
        Enriched { netns: namespace(Some(7), None, None), interface: Some(bound), ..Enriched::bare(&wide) },
        Enriched::bare(&wide),
    ] {
        assert!(encoder.write(&enriched).is_none());
    }
    let (records, _) = decode(&encoder.seal().expect("records were written"));
    let keys = [
        schema::NETNS_INODE,
        schema::NETNS_HOST,
        schema::NETNS_COOKIE,
        schema::INTERFACE_NAME,
        schema::INTERFACE_INDEX,
    ];
    let found: Vec<_> = records.iter().map(|record| keys.map(|key| shown(record, key).unwrap_or_default())).collect();
    let expected = [
        ["4026531840", "true", "", "", "7"],
        ["", "false", "4097", "eth0", ""],
        ["7", "", "", "", ""],
        ["", "", "", "", ""],
    ];
    assert_eq!(found, expected);
}
