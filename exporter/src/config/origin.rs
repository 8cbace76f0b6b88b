//! Where a value came from: the layer that spoke last.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::key::Key;
use crate::escape::Escaped;

/// Where a value came from. `Display` shows it as people look for it: `/etc/flowtel/flowtel.toml:12`,
/// `OTEL_EXPORTER_OTLP_ENDPOINT`, `flag --endpoint`, `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing said otherwise.
    Default,
    /// A file, and the line of the key in it, counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, where it is known.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

/// The origin of each value that is not a default.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<Key, Origin>);

// === impl Origin

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                write!(f, "{}", Escaped(&path.to_string_lossy()))?;
                line.map_or(Ok(()), |line| write!(f, ":{line}"))
            }
            Self::Env(name) => write!(f, "{}", Escaped(name)),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

// === impl Origins

impl Origins {
    /// The origin of a value; for a table of values (`export.headers`) that of one of its entries.
    pub fn get(&self, key: &Key) -> &Origin {
        self.0
            .get(key)
            .or_else(|| self.0.range(key..).next().filter(|(k, _)| k.is_within(key)).map(|(_, origin)| origin))
            .unwrap_or(&Origin::Default)
    }

    pub(super) fn set(&mut self, key: Key, origin: Origin) {
        self.0.insert(key, origin);
    }
}
