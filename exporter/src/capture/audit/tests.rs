//! The audit against a model of a host: sockets in namespaces, a table of flows, and programs that report ends or don't.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A socket of the model.
#[derive(Debug, Clone, Copy)]
struct Socket {
    netns: u64,
    six: bool,
    bound: bool,
}

/// The host: sockets by cookie. Of namespace 3 nothing can be asked.
#[derive(Debug, Default)]
struct Host {
    sockets: HashMap<u64, Socket>,
    list: Option<(usize, Vec<u64>)>,
    fails: bool,
    /// The list leaves the next socket out.
    skips: bool,
    left: [bool; 2],
}

#[derive(Debug, Default)]
struct Flows {
    open: HashMap<u64, Asked>,
    told: Vec<u64>,
}

impl Sockets for &std::cell::RefCell<Host> {
    fn namespaces(&self) -> Vec<Option<u64>> {
        let left = self.borrow().left;
        vec![(!left[0]).then_some(1), (!left[1]).then_some(2)]
    }

    fn look(&mut self, namespace: usize, flow: &Asked) -> Look {
        let host = self.borrow();
        assert!(host.list.is_none(), "a question while a list is read");
        let there = host.sockets.get(&flow.cookie).filter(|s| s.netns == namespace as u64 + 1 && !s.bound);
        match there {
            _ if host.fails => Look::Unsure,
            Some(_) => Look::There,
            None => Look::Missing,
        }
    }

    fn begin(&mut self, namespace: usize, six: bool) -> bool {
        let mut host = self.borrow_mut();
        let all = host.sockets.iter().filter(|(_, s)| s.netns == namespace as u64 + 1 && s.six == six);
        let mut list: Vec<_> = all.map(|(cookie, _)| *cookie).collect();
        if std::mem::take(&mut host.skips) {
            list.pop();
        }
        host.list = (!host.fails).then_some((namespace, list));
        !host.fails
    }

    fn next(&mut self, namespace: usize, out: &mut dyn FnMut(u64)) -> Part {
        let mut host = self.borrow_mut();
        let (of, mut list) = host.list.take().expect("a list was asked for");
        assert_eq!(of, namespace);
        if host.fails {
            return Part::Broken;
        }
        list.drain(..list.len().min(3)).for_each(out);
        if list.is_empty() {
            return Part::Last;
        }
        host.list = Some((of, list));
        Part::More
    }

    fn is_empty(&mut self, namespace: usize) -> bool {
        let host = self.borrow();
        !host.sockets.values().any(|socket| socket.netns == namespace as u64 + 1)
    }

    fn leave(&mut self, namespace: usize) {
        self.borrow_mut().left[namespace] = true;
    }
}

impl Table for Flows {
    fn flow(&self, cookie: u64) -> Option<Asked> {
        self.open.get(&cookie).copied()
    }

    fn sample(&mut self, most: usize, before: KernelTime) -> Vec<Asked> {
        self.open.values().filter(|flow| flow.began < before).take(most).copied().collect()
    }

    fn each(&self, before: KernelTime, out: &mut dyn FnMut(u64, u64) -> bool) {
        let _ = self.open.values().filter(|flow| flow.began < before).all(|flow| out(flow.cookie, flow.netns));
    }

