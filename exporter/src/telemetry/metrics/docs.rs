//! The list of metrics as a page: docs/metrics.md.

use std::fmt::Write as _;

use super::{Form, METRICS, prometheus};

/// Every metric, as Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# The metrics\n\nWhat flowtel says of itself, by OTLP (`telemetry.metrics`) and to Prometheus at `/metrics` \
         (`telemetry.admin`). This page is generated: `flowtel schema --metrics > docs/metrics.md`.\n\n\
         Counters are cumulative since the start, and exact: they are the ledger's. `flowtel.records` and \
         `flowtel.kernel.events.settled` add up to what was made and seen, less what is waiting or open.\n\n\
         | metric | Prometheus | kind | unit | attributes | meaning |\n|---|---|---|---|---|---|\n",
    );
    for metric in METRICS {
        let form = match metric.form {
            Form::Counter => "counter",
            Form::UpDown => "up-down counter",
            Form::Gauge => "gauge",
        };
        let attributes: Vec<_> = metric.attributes.iter().map(|key| format!("`{key}`")).collect();
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {form} | {} | {} | {} |",
            metric.name,
            prometheus::name(metric),
            metric.unit,
            attributes.join(", "),
            metric.about
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let page = include_str!("../../../../docs/metrics.md");
        assert!(
            page == super::markdown(),
            "docs/metrics.md is out of date: flowtel schema --metrics > docs/metrics.md"
        );
    }
}
