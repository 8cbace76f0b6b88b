//! Values as TOML writes them: JSON values come in, literals that any TOML reader takes go out.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::escape::acts;

/// A value as a TOML literal. Characters that could act on a terminal are escaped.
pub(crate) fn literal(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::String(text) => string(text),
        Json::Array(values) => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Json::Object(map) if map.is_empty() => "{}".into(),
        Json::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{} = {}", string(k), literal(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A basic string, for values and for keys that need quotes.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a String can't fail.
            c if acts(c) => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
