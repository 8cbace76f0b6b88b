//! `flowtel config`: a loaded configuration comes in, a text goes out that says each value and its origin.
//!
//! Must never print a secret: a header's value stands commented out as `[hidden]`, an address without user and query.

use std::fmt::Write as _;

use anstyle::{Effects, Style};
use serde_json::{Map, Value as Json, json};

use crate::config::{
    self, Config, Key, Loaded, Origin, Target, literal,
    reference::{self, Entry, Kind},
};

/// Comments start no further right than this, so that one long value doesn't push all of them out of sight.
const WIDEST: usize = 56;

const HEADING: Style = Style::new().effects(Effects::BOLD);
const ORIGIN: Style = Style::new().effects(Effects::DIMMED);

/// A value to be shown.
struct Shown {
    key: Key,
    /// `None`: not set.
    value: Option<Json>,
    origin: Origin,
    hidden: Hidden,
}

/// What is left out of a shown value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    Nothing,
    /// User, password, query: the rest can be used.
    Part,
    /// All of it.
    All,
}

enum Line {
    Blank,
    Heading(String),
    /// Text and its trailing comment.
    Setting(String, String),
    Comment(String),
}

/// The configuration as TOML that can be fed back, each value with its origin behind it. Holds codes for colours, which
/// [`super::print`] takes out where they aren't wanted.
pub fn toml(loaded: &Loaded) -> String {
    let values = values(&loaded.config);
    let mut lines = Vec::new();
    for table in reference::tables().iter().filter(|table| !table.entries.is_empty()) {
        if !lines.is_empty() {
            lines.push(Line::Blank);
        }
        lines.push(Line::Heading(format!("[{}]", table.key)));
        for entry in &table.entries {
            lines.extend(shown(loaded, &values, entry).into_iter().map(|shown| setting(&table.key, &shown)));
        }
    }
    lines.push(Line::Blank);
    lines.push(Line::Comment(format!("# records go to {}", loaded.target)));
    render(&lines)
}

/// The configuration for machines: `settings` by key with `value`, `origin` and, where something was left out, `hidden`;
/// `target`; `warnings`.
pub fn json(loaded: &Loaded) -> String {
    let values = values(&loaded.config);
    let shown = reference::entries().flat_map(|entry| shown(loaded, &values, entry));
    let settings: Map<String, Json> = shown
        .map(|shown| {
            let mut setting = json!({ "value": shown.value, "origin": origin(&shown.origin) });
            if shown.hidden != Hidden::Nothing {
                setting["hidden"] = true.into();
            }
            (shown.key.to_string(), setting)
        })
        .collect();
    let target = match &loaded.target {
        Target::Stdout { format } => json!({ "kind": "stdout", "format": format }),
        Target::Otlp(otlp) => {
            let url = config::Endpoint::new(otlp.url.to_string());
            json!({ "kind": "otlp", "protocol": otlp.protocol, "url": url })
        }
    };
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    format!("{:#}\n", json!({ "settings": settings, "target": target, "warnings": warnings }))
}

fn values(config: &Config) -> Json {
    // All types of the settings can be written as JSON: their keys are texts.
    serde_json::to_value(config).unwrap_or_default()
}

/// A setting's values: one, or for a table whose keys the user names as many as it has.
fn shown(loaded: &Loaded, values: &Json, entry: &Entry) -> Vec<Shown> {
    let value = entry.key.segments().iter().try_fold(values, |value, segment| value.get(segment)).cloned();
    let one = |key: Key, value, hidden| Shown { origin: loaded.origins.get(&key).clone(), key, value, hidden };
    match (&entry.kind, value) {
        (Kind::Texts | Kind::Secrets, Some(Json::Object(map))) if !map.is_empty() => {
            let hidden = if entry.kind == Kind::Secrets { Hidden::All } else { Hidden::Nothing };
            map.into_iter().map(|(name, value)| one(entry.key.child(name), Some(value), hidden)).collect()
        }
        (Kind::Address, value) => {
            let export = &loaded.config.export;
            let address = if entry.key.last() == "endpoint" { &export.endpoint } else { &export.logs_endpoint };
            let part = address.as_ref().is_some_and(config::Endpoint::hides_something);
            vec![one(entry.key.clone(), value, if part { Hidden::Part } else { Hidden::Nothing })]
        }
        (Kind::Secret, Some(value)) => vec![one(entry.key.clone(), Some(value), Hidden::All)],
        (_, value) => vec![one(entry.key.clone(), value, Hidden::Nothing)],
    }
}

fn setting(table: &Key, shown: &Shown) -> Line {
    let names = &shown.key.segments()[table.segments().len()..];
    let name = names.iter().fold(Key::default(), |key, name| key.child(name.as_str()));
    let origin = &shown.origin;
    match (&shown.value, shown.hidden) {
        (None, _) => Line::Setting(format!("# {name} is not set"), origin.to_string()),
        (Some(value), Hidden::Nothing) => Line::Setting(format!("{name} = {}", literal(value)), origin.to_string()),
        (Some(value), Hidden::Part) => Line::Setting(
            format!("{name} = {}", literal(value)),
            format!("{origin}; user, password and query left out"),
        ),
        (Some(value), Hidden::All) => Line::Setting(format!("# {name} = {}", literal(value)), origin.to_string()),
    }
}

