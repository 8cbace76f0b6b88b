//! One flow: its records come in, what is known of it and its history go out.

use std::{net::SocketAddr, rc::Rc};

use super::{
    super::super::facts::{Event, Facts, Process},
    SECOND,
};
use crate::flow::Direction;

/// The most events of one flow that are remembered: the first, and the last ones.
pub const MOST_PAST: usize = 32;

/// Something that happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Past {
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// What.
    pub event: Event,
    /// Bytes that the source sent since the event before, and that the destination sent.
    pub bytes: (u64, u64),
    /// How many alike it stands for.
    pub count: u64,
    /// The handshake's time, in seconds, of a begin.
    pub handshake: Option<f64>,
}

/// A flow.
#[derive(Debug, Clone)]
pub struct Flow {
    facts: Box<Facts>,
    /// When it began, if that was seen.
    began: Option<u64>,
    last: u64,
    over: bool,
    /// Bytes so far, and whether a record has told them.
    bytes: (u64, u64),
    told: bool,
    /// When bytes were told last, and how many a second there were then.
    counted: u64,
    rate: (f64, f64),
    past: Vec<Past>,
    /// The groups that it is in: as its first record has it, whatever is known later.
    groups: [Rc<str>; 3],
}

// === impl Flow

impl Flow {
    /// One of which this is the first that is heard. [`Self::take`] takes the record itself.
    pub(super) fn new(facts: &Facts, older: bool) -> Self {
        let begins = matches!(facts.event, Event::Begin | Event::Failed);
        // The flows that are open when a reader attaches come with the time of their begin.
        let began = (begins || facts.event == Event::Open && !older).then_some(facts.time);
        let mut flow = Self {
            facts: Box::new(facts.clone()),
            began,
            last: facts.time,
            over: false,
            bytes: (0, 0),
            told: false,
            counted: facts.time,
            rate: (0.0, 0.0),
            past: Vec::with_capacity(2),
            groups: [const { "" }; 3].map(Rc::from),
        };
        flow.groups = [flow.program().into(), flow.destination().into(), flow.container().into()];
        flow
    }

    /// Takes a record. Returns what happened; `None`: that is known already.
    pub(super) fn take(&mut self, mut facts: Facts) -> Option<Past> {
        let first = self.past.is_empty();
        // What is open was asked for beside the records, so it may come late.
        let again = match facts.event {
            Event::Open => !first,
            Event::Begin => self.past.iter().any(|past| past.event == Event::Begin),
            _ => false,
        };
        if self.over || again {
            return None;
        }
        let total = facts.bytes.unwrap_or(self.bytes);
        let grown = (total.0.saturating_sub(self.bytes.0), total.1.saturating_sub(self.bytes.1));
        // Where only an end tells bytes, they count then. Of an open flow whose first ones were not seen, nobody knows when they moved.
        let seen = self.told || facts.event == Event::End || self.past.iter().any(|past| past.event == Event::Begin);
        let bytes = facts.new_bytes.unwrap_or(if seen { grown } else { (0, 0) });
        self.bytes = total;
        self.told |= facts.bytes.is_some();
        if let (None, Some(duration)) = (self.began, facts.duration) {
            self.began = Some(facts.time.saturating_sub((duration * SECOND as f64) as u64));
        }
        let since = if facts.event == Event::End && facts.new_bytes.is_none() {
            self.began.unwrap_or(self.counted)
        } else {
            self.counted
        };
        if facts.bytes.is_some() {
            let seconds = (facts.time.saturating_sub(since) as f64 / SECOND as f64).max(0.001);
            self.rate = (bytes.0 as f64 / seconds, bytes.1 as f64 / seconds);
            self.counted = facts.time;
        }
        self.last = self.last.max(facts.time);
        self.over = matches!(facts.event, Event::End | Event::Failed);
        let Facts { event, time, count, handshake, .. } = facts;
        let past = Past { time, event, bytes, count, handshake };
        if self.past.len() == MOST_PAST {
            // The oldest update goes: its bytes go to what came next.
            let oldest = self.past.iter().position(|past| past.event == Event::Update).unwrap_or(1);
            let gone = self.past.remove(oldest).bytes;
            if let Some(next) = self.past.get_mut(oldest) {
                next.bytes = (next.bytes.0.saturating_add(gone.0), next.bytes.1.saturating_add(gone.1));
            }
        }
        self.past.push(past);
        if !first {
            // A later record knows no less of the process, except of one that is gone.
            if facts.process == Process::default() {
                facts.process = std::mem::take(&mut self.facts.process);
            }
            facts.handshake = facts.handshake.or(self.facts.handshake);
            facts.source_name = facts.source_name.or(self.facts.source_name.take());
            facts.destination_name = facts.destination_name.or(self.facts.destination_name.take());
            *self.facts = facts;
        }
        Some(past)
    }

