//! Open flows and attempts as words, for the flowtel after this one: it goes on as if there had been no change. In: one, or
//! words that an earlier flowtel of the same boot wrote; out: the other. Words that are none give nothing.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
};

use super::{
    BootId, Direction, Flow, Flows, Owner, Role, Source, attempts::Attempt, open::Open, reason::Seen, settle::Place,
    updates::Passed,
};
use crate::capture::{KernelTime, NetnsId, Note};

// Where in a note what is.
const COOKIE: usize = 0;
const BEGAN: usize = 1;
const LOCAL: usize = 2;
const REMOTE: usize = 4;
const PORTS: usize = 6;
const WHAT: usize = 7;
const PROCESS: usize = 8;
const COMM: usize = 9;
const CGROUP: usize = 11;
const SINCE: usize = 12;
/// Of a flow, FIN in, the process that its begin named, and reset in; of an attempt, SYN again in their middle.
const TIMES: usize = 13;
const NETNS: usize = 16;
const INTERFACE: usize = 17;
/// What passed by the last update: bytes of source and destination, segments, retransmissions.
const TOLD: usize = 18;

// Bits of WHAT.
const OPEN: u64 = 1 << 0;
const ATTEMPT: u64 = 1 << 1;
const INCOMING: u64 = 1 << 2;
const KNOWN_DIRECTION: u64 = 1 << 3;
const BOTH_HERE: u64 = 1 << 4;
const ACTIVE: u64 = 1 << 5;
const OWN: u64 = 1 << 6;
const RESET_IN: u64 = 1 << 7;
const RESET_OUT: u64 = 1 << 8;
const RELEASED: u64 = 1 << 9;
const CONNECTOR: u64 = 1 << 10;
const ACCEPTOR: u64 = 2 << 10;
const LISTENER: u64 = 3 << 10;
const ROLE: u64 = 3 << 10;
const USED_AGAIN: u64 = 1 << 12;
/// The owner was found at a start.
const FOUND: u64 = 1 << 13;
const UNCOUNTED: u64 = 1 << 14;
const DENIED: u64 = 1 << 15;
/// What passed by the last update is known, of an open flow or, alone, of one that is in no table.
const UPDATED: u64 = 1 << 16;

impl Flows {
    /// The flows and attempts that are open, for the flowtel after this one, each the oldest first. What waits to be told is
    /// no part of it.
    pub fn leave(&self) -> Vec<Note> {
        let attempts = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.asked >= self.watched)
            .map(|(cookie, attempt)| of_attempt(cookie, attempt));
        let open = self.open.iter().map(|(cookie, open)| of_open(&self.boot, cookie, open));
        // The next flowtel finds the older ones anew.
        let older = self.updated.then(|| self.older.all_told()).into_iter().flatten();
        let others = self.untied.iter().map(|(cookie, told)| (cookie, *told)).chain(older);
        let others = others.map(|(cookie, told)| of_other(cookie, &told));
        open.chain(attempts).chain(others).collect()
    }

    /// Follows what the flowtel before this one had open: the flows' begin was told. To be called before any event. Returns
    /// how many there are.
    pub fn take_up(&mut self, notes: &[Note]) -> usize {
        let mut taken = 0;
        for note in notes {
            let words = Words(note);
            if words.is(OPEN) {
                taken += 1;
                if self.open.insert(words.at(COOKIE), words.open(&self.boot)) {
                    self.ledger.flows_forgotten.add(1);
                }
            } else if words.is(ATTEMPT) {
                taken += 1;
                self.ledger.kernel.connect.carried_over.add(1);
                if self.attempts.open(words.at(COOKIE), words.attempt(), &self.ledger.kernel).is_some() {
                    // Two of one socket: never in what a flowtel wrote.
                    self.ledger.kernel.connect.unused.add(1);
                }
            } else if words.is(UPDATED) && self.updated {
                self.untied.insert(words.at(COOKIE), words.told());
            }
        }
        taken
    }
}

