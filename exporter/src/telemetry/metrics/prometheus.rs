//! Metrics in the text format of Prometheus, version 0.0.4.
//!
//! - <https://prometheus.io/docs/instrumenting/exposition_formats/>
//! - <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>: how names become names.

use std::fmt::Write as _;

use super::{Form, METRICS, Metric, Point, Value};
use crate::telemetry::instance::Instance;

/// What the answer says it is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as they are now.
pub fn text(instance: &Instance) -> String {
    let mut text = String::with_capacity(16 << 10);
    for metric in METRICS {
        let points = metric.points(instance);
        if points.is_empty() {
            continue;
        }
        let name = name(metric);
        let kind = if metric.form == Form::Counter { "counter" } else { "gauge" };
        // Writing to a String can't fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.about.replace('\\', "\\\\"));
        for point in &points {
            let value = match point.value {
                Value::Count(n) => n.to_string(),
                Value::Measure(n) => n.to_string(),
            };
            let _ = writeln!(text, "{name}{} {value}", labels(metric, point));
        }
    }
    text
}

/// The name that a metric has there: dots become underscores, the unit and `total` are appended.
pub fn name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    let unit = match metric.unit {
        "By" => "_bytes",
        "s" => "_seconds",
        // Not the share of something: 1 stands for "yes".
        _ => "",
    };
    name.push_str(unit);
    if metric.form == Form::Counter {
        name.push_str("_total");
    }
    name
}

fn labels(metric: &Metric, point: &Point) -> String {
    let labels: Vec<_> = metric
        .attributes
        .iter()
        .zip(&point.attributes)
        .map(|(key, value)| format!("{}=\"{}\"", key.replace('.', "_"), escaped(value)))
        .collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::telemetry::metrics::tests::instance;

    /// As promtool's `check metrics` reads it: metadata before samples, a metric's lines together, names and labels of
    /// the right characters, counters that end in `_total`, no sample twice. Returns samples by name and labels.
    fn parsed(text: &str) -> HashMap<String, f64> {
        let (mut types, mut finished) = (HashMap::new(), HashSet::new());
        let (mut current, mut samples) = (String::new(), HashMap::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let (keyword, rest) = meta.split_once(' ').expect("a keyword");
                let (name, words) = rest.split_once(' ').expect("a name and something about it");
                if keyword == "HELP" {
                    assert!(finished.insert(std::mem::replace(&mut current, name.to_owned())), "{name} in two places");
                    assert!(!finished.contains(name), "{name} in two places");
                } else {
                    assert_eq!((keyword, name), ("TYPE", current.as_str()));
                    assert!(matches!(words, "counter" | "gauge"), "{line}");
                    assert_eq!(words == "counter", name.ends_with("_total"), "{line}");
                    types.insert(name.to_owned(), words.to_owned());
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(types.contains_key(name) && name == current, "{line}: before its metadata");
            assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()), "{line}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            for label in labels.strip_suffix('}').expect("an end").split(',').filter(|l| !l.is_empty()) {
                let (key, value) = label.split_once('=').expect("key and value");
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !key.starts_with("__"), "{line}");
                assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            let number = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), number).is_none(), "{series} twice");
        }
        samples
    }

    #[test]
    fn the_text_is_what_prometheus_reads_and_its_numbers_are_the_ledgers() {
        let instance = instance();
        let text = text(&instance);
        let samples = parsed(&text);
        let lost =
            "flowtel_kernel_events_settled_total{flowtel_kernel_event_kind=\"syn_again\",flowtel_fate=\"ring_full\"}";
        assert_eq!(samples[lost], 2.0);
        assert_eq!(samples["flowtel_records_total{flowtel_fate=\"delivered\"}"], 5.0);
        let exporter =
            "otel_component_name=\"otlp_http_log_exporter/0\",otel_component_type=\"otlp_http_log_exporter\"";
        assert_eq!(samples[&format!("otel_sdk_exporter_log_exported_total{{{exporter}}}")], 5.0);
        assert!(samples["process_memory_usage_bytes"] > 0.0);
        assert!(text.contains(&format!("otel_sdk_log_created_total {}\n", u64::MAX)), "counts are exact");
        assert!(!text.contains("flowtel_export_up "), "nothing is said of a receiver that was not asked yet");
    }
}
