//! What the kernel told of processes in; what a process ran at a time, and who made it, out.
//!
//! # Why the answer is never another process's
//!
//! Each process id has a timeline: what its holder ran from which moment of kernel time on. A number that is used again, and a
//! program that takes another one's place, are two further points on it, for whoever makes a process and whoever starts a
//! program is told of. So the answer for a time T is the last point that is not later than T. Three rules keep it true.
//!
//! 1. **What caused an event was read before it.** The ring of processes is read up to the same moment as the others, and
//!    handed out first.
//! 2. **After a loss nothing older is believed.** Where the ring had no room, a point may be missing behind any that is older
//!    than that. For times at which it was asked for before the loss, the answer stays.
//! 3. **What is not known here is not known.** The copy of a process that is older than flowtel runs what that one runs; the
//!    caller asks /proc, and the answer counts only while no point turns up between the copy and the reading.
//!
//! Must never hold more timelines than its bound, nor ask the system for anything.

use std::{mem, sync::Arc};

use flowtel_common::exec::{Exec, Fork, Told};

use super::{
    generations::Generations,
    process::{Executable, Process},
    text,
};
use crate::capture::{KernelTime, Reach};

/// Earlier points of a timeline that are kept: a shell that becomes a program that becomes another one.
const MOST_EARLIER: usize = 3;
/// The longest first argument that is kept, bytes.
const MAX_COMMAND: usize = 255;

/// The timelines.
#[derive(Debug)]
pub(super) struct Execs {
    known: Generations<u32, Timeline>,
    /// What was told up to here may not be all.
    lost: KernelTime,
    /// What happened up to here was read.
    until: KernelTime,
}

/// What the holders of one process id ran.
#[derive(Debug)]
struct Timeline {
    now: Image,
    /// The oldest first.
    earlier: Vec<Image>,
}

/// What a process runs from one moment on.
#[derive(Debug)]
struct Image {
    open: Open,
    /// The answer, once somebody asked.
    process: Option<Arc<Process>>,
    /// It was given for times up to here.
    given: KernelTime,
    /// /proc was asked for it: of which process, and when.
    borrowed: Option<(u32, KernelTime)>,
}

/// What was told of an image, to be completed by whoever may ask the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    /// From here on.
    pub since: KernelTime,
    /// When the process began.
    pub start: Option<KernelTime>,
    /// Its parent's process id.
    pub parent: Option<u32>,
    /// What it runs.
    pub executable: Option<Arc<Executable>>,
    /// What its parent ran.
    pub parent_executable: Option<Arc<Executable>>,
    /// The first word that its program was started with.
    pub command: Option<Box<str>>,
    /// Where it is not known what it runs: this process ran the same.
    pub of: Option<u32>,
    /// What /proc says turned out to be of another time: it is not to be asked again.
    pub closed: bool,
}

/// What is known of a process at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing, or nothing that is certain.
    Nothing,
    /// The first that is known of this number is later. What somebody else read of it before that is right.
    Later(KernelTime),
    /// This. To be given back by [`Execs::close`] as a [`Process`].
    Open(Open),
    /// This.
    Process(Arc<Process>),
}

// === impl Execs

impl Execs {
    /// An empty one of at most `most` process ids.
    pub fn new(most: usize) -> Self {
        Self { known: Generations::new(most), lost: KernelTime(0), until: KernelTime(0) }
    }

    /// Takes what the kernel told, in the order of time.
    pub fn on(&mut self, told: &Told<'_>) {
        match told {
            Told::Fork(fork) => self.forks(fork),
            Told::Exec { head, names, argument } => self.starts(head, names, argument),
        }
    }

    /// All was taken, as far as this goes.
    pub fn reaches(&mut self, reach: Reach) {
        self.until = self.until.max(reach.until);
        self.lost = self.lost.max(reach.lost);
    }

    fn forks(&mut self, fork: &Fork) {
        let since = KernelTime(fork.time);
        let source = self.last(fork.of);
        let executable = source.and_then(|image| image.open.executable.clone());
        let command = source.and_then(|image| image.open.command.clone());
        // A copy of a copy runs what the first one did.
        let of = match source {
            Some(image) => image.open.of,
            None => Some(fork.of),
        };
        let parent = (fork.parent != 0).then_some(fork.parent);
        let parent_executable = match parent {
            Some(pid) if pid == fork.of => executable.clone(),
            Some(pid) => self.runs(pid),
            None => None,
        };
        let of = of.filter(|_| executable.is_none());
        // When it was told of is a moment later than when it began.
        let start = parent.map(|_| since);
        self.push(fork.tgid, Open { since, start, parent, executable, parent_executable, command, of, closed: false });
    }

