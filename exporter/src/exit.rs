//! How the program ends: an outcome comes in, the number that the shell sees goes out.
//!
//! The numbers are those of BSD's sysexits.h, so that a supervisor can tell "mend the configuration" (78: a restart
//! won't help) from "not there yet" (69: it will). Must never end the program itself: `main` returns the code.

use std::process::ExitCode;

use crate::config::ConfigError;

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
    /// Something that flowtel needs isn't there: the kernel's feature, the cgroup, the receiver (`EX_UNAVAILABLE`).
    Unavailable = 69,
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
