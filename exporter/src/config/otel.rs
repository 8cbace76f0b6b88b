//! OpenTelemetry's own variables become a layer, by the rules of the OTLP exporter specification.
//!
//! - <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>: a `…_LOGS_…` variable wins over the general one.
//! - <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>: empty counts as unset.
//!
//! Where the specification lets an SDK pass over a wrong value with a warning, flowtel stops with an error: a
//! configuration that isn't followed is found out at the start, not when records are missing.
//!
//! `OTEL_SDK_DISABLED` is not obeyed: flowtel is no instrumented application whose telemetry could be switched off, its
//! records are its work. Nor are variables of traces, samplers, and OTEL_BLRP_MAX_QUEUE_SIZE, which counts records
//! where `queue.max_bytes` counts bytes.

use super::{
    env::{Environment, text},
    key::Key,
    layer::Layer,
    origin::Origin,
    problem::Problem,
    units::Span,
};

/// Variables that set one key, in the order in which they win; and how their text is read.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The variables.
    pub names: &'static [&'static str],
    /// The key they set.
    pub key: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    AsIs,
    /// A word, whose letters' case doesn't matter.
    Word,
    Bool,
    Number,
    Milliseconds,
    /// `name=value,name=value`, percent-encoded as in W3C Baggage.
    Pairs,
}

/// All that are obeyed.
pub const RULES: &[Rule] = &[
    rule("export.endpoint", Form::AsIs, &["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    rule("export.logs_endpoint", Form::AsIs, &["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"]),
    rule("export.protocol", Form::Word, &["OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]),
    rule("export.insecure", Form::Bool, &["OTEL_EXPORTER_OTLP_LOGS_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"]),
    rule("export.compression", Form::Word, &["OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"]),
    rule("export.headers", Form::Pairs, &["OTEL_EXPORTER_OTLP_LOGS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]),
    rule(
        "export.timeout",
        Form::Milliseconds,
        &["OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_BLRP_EXPORT_TIMEOUT"],
    ),
    rule("export.batch.max_records", Form::Number, &["OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"]),
    rule("export.batch.max_age", Form::Milliseconds, &["OTEL_BLRP_SCHEDULE_DELAY"]),
    rule("export.tls.ca_file", Form::AsIs, &["OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]),
    rule(
        "export.tls.cert_file",
        Form::AsIs,
        &["OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"],
    ),
    rule("export.tls.key_file", Form::AsIs, &["OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]),
    rule("telemetry.metrics.endpoint", Form::AsIs, &["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]),
    rule("telemetry.metrics.protocol", Form::Word, &["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"]),
    rule("telemetry.metrics.headers", Form::Pairs, &["OTEL_EXPORTER_OTLP_METRICS_HEADERS"]),
    rule("telemetry.metrics.interval", Form::Milliseconds, &["OTEL_METRIC_EXPORT_INTERVAL"]),
    rule("record.resource", Form::Pairs, &["OTEL_RESOURCE_ATTRIBUTES"]),
    // Behind OTEL_RESOURCE_ATTRIBUTES, whose service.name it beats.
    rule("record.service_name", Form::AsIs, &["OTEL_SERVICE_NAME"]),
];

const fn rule(key: &'static str, form: Form, names: &'static [&'static str]) -> Rule {
    Rule { names, key, form }
}

/// Reads the variables of [`RULES`].
pub(super) fn read(env: &Environment, problems: &mut Vec<Problem>) -> Layer {
    let mut layer = Layer::default();
    for rule in RULES {
        let mut set = rule.names.iter().filter_map(|name| {
            let origin = Origin::Env((*name).to_owned());
            text(&origin, env.get(*name)?, problems).map(|text| (origin, text))
        });
        if let Some((origin, text)) = set.next() {
            drop(set);
            if let Err(message) = take(rule, &origin, text, &mut layer) {
                problems.push(Problem::new(&origin, message));
            }
        }
    }
    layer
}

fn take(rule: &Rule, origin: &Origin, text: &str, layer: &mut Layer) -> Result<(), String> {
    let key = Key::new(rule.key);
    match rule.form {
        Form::AsIs => layer.add_text(key, text, origin.clone()),
        Form::Word => layer.add_text(key, &text.trim().to_ascii_lowercase(), origin.clone()),
        Form::Number | Form::Bool => layer.add_text(key, text.trim(), origin.clone()),
        Form::Milliseconds => {
            let ms =
                text.trim().parse().map_err(|_e| format!("expected milliseconds, such as 10000, found \"{text}\""))?;
            layer.add_text(key, &Span(std::time::Duration::from_millis(ms)).to_string(), origin.clone());
        }
        Form::Pairs => {
            for (name, value) in pairs(text)? {
                let key = match (rule.key, name.as_str()) {
                    ("record.resource", "service.name") => Key::new("record.service_name"),
                    _ => key.child(name),
                };
                layer.add_text(key, &value, origin.clone());
            }
        }
    }
    Ok(())
}

/// Takes a list `name=value,name=value` apart. Errors count entries and quote none: a value may be a secret, and where
/// the `=` is missing, so may be the whole entry.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty());
    let pair = |(i, entry): (usize, &str)| {
        let nth = i + 1;
        let (name, value) = entry
            .split_once('=')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or(format!("expected name=value,name=value, but entry {nth} has no name or no ="))?;
        let decode = |part: &str| {
            percent_decode(part.trim()).ok_or(format!("entry {nth} is not percent-encoded UTF-8: a % itself is %25"))
        };
        Ok((decode(name)?, decode(value)?))
    };
    entries.map(pair).collect()
}

/// Decodes `%20` and the like. `None`: a `%` without two digits, or the bytes aren't UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
            bytes.push(digit()? << 4 | digit()?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference;

    #[test]
    fn every_rule_sets_a_key_that_exists() {
        for rule in RULES {
            assert!(reference::find(&Key::new(rule.key)).is_some(), "{}", rule.key);
        }
    }

    #[test]
    fn percent_encoding_is_undone_and_its_mistakes_are_seen() {
        assert_eq!(percent_decode("a%20b%3D%c3%bc").as_deref(), Some("a b=ü"));
        assert_eq!(percent_decode("50%"), None);
        assert_eq!(percent_decode("%zz"), None);
        assert_eq!(percent_decode("%ff"), None);
    }

    #[test]
    fn a_list_of_pairs_splits_at_the_first_equals_sign_and_forgives_spaces_and_commas() {
        let pairs = pairs(" a=b== , c = d,").map_err(|e| panic!("{e}")).unwrap_or_default();
        assert_eq!(pairs, [("a".into(), "b==".into()), ("c".into(), "d".into())]);
    }
}
