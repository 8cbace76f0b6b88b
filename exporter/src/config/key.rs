//! The name of a setting, from the outermost table inwards.

use std::fmt;

use super::toml_text;

/// A key such as `export.batch.max_age`. Segments may hold dots: header names and Resource attributes do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Vec<String>);

// === impl Key

impl Key {
    /// A key of segments that need no quotes, for keys written in the source: `Key::new("export.endpoint")`.
    pub fn new(dotted: &str) -> Self {
        Self(dotted.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect())
    }

    /// Reads a key as TOML writes it, with quotes where a segment holds a dot. `None`: that is no TOML key.
    pub fn parse(text: &str) -> Option<Self> {
        let keys = toml_edit::Key::parse(text).ok()?;
        Some(Self(keys.iter().map(|k| k.get().to_owned()).collect()))
    }

    /// This key and one segment more.
    pub fn child(&self, segment: impl Into<String>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment.into());
        Self(segments)
    }

    /// All but the last segment; the root for the root.
    pub fn parent(&self) -> Self {
        Self(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }

    /// The last segment; empty for the root.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The segments.
    pub fn segments(&self) -> &[String] {
        &self.0
    }

    /// Whether this is `table` or within it.
    pub fn is_within(&self, table: &Key) -> bool {
        self.0.starts_with(&table.0)
    }
}

impl fmt::Display for Key {
    /// As TOML writes it, with quotes only where they are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let bare = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if bare { f.write_str(segment)? } else { f.write_str(&toml_text::string(segment))? }
        }
        Ok(())
    }
}
