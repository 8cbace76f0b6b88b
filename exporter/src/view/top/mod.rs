//! What `flowtel top` shows and does: frames, keys and the time come in; screens go out.
//!
//! - [`model`]: what is known: flows, their history, sums, groups;
//! - [`rows`]: which of it is in the table, in which order;
//! - [`keys`]: what a key does;
//! - [`screen`]: the picture;
//! - [`terminal`]: the terminal's state, which is put back however this ends;
//! - [`live`]: all of it, once a second and at every key.
//!
//! Nothing but [`terminal`] and [`live`] knows that there is a terminal, so tests see every screen.

use std::collections::VecDeque;

use super::choose::Chosen;
use crate::telemetry::status::frame::Frame;

pub mod keys;
pub mod live;
pub mod model;
pub mod rows;
pub mod screen;
pub mod terminal;

use model::{Model, Number, groups::Kind};
use rows::{RowId, Sort};

/// The most bytes that wait while the screen is frozen.
const MOST_HELD: usize = 32 << 20;

/// What the table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// Flow by flow.
    Flows,
    /// Groups of flows.
    Groups(Kind),
}

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// The wall clock's.
    Wall,
    /// That of the latest record: a capture's own.
    Records,
}

/// Everything that the screen depends on.
#[derive(Debug)]
pub struct App {
    /// What is known.
    pub model: Model,
    /// What is watched, in words.
    pub title: String,
    /// Whose time it is.
    pub time: Time,
    /// With colours.
    pub colour: bool,
    /// Why nothing more comes.
    pub over: Option<String>,
    tab: Tab,
    sorts: [Sort; 2],
    reversed: bool,
    /// Flows that have ended are shown too.
    all: bool,
    /// The group whose flows are shown.
    focus: Option<(Kind, String)>,
    filter: String,
    /// The filter that is being typed.
    input: Option<String>,
    error: Option<String>,
    selected: Option<RowId>,
    /// Where the selected row is, in case it goes.
    place: usize,
    details: Option<Number>,
    help: bool,
    /// What came since the screen was frozen.
    held: Option<VecDeque<Frame>>,
    held_bytes: usize,
    held_missed: u64,
    /// Rows of the table that the screen has room for.
    room: usize,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// Go on.
    On,
    /// End.
    Quit,
}

// === impl Tab

impl Tab {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 4] =
        [Self::Flows, Self::Groups(Kind::Process), Self::Groups(Kind::Destination), Self::Groups(Kind::Container)];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Groups(Kind::Process) => "processes",
            Self::Groups(Kind::Destination) => "destinations",
            Self::Groups(Kind::Container) => "containers",
        }
    }
}

// === impl App

impl App {
    /// One that has seen nothing yet.
    pub fn new(chosen: Chosen, title: String, time: Time, colour: bool) -> Self {
        Self {
            model: Model::new(chosen),
            title,
            time,
            colour,
            over: None,
            tab: Tab::Flows,
            sorts: [Sort::Rate, Sort::Rate],
            reversed: false,
            all: false,
            focus: None,
            filter: String::new(),
            input: None,
            error: None,
            selected: None,
            place: 0,
            details: None,
            help: false,
            held: None,
            held_bytes: 0,
            held_missed: 0,
            room: 1,
        }
    }

    /// Takes a frame. While the screen is frozen it waits, within a bound.
    pub fn on(&mut self, frame: Frame) {
        let Some(held) = &mut self.held else { return self.model.on(frame) };
        let (bytes, records) = match &frame {
            Frame::Records { request, records, .. } => (request.len(), u64::from(*records)),
            Frame::Open { request, .. } => (request.len(), 0),
            // The last one says all that the ones before it said.
            Frame::Status(_) => {
                held.retain(|frame| !matches!(frame, Frame::Status(_)));
                (0, 0)
            }
            _ => (0, 0),
        };
        let bytes = bytes + size_of::<Frame>();
        if self.held_bytes + bytes > MOST_HELD {
            self.held_missed = self.held_missed.saturating_add(records);
            return;
        }
        self.held_bytes += bytes;
        held.push_back(frame);
    }

    /// What time it is, in nanoseconds since 1970. While the screen is frozen, time stands still.
    pub fn tick(&mut self, wall: u64) {
        if self.held.is_some() {
            return;
        }
        let now = match self.time {
            Time::Wall => wall,
            Time::Records => self.model.latest(),
        };
        self.model.tick(now);
    }

    /// Freezes the screen, or lets it go on with what came meanwhile.
    fn freeze(&mut self) {
        let Some(held) = self.held.take() else {
            self.held = Some(VecDeque::new());
            return;
        };
        held.into_iter().for_each(|frame| self.model.on(frame));
        self.model.miss(std::mem::take(&mut self.held_missed));
        self.held_bytes = 0;
    }

    /// Whether the screen is frozen.
    pub fn is_frozen(&self) -> bool {
        self.held.is_some()
    }

    fn sort(&mut self) -> &mut Sort {
        let [flows, groups] = &mut self.sorts;
        if self.tab == Tab::Flows { flows } else { groups }
    }

    /// The column that the table is sorted by.
    pub fn sorted_by(&self) -> Sort {
        let [flows, groups] = self.sorts;
        if self.tab == Tab::Flows { flows } else { groups }
    }
}

#[cfg(test)]
mod tests;
