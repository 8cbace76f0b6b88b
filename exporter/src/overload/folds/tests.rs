use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    capture::WallTime,
    flow::{Delta, Evidence, Flow, FlowId, Owner, Role, Source, Stamp, Traffic},
};

const SECOND: u64 = 1_000_000_000;

fn event(time: u64, client: u8, port: u16, what: What) -> FlowEvent {
    let source = SocketAddr::from(([192, 0, 2, client], (time % 50_000) as u16 + 1));
    let wall = WallTime(time);
    let owner = Owner {
        pid: 7,
        uid: 8,
        comm: [b'c'; 16],
        cgroup: 1,
        since: KernelTime(time),
        role: Role::Connector,
        source: Source::Connect,
        begin: None,
    };
    FlowEvent {
        at: Stamp { time: KernelTime(time), wall, observed: wall },
        flow: Flow {
            id: Some(FlowId(time.into())),
            community_id: None,
            source,
            destination: SocketAddr::from(([198, 51, 100, 1], port)),
            direction: Some(Direction::Outgoing),
            local: false,
            netns: NetnsId::new(1),
            interface: 0,
            owner: Some(owner),
            tunnel: None,
        },
        what,
    }
}

fn begin() -> What {
    What::Begin { handshake: Some(Duration::from_millis(1)) }
}

fn end(bytes: u64) -> What {
    let traffic = Traffic {
        counted: true,
        source_bytes: bytes,
        destination_bytes: 2 * bytes,
        source_segments: 3,
        destination_segments: 4,
        retransmits: 1,
        rtt: Some(Duration::from_millis(2)),
        delta: None,
    };
    What::End { cause: Some(EndReason::Fin.by(Evidence::State)), duration: Some(Duration::from_secs(1)), traffic }
}

fn failed(reason: FailReason) -> What {
    What::Failed { cause: reason.by(Evidence::SocketError), attempts: 2, fold: None }
}

type Told = Vec<(FlowEvent, Option<Fold>)>;

fn tell(folds: &mut Folds, now: Option<u64>) -> Told {
    let mut told = Vec::new();
    folds.tell(now.map(KernelTime), |event, fold| told.push((event, fold)));
    told
}

#[test]
fn the_first_is_told_and_what_repeats_it_becomes_one_record_each_ten_seconds() {
    let (mut folds, records) = (Folds::default(), Records::default());
    assert!(!folds.take(&event(SECOND, 1, 443, begin()), false, &records));
    for i in 0..5 {
        assert!(folds.take(&event(2 * SECOND + i, 1, 443, begin()), false, &records));
    }
    assert!(!folds.take(&event(SECOND, 1, 80, begin()), false, &records), "another port");
    assert!(!folds.take(&event(SECOND, 2, 443, begin()), false, &records), "another source");
    assert!(!folds.take(&event(SECOND, 1, 443, end(1)), false, &records), "another event");
    assert!(tell(&mut folds, Some(10 * SECOND)).is_empty());
    let told = tell(&mut folds, Some(12 * SECOND));
    let [(one, Some(fold))] = &told[..] else { panic!("one: {told:?}") };
    assert_eq!(*fold, Fold { count: 5, duration: Duration::from_nanos(4), destination_ports: 1 });
    assert_eq!((one.at.time, one.what.clone()), (KernelTime(2 * SECOND), What::Begin { handshake: None }));
    assert_eq!((one.flow.id, one.flow.source.port(), one.flow.destination.port()), (None, 0, 443));
    assert!(one.flow.owner.is_some(), "it was the same");
    // The fifth is the record itself.
    assert_eq!(records.folded.get(), 4);
}

#[test]
fn an_only_repeat_is_told_as_it_came() {
    let (mut folds, records) = (Folds::default(), Records::default());
    folds.take(&event(SECOND, 1, 443, begin()), false, &records);
    let second = event(2 * SECOND, 1, 443, begin());
    assert!(folds.take(&second, false, &records));
    assert_eq!(tell(&mut folds, None), [(second, None)]);
    assert_eq!(records.folded.get(), 0);
    assert!(folds.is_empty());
}

#[test]
fn ends_and_failures_are_summed_and_an_owner_that_differs_is_left_out() {
    let (mut folds, records) = (Folds::default(), Records::default());
    for i in 1..=4 {
        let mut end = event(i * SECOND, 1, 443, end(10));
        end.flow.owner.as_mut().expect("one").pid = i as u32;
        folds.take(&end, false, &records);
        folds.take(&event(i * SECOND, 1, 443, failed(FailReason::Refused)), false, &records);
    }
    let mut told = tell(&mut folds, None);
    told.sort_by_key(|(event, _)| matches!(event.what, What::Failed { .. }));
    let What::End { duration, traffic, .. } = told[0].0.what else { panic!("an end") };
    assert_eq!((duration, traffic.rtt, traffic.source_bytes, traffic.destination_bytes), (None, None, 30, 60));
    assert_eq!((traffic.source_segments, traffic.destination_segments, traffic.retransmits), (9, 12, 3));
    assert_eq!((told[0].0.flow.owner, told[0].1.map(|fold| fold.count)), (None, Some(3)));
    let fold = Fold { count: 3, duration: Duration::from_secs(2), destination_ports: 1 };
    assert_eq!(
        told[1].0.what,
        What::Failed { cause: FailReason::Refused.by(Evidence::SocketError), attempts: 6, fold: Some(fold) }
    );
    assert_eq!(told[1].1, None, "a failure says so itself");
}

