//! What is wrong with a configuration, said so that it can be mended: where, which key, what was expected.

use std::fmt;

use super::{key::Key, origin::Origin};
use crate::escape::Escaped;

/// The configuration cannot be used. Every problem found is in it.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong, or (as a warning) doubtful. Holds no secret: messages about headers never quote the value,
/// those about addresses leave out user, password and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// The key, where it is about one.
    pub key: Option<Key>,
    /// What was expected, and what was found instead.
    pub message: String,
}

// === impl ConfigError

impl ConfigError {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// What is wrong; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    /// A headline, then one line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

// === impl Problem

impl Problem {
    pub(super) fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), key: None, message: message.into() }
    }

    pub(super) fn at(origin: &Origin, key: &Key, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), key: Some(key.clone()), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}", Escaped(&self.message))
    }
}