    fn starts(&mut self, head: &Exec, names: &[u8], argument: &[u8]) {
        let since = KernelTime(head.time);
        // Whoever has the number now is the one that was made last with it.
        let (start, parent, known) = match self.last(head.tgid).map(|image| &image.open) {
            Some(before) => (before.start, before.parent, before.parent_executable.clone()),
            None => (None, None, None),
        };
        let parent_executable = known.or_else(|| parent.and_then(|pid| self.runs(pid)));
        let executable = Executable::from_exec(head, names).map(Arc::new);
        let argument = argument.split(|b| *b == 0).next().unwrap_or_default();
        let command = (!argument.is_empty()).then(|| text::bounded(argument, MAX_COMMAND).into());
        let open = Open { since, start, parent, executable, parent_executable, command, of: None, closed: false };
        self.push(head.tgid, open);
    }

    /// What is known last of a process, where it is certain.
    fn last(&mut self, pid: u32) -> Option<&Image> {
        let lost = self.lost;
        self.known.get(pid).map(|timeline| &timeline.now).filter(|image| image.open.since > lost)
    }

    fn runs(&mut self, pid: u32) -> Option<Arc<Executable>> {
        self.last(pid).and_then(|image| image.open.executable.clone())
    }

    fn push(&mut self, pid: u32, open: Open) {
        let now = Image { open, process: None, given: KernelTime(0), borrowed: None };
        match self.known.get(pid) {
            Some(timeline) => timeline.push(now),
            None => self.known.insert(pid, Timeline { now, earlier: Vec::new() }),
        }
    }

    /// What is known of the process that had the number `pid` at `at`.
    pub fn at(&mut self, pid: u32, at: KernelTime) -> Said {
        let (lost, until) = (self.lost, self.until);
        let Some(timeline) = self.known.get(pid) else { return Said::Nothing };
        let first = timeline.first();
        let Some((image, next)) = timeline.at(at) else { return Said::Later(first) };
        if image.open.since <= lost && at > image.given {
            return Said::Nothing;
        }
        image.given = image.given.max(at);
        let since = image.open.since;
        let Some((of, read)) = image.borrowed.filter(|(_, read)| until > *read) else { return image.said() };
        let within = |point: KernelTime| point > since && point <= read;
        let changed = if of == pid {
            next.is_some_and(within)
        } else {
            self.known.get(of).is_some_and(|timeline| timeline.points().any(within))
        };
        self.settle_borrowed(pid, at, changed);
        self.known.get(pid).and_then(|timeline| timeline.at(at)).map_or(Said::Nothing, |(image, _)| image.said())
    }

    /// Whether the answer for `at` is there, is the last that was told of this number, and needs nothing of /proc.
    pub fn is_settled(&mut self, pid: u32, at: KernelTime) -> bool {
        let lost = self.lost;
        self.known.get(pid).is_some_and(|timeline| {
            let image = &timeline.now;
            let since = image.open.since;
            since <= at && since > lost && image.process.is_some() && image.borrowed.is_none()
        })
    }

    /// All that can have happened before /proc was read is known by now: its answer holds, or is of another time.
    fn settle_borrowed(&mut self, pid: u32, at: KernelTime, changed: bool) {
        if let Some((image, _)) = self.known.get(pid).and_then(|timeline| timeline.at(at)) {
            image.borrowed = None;
            if changed {
                image.process = None;
                image.open.closed = true;
            } else if let Some(process) = &image.process {
                // Copies of it run the same.
                image.open.executable.clone_from(&process.executable);
            }
        }
    }

    /// Notes the answer for the image of `pid` that begins at `since`; /proc was asked for it about `borrowed`.
    pub fn close(&mut self, pid: u32, since: KernelTime, process: &Arc<Process>, borrowed: Option<(u32, KernelTime)>) {
        if let Some((image, _)) = self.known.get(pid).and_then(|timeline| timeline.at(since)) {
            image.process = Some(Arc::clone(process));
            image.borrowed = borrowed;
        }
    }

    /// Whether anything was told of this number, and all that was told since `since` is there.
    pub fn is_silent(&mut self, pid: u32, since: KernelTime) -> bool {
        since > self.lost && self.known.get(pid).is_none()
    }

    /// How many numbers are known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

// === impl Image

impl Image {
    fn said(&self) -> Said {
        match &self.process {
            Some(process) => Said::Process(Arc::clone(process)),
            None => Said::Open(self.open.clone()),
        }
    }
}

// === impl Timeline

impl Timeline {
    fn push(&mut self, now: Image) {
        self.earlier.push(mem::replace(&mut self.now, now));
        if self.earlier.len() > MOST_EARLIER {
            self.earlier.remove(0);
        }
    }

    fn first(&self) -> KernelTime {
        self.earlier.first().unwrap_or(&self.now).open.since
    }

    fn points(&self) -> impl Iterator<Item = KernelTime> {
        self.earlier.iter().chain([&self.now]).map(|image| image.open.since)
    }

    /// The image that holds at `at`, and when the next one begins.
    fn at(&mut self, at: KernelTime) -> Option<(&mut Image, Option<KernelTime>)> {
        if self.now.open.since <= at {
            return Some((&mut self.now, None));
        }
        let mut next = self.now.open.since;
        for image in self.earlier.iter_mut().rev() {
            if image.open.since <= at {
                return Some((image, Some(next)));
            }
            next = image.open.since;
        }
        None
    }
}

#[cfg(test)]
mod tests;