fn of_open(boot: &BootId, cookie: u64, open: &Open) -> Note {
    let Open { flow, began, seen, active, own, told, .. } = open;
    let (local, remote) = match flow.direction {
        Some(Direction::Incoming) => (flow.destination, flow.source),
        _ => (flow.source, flow.destination),
    };
    let used_again = flow.id != Flow::new(boot, cookie, local, remote, flow.direction).id;
    let what = [
        OPEN,
        flag(used_again, USED_AGAIN),
        flag(flow.direction == Some(Direction::Incoming), INCOMING),
        flag(flow.direction.is_some(), KNOWN_DIRECTION),
        flag(flow.local, BOTH_HERE),
        flag(*active, ACTIVE),
        flag(*own, OWN),
        flag(seen.reset_out, RESET_OUT),
        flag(seen.uncounted, UNCOUNTED),
    ];
    let named = flow.owner.and_then(|owner| owner.begin).map(|pid| KernelTime(pid.get().into()));
    let times = [seen.fin_in, named, seen.reset_in];
    let place = [flow.netns.told(), flow.interface.into()];
    let mut note = write((cookie, *began), local, remote, &what, flow.owner.as_ref(), times, place);
    if let Some(told) = told {
        add_told(&mut note, told);
    }
    note
}

/// Of a flow that the next flowtel does not follow by this: what was told of it.
fn of_other(cookie: u64, told: &Passed) -> Note {
    let mut note = Note::default();
    if let Some(word) = note.get_mut(COOKIE) {
        *word = cookie;
    }
    add_told(&mut note, told);
    note
}

fn add_told(note: &mut Note, told: &Passed) {
    let Passed { source_bytes, destination_bytes, source_segments, destination_segments, retransmits } = *told;
    let segments = u64::from(source_segments) << 32 | u64::from(destination_segments);
    let words = [source_bytes, destination_bytes, segments, retransmits.into()];
    note.iter_mut().skip(TOLD).zip(words).for_each(|(word, value)| *word = value);
    if let Some(what) = note.get_mut(WHAT) {
        *what |= UPDATED;
    }
}

fn of_attempt(cookie: u64, attempt: &Attempt) -> Note {
    let Attempt { asked, destination, again, used_again, reset_in, released, denied, owner, netns } = attempt;
    let what = [
        ATTEMPT,
        flag(*used_again, USED_AGAIN),
        flag(*reset_in, RESET_IN),
        flag(*released, RELEASED),
        flag(*denied, DENIED),
    ];
    write((cookie, *asked), *destination, *destination, &what, owner.as_ref(), [None, *again, None], [netns.told(), 0])
}

fn flag(is: bool, bit: u64) -> u64 {
    if is { bit } else { 0 }
}

fn write(
    (cookie, since): (u64, KernelTime),
    local: SocketAddr,
    remote: SocketAddr,
    what: &[u64],
    owner: Option<&Owner>,
    times: [Option<KernelTime>; 3],
    place: [u64; 2],
) -> Note {
    let mut words = [0; _];
    let mut set = |at: usize, values: &[u64]| words.iter_mut().skip(at).zip(values).for_each(|(word, n)| *word = *n);
    set(COOKIE, &[cookie, since.0]);
    set(LOCAL, &address(local.ip()));
    set(REMOTE, &address(remote.ip()));
    let role = owner.map_or(0, |owner| match owner.role {
        Role::Connector => CONNECTOR,
        Role::Acceptor => ACCEPTOR,
        Role::Listener => LISTENER,
    });
    let found = flag(owner.is_some_and(|owner| owner.source == Source::Snapshot), FOUND);
    let what = what.iter().fold(role | found, |all, bit| all | bit);
    set(PORTS, &[u64::from(local.port()) << 16 | u64::from(remote.port()), what]);
    if let Some(Owner { pid, uid, comm, cgroup, since, role: _, source: _, begin: _ }) = owner {
        let (first, second) = comm.split_at(8);
        let word = |half: &[u8]| half.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        set(PROCESS, &[u64::from(*uid) << 32 | u64::from(*pid), word(first), word(second), *cgroup, since.0]);
    }
    set(NETNS, &place);
    set(TIMES, &times.map(|time| time.map_or(0, |time| time.0)));
    words
}

/// A note that is read.
#[derive(Clone, Copy)]
struct Words<'a>(&'a Note);

