//! Every key that exists: the settings' types come in, a list of keys with kind, limits, default and words goes out.
//!
//! Checks, suggestions, the reference file and the documentation all read this one list. Must never know a key that
//! the types don't have: it is made from their schema.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::{
    key::Key,
    types::Config,
    units::{Bytes, Span},
};

/// A setting.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// What a value may be.
    pub kind: Kind,
    /// What it means, in Markdown.
    pub doc: String,
    /// What it is when nothing says otherwise; `None`: not set.
    pub default: Option<Json>,
    /// A value to show where there is no default.
    pub example: Option<Json>,
}

/// A table of settings.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its key; the root has none.
    pub key: Key,
    /// What it is about.
    pub doc: String,
    /// Its settings, without those of tables within it.
    pub entries: Vec<Entry>,
}

/// What a value may be. Limits are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer(i64, i64),
    /// Several whole numbers: a list, or a text with commas between them.
    Integers(i64, i64),
    /// A number, whole or not.
    Number(f64, f64),
    /// Any text.
    Text,
    /// One of these words.
    Choice(Vec<String>),
    /// Some of these words: a text with commas between them, or a list.
    Words(Vec<String>),
    /// Rules that include or exclude flows.
    Rules,
    /// A length of time.
    Duration(Span, Span),
    /// A number of bytes.
    Size(Bytes, Bytes),
    /// The address of a receiver.
    Address,
    /// A text that is never printed.
    Secret,
    /// A table whose keys the user names, of texts.
    Texts,
    /// A table whose keys the user names, of texts that are never printed.
    Secrets,
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut tables = Vec::new();
    collect(Key::default(), schema.as_value(), &defaults, &mut tables);
    tables
});

/// All tables, in the order of the types.
pub fn tables() -> &'static [Table] {
    &TABLES
}

/// All settings, in the order of the types.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    tables().iter().flat_map(|table| &table.entries)
}

/// The setting that a key belongs to: its own, or for `export.headers.x-api-key` that of the table `export.headers`.
pub fn find(key: &Key) -> Option<&'static Entry> {
    entries().find(|e| e.key == *key || (e.kind.is_map() && key.is_within(&e.key)))
}

/// The first setting within a table of settings; `None`: there is no such table.
pub fn within_table(key: &Key) -> Option<&'static Entry> {
    entries().find(|e| e.key != *key && e.key.is_within(key) && !key.segments().is_empty())
}

/// The known key most like an unknown one, if any is like it: the same last name in another table, or few letters off.
pub fn nearest(key: &Key) -> Option<&'static Key> {
    let known =
        || tables().iter().map(|t| &t.key).chain(entries().map(|e| &e.key)).filter(|k| !k.segments().is_empty());
    let text = key.to_string();
    let distance = |k: &Key| strsim::damerau_levenshtein(&k.to_string(), &text);
    let (near, off) = known().map(|k| (k, distance(k))).min_by_key(|(_, off)| *off)?;
    if off <= (key.last().chars().count() / 3).clamp(1, 4) {
        return Some(near);
    }
    let last = |k: &Key| strsim::damerau_levenshtein(k.last(), key.last());
    let (elsewhere, off) = known().map(|k| (k, last(k))).min_by_key(|(k, off)| (*off, distance(k)))?;
    (off <= key.last().chars().count() / 4).then_some(elsewhere)
}

/// The environment variable that sets a key: `FLOWTEL_EXPORT__BATCH__MAX_AGE`.
pub fn variable(key: &Key) -> String {
    format!("FLOWTEL_{}", key.segments().join("__").to_ascii_uppercase())
}

// === impl Kind

impl Kind {
    /// Whether the user names the keys within.
    pub fn is_map(&self) -> bool {
        matches!(self, Self::Texts | Self::Secrets)
    }

    /// What a value has to be, to follow "expected".
    pub fn expected(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Integers(min, max) => format!("a list of whole numbers from {min} to {max}, such as [{min}]"),
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Text => "a text".into(),
            Self::Choice(words) => match words.as_slice() {
                [] => "nothing".into(),
                [word] => format!("\"{word}\""),
                [most @ .., last] => format!("\"{}\" or \"{last}\"", most.join("\", \"")),
            },
            Self::Words(words) => format!("some of \"{}\"", words.join("\", \"")),
            Self::Rules => "a list of rules such as \"exclude destination=10.0.0.0/8 port=443\"".into(),
            Self::Duration(min, max) => format!("a duration from {min} to {max}, such as \"250ms\" or \"1m 30s\""),
            Self::Size(min, max) => format!("a size from {min} to {max}, such as \"64MiB\" or 1048576"),
            Self::Address => "an address such as \"http://host:4318\"".into(),
            Self::Secret => "a text".into(),
            Self::Texts | Self::Secrets => "a table of texts, such as { name = \"value\" }".into(),
        }
    }
}

// === reading the schema

fn collect(key: Key, schema: &Json, defaults: &Json, tables: &mut Vec<Table>) {
    let at = tables.len();
    tables.push(Table { key: key.clone(), doc: doc_of(schema), entries: Vec::new() });
    let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
    for (name, property) in properties {
        let key = key.child(name);
        let default = defaults.get(name).cloned();
        if property.get("properties").is_some() {
            collect(key, property, &default.unwrap_or_default(), tables);
            continue;
        }
        let example = property.get("examples").and_then(|e| e.get(0)).cloned();
        tables[at].entries.push(Entry { key, kind: kind_of(property), doc: doc_of(property), default, example });
    }
}

