//! A key in; what it changes.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{App, Go, Tab, model::groups::Kind, rows::RowId};

/// The longest filter that can be typed.
const MOST: usize = 512;

/// What each key does, for the help.
pub const HELP: &[(&str, &str)] = &[
    ("1 2 3 4, Tab", "flows, processes, destinations, containers"),
    ("↑ ↓ PgUp PgDn Home End", "select a row; j and k as well"),
    ("Enter", "details of a flow; the flows of a group"),
    ("Esc", "back"),
    ("s, r", "sort by the next column; the other way round"),
    ("/", "filter, as --include does: process=curl port=443"),
    ("e", "show all flows that ended and are remembered, or not"),
    ("Space", "freeze the screen, or go on; nothing is missed meanwhile"),
    ("h, ?", "this help"),
    ("q, Ctrl-C", "quit"),
];

// === impl App

impl App {
    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Go {
        if key.kind == KeyEventKind::Release {
            return Go::On;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Go::Quit;
        }
        if self.input.is_some() {
            self.type_filter(key.code);
            return Go::On;
        }
        let page = isize::try_from(self.room.max(2) - 1).unwrap_or(isize::MAX);
        match key.code {
            KeyCode::Char('q') => return Go::Quit,
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Esc => self.back(),
            KeyCode::Char(n @ '1'..='4') => self.turn_to(Tab::ALL[usize::from(n as u8 - b'1')]),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::PageUp => self.select(-page),
            KeyCode::PageDown => self.select(page),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Enter => self.open(),
            KeyCode::Char('s') => {
                let tab = self.tab;
                let sort = self.sort();
                *sort = sort.next(tab);
            }
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('e') => self.all = !self.all,
            KeyCode::Char('/') => (self.input, self.error) = (Some(self.filter.clone()), None),
            KeyCode::Char(' ') => self.freeze(),
            _ => {}
        }
        Go::On
    }

    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.details.take().is_none()
            && let Some((kind, name)) = self.focus.take()
        {
            self.tab = Tab::Groups(kind);
            self.selected = Some(RowId::Group(kind, name));
        }
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.turn_to(Tab::ALL[(at + by) % Tab::ALL.len()]);
    }

    fn turn_to(&mut self, tab: Tab) {
        (self.tab, self.focus, self.details, self.selected, self.place) = (tab, None, None, None, 0);
    }

    /// Looks closer at the selected row.
    fn open(&mut self) {
        let rows = self.rows();
        let row = self.selection(&rows).and_then(|at| rows.into_iter().nth(at));
        match row {
            Some(RowId::Flow(number)) => {
                self.selected = Some(RowId::Flow(number));
                self.details = Some(number);
            }
            Some(RowId::Group(kind, name)) => self.look_into(kind, name),
            None => {}
        }
    }

    fn look_into(&mut self, kind: Kind, name: String) {
        self.turn_to(Tab::Flows);
        self.focus = Some((kind, name));
    }

    fn type_filter(&mut self, code: KeyCode) {
        let Some(input) = &mut self.input else { return };
        match code {
            KeyCode::Esc => (self.input, self.error) = (None, None),
            KeyCode::Enter => match self.model.choose(input) {
                Ok(()) => {
                    self.filter = self.input.take().unwrap_or_default().trim().to_owned();
                    self.error = None;
                }
                Err(why) => self.error = Some(why),
            },
            KeyCode::Backspace => {
                input.pop();
            }
            KeyCode::Char(c) if input.len() < MOST && !crate::escape::acts(c) => input.push(c),
            _ => {}
        }
    }
}
