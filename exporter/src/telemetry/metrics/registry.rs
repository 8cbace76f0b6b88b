//! flowtel's own metrics as groups of a registry of semantic conventions, which OpenTelemetry's `weaver` reads. Metrics that
//! the conventions have (`otel.sdk.*`, `process.*`) are theirs, and not defined again.

use std::fmt::Write as _;

use super::{ERROR, FATE, Form, KIND, METRICS, OUTCOME, TRANSPORT};
use crate::record::schema::registry::{is_own, quoted};

/// Attributes of flowtel's own that only metrics have.
const ATTRIBUTES: [(&str, &str, &str); 4] = [
    (KIND, "Kind of the kernel's event.", "connect"),
    (FATE, "What became of what was counted.", "delivered"),
    (OUTCOME, "How it went.", "done"),
    (TRANSPORT, "Transport protocol of DNS.", "tcp"),
];

/// The groups, to be put behind those of records.
pub fn registry() -> String {
    let mut text = String::from(
        "  - id: registry.flowtel.metrics\n    type: attribute_group\n    display_name: flowtel metrics\n    \
         brief: Attributes of flowtel's own metrics.\n    attributes:\n",
    );
    // Writing to a String can't fail.
    for (name, brief, example) in ATTRIBUTES {
        let _ = writeln!(
            text,
            "      - id: {name}\n        type: string\n        stability: development\n        brief: {}\n        examples: [{}]",
            quoted(brief),
            quoted(example)
        );
    }
    for metric in METRICS.iter().filter(|metric| is_own(metric.name)) {
        let instrument = match metric.form {
            Form::Counter => "counter",
            Form::UpDown => "updowncounter",
            Form::Gauge => "gauge",
        };
        let _ = writeln!(
            text,
            "  - id: metric.{0}\n    type: metric\n    metric_name: {0}\n    stability: development\n    brief: {1}\n    \
             instrument: {instrument}\n    unit: {2}",
            metric.name,
            quoted(metric.about),
            quoted(metric.unit)
        );
        if !metric.attributes.is_empty() {
            text.push_str("    attributes:\n");
        }
        for key in metric.attributes {
            let level = if *key == ERROR { "recommended" } else { "required" };
            let _ = writeln!(text, "      - ref: {key}\n        requirement_level: {level}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::schema::ATTRIBUTES as OF_RECORDS;

    #[test]
    fn each_attribute_of_a_metric_is_defined() {
        for key in METRICS.iter().flat_map(|metric| metric.attributes).filter(|key| is_own(key)) {
            let here = ATTRIBUTES.iter().any(|(name, ..)| name == key);
            assert!(here || OF_RECORDS.iter().any(|attribute| attribute.name == *key), "{key}");
        }
    }
}
