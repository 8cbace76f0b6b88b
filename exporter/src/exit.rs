//! How the program ends: an outcome comes in, the number that the shell sees goes out.
//!
//! The numbers are those of BSD's sysexits.h, so that a supervisor can tell "mend the configuration" (78: a restart
//! won't help) from "not there yet" (69: it will). Must never end the program itself: `main` returns the code.

use std::{fmt, process::ExitCode};

use crate::{config::ConfigError, escape::Escaped};

/// Why flowtel ended. The number of each is part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or stopped in an orderly way.
    Success = 0,
    /// Any failure that no other code names.
    Failure = 1,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// What is to be read isn't what it should be, or is damaged (`EX_DATAERR`).
    Data = 65,
    /// What is to be read isn't there, or can't be read (`EX_NOINPUT`).
    NoInput = 66,
    /// Something that flowtel needs isn't there: the kernel's feature, the cgroup, the receiver (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// What is to be read holds something that flowtel can't decode (`EX_PROTOCOL`); the rest was done.
    Undecoded = 76,
    /// The rights don't suffice: a capability is missing (`EX_NOPERM`).
    NoPermission = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

/// An error together with the code that the program ends with.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub code: Exit,
    /// What was tried, on what, and why it failed.
    pub error: anyhow::Error,
}

// === impl Exit

impl Exit {
    /// Pairs this code with an error: `.map_err(|e| Exit::Unavailable.with(e))`.
    pub fn with(self, error: impl Into<anyhow::Error>) -> Failure {
        Failure { code: self, error: error.into() }
    }

    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

// === impl Failure

impl fmt::Display for Failure {
    /// `flowtel: error: …`, then the further lines of the error and its causes, indented. Control characters are
    /// escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = String::new();
        let mut indent = "flowtel: error: ";
        for cause in self.error.chain() {
            let text = cause.to_string();
            // Some errors repeat their cause in their own words.
            if before.contains(&text) {
                continue;
            }
            for line in text.lines() {
                write!(f, "{}{indent}{}", if before.is_empty() { "" } else { "\n" }, Escaped(line))?;
                indent = "  ";
                before.push_str(line);
                before.push('\n');
            }
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Exit::Failure.with(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Exit::Config.with(error)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_each_once() {
        let error = anyhow!("permission denied").context("attach\u{1b}[2J: permission denied").context("cannot watch");
        let text = Exit::NoPermission.with(error).to_string();
        assert_eq!(text, "flowtel: error: cannot watch\n  attach\\u{1b}[2J: permission denied");
    }

    #[test]
    fn the_numbers_are_those_of_sysexits() {
        let all = [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::Data,
            Exit::NoInput,
            Exit::Unavailable,
            Exit::Undecoded,
            Exit::NoPermission,
            Exit::Config,
        ];
        assert_eq!(all.map(Exit::number), [0, 1, 64, 65, 66, 69, 76, 77, 78]);
    }
}
