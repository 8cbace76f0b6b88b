//! The form of the output: what the settings say, and where it goes, make it one of three.

use std::io::{self, IsTerminal};

use super::people::Place;
use crate::{config::Format, export::Print};

/// The form of the output, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::export) enum Form {
    /// One request a line.
    Json,
    /// One flat object a record.
    Flat,
    /// One record a line, for people.
    Lines {
        /// With colours.
        colour: bool,
        /// Where the lines go.
        place: Place,
    },
}

// === impl Form

impl Form {
    /// The form that is wanted.
    pub(super) fn of(print: &Print) -> Self {
        let terminal = print.path.is_none() && io::stdout().is_terminal();
        match print.format {
            Format::Ndjson => Self::Flat,
            Format::Json => Self::Json,
            Format::Auto if !terminal => Self::Json,
            Format::Auto | Format::Text => {
                let choice = anstream::AutoStream::choice(&io::stdout());
                let colour = print.path.is_none() && choice != anstream::ColorChoice::Never;
                Self::Lines { colour, place: if terminal { Place::Terminal } else { Place::Pipe } }
            }
        }
    }

    /// Whether lines go to a terminal.
    pub(super) fn is_for_terminal(self) -> bool {
        matches!(self, Self::Lines { place: Place::Terminal, .. })
    }
}
