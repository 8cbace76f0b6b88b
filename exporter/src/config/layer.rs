//! A layer: the settings of one source, each with its origin, checked one by one.
//!
//! A value is checked where it was written, also when a later layer replaces it: a mistake in a file doesn't wait for
//! the day on which the variable that hid it goes away. Must never quote a secret.

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    file,
    key::Key,
    origin::Origin,
    problem::Problem,
    reference::{self, Entry, Kind},
    rules::Rules,
    units::{Bytes, Endpoint, Span},
    words,
};

/// Characters of a message that quotes what was written.
const LONGEST_MISTAKE: usize = 400;

/// One value, as a source gave it.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub key: Key,
    pub value: Value,
    pub origin: Origin,
}

/// The settings of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub settings: Vec<Setting>,
}

// === impl Setting

impl Setting {
    /// A value that came as text: from a variable or a flag. The key's kind says what it becomes; text that can't
    /// become that stays text, for [`Setting::check`] to complain about.
    pub fn from_text(key: Key, text: &str, origin: Origin) -> Self {
        let value = match reference::find(&key).map(|e| &e.kind) {
            Some(Kind::Bool) => text.trim().to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
            Some(Kind::Integer(..)) => text.trim().parse::<i64>().ok().map(Value::from),
            Some(Kind::Number(..)) => text.trim().parse::<f64>().ok().map(Value::from),
            Some(Kind::Integers(..)) => file::inline_list(text).or_else(|| {
                let numbers: Result<Vec<i64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
                numbers.ok().map(Value::from)
            }),
            Some(Kind::Words(_) | Kind::Rules) => file::inline_list(text),
            _ => None,
        };
        Self { key, value: value.unwrap_or_else(|| Value::from(text)), origin }
    }

    fn mistake(&self, what: figment::error::Kind) -> Problem {
        // What figment says of a custom error is its text alone.
        let said = what.to_string();
        let said = said.chars().take(LONGEST_MISTAKE).collect::<String>();
        Problem::at(&self.origin, &self.key, said)
    }

    /// Whether the key exists and the value is of its kind and within its limits.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(entry) = reference::find(&self.key) else { return Err(unknown(&self.origin, &self.key)) };
        match &entry.kind {
            Kind::Rules => return self.value.deserialize::<Rules>().map(drop).map_err(|e| self.mistake(e.kind)),
            // Which word of a list is wrong says more than what a list is.
            Kind::Words(words) => {
                if let Some(wrong) = unknown_word(&self.value, words) {
                    let message = format!("expected {}, found \"{wrong}\"", entry.kind.expected());
                    return Err(Problem::at(&self.origin, &self.key, message));
                }
            }
            _ => {}
        }
        if fits(entry, &self.key, &self.value) {
            return Ok(());
        }
        let expected = match entry.kind {
            Kind::Texts | Kind::Secrets if self.key != entry.key => "a text".into(),
            _ => entry.kind.expected(),
        };
        let found = found(&entry.kind, &self.value);
        Err(Problem::at(&self.origin, &self.key, format!("expected {expected}{found}")))
    }
}

/// The first text of a list of words that is none of those.
fn unknown_word<'a>(value: &'a Value, words: &[String]) -> Option<&'a str> {
    let texts: Vec<&str> = match value {
        Value::String(_, text) => words::split(text).collect(),
        Value::Array(_, values) => values.iter().filter_map(Value::as_str).flat_map(words::split).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().find(|text| !words.iter().any(|word| word == text))
}

