//! What a look-up gives: names of one address, borrowed from where they are kept.

use std::time::Duration;

/// The most names that are given for an address, as the record's schema has it.
pub const MAX_NAMES: usize = 16;

/// Names of an address: at least one, at most [`MAX_NAMES`], none twice.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    names: [&'a str; MAX_NAMES],
    count: usize,
    /// Where all of them come from.
    pub state: State,
    /// From the newest of the answers that they come from to the time that was asked about; `None` for names of the
    /// hosts file, which come from no answer.
    pub age: Option<Duration>,
    /// Who learned them; `None` where it is not known for whom they are.
    pub origin: Option<Origin>,
}

/// Who learned names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Whoever made the connection asked for them: the same user in the same cgroup and network namespace.
    Own,
    /// Another user or cgroup of the same network namespace did.
    Other,
    /// Nobody: they are those of the hosts file.
    Static,
}

/// Where names come from, and whether they can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An answer whose time to live isn't over.
    Fresh,
    /// An answer whose time to live is over, within the grace time.
    Expired,
    /// The hosts file.
    Static,
    /// Only the answer to a reverse look-up: whoever owns the address chose the name.
    Reverse,
}

/// Names being gathered.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    names: [&'a str; MAX_NAMES],
    count: usize,
}

// === impl Names

impl<'a> Names<'a> {
    /// The names: those that were asked for first, the one seen last in front, then the CNAMEs.
    pub fn as_slice(&self) -> &[&'a str] {
        &self.names[..self.count]
    }
}

// === impl State

impl State {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Expired => "expired",
            Self::Static => "static",
            Self::Reverse => "reverse",
        }
    }
}

// === impl Origin

impl Origin {
    /// As it stands in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Other => "other",
            Self::Static => "static",
        }
    }
}

// === impl Gather

impl<'a> Gather<'a> {
    pub fn new() -> Self {
        Self { names: [""; MAX_NAMES], count: 0 }
    }

    /// Adds a name, if there is room and it isn't there yet.
    pub fn add(&mut self, name: &'a str) {
        if self.count < MAX_NAMES && !self.names[..self.count].contains(&name) {
            self.names[self.count] = name;
            self.count += 1;
        }
    }

    /// What was gathered; `None`: nothing.
    pub fn done(self, state: State, age: Option<Duration>, origin: Option<Origin>) -> Option<Names<'a>> {
        (self.count > 0).then_some(Names { names: self.names, count: self.count, state, age, origin })
    }
}