fn doc_of(schema: &Json) -> String {
    let text = schema.get("description").and_then(Json::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kind_of(schema: &Json) -> Kind {
    let text = |name: &str| schema.get(name).and_then(Json::as_str);
    let number = |name: &str| schema.get(name).and_then(Json::as_i64);
    let is = |name: &str| match schema.get("type") {
        Some(Json::String(one)) => one == name,
        Some(Json::Array(many)) => many.iter().any(|one| one == name),
        _ => false,
    };
    // An optional choice is wrapped: anyOf [choice, null].
    if let Some(inner) = schema.get("anyOf").and_then(|any| any.get(0)) {
        return kind_of(inner);
    }
    if let Some(variants) = schema.get("oneOf").and_then(Json::as_array) {
        return Kind::Choice(words(variants.iter().filter_map(|v| v.get("const"))));
    }
    if let Some(variants) = schema.get("enum").and_then(Json::as_array) {
        return Kind::Choice(words(variants.iter()));
    }
    match text("format") {
        Some("duration") => return Kind::Duration(limit(text("x-min"), Span::ZERO), limit(text("x-max"), Span::MAX)),
        Some("size") => return Kind::Size(limit(text("x-min"), Bytes(0)), limit(text("x-max"), Bytes(u64::MAX))),
        Some("address") => return Kind::Address,
        Some("rules") => return Kind::Rules,
        Some("secret") => return Kind::Secret,
        Some("words") => {
            let known = schema.get("items").and_then(|items| items.get("enum")).and_then(Json::as_array);
            return Kind::Words(words(known.into_iter().flatten()));
        }
        _ => {}
    }
    if let Some(values) = schema.get("additionalProperties").filter(|_| is("object")) {
        let secret = values.get("format").and_then(Json::as_str) == Some("secret");
        return if secret { Kind::Secrets } else { Kind::Texts };
    }
    if is("boolean") {
        return Kind::Bool;
    }
    if is("number") {
        let limit = |name: &str| schema.get(name).and_then(Json::as_f64);
        return Kind::Number(limit("minimum").unwrap_or(f64::MIN), limit("maximum").unwrap_or(f64::MAX));
    }
    if let Some(items) = schema.get("items").filter(|_| is("array"))
        && let Kind::Integer(min, max) = kind_of(items)
    {
        return Kind::Integers(min, max);
    }
    if is("integer") {
        return Kind::Integer(number("minimum").unwrap_or(0), number("maximum").unwrap_or(i64::MAX));
    }
    Kind::Text
}

fn words<'a>(values: impl Iterator<Item = &'a Json>) -> Vec<String> {
    values.filter_map(Json::as_str).map(str::to_owned).collect()
}

fn limit<T: std::str::FromStr>(text: Option<&str>, otherwise: T) -> T {
    text.and_then(|t| t.parse().ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_what_it_means_and_has_limits_that_can_be_read() {
        for entry in entries() {
            assert!(!entry.doc.is_empty(), "{} has no words", entry.key);
            match &entry.kind {
                Kind::Duration(_, max) => assert!(*max < Span::MAX, "{} has no limit", entry.key),
                Kind::Size(_, max) => assert!(max.0 < u64::MAX, "{} has no limit", entry.key),
                Kind::Integer(_, max) | Kind::Integers(_, max) => {
                    assert!(*max < i64::MAX, "{} has no limit", entry.key)
                }
                Kind::Number(_, max) => assert!(*max < f64::MAX, "{} has no limit", entry.key),
                Kind::Choice(words) | Kind::Words(words) => {
                    assert!(!words.is_empty(), "{} has no words to choose from", entry.key)
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_schema_is_read_into_kinds() {
        let kind = |key| find(&Key::new(key)).map(|e| e.kind.clone());
        assert_eq!(kind("capture.exclude_self"), Some(Kind::Bool));
        assert_eq!(kind("export.concurrency"), Some(Kind::Integer(1, 64)));
        assert_eq!(kind("export.protocol"), Some(Kind::Choice(vec!["grpc".into(), "http/protobuf".into()])));
        assert_eq!(kind("log.level").map(|k| k.expected().contains("\"warn\"")), Some(true));
        assert_eq!(kind("export.headers.x-api-key"), Some(Kind::Secrets));
        assert_eq!(kind("record.resource"), Some(Kind::Texts));
        assert_eq!(kind("export.endpoint"), Some(Kind::Address));
        assert_eq!(kind("export.tls.ca_file"), Some(Kind::Text));
        assert_eq!(kind("capture.filter"), Some(Kind::Rules));
        assert_eq!(kind("capture.filter_default"), Some(Kind::Choice(vec!["include".into(), "exclude".into()])));
        assert_eq!(kind("capture.sample"), Some(Kind::Number(0.0, 1.0)));
        assert_eq!(kind("record.groups"), Some(Kind::Words(vec!["client_server".into(), "tracee".into()])));
        assert_eq!(kind("dns.ports"), Some(Kind::Integers(0, 65535)));
        assert_eq!(kind("export.nothing"), None);
    }

    #[test]
    fn the_nearest_key_is_found_by_letters_and_by_its_last_name() {
        let near = |key| nearest(&Key::new(key)).map(Key::to_string);
        assert_eq!(near("export.endpiont").as_deref(), Some("export.endpoint"));
        assert_eq!(near("exprt").as_deref(), Some("export"));
        assert_eq!(near("export.max_age").as_deref(), Some("export.batch.max_age"));
        assert_eq!(near("endpoint").as_deref(), Some("export.endpoint"));
        assert_eq!(near("colour"), None);
    }
}
