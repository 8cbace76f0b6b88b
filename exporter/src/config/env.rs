//! flowtel's own variables become a layer: `FLOWTEL_EXPORT__BATCH__MAX_AGE=2s` sets `export.batch.max_age`.
//!
//! `__` stands for the dot, and an empty variable counts as unset. An unknown variable is an error, for it is nearly always a misspelt one. Variables that Kubernetes makes for a Service
//! named `flowtel…` look alike and are passed over.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    file,
    key::Key,
    layer::{Layer, unknown},
    origin::Origin,
    problem::Problem,
    reference,
};

const PREFIX: &str = "FLOWTEL_";

/// The environment as it was given: name to value. Values that aren't UTF-8 are a problem only where they are used.
pub(super) type Environment = BTreeMap<String, OsString>;

/// Reads all variables that begin with `FLOWTEL_`.
pub(super) fn read(env: &Environment, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let origin = Origin::Env(name.clone());
        let key = rest.to_ascii_lowercase().split("__").fold(Key::default(), |key, segment| key.child(segment));
        let Some(entry) = reference::find(&key) else {
            if !is_from_kubernetes(rest) {
                problems.push(misspelt(&origin, name, &key));
            }
            continue;
        };
        let Some(text) = text(&origin, value, problems) else { continue };
        match file::inline_table(text).filter(|_| entry.kind.is_map() && key == entry.key) {
            Some(table) => layer.add(key, table, origin),
            None => layer.add_text(key, text, origin),
        }
    }
    layer
}

/// A variable's text. `None`: it is empty, which counts as unset, or (with a problem) it isn't UTF-8.
pub(super) fn text<'a>(origin: &Origin, value: &'a OsString, problems: &mut Vec<Problem>) -> Option<&'a str> {
    let text = value.to_str();
    if text.is_none() {
        problems.push(Problem::new(origin, "expected UTF-8"));
    }
    text.filter(|t| !t.is_empty())
}

/// One underscore for two is the usual mistake, so names are compared as wholes first.
fn misspelt(origin: &Origin, name: &str, key: &Key) -> Problem {
    let names = reference::entries().map(|e| reference::variable(&e.key));
    let near = names.map(|known| (strsim::damerau_levenshtein(&known, &name.to_ascii_uppercase()), known)).min();
    match near {
        Some((off, known)) if off <= 3 => {
            Problem::new(origin, format!("unknown variable; the nearest known one is {known}"))
        }
        _ => match reference::nearest(key) {
            Some(near) if reference::find(near).is_some() => Problem::new(
                origin,
                format!("unknown variable; the nearest known one is {}", reference::variable(near)),
            ),
            _ => unknown(origin, key),
        },
    }
}

/// Whether Kubernetes makes such a variable for a Service whose name begins with `flowtel`: `FLOWTEL_SERVICE_HOST`,
/// `FLOWTEL_METRICS_PORT_9090_TCP_ADDR`. <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_from_kubernetes(rest: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let words: Vec<&str> = rest.split('_').collect();
    let number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let protocol = |word: &str| matches!(word, "TCP" | "UDP" | "SCTP");
    match words.as_slice() {
        [.., "SERVICE", "HOST"] | [.., "PORT"] => true,
        [.., "PORT", n, p] | [.., "PORT", n, p, "PROTO" | "ADDR"] if number(n) && protocol(p) => true,
        // A named port: FLOWTEL_SERVICE_PORT_HTTP.
        words => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_makes_for_a_service_are_told_from_misspelt_ones() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP_METRICS",
            "PORT",
            "PORT_4317_TCP",
            "PORT_4317_TCP_ADDR",
            "METRICS_SERVICE_HOST",
            "METRICS_PORT_9090_TCP_PROTO",
        ] {
            assert!(is_from_kubernetes(name), "{name}");
        }
        for name in ["EXPORT_ENDPOINT", "ENDPOINT", "EXPORT__PORTS", "HOST", "PORT_TCP"] {
            assert!(!is_from_kubernetes(name), "{name}");
        }
    }
}
