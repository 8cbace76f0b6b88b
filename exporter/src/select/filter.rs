//! Rules made ready: what can be told from the event alone is looked at first, and for most rules that is all.

use std::net::SocketAddr;

use ipnet::IpNet;
use wildmatch::WildMatch;

use crate::{
    config::rules::{Action, Pattern, Rule, Rules, Way},
    enrich::Enriched,
    flow::{Direction, FlowEvent},
};

/// Rules in order, and what becomes of flows that none matches. A plain value: made from the settings, used by one thread,
/// replaced as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    rules: Vec<Ready>,
    default: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Ready {
    keeps: bool,
    rule: Rule,
    owner: Option<OwnerRule>,
}

/// What a rule asks of the process behind a flow.
#[derive(Debug, Clone, PartialEq)]
struct OwnerRule {
    process: Vec<Text>,
    cgroup: Vec<Text>,
    container: Vec<Text>,
}

/// A pattern, made ready.
#[derive(Debug, Clone, PartialEq)]
enum Text {
    /// Without wildcards.
    Plain(String),
    Wild(WildMatch),
}

// === impl Filter

impl Filter {
    /// Makes rules ready.
    pub fn new(rules: &Rules, default: Option<Action>) -> Self {
        let ready = |rule: &Rule| Ready {
            keeps: rule.action == Action::Include,
            rule: rule.clone(),
            owner: rule.asks_owner().then(|| OwnerRule::new(rule)),
        };
        Self { rules: rules.0.iter().map(ready).collect(), default: rules.default_action(default) == Action::Include }
    }

    /// Whether it keeps everything without a look.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.default
    }

    /// Whether an event is kept, by what it says itself. `None`: that depends on the process behind it.
    pub fn early(&self, event: &FlowEvent) -> Option<bool> {
        match self.rules.iter().find(|ready| ready.matches_event(event)) {
            None => Some(self.default),
            Some(Ready { owner: None, keeps, .. }) => Some(*keeps),
            Some(_) => None,
        }
    }

    /// Whether an event is kept, when everything is known that can be.
    pub fn late(&self, enriched: &Enriched<'_>) -> bool {
        let first = self.rules.iter().find(|ready| {
            ready.matches_event(enriched.event)
                && ready.owner.as_ref().is_none_or(|owner| owner.matches(&ready.rule, enriched))
        });
        first.map_or(self.default, |ready| ready.keeps)
    }
}

// === impl Ready

impl Ready {
    /// Whether all conditions hold that don't ask for the process. What is not known matches no condition.
    fn matches_event(&self, event: &FlowEvent) -> bool {
        let (rule, flow) = (&self.rule, &event.flow);
        within(&rule.source, &flow.source)
            && within(&rule.destination, &flow.destination)
            && (rule.address.is_empty()
                || within(&rule.address, &flow.source)
                || within(&rule.address, &flow.destination))
            && port(&rule.source_port, &flow.source)
            && port(&rule.destination_port, &flow.destination)
            && (port(&rule.port, &flow.source) || port(&rule.port, &flow.destination))
            && (rule.direction.is_empty() || flow.direction.is_some_and(|is| rule.direction.contains(&way(is))))
            && rule.local.is_none_or(|local| local == flow.local)
    }
}

/// An unspecified address stands for one that isn't known.
fn within(nets: &[IpNet], end: &SocketAddr) -> bool {
    nets.is_empty() || (!end.ip().is_unspecified() && nets.iter().any(|net| net.contains(&end.ip())))
}

/// Port 0 stands for one that isn't known, and is in no range.
fn port(ranges: &[std::ops::RangeInclusive<u16>], end: &SocketAddr) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&end.port()))
}

fn way(direction: Direction) -> Way {
    match direction {
        Direction::Outgoing => Way::Outgoing,
        Direction::Incoming => Way::Incoming,
    }
}

// === impl OwnerRule

impl OwnerRule {
    fn new(rule: &Rule) -> Self {
        let texts = |patterns: &[Pattern]| patterns.iter().map(|pattern| Text::new(&pattern.0)).collect();
        Self { process: texts(&rule.process), cgroup: texts(&rule.cgroup), container: texts(&rule.container) }
    }

    fn matches(&self, rule: &Rule, enriched: &Enriched<'_>) -> bool {
        let owner = enriched.event.flow.owner.as_ref();
        let place = enriched.place.as_deref();
        let user = || owner.is_some_and(|owner| rule.user.iter().any(|range| range.contains(&owner.uid)));
        let pid = || owner.is_some_and(|owner| rule.pid.iter().any(|range| range.contains(&owner.pid)));
        let cgroup = || place.is_some_and(|place| self.cgroup.iter().any(|text| text.holds(&place.path)));
        let id = || place.and_then(|place| place.container_id.as_deref());
        let container = || id().is_some_and(|id| self.container.iter().any(|text| text.begins(id)));
        (self.process.is_empty() || self.matches_process(enriched))
            && (rule.pid.is_empty() || pid())
            && (rule.user.is_empty() || user())
            && (self.cgroup.is_empty() || cgroup())
            && (self.container.is_empty() || container())
    }

    fn matches_process(&self, enriched: &Enriched<'_>) -> bool {
        let executable = enriched.executable();
        let thread = enriched.event.flow.owner.as_ref().map(|owner| String::from_utf8_lossy(owner.name()));
        self.process.iter().any(|text| {
            if text.is_path() {
                return executable.is_some_and(|e| text.is(&e.path));
            }
            executable.is_some_and(|e| text.is(&e.name)) || thread.as_deref().is_some_and(|name| text.is(name))
        })
    }
}

// === impl Text

impl Text {
    fn new(pattern: &str) -> Self {
        if pattern.contains(['*', '?']) { Self::Wild(WildMatch::new(pattern)) } else { Self::Plain(pattern.to_owned()) }
    }

    fn is_path(&self) -> bool {
        match self {
            Self::Plain(text) => text.starts_with('/'),
            Self::Wild(wild) => wild.pattern_chars().first() == Some(&'/'),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::Plain(plain) => plain == text,
            Self::Wild(wild) => wild.matches(text),
        }
    }

    /// Whether a cgroup's path is this one, or below it.
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Plain(plain) => {
                let plain = plain.trim_end_matches('/');
                path.strip_prefix(plain).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Wild(wild) => wild.matches(path),
        }
    }

    /// Whether an id begins with this.
    fn begins(&self, id: &str) -> bool {
        match self {
            Self::Plain(plain) => id.starts_with(plain.as_str()),
            Self::Wild(wild) => wild.matches(id),
        }
    }
}
