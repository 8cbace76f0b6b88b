use proptest::prelude::*;

use super::*;
use crate::view::sample::{self, START, bytes, curl, double, int, new_bytes, postgres, string};

fn model() -> Model {
    let mut model = Model::new(Chosen::all());
    model.tick(START + 2 * SECOND);
    model
}

fn frame(request: Bytes) -> Frame {
    Frame::Records { missed: 0, records: 1, request }
}

fn on(model: &mut Model, records: Vec<opentelemetry_proto::tonic::logs::v1::LogRecord>) {
    model.on(frame(sample::of(records)));
}

fn group(model: &Model, kind: Kind, name: &str) -> (u64, u64, u64, u64) {
    let (_, group) = model.groups(kind).find(|(is, _)| *is == name).expect("a group");
    let total = group.sums.total();
    (group.open, total.begun, total.there, total.back)
}

#[test]
fn a_life_is_followed_from_begin_to_end_and_counted_in_its_groups() {
    let mut model = model();
    on(&mut model, sample::records());
    let states: Vec<_> = (1..=3).map(|n| model.flow(n).expect("a flow").state()).collect();
    assert_eq!(states, ["fin", "open", "open"]);
    let flow = model.flow(1).expect("a flow");
    assert_eq!(
        (flow.process(), flow.destination(), flow.bytes()),
        ("curl[1234]".into(), "example.com:443".into(), (1234, 3_400_000))
    );
    assert_eq!((flow.past().len(), flow.facts().handshake, flow.age(0)), (2, Some(0.0125), Some(1.3)));
    assert_eq!(group(&model, Kind::Process, "curl"), (0, 1, 1234, 3_400_000));
    assert_eq!(group(&model, Kind::Process, "postgres"), (1, 0, 1_500_000, 3_000));
    assert_eq!(group(&model, Kind::Destination, "example.com:443"), (0, 1, 1234, 3_400_000));
    assert_eq!(group(&model, Kind::Container, "4f2c9ab4").0, 1);
    assert_eq!(group(&model, Kind::Container, "postgresql.service").0, 1);
    let total = model.sums().total();
    assert_eq!((total.begun, total.ended, total.failed), (2, 1, 1830), "a folded record counts as often as it says");
    assert_eq!((model.open(), model.gaps().0), (2, 1));
}

#[test]
fn rates_are_taken_over_whole_seconds_and_of_bytes_over_their_own_time() {
    let mut model = model();
    on(&mut model, vec![postgres().record("begin", 0, vec![])]);
    for second in 1..=6 {
        let total = 1000 * i64::try_from(second).unwrap_or(0);
        on(
            &mut model,
            vec![postgres().record("update", second * 1000, [bytes(total, 0), new_bytes(1000, 0)].concat())],
        );
    }
    model.tick(START + 8 * SECOND);
    assert_eq!(model.sums().rates(model.now()).there, 1000.0);
    assert_eq!(model.flow(2).expect("a flow").rate(), (1000.0, 0.0));
    model.tick(START + 100 * SECOND);
    assert_eq!(model.sums().rates(model.now()), sums::Rates::default());
}

#[test]
fn what_is_open_when_a_reader_comes_is_taken_once_and_never_after_its_end() {
    let mut model = model();
    let open = |older| Frame::Open { older, request: sample::of(vec![curl().record("open", 0, vec![])]) };
    model.on(open(false));
    model.on(open(false));
    assert_eq!((model.open(), model.flow(1).and_then(Flow::began)), (1, Some(START)));
    on(&mut model, vec![curl().record("end", 500, bytes(10, 20))]);
    model.on(open(false));
    assert_eq!((model.open(), group(&model, Kind::Process, "curl").0), (0, 0));
    // Of an older one nobody knows when it began, and what it moved before.
    let mut model = self::model();
    model.on(open(true));
    on(&mut model, vec![curl().record("update", 500, bytes(10_000, 20_000))]);
    assert_eq!((model.flow(1).and_then(Flow::began), model.sums().total().there), (None, 0));
    assert_eq!(model.flow(1).map(Flow::bytes), Some((10_000, 20_000)));
}

#[test]
fn another_filter_makes_all_sums_anew_and_a_wrong_one_changes_nothing() {
    let mut model = model();
    on(&mut model, sample::records());
    let all = model.sums().total();
    model.choose("process=postgres").expect("a rule");
    assert_eq!((model.flows(true).count(), model.sums().total().there), (1, 1_500_000));
    assert!(model.choose("procss=a").is_err_and(|why| why.contains("did you mean \"process\"")));
    assert_eq!(model.flows(true).count(), 1);
    model.choose("exclude port=443; include dst=10.0.0.5").expect("rules");
    assert_eq!(model.flows(true).count(), 3, "the last rule changes nothing, for the first excludes");
    model.choose("").expect("none");
    assert_eq!((model.flows(true).count(), model.sums().total()), (4, all));
}