#[test]
fn more_kinds_than_there_is_room_for_are_told_in_full() {
    let (mut folds, records) = (Folds::default(), Records::default());
    for i in 0..2 * MOST {
        let (client, port) = ((i % 256) as u8, (i / 256) as u16);
        assert!(!folds.take(&event(SECOND, client, port, begin()), false, &records));
    }
    assert_eq!(folds.known.len(), MOST);
    assert!(folds.take(&event(SECOND, 0, 0, begin()), false, &records), "who was there first is folded still");
    // What was not repeated makes room.
    tell(&mut folds, Some(12 * SECOND));
    assert_eq!(folds.known.len(), 1);
}

proptest! {
    #[test]
    fn every_event_is_told_once_alone_or_in_a_count(
        steps in prop::collection::vec((1u8..4, 0u16..3, 0u8..4, 0u64..4), 1..400),
    ) {
        let (mut folds, records) = (Folds::default(), Records::default());
        let (mut now, mut alone, mut told, mut bytes) = (SECOND, 0, Told::new(), 0);
        for (client, port, what, wait) in &steps {
            now += wait * SECOND;
            let what = match what {
                0 => begin(),
                1 => end(7),
                2 => failed(FailReason::Refused),
                _ => failed(FailReason::TimedOut),
            };
            if matches!(what, What::End { .. }) {
                bytes += 7;
            }
            let event = event(now, *client, *port, what);
            if !folds.take(&event, false, &records) {
                alone += 1;
                told.push((event, None));
            }
            told.extend(tell(&mut folds, Some(now)));
        }
        told.extend(tell(&mut folds, None));
        let count = |(event, fold): &(FlowEvent, Option<Fold>)| match (&event.what, fold) {
            (What::Failed { fold: Some(fold), .. }, None) | (_, Some(fold)) => fold.count,
            _ => 1,
        };
        prop_assert!(alone > 0);
        prop_assert_eq!(told.iter().map(count).sum::<u64>(), steps.len() as u64);
        prop_assert_eq!(told.len() as u64 + records.folded.get(), steps.len() as u64);
        let summed: u64 = told.iter().map(|(event, _)| match &event.what {
            What::End { traffic, .. } => traffic.source_bytes,
            _ => 0,
        }).sum();
        prop_assert_eq!(summed, bytes);
    }
}

#[test]
fn failures_of_a_cgroup_over_its_budget_are_alike_whatever_the_port() {
    let (mut folds, records) = (Folds::default(), Records::default());
    for port in 1..=500 {
        let taken = folds.take(&event(SECOND, 1, port, failed(FailReason::Refused)), true, &records);
        assert_eq!(taken, port > 1);
    }
    let told = tell(&mut folds, None);
    let [(one, None)] = &told[..] else { panic!("one: {told:?}") };
    let What::Failed { fold: Some(fold), .. } = one.what else { panic!("a count: {one:?}") };
    assert_eq!((fold.count, fold.destination_ports, one.flow.destination.port()), (499, 499, 0));
}

fn update(bytes: u64, delta: Option<i64>) -> What {
    let What::End { traffic, .. } = end(bytes) else { panic!("an end") };
    let delta = delta.map(|source_bytes| Delta { source_bytes, source_segments: 2, ..Delta::default() });
    What::Update { duration: Some(Duration::from_secs(9)), traffic: Traffic { delta, ..traffic } }
}

#[test]
fn updates_are_folded_apart_from_ends_and_what_is_new_in_them_is_added_up() {
    let (mut folds, records) = (Folds::default(), Records::default());
    for (i, what) in [end(1), update(10, Some(1)), update(20, Some(5)), update(30, None), update(40, Some(7))]
        .into_iter()
        .enumerate()
    {
        assert_eq!(folds.take(&event(SECOND + i as u64, 1, 443, what), false, &records), i > 1);
    }
    let told = tell(&mut folds, None);
    let [(one, Some(fold))] = &told[..] else { panic!("one: {told:?}") };
    let What::Update { duration, traffic } = one.what else { panic!("an update") };
    let delta = traffic.delta.expect("a delta");
    assert_eq!((delta.source_bytes, delta.source_segments, duration, traffic.rtt), (12, 4, None, None));
    assert_eq!((fold.count, one.flow.id), (3, None));
}