impl Words<'_> {
    fn at(self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn is(self, bit: u64) -> bool {
        self.at(WHAT) & bit != 0
    }

    fn time(self, at: usize) -> Option<KernelTime> {
        Some(KernelTime(self.at(at))).filter(|time| time.0 != 0)
    }

    fn end(self, address: usize, port: u64) -> SocketAddr {
        SocketAddr::new(ip(self.at(address), self.at(address + 1)), (port & 0xffff) as u16)
    }

    fn owner(self) -> Option<Owner> {
        let (role, seen) = match self.at(WHAT) & ROLE {
            CONNECTOR => (Role::Connector, Source::Connect),
            ACCEPTOR => (Role::Acceptor, Source::Accept),
            LISTENER => (Role::Listener, Source::Listener),
            _ => return None,
        };
        let source = if self.is(FOUND) { Source::Snapshot } else { seen };
        let begin = if self.is(OPEN) { NonZeroU32::new(self.at(TIMES + 1) as u32) } else { None };
        let mut comm = [0; _];
        let bytes = [self.at(COMM), self.at(COMM + 1)].into_iter().flat_map(u64::to_ne_bytes);
        comm.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        let (pid, uid) = (self.at(PROCESS) as u32, (self.at(PROCESS) >> 32) as u32);
        Some(Owner { pid, uid, comm, cgroup: self.at(CGROUP), since: KernelTime(self.at(SINCE)), role, source, begin })
    }

    fn open(self, boot: &BootId) -> Open {
        let (local, remote) = (self.end(LOCAL, self.at(PORTS) >> 16), self.end(REMOTE, self.at(PORTS)));
        let way = if self.is(INCOMING) { Direction::Incoming } else { Direction::Outgoing };
        let way = self.is(KNOWN_DIRECTION).then_some(way);
        let mut flow = Flow::new(boot, self.at(COOKIE), local, remote, way);
        flow.local |= self.is(BOTH_HERE);
        flow.owner = self.owner();
        flow.netns = NetnsId::new(self.at(NETNS));
        flow.interface = self.at(INTERFACE) as u32;
        let seen = Seen {
            fin_in: self.time(TIMES),
            reset_in: self.time(TIMES + 2),
            reset_out: self.is(RESET_OUT),
            uncounted: self.is(UNCOUNTED),
        };
        let began = KernelTime(self.at(BEGAN));
        if self.is(USED_AGAIN) {
            flow.set_apart(boot, began);
        }
        let (active, own, told) = (self.is(ACTIVE), self.is(OWN), self.told().map(Box::new));
        Open { flow, began, seen, begin: Place::ELSEWHERE, active, own, hello: false, told }
    }

    fn told(self) -> Option<Passed> {
        let segments = self.at(TOLD + 2);
        self.is(UPDATED).then(|| Passed {
            source_bytes: self.at(TOLD),
            destination_bytes: self.at(TOLD + 1),
            source_segments: (segments >> 32) as u32,
            destination_segments: segments as u32,
            retransmits: self.at(TOLD + 3) as u32,
        })
    }

    fn attempt(self) -> Attempt {
        Attempt {
            asked: KernelTime(self.at(BEGAN)),
            destination: self.end(REMOTE, self.at(PORTS)),
            again: self.time(TIMES + 1),
            used_again: self.is(USED_AGAIN),
            reset_in: self.is(RESET_IN),
            released: self.is(RELEASED),
            denied: self.is(DENIED),
            owner: self.owner(),
            netns: NetnsId::new(self.at(NETNS)),
        }
    }
}

/// IPv4 as `::ffff:a.b.c.d`.
fn address(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
    .to_bits();
    [(bits >> 64) as u64, bits as u64]
}