#[test]
fn no_more_is_remembered_than_there_is_room_for_and_what_is_over_goes_first() {
    let mut model = model();
    on(&mut model, vec![postgres().record("begin", 0, vec![])]);
    for n in 0..MOST_FLOWS as u128 + 10 {
        let flow = sample::Sample { id: 1000 + n, ..curl() };
        let mut record = flow.record("failed", 1, vec![string("error.type", "refused")]);
        record.attributes.push(int("destination.port", i64::try_from(n % 5000).unwrap_or(0)));
        on(&mut model, vec![record]);
    }
    assert_eq!(model.held(), (MOST_FLOWS, 11));
    assert!(model.flow(2).is_some(), "it is open");
    assert!(model.groups(Kind::Destination).count() <= groups::MOST);
    let open = |n: u128| sample::Sample { id: 1_000_000 + n, ..postgres() }.record("begin", 2, vec![]);
    for n in 0..MOST_FLOWS as u128 + 1 {
        on(&mut model, vec![open(n)]);
    }
    assert_eq!((model.held().0, model.open(), model.flow(2).is_some()), (MOST_FLOWS, MOST_FLOWS, false));
    assert_eq!(group(&model, Kind::Process, "postgres").0, MOST_FLOWS as u64);
}

#[test]
fn a_flow_keeps_its_first_event_its_last_ones_and_all_of_its_bytes() {
    let mut model = model();
    on(&mut model, vec![postgres().record("begin", 0, vec![])]);
    for n in 1..=100 {
        on(&mut model, vec![postgres().record("update", n * 1000, new_bytes(10, 1))]);
    }
    let flow = model.flow(2).expect("a flow");
    assert_eq!((flow.past().len(), flow.past()[0].event), (flow::MOST_PAST, Event::Begin));
    assert_eq!(flow.past().iter().map(|past| past.bytes.0).sum::<u64>(), 1000);
}

#[test]
fn names_that_could_act_on_a_terminal_are_escaped_before_anything_keeps_them() {
    let mut model = model();
    let hostile = "\u{1b}[2J\u{202e}x\n";
    let flow = sample::Sample { more: vec![sample::names("flowtel.destination.dns.names", hostile)], ..curl() };
    let more = vec![string("thread.name", hostile), string("error.type", hostile), string("container.id", hostile)];
    let mut record = flow.record("failed", 0, more);
    record.attributes.push(string("process.executable.name", hostile));
    on(&mut model, vec![record, sample::gap(1)]);
    let flow = model.flow(1).expect("a flow");
    let texts = [flow.process(), flow.destination(), flow.state().into(), flow.container()];
    assert!(texts.iter().all(|text| text.contains("\\x1b[2J") && !text.chars().any(crate::escape::acts)), "{texts:?}");
}

proptest! {
    #[test]
    fn any_order_of_any_records_leaves_sums_that_agree(
        events in prop::collection::vec((1u128..6, 0usize..5, 0u64..20_000, 0i64..1000), 0..80),
    ) {
        let mut model = model();
        for (id, event, time, n) in events {
            let word = ["begin", "open", "update", "end", "failed"][event];
            let more = [bytes(n, n / 2), vec![double("flowtel.flow.duration", 0.5)]].concat();
            on(&mut model, vec![sample::Sample { id, ..curl() }.record(word, time, more)]);
        }
        let open = model.flows(true).filter(|(_, flow)| !flow.is_over()).count();
        let counted: u64 = model.groups(Kind::Process).map(|(_, group)| group.open).sum();
        prop_assert_eq!((model.open(), counted), (open, open as u64));
        let (before, total) = (model.flows(true).count(), model.sums().total());
        model.choose("port=443").expect("a rule");
        prop_assert_eq!((model.flows(true).count(), model.sums().total()), (before, total));
    }
}

#[test]
fn numbers_from_anywhere_overflow_nothing() {
    let mut model = model();
    let most = |event: &str| {
        let more =
            [bytes(i64::MAX, i64::MAX), new_bytes(i64::MAX, i64::MAX), vec![int("flowtel.fold.count", i64::MAX)]];
        let mut record =
            curl().record(event, 0, [more.concat(), vec![double("flowtel.flow.duration", f64::MAX)]].concat());
        record.time_unix_nano = u64::MAX;
        record
    };
    for _ in 0..3 * flow::MOST_PAST {
        on(&mut model, vec![most("begin"), most("update")]);
    }
    for _ in 0..5 {
        let failed = sample::Sample { id: 77, ..curl() }.record("failed", 0, vec![int("flowtel.fold.count", i64::MAX)]);
        let mut record = failed.clone();
        record.attributes.retain(|attribute| attribute.key != "flowtel.flow.id");
        model.on(Frame::Records {
            missed: u64::MAX,
            records: 1,
            request: sample::of(vec![most("end"), failed, record]),
        });
    }
    model.tick(u64::MAX);
    model.choose("port=443").expect("a rule");
    assert_eq!((model.missed(), model.sums().total().failed), (u64::MAX, u64::MAX));
    assert!(model.flows(false).count() > 0);
}