fn fits(entry: &Entry, key: &Key, value: &Value) -> bool {
    let text = value.as_str();
    match &entry.kind {
        Kind::Bool => value.to_bool().is_some(),
        Kind::Integer(min, max) => value.to_i128().is_some_and(|n| (i128::from(*min)..=i128::from(*max)).contains(&n)),
        Kind::Integers(min, max) => match value {
            Value::Array(_, numbers) => {
                numbers.iter().all(|n| n.to_i128().is_some_and(|n| (i128::from(*min)..=i128::from(*max)).contains(&n)))
            }
            _ => false,
        },
        Kind::Number(min, max) => {
            let number = value.to_i128().map(|n| n as f64).or_else(|| value.to_num()?.to_f64());
            number.is_some_and(|n| (*min..=*max).contains(&n))
        }
        Kind::Text | Kind::Address | Kind::Secret => text.is_some(),
        // Their words were looked at, and rules are checked by reading them.
        Kind::Words(_) | Kind::Rules => match value {
            Value::Array(_, values) => values.iter().all(|value| value.as_str().is_some()),
            value => value.as_str().is_some(),
        },
        Kind::Choice(words) => text.is_some_and(|t| words.iter().any(|w| w == t)),
        Kind::Duration(min, max) => {
            text.and_then(|t| t.parse::<Span>().ok()).is_some_and(|span| (*min..=*max).contains(&span))
        }
        Kind::Size(min, max) => {
            let number = value.to_i128().and_then(|n| u64::try_from(n).ok()).map(Bytes);
            number.or_else(|| text?.parse().ok()).is_some_and(|size: Bytes| (*min..=*max).contains(&size))
        }
        Kind::Texts | Kind::Secrets => *key != entry.key && text.is_some(),
    }
}

/// `, found …`, without what must not be shown.
fn found(kind: &Kind, value: &Value) -> String {
    const LONGEST: usize = 60;
    match (kind, value) {
        (Kind::Secret | Kind::Secrets, _) => String::new(),
        (Kind::Address, Value::String(_, text)) => format!(", found \"{}\"", Endpoint::new(text)),
        (_, Value::String(_, text)) if text.chars().count() > LONGEST => {
            format!(", found \"{}…\"", text.chars().take(LONGEST).collect::<String>())
        }
        (_, Value::String(_, text)) => format!(", found \"{text}\""),
        (_, Value::Bool(_, b)) => format!(", found {b}"),
        (_, Value::Array(..)) => ", found an array".into(),
        (_, Value::Dict(..)) => ", found a table".into(),
        (_, value) => match (value.to_i128(), value.to_f64()) {
            (Some(n), _) => format!(", found {n}"),
            (None, Some(n)) => format!(", found {n}"),
            (None, None) => String::new(),
        },
    }
}

/// The problem of a key that doesn't exist.
pub(super) fn unknown(origin: &Origin, key: &Key) -> Problem {
    if let Some(entry) = reference::within_table(key) {
        return Problem::at(origin, key, format!("this is a table; set the keys within it, such as {}", entry.key));
    }
    let message = match reference::nearest(key) {
        Some(near) => format!("unknown key; the nearest known one is {near}"),
        None => "unknown key; `flowtel config --reference` lists all".into(),
    };
    Problem::at(origin, key, message)
}

// === impl Layer

impl Layer {
    /// Takes up a value, or the values of a table. Tables are followed down to settings; what is a table but should be
    /// a value, or the reverse, stays as it is for the check.
    pub fn add(&mut self, key: Key, value: Value, origin: Origin) {
        match (value, reference::find(&key)) {
            (Value::Dict(_, dict), Some(entry)) if entry.kind.is_map() => {
                for (name, value) in dict {
                    self.add(key.child(name), value, origin.clone());
                }
            }
            (value, _) => self.settings.push(Setting { key: canonical(key), value, origin }),
        }
    }

    /// As [`Layer::add`], for text.
    pub fn add_text(&mut self, key: Key, text: &str, origin: Origin) {
        let setting = Setting::from_text(canonical(key), text, origin);
        self.settings.push(setting);
    }

    /// Whether the layer sets a key.
    pub fn sets(&self, key: &Key) -> bool {
        self.settings.iter().any(|s| s.key == *key)
    }
}

/// The one form of a key within a table whose keys the user names. Header names know no case: `Authorization` of a file
/// and `authorization` of a variable are the same header. And a dotted name without quotes is one name: TOML reads
/// `service.version` as a table in a table.
fn canonical(key: Key) -> Key {
    match reference::find(&key) {
        Some(entry) if entry.kind.is_map() && key != entry.key => {
            let name = key.segments()[entry.key.segments().len()..].join(".");
            entry.key.child(if entry.kind == Kind::Secrets { name.to_ascii_lowercase() } else { name })
        }
        _ => key,
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("layer")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for setting in &self.settings {
            insert(&mut root, setting.key.segments(), setting.value.clone());
        }
        Ok(Profile::Default.collect(root))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        dict.insert(first.clone(), value);
        return;
    }
    let inner = dict.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = inner {
        insert(inner, rest, value);
    }
}
