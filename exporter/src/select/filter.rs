//! Rules made ready: what can be told from the event alone is looked at first, and for most rules that is all.

use std::{borrow::Cow, net::SocketAddr};

use ipnet::IpNet;
use wildmatch::WildMatch;

use crate::{
    config::rules::{Action, Pattern, Rule, Rules, Way},
    enrich::Enriched,
    flow::{Direction, FlowEvent},
};

/// What rules ask of a flow itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who initiated it. Port 0 and an unspecified address stand for "not known".
    pub source: SocketAddr,
    /// Who was asked; likewise.
    pub destination: SocketAddr,
    /// Which side of it this is.
    pub direction: Option<Direction>,
    /// Both ends are on this host.
    pub local: bool,
}

/// What rules ask of the process behind a flow. `None`: it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Path of the executable.
    pub path: Option<&'a str>,
    /// Its base name.
    pub name: Option<&'a str>,
    /// Name of the thread.
    pub thread: Option<Cow<'a, str>>,
    /// Process id.
    pub pid: Option<u32>,
    /// User id.
    pub user: Option<u32>,
    /// Path of the cgroup.
    pub cgroup: Option<&'a str>,
    /// Id of the container.
    pub container: Option<&'a str>,
}

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
        let ends = Ends::of(event);
        match self.rules.iter().find(|ready| ready.matches_ends(&ends)) {
            None => Some(self.default),
            Some(Ready { owner: None, keeps, .. }) => Some(*keeps),
            Some(_) => None,
        }
    }

    /// Whether an event is kept, when everything is known that can be.
    pub fn late(&self, enriched: &Enriched<'_>) -> bool {
        self.keeps(&Ends::of(enriched.event), &Who::of(enriched))
    }

    /// Whether a flow is kept of which this is known.
    pub fn keeps(&self, ends: &Ends, who: &Who<'_>) -> bool {
        let first = self.rules.iter().find(|ready| {
            ready.matches_ends(ends) && ready.owner.as_ref().is_none_or(|owner| owner.matches(&ready.rule, who))
        });
        first.map_or(self.default, |ready| ready.keeps)
    }
}

// === impl Ends

impl Ends {
    fn of(event: &FlowEvent) -> Self {
        let flow = &event.flow;
        Self { source: flow.source, destination: flow.destination, direction: flow.direction, local: flow.local }
    }
}

// === impl Who

impl<'a> Who<'a> {
    fn of(enriched: &'a Enriched<'_>) -> Self {
        let owner = enriched.event.flow.owner.as_ref();
        let place = enriched.place.as_deref();
        let executable = enriched.executable();
        Self {
            path: executable.map(|executable| &*executable.path),
            name: executable.map(|executable| &*executable.name),
            thread: owner.map(|owner| String::from_utf8_lossy(owner.name())),
            pid: owner.map(|owner| owner.pid),
            user: owner.map(|owner| owner.uid),
            cgroup: place.map(|place| &*place.path),
            container: place.and_then(|place| place.container_id.as_deref()),
        }
    }
}

// === impl Ready

impl Ready {
    /// Whether all conditions hold that don't ask for the process. What is not known matches no condition.
    fn matches_ends(&self, flow: &Ends) -> bool {
        let rule = &self.rule;
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

    fn matches(&self, rule: &Rule, who: &Who<'_>) -> bool {
        let user = || who.user.is_some_and(|user| rule.user.iter().any(|range| range.contains(&user)));
        let pid = || who.pid.is_some_and(|pid| rule.pid.iter().any(|range| range.contains(&pid)));
        let cgroup = || who.cgroup.is_some_and(|path| self.cgroup.iter().any(|text| text.holds(path)));
        let container = || who.container.is_some_and(|id| self.container.iter().any(|text| text.begins(id)));
        (self.process.is_empty() || self.matches_process(who))
            && (rule.pid.is_empty() || pid())
            && (rule.user.is_empty() || user())
            && (self.cgroup.is_empty() || cgroup())
            && (self.container.is_empty() || container())
    }

    fn matches_process(&self, who: &Who<'_>) -> bool {
        self.process.iter().any(|text| {
            if text.is_path() {
                return who.path.is_some_and(|path| text.is(path));
            }
            who.name.is_some_and(|name| text.is(name)) || who.thread.as_deref().is_some_and(|name| text.is(name))
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
