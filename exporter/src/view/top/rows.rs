//! What is known in; the rows of the table, in order, out.

use std::cmp::Ordering;

use super::{
    App, Tab,
    model::{
        Number,
        flow::Flow,
        groups::{Group, Kind},
    },
};

/// What a row stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowId {
    /// A flow.
    Flow(Number),
    /// A group.
    Group(Kind, String),
}

/// By what the table is sorted. Numbers: the largest first; texts: from A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Bytes a second.
    Rate,
    /// Bytes so far.
    Bytes,
    /// The youngest first.
    Age,
    /// The handshake's time.
    Handshake,
    /// The program, or the group's name.
    Name,
    /// The destination.
    Destination,
    /// How it ended.
    State,
    /// Open flows.
    Open,
    /// New flows a second.
    New,
    /// Failed attempts a second.
    Failed,
}

/// What rows are compared by.
#[derive(Debug, PartialEq)]
enum Key {
    Number(f64),
    Text(String),
}

// === impl Sort

impl Sort {
    const FLOWS: [Self; 7] =
        [Self::Rate, Self::Bytes, Self::Age, Self::Handshake, Self::Name, Self::Destination, Self::State];
    const GROUPS: [Self; 7] =
        [Self::Rate, Self::Bytes, Self::Open, Self::New, Self::Failed, Self::Handshake, Self::Name];

    /// The next column of this table.
    pub fn next(self, tab: Tab) -> Self {
        let all = if tab == Tab::Flows { Self::FLOWS } else { Self::GROUPS };
        let at = all.iter().position(|one| *one == self).map_or(0, |at| at + 1);
        all[at % all.len()]
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "bytes/s",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Handshake => "handshake",
            Self::Name => "name",
            Self::Destination => "destination",
            Self::State => "state",
            Self::Open => "open",
            Self::New => "new/s",
            Self::Failed => "failed/s",
        }
    }

    fn of_flow(self, flow: &Flow) -> Key {
        let rate = if flow.is_over() { 0.0 } else { flow.rate().0 + flow.rate().1 };
        match self {
            Self::Bytes => Key::Number(flow.bytes().0 as f64 + flow.bytes().1 as f64),
            Self::Age => Key::Number(flow.began().unwrap_or(0) as f64),
            Self::Handshake => Key::Number(flow.facts().handshake.unwrap_or(-1.0)),
            Self::Name => Key::Text(flow.program().to_lowercase()),
            Self::Destination => Key::Text(flow.destination()),
            Self::State => Key::Text(flow.state().to_owned()),
            Self::Rate | Self::Open | Self::New | Self::Failed => Key::Number(rate),
        }
    }

    fn of_group(self, name: &str, group: &Group, now: u64) -> Key {
        let rates = group.sums.rates(now);
        Key::Number(match self {
            Self::Bytes => group.sums.total().there as f64 + group.sums.total().back as f64,
            Self::Open => group.open as f64,
            Self::New => rates.begun,
            Self::Failed => rates.failed,
            Self::Handshake => group.sums.handshake(50).unwrap_or(-1.0),
            Self::Name => return Key::Text(name.to_lowercase()),
            Self::Rate | Self::Age | Self::Destination | Self::State => rates.there + rates.back,
        })
    }
}

impl Key {
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => b.total_cmp(a),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

// === impl App

impl App {
    /// All rows of the table, in order.
    pub fn rows(&self) -> Vec<RowId> {
        let sort = self.sorted_by();
        // Where the column says the same, the youngest is first.
        let mut rows: Vec<(Key, u64, RowId)> = match self.tab {
            Tab::Flows => {
                let all = self.all || self.focus.is_some();
                let within = |flow: &Flow| self.focus.as_ref().is_none_or(|(kind, name)| kind.of(flow) == name);
                let flows = self.model.flows(all).filter(|(_, flow)| within(flow));
                flows.map(|(number, flow)| (sort.of_flow(flow), flow.last(), RowId::Flow(number))).collect()
            }
            Tab::Groups(kind) => {
                let row = |(name, group): (&str, &Group)| {
                    (sort.of_group(name, group, self.model.now()), group.last, RowId::Group(kind, name.to_owned()))
                };
                self.model.groups(kind).map(row).collect()
            }
        };
        rows.sort_by(|(a, a_last, a_id), (b, b_last, b_id)| {
            let order = a.order(b);
            let order = if self.reversed { order.reverse() } else { order };
            order.then(b_last.cmp(a_last)).then_with(|| a_id.tie(b_id))
        });
        rows.into_iter().map(|(.., id)| id).collect()
    }

    /// The place of the selected row among `rows`: where it was, if it is gone.
    pub(super) fn selection(&self, rows: &[RowId]) -> Option<usize> {
        let last = rows.len().checked_sub(1)?;
        let at = self.selected.as_ref().and_then(|id| rows.iter().position(|row| row == id));
        Some(at.unwrap_or(self.place).min(last))
    }

    /// Moves the selection by so many rows.
    pub(super) fn select(&mut self, by: isize) {
        let rows = self.rows();
        let Some(at) = self.selection(&rows) else { return };
        self.place = at.saturating_add_signed(by).min(rows.len() - 1);
        self.selected = rows.into_iter().nth(self.place);
    }
}

impl RowId {
    /// An order that stays the same, for rows that have nothing else.
    fn tie(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Flow(a), Self::Flow(b)) => a.cmp(b),
            (Self::Group(_, a), Self::Group(_, b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}