fn render(lines: &[Line]) -> String {
    let width = |text: &str| text.chars().count();
    let widest = lines.iter().filter_map(|line| match line {
        Line::Setting(text, _) => Some(width(text)).filter(|w| *w <= WIDEST),
        _ => None,
    });
    let column = widest.max().unwrap_or_default();
    let mut out = String::new();
    for line in lines {
        // Writing to a String can't fail.
        _ = match line {
            Line::Blank => writeln!(out),
            Line::Heading(text) => writeln!(out, "{HEADING}{text}{HEADING:#}"),
            Line::Comment(text) => writeln!(out, "{ORIGIN}{text}{ORIGIN:#}"),
            Line::Setting(text, origin) => {
                let gap = " ".repeat(column.saturating_sub(width(text)));
                writeln!(out, "{text}{gap}  {ORIGIN}# {origin}{ORIGIN:#}")
            }
        };
    }
    out
}

fn origin(origin: &Origin) -> Json {
    match origin {
        Origin::Default => json!({ "from": "default" }),
        Origin::File { path, line } => json!({ "from": "file", "path": path.to_string_lossy(), "line": line }),
        Origin::Env(name) => json!({ "from": "variable", "name": name }),
        Origin::Flag(flag) => json!({ "from": "flag", "name": flag }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Override, Sources, load};

    fn sources(env: &[(&str, &str)], file: Option<&std::path::Path>) -> Sources {
        let mut sources = Sources::new(env.iter().map(|(k, v)| (k.into(), v.into())));
        sources.etc = "/nonexistent".into();
        sources.config_file = file.map(Into::into);
        sources
    }

    fn loaded(sources: &Sources) -> Loaded {
        load(sources).unwrap_or_else(|e| panic!("{e}"))
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    const ENV: &[(&str, &str)] = &[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a \"quoted\" one,deployment.environment.name=prod,odd%22\\%1b=x"),
        ("FLOWTEL_QUEUE__MAX_BYTES", "5000001"),
        ("FLOWTEL_EXPORT__TIMEOUT", "1m 30s 5ms"),
        ("FLOWTEL_CAPTURE__CGROUP", "/sys/\u{202e}\\x"),
        ("FLOWTEL_CAPTURE__EVENTS", "flows,flowtel.gap"),
        ("FLOWTEL_CAPTURE__FILTER", "exclude process=\"a \\\"b\\\"\"; include src=fd00::/8 port=1-9"),
        ("FLOWTEL_CAPTURE__SAMPLE", "0.1"),
        ("FLOWTEL_RECORD__GROUPS", "tracee"),
    ];

    #[test]
    fn the_output_can_be_fed_back_and_gives_the_same_configuration() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("flowtel.toml");
        for env in [&[][..], ENV] {
            let first = loaded(&sources(env, None));
            std::fs::write(&path, plain(&toml(&first))).expect("a file");
            assert_eq!(loaded(&sources(&[], Some(&path))).config, first.config);
        }
    }

    #[test]
    fn each_value_has_its_origin_behind_it_in_one_column() {
        let mut sources = sources(ENV, None);
        sources.overrides.push(Override::new("--log-level", Key::new("log.level"), "warn"));
        let text = plain(&toml(&loaded(&sources)));
        let origin_of = |start: &str| {
            let line = text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {text}"));
            line.rsplit_once("  # ").map(|(_, origin)| origin.to_owned())
        };
        assert_eq!(origin_of("endpoint = ").as_deref(), Some("OTEL_EXPORTER_OTLP_ENDPOINT"));
        assert_eq!(origin_of("service_name = ").as_deref(), Some("OTEL_RESOURCE_ATTRIBUTES"));
        assert_eq!(origin_of("resource.\"deployment.").as_deref(), Some("OTEL_RESOURCE_ATTRIBUTES"));
        assert_eq!(origin_of("level = \"warn\"").as_deref(), Some("flag --log-level"));
        assert_eq!(origin_of("exclude_self = true").as_deref(), Some("default"));
        assert_eq!(origin_of("# kind is not set").as_deref(), Some("default"));
        let columns: Vec<_> = text.lines().filter_map(|l| l.rfind("  # default")).collect();
        assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(text.ends_with("# records go to https://collector:4317/ by OTLP/gRPC\n"), "{text}");
    }

    #[test]
    fn secrets_are_left_out_of_both_forms() {
        let loaded = loaded(&sources(
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:hunter2@collector/in?key=hunter2"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hunter2"),
                ("FLOWTEL_RECORD__HASH__KEY", "hunter2hunter2hunter2"),
            ],
            None,
        ));
        let (toml, json) = (plain(&toml(&loaded)), json(&loaded));
        assert!(!toml.contains("hunter2") && !json.contains("hunter2"), "{toml}{json}");
        assert!(toml.contains("\n# key = \"[hidden]\" "), "{toml}");
        assert!(json.contains("\"record.hash.key\": {\n"), "{json}");
        assert!(toml.contains("\n# headers.x-api-key = \"[hidden]\" "), "{toml}");
        assert!(toml.contains("endpoint = \"https://collector/in\""), "{toml}");
    }

    #[test]
    fn the_form_for_machines_has_value_and_origin_of_every_key() {
        let json: Json = serde_json::from_str(&json(&loaded(&sources(ENV, None)))).expect("JSON");
        let endpoint = &json["settings"]["export.endpoint"];
        assert_eq!(endpoint["value"], "https://collector:4317");
        assert_eq!(endpoint["origin"], json!({ "from": "variable", "name": "OTEL_EXPORTER_OTLP_ENDPOINT" }));
        assert_eq!(json["settings"]["export.kind"]["value"], Json::Null);
        assert_eq!(json["target"]["protocol"], "grpc");
        for entry in reference::entries().filter(|e| !e.kind.is_map()) {
            assert!(json["settings"].get(entry.key.to_string()).is_some(), "{}", entry.key);
        }
    }
}