fn ip(high: u64, low: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))).to_canonical()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{config::Config, ledger::Ledger};

    fn boot() -> BootId {
        BootId::new([1; 16])
    }

    fn owner() -> impl Strategy<Value = Owner> {
        let role = prop_oneof![
            Just((Role::Connector, Source::Connect)),
            Just((Role::Connector, Source::Snapshot)),
            Just((Role::Acceptor, Source::Accept)),
            Just((Role::Acceptor, Source::Snapshot)),
            Just((Role::Listener, Source::Listener)),
            Just((Role::Listener, Source::Snapshot)),
        ];
        let begin = any::<u32>().prop_map(NonZeroU32::new);
        (any::<u32>(), any::<u32>(), any::<[u8; 16]>(), any::<u64>(), any::<u64>(), role, begin).prop_map(
            |(pid, uid, comm, cgroup, since, (role, source), begin)| {
                let since = KernelTime(since);
                Owner { pid, uid, comm, cgroup, since, role, source, begin }
            },
        )
    }

    fn passed(a: u64, b: u64) -> Passed {
        let [source_segments, destination_segments, retransmits] = [(a >> 32) as u32, a as u32, b as u32];
        Passed { source_bytes: a, destination_bytes: b, source_segments, destination_segments, retransmits }
    }

    fn open() -> impl Strategy<Value = (u64, Open)> {
        let end = |v4: bool| {
            (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(bytes, port)| {
                let [a, b, c, d, ..] = bytes;
                let ip = if v4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(bytes).to_canonical() };
                SocketAddr::new(ip, port)
            })
        };
        let ends = any::<bool>().prop_flat_map(move |v4| (end(v4), end(v4)));
        let way = prop_oneof![Just(None), Just(Some(Direction::Incoming)), Just(Some(Direction::Outgoing))];
        let time = || proptest::option::of((1..u64::MAX).prop_map(KernelTime));
        let seen = (time(), time(), any::<bool>(), any::<bool>());
        let seen =
            seen.prop_map(|(fin_in, reset_in, reset_out, uncounted)| Seen { fin_in, reset_in, reset_out, uncounted });
        let flags = any::<(bool, bool, bool, bool)>();
        (any::<u64>(), any::<u64>(), ends, way, proptest::option::of(owner()), seen, flags).prop_map(
            |(cookie, began, (local, remote), way, owner, seen, (here, active, own, used_again))| {
                let mut flow = Flow::new(&boot(), cookie, local, remote, way);
                if used_again {
                    flow.set_apart(&boot(), KernelTime(began));
                }
                flow.local |= here;
                flow.owner = owner;
                (flow.netns, flow.interface) = (NetnsId::new(cookie ^ began), began as u32);
                let told = began.is_multiple_of(2).then(|| Box::new(passed(cookie, began)));
                (
                    cookie,
                    Open {
                        flow,
                        began: KernelTime(began),
                        seen,
                        begin: Place::ELSEWHERE,
                        active,
                        own,
                        hello: false,
                        told,
                    },
                )
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_noted_is_read((cookie, open) in open()) {
            let note = of_open(&boot(), cookie, &open);
            let words = Words(&note);
            let again = words.open(&boot());
            prop_assert!(words.is(OPEN) && !words.is(ATTEMPT) && words.at(COOKIE) == cookie);
            prop_assert_eq!(&again.told, &open.told);
            prop_assert_eq!((again.seen, again.began, again.active, again.own), (open.seen, open.began, open.active, open.own));
            prop_assert_eq!(again.flow, open.flow);
        }

        #[test]
        fn an_attempt_that_is_noted_is_read((cookie, open) in open(), [released, reset_in, used_again, denied]: [bool; 4]) {
            let Open { flow, began, seen, .. } = open;
            let destination = flow.destination;
            // The begin of an attempt was not told.
            let (again, owner) = (seen.fin_in, flow.owner.map(|owner| Owner { begin: None, ..owner }));
            let netns = flow.netns;
            let attempt =
                Attempt { asked: began, destination, again, used_again, reset_in, released, denied, owner, netns };
            let note = of_attempt(cookie, &attempt);
            let words = Words(&note);
            prop_assert!(words.is(ATTEMPT) && !words.is(OPEN) && words.at(COOKIE) == cookie);
            prop_assert_eq!(words.attempt(), attempt);
        }

        #[test]
        fn any_words_are_a_flow_or_none(note: Note) {
            let flows = &mut Flows::new(&Config::default(), boot(), None, Arc::<Ledger>::default());
            prop_assert!(flows.take_up(&[note]) <= 1);
        }
    }

    #[test]
    fn what_was_told_of_flows_that_are_found_anew_is_handed_on_too() {
        let mut config = Config::default();
        config.flow.update = crate::config::Span(std::time::Duration::from_secs(300));
        let mut flows = Flows::new(&config, boot(), None, Arc::<Ledger>::default());
        assert_eq!(flows.take_up(&[of_other(7, &passed(1 << 40 | 5, 6))]), 0);
        assert_eq!(flows.leave(), [of_other(7, &passed(1 << 40 | 5, 6))]);
        assert_eq!(flows.untied.take(7), Some(passed(1 << 40 | 5, 6)));
    }

    #[test]
    fn a_note_without_a_flow_is_none() {
        let mut flows = Flows::new(&Config::default(), boot(), None, Arc::<Ledger>::default());
        assert_eq!(flows.take_up(&[[0; _]; 3]), 0);
        assert_eq!(flows.open_flows(), 0);
    }
}