    fn over(&mut self, cookie: u64, before: KernelTime) -> bool {
        if self.open.get(&cookie).is_none_or(|flow| flow.began >= before) {
            return false;
        }
        self.open.remove(&cookie);
        self.told.push(cookie);
        true
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Begins {
        netns: u64,
        six: bool,
        bound: bool,
        known: bool,
    },
    /// The nth open socket closes; it is reported or not.
    Closes {
        nth: usize,
        reported: bool,
    },
    /// Events were lost.
    Loss,
    /// Nothing can be asked for so many rounds.
    Fails(u8),
    /// A list leaves one out.
    Skips,
    Rounds(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let begins = (1u64..4, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.8))
        .prop_map(|(netns, six, bound, known)| Step::Begins { netns, six, bound, known });
    let step = prop_oneof![
        6 => begins,
        4 => (any::<usize>(), any::<bool>()).prop_map(|(nth, reported)| Step::Closes { nth, reported }),
        1 => Just(Step::Loss),
        1 => (1u8..5).prop_map(Step::Fails),
        1 => Just(Step::Skips),
        6 => (1u8..60).prop_map(Step::Rounds),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn what_lives_is_never_over_and_what_is_over_unreported_is_found_once(steps in steps()) {
        let host = std::cell::RefCell::new(Host::default());
        let (mut flows, ledger) = (Flows::default(), ledger::Audit::default());
        let mut now = 1000 * SECOND;
        let mut audit = Audit::new(&host, Duration::from_secs(15), KernelTime(now));
        let (mut cookies, mut lost, mut fails) = (0u64.., 0, 0);
        // Unreported ends, and of these who must be found: those in a namespace that can be asked, and is known.
        let (mut over, mut found) = (Vec::new(), HashSet::new());
        let mut round = |now: &mut u64, lost: u64, flows: &mut Flows, nanoseconds: u64| {
            *now += nanoseconds;
            let now = KernelTime(*now);
            audit.round(Round { now, cut: now, lost }, flows, &ledger);
        };
        for step in steps {
            match step {
                Step::Begins { netns, six, bound, known } => {
                    let cookie = cookies.next().expect("endless");
                    host.borrow_mut().sockets.insert(cookie, Socket { netns, six, bound });
                    let flow = Asked::sample(cookie, if known { netns } else { 0 }, KernelTime(now));
                    flows.open.insert(cookie, flow);
                }
                Step::Closes { nth, reported } => {
                    let mut live: Vec<_> = host.borrow().sockets.keys().copied().collect();
                    live.sort_unstable();
                    if live.is_empty() {
                        continue;
                    }
                    let cookie = live[nth % live.len()];
                    let socket = host.borrow_mut().sockets.remove(&cookie).expect("it is there");
                    if reported {
                        flows.open.remove(&cookie);
                    } else {
                        let can_be_asked = socket.netns < 3 && !host.borrow().left[socket.netns as usize - 1];
                        over.push(cookie);
                        if flows.open.get(&cookie).is_some_and(|flow| flow.netns != 0) && can_be_asked {
                            found.insert(cookie);
                        }
                    }
                }
                Step::Loss => lost += 1,
                Step::Fails(rounds) => fails = rounds,
                Step::Skips => host.borrow_mut().skips = true,
                Step::Rounds(n) => {
                    for _ in 0..n {
                        host.borrow_mut().fails = fails > 0;
                        fails = fails.saturating_sub(1);
                        round(&mut now, lost, &mut flows, SECOND / 2);
                        let host = host.borrow();
                        prop_assert!(flows.told.iter().all(|cookie| !host.sockets.contains_key(cookie)));
                    }
                }
            }
        }
        host.borrow_mut().fails = false;
        // At the latest with the next round over all.
        for _ in 0..1500 {
            round(&mut now, lost, &mut flows, SECOND);
        }
        let mut told = flows.told.clone();
        told.sort_unstable();
        let all = told.len();
        told.dedup();
        prop_assert_eq!(told.len(), all, "one was found twice");
        prop_assert!(told.iter().all(|cookie| over.contains(cookie) && !host.borrow().sockets.contains_key(cookie)));
        prop_assert!(found.iter().all(|cookie| told.contains(cookie)), "{found:?} should be among {told:?}");
        prop_assert_eq!(ledger.over.get(), all as u64);
        prop_assert!(!host.borrow().left[0], "flowtel's own namespace was left");
    }
}

/// A host with one flow, which began a while ago.
fn one(netns: u64) -> (std::cell::RefCell<Host>, Flows, KernelTime) {
    let now = KernelTime(1000 * SECOND);
    let (host, mut flows) = (std::cell::RefCell::new(Host::default()), Flows::default());
    host.borrow_mut().sockets.insert(7, Socket { netns: 1, six: false, bound: false });
    flows.open.insert(7, Asked::sample(7, netns, KernelTime(990 * SECOND)));
    (host, flows, now)
}

fn rounds(audit: &mut Audit<&std::cell::RefCell<Host>>, flows: &mut Flows, from: KernelTime, seconds: u64, lost: u64) {
    let ledger = ledger::Audit::default();
    for second in 0..seconds {
        let now = KernelTime(from.0 + second * SECOND);
        audit.round(Round { now, cut: now, lost }, flows, &ledger);
    }
}

#[test]
fn a_missed_end_is_found_by_the_next_sample() {
    let (host, mut flows, now) = one(1);
    let mut audit = Audit::new(&host, Duration::from_secs(15), now);
    rounds(&mut audit, &mut flows, now, 10, 0);
    host.borrow_mut().sockets.clear();
    rounds(&mut audit, &mut flows, KernelTime(now.0 + 10 * SECOND), 20, 0);
    assert_eq!(flows.told, [7]);
}

#[test]
fn what_was_lost_is_looked_for_two_seconds_after_the_last_loss() {
    let (host, mut flows, now) = one(1);
    let mut audit = Audit::new(&host, Duration::from_secs(3600), now);
    host.borrow_mut().sockets.clear();
    rounds(&mut audit, &mut flows, now, 30, 0);
    assert!(flows.told.is_empty());
    rounds(&mut audit, &mut flows, KernelTime(now.0 + 30 * SECOND), 13, 1);
    assert_eq!(flows.told, [7]);
}

#[test]
fn where_nobody_tells_a_namespace_only_what_was_seen_there_can_be_missed() {
    for seen in [false, true] {
        let (host, mut flows, now) = one(0);
        let mut audit = Audit::new(&host, Duration::from_secs(15), now);
        if !seen {
            host.borrow_mut().sockets.clear();
        }
        rounds(&mut audit, &mut flows, now, 20, 0);
        host.borrow_mut().sockets.clear();
        rounds(&mut audit, &mut flows, KernelTime(now.0 + 20 * SECOND), 60, 0);
        assert_eq!(flows.told, if seen { vec![7] } else { vec![] });
    }
}

#[test]
fn a_namespace_without_a_socket_is_left_and_flowtels_own_is_not() {
    let (host, mut flows, now) = one(1);
    let mut audit = Audit::new(&host, Duration::from_secs(15), now);
    host.borrow_mut().sockets.insert(8, Socket { netns: 2, six: false, bound: false });
    rounds(&mut audit, &mut flows, now, 10, 0);
    assert_eq!(host.borrow().left, [false, false]);
    host.borrow_mut().sockets.clear();
    rounds(&mut audit, &mut flows, KernelTime(now.0 + 10 * SECOND), 10, 0);
    assert_eq!(host.borrow().left, [false, true]);
}
