//! The schema as a registry of semantic conventions, which OpenTelemetry's `weaver` reads: attributes of flowtel's own, and
//! the events with all that they may have. It depends on OpenTelemetry's own registry for everything else.
//!
//! The form is weaver's semantic convention definition language (schemas/semconv-syntax.md in its repository). Texts are written
//! as JSON strings, which YAML takes.

use std::fmt::Write as _;

use super::{
    ATTRIBUTES, Attribute, SCHEMA_URL,
    events::{self, EVENTS, Presence},
    values,
};

/// Where the registry of OpenTelemetry's own conventions is, beside this one.
const BESIDE: &str = "../semantic-conventions/model";

/// A text as YAML takes it on one line.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The manifest: what this registry is, and what it depends on.
pub fn manifest() -> String {
    format!(
        "# Generated: flowtel schema --format weaver-manifest\n\
         schema_url: {SCHEMA_URL}\n\
         description: Events, attributes and metrics of flowtel.\n\
         dependencies:\n  - schema_url: {}\n    registry_path: {BESIDE}\n",
        super::CONVENTIONS
    )
}

/// Attributes and events.
pub fn registry() -> String {
    let mut text = String::from(
        "# Generated: flowtel schema --format weaver\n\
         groups:\n  - id: registry.flowtel\n    type: attribute_group\n    display_name: flowtel\n    \
         brief: Attributes that OpenTelemetry has no name for.\n    attributes:\n",
    );
    for attribute in ATTRIBUTES.iter().filter(|attribute| is_own(attribute.name)) {
        define(&mut text, attribute);
    }
    for event in EVENTS {
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "  - id: event.{0}\n    type: event\n    name: {0}\n    stability: development\n    brief: {1}\n    attributes:\n",
            event.name,
            quoted(event.brief)
        );
        for (attribute, presence) in events::attributes(event.name) {
            let _ = writeln!(text, "      - ref: {}", attribute.name);
            let _ = match presence {
                Presence::Always => writeln!(text, "        requirement_level: required"),
                _ if attribute.present.starts_with("group ") => writeln!(text, "        requirement_level: opt_in"),
                _ => writeln!(
                    text,
                    "        requirement_level:\n          conditionally_required: {}",
                    quoted(attribute.present)
                ),
            };
        }
    }
    text
}

fn define(text: &mut String, attribute: &Attribute) {
    let Attribute { name, kind, meaning, example, .. } = attribute;
    // Writing to a String can't fail.
    let _ = writeln!(text, "      - id: {name}");
    if let Some(values) = values::values(name) {
        let _ = writeln!(text, "        type:\n          members:");
        for value in values {
            let id = value.replace('.', "_");
            let _ = writeln!(
                text,
                "            - id: {id}\n              value: {}\n              stability: development",
                quoted(value)
            );
        }
    } else {
        let kind = if *kind == "bool" { "boolean" } else { kind };
        let _ = writeln!(text, "        type: {kind}");
    }
    let example = match *kind {
        "string" => quoted(example),
        // A list is an example of a list only within a list of examples.
        "string[]" => format!("[{example}]"),
        _ => (*example).to_owned(),
    };
    let _ = writeln!(text, "        stability: development\n        brief: {}", quoted(meaning));
    if *kind != "bool" && values::values(name).is_none() {
        let _ = writeln!(text, "        examples: [{}]", example.trim_start_matches('[').trim_end_matches(']'));
    }
}

/// Whether a name is flowtel's own, or one of Tracee's: not OpenTelemetry's.
pub fn is_own(name: &str) -> bool {
    name.starts_with("flowtel.") || !name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_schema_are_what_the_code_says() {
        let whole = registry() + &crate::telemetry::metrics::registry();
        assert!(include_str!("../../../../schema/registry/manifest.yaml") == manifest(), "out of date: make docs");
        assert!(include_str!("../../../../schema/registry/flowtel.yaml") == whole, "out of date: make docs");
    }

    #[test]
    fn texts_stay_on_their_line_whatever_is_in_them() {
        assert_eq!(quoted("a \"b\": #c\n"), r#""a \"b\": #c\n""#);
    }
}
