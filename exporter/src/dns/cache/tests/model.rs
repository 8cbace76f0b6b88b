//! The same promises kept by the simplest means, as a reference: lists, searched from end to end.

use proptest::prelude::*;

use super::*;

const GRACE: u64 = 600;

/// What one source saw stand for one address: names, time, time to live; the one seen last in front.
type Lists = Vec<(String, u64, u64)>;

#[derive(Debug, Default)]
struct Model {
    /// Address, source, lists; the one renewed last in front.
    units: Vec<(u32, u64, Lists)>,
}

impl Model {
    fn see(&mut self, address: u32, source: u64, names: &str, time: u64, ttl: u64) {
        let at = self.units.iter().position(|(a, s, _)| (*a, *s) == (address, source));
        let mut unit = at.map_or((address, source, Lists::new()), |i| self.units.remove(i));
        unit.2.retain(|(n, seen, ttl)| n != names && time < seen + ttl + GRACE + 2);
        unit.2.insert(0, (names.to_owned(), time, ttl.clamp(30, 3_600)));
        unit.2.truncate(16);
        self.units.insert(0, unit);
    }

    fn names(&self, address: u32, cgroup: Option<u64>, now: u64) -> Option<(State, u64, String)> {
        let own = |u: &&(u32, u64, Lists)| u.0 == address && Some(u.1) == cgroup;
        let any = |u: &&(u32, u64, Lists)| u.0 == address;
        let own: Vec<_> = self.units.iter().filter(own).collect();
        let any: Vec<_> = self.units.iter().filter(any).collect();
        [(&own, State::Fresh), (&own, State::Expired), (&any, State::Fresh), (&any, State::Expired)]
            .into_iter()
            .find_map(|(units, state)| Self::of(units, state, now))
    }

    fn of(units: &[&(u32, u64, Lists)], state: State, now: u64) -> Option<(State, u64, String)> {
        let fits = |seen: u64, ttl: u64| match state {
            State::Fresh => now < seen + ttl,
            _ => now >= seen + ttl && now < seen + ttl + GRACE,
        };
        let fitting: Vec<Vec<_>> = units
            .iter()
            .map(|unit| unit.2.iter().filter(|(_, seen, ttl)| fits(*seen, *ttl)).collect::<Vec<_>>())
            .filter(|lists| !lists.is_empty())
            .collect();
        let each = (16 / fitting.len().max(1)).max(1);
        let mut found: Vec<_> = fitting.iter().flat_map(|lists| lists.iter().take(each)).take(16).collect();
        found.sort_by_key(|(_, seen, _)| std::cmp::Reverse(*seen));
        let asked = found.iter().flat_map(|(names, ..)| names.split(' ').take(1));
        let aliases = found.iter().flat_map(|(names, ..)| names.split(' ').skip(1));
        let mut names = Vec::new();
        asked.chain(aliases).for_each(|name| {
            if !names.contains(&name) {
                names.push(name);
            }
        });
        names.truncate(16);
        Some((state, now - found.first()?.1, names.join(" ")))
    }
}

#[derive(Debug, Clone)]
enum Call {
    See { address: u32, source: u64, name: u32, aliases: u32, ttl: u64 },
    Wait(u64),
    Sweep,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => (0u32..3, 0u64..4, 0u32..25, 0u32..4, 0u64..4_000)
            .prop_map(|(address, source, name, aliases, ttl)| Call::See { address, source, name, aliases, ttl }),
        2 => (0u64..20).prop_map(Call::Wait),
        1 => (0u64..2_000).prop_map(Call::Wait),
        1 => Just(Call::Sweep),
    ]
}

proptest! {
    #[test]
    fn the_cache_says_what_the_model_says(calls in prop::collection::vec(call(), 1..80)) {
        let mut rig = rig();
        let mut model = Model::default();
        let mut now = 1_000;
        for call in calls {
            match call {
                Call::See { address, source, name, aliases, ttl } => {
                    let names: String = (0..aliases).map(|i| format!(" alias{}", (name + i) % 5)).collect();
                    let names = format!("n{name}{names}");
                    rig.see(address, source, &names, now, ttl);
                    model.see(address, source, &names, now, ttl);
                }
                Call::Wait(seconds) => now += seconds,
                Call::Sweep => rig.cache.sweep(KernelTime(now * SECOND), &rig.ledger),
            }
            rig.audit();
            for address in 0..3 {
                for cgroup in [None, Some(0), Some(1), Some(9)] {
                    prop_assert_eq!(rig.names(address, cgroup, now), model.names(address, cgroup, now));
                }
            }
        }
    }
}