    /// What its last record says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What happened to it, the oldest first.
    pub fn past(&self) -> &[Past] {
        &self.past
    }

    /// The groups that it is in, by process, destination and container.
    pub fn groups(&self) -> &[Rc<str>; 3] {
        &self.groups
    }

    /// Whether it has ended, or failed.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// When it was heard of last.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// When it began, if that is known.
    pub fn began(&self) -> Option<u64> {
        self.began
    }

    /// How old it is, or how old it became: seconds. An attempt that failed has no age.
    pub fn age(&self, now: u64) -> Option<f64> {
        if self.facts.event == Event::Failed {
            return None;
        }
        if let (true, Some(duration)) = (self.over, self.facts.duration) {
            return Some(duration);
        }
        let until = if self.over { self.last } else { now.max(self.last) };
        self.began.map(|began| until.saturating_sub(began) as f64 / SECOND as f64)
    }

    /// Bytes of source and destination, so far.
    pub fn bytes(&self) -> (u64, u64) {
        self.bytes
    }

    /// Bytes a second of source and destination when they were told last.
    pub fn rate(&self) -> (f64, f64) {
        self.rate
    }

    /// `open`, or why it is over.
    pub fn state(&self) -> &str {
        match (self.over, &self.facts.reason) {
            (false, _) => "open",
            (true, Some(reason)) => reason,
            (true, None) => "ended",
        }
    }

    /// The program.
    pub fn program(&self) -> &str {
        let Process { name, thread, .. } = &self.facts.process;
        name.as_deref().or(thread.as_deref()).unwrap_or("(unknown)")
    }

    /// `program[pid]`.
    pub fn process(&self) -> String {
        match self.facts.process.pid {
            Some(pid) => format!("{}[{pid}]", self.program()),
            None => self.program().to_owned(),
        }
    }

    /// Who was asked, by name if there is one, with the port.
    pub fn destination(&self) -> String {
        place(self.facts.destination_name.as_deref(), self.facts.ends.destination)
    }

    /// Who asked.
    pub fn source(&self) -> String {
        place(self.facts.source_name.as_deref(), self.facts.ends.source)
    }

    /// The container, or what stands for one.
    pub fn container(&self) -> String {
        let Process { container, pod, unit, .. } = &self.facts.process;
        match (container, pod, unit) {
            (Some(id), ..) => id.chars().take(12).collect(),
            (None, Some(pod), _) => format!("pod {pod}"),
            (None, None, Some(unit)) => unit.clone(),
            (None, None, None) => "(none)".into(),
        }
    }

    /// `out`, `in`, or nothing.
    pub fn direction(&self) -> &'static str {
        match self.facts.ends.direction {
            Some(Direction::Outgoing) => "out",
            Some(Direction::Incoming) => "in",
            None => "",
        }
    }
}

/// A name, or an address, with a port that is known.
fn place(name: Option<&str>, at: SocketAddr) -> String {
    match (name, at) {
        (Some(name), at) if at.port() == 0 => name.to_owned(),
        (Some(name), at) => format!("{name}:{}", at.port()),
        (None, at) if at.ip().is_unspecified() => "(unknown)".into(),
        (None, at) if at.port() == 0 => at.ip().to_string(),
        (None, at) => at.to_string(),
    }
}
