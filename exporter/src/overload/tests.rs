use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::{
    capture::{NetnsId, WallTime},
    flow::{Delta, Direction, Flow, FlowId, Owner, Role, Source, Stamp, Traffic},
};

/// Of a flow of one cgroup, all between the same ends.
fn event(n: u64, what: What) -> FlowEvent {
    let time = KernelTime(1_000_000_000 + n);
    let role = Role::Connector;
    let source = Source::Connect;
    let owner = Owner { pid: 7, uid: 8, comm: [b'c'; 16], cgroup: 3, since: time, role, source, begin: None };
    FlowEvent {
        at: Stamp { time, wall: WallTime(time.0), observed: WallTime(time.0) },
        flow: Flow {
            id: Some(FlowId(n.into())),
            community_id: None,
            source: SocketAddr::from(([192, 0, 2, 1], 40_000)),
            destination: SocketAddr::from(([192, 0, 2, 2], 443)),
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

fn update(n: u64) -> FlowEvent {
    let delta = Some(Delta { source_bytes: 100, ..Delta::default() });
    let traffic = Traffic {
        source_bytes: 1000,
        destination_bytes: 0,
        source_segments: 1,
        destination_segments: 1,
        retransmits: 0,
        rtt: None,
        counted: true,
        delta,
    };
    event(n, What::Update { duration: Some(Duration::from_secs(300)), traffic })
}

#[test]
fn updates_of_a_cgroup_that_are_over_its_budget_cost_its_begins_nothing() {
    let mut overload = Overload::new(Budget { rate: 1, burst: 10 }, Arc::default());
    let folded = (0..1000).filter(|n| overload.folds(&update(*n))).count();
    assert!(folded > 900, "{folded} of a thousand");
    let begins = (0..10).filter(|n| overload.folds(&event(*n, What::Begin { handshake: None }))).count();
    assert_eq!(begins, 0);
    let mut sum = (1000 - folded as i64) * 100;
    overload.tell(KernelTime(0), true, |event, fold| {
        let What::Update { traffic, .. } = event.what else { panic!("no update: {event:?}") };
        assert!(fold.is_some_and(|fold| fold.count == folded as u64));
        sum += traffic.delta.expect("a delta").source_bytes;
    });
    assert_eq!(sum, 100_000, "what passed is told to the byte");
    assert!(overload.folds.is_empty() && overload.updates.1.is_empty());
}
