//! The reference, written from the types: `config/flowtel.toml` and docs/configuration.md.

use std::fmt::Write as _;

use super::{
    otel,
    reference::{self, Entry, Kind, Table},
    toml_text::literal,
};

/// The longest line of a comment.
const WIDTH: usize = 100;

/// A configuration file with every key, its meaning and its default, all commented out.
pub fn reference_file() -> String {
    let mut out = String::from(
        "# flowtel's settings, each with its default. Take the # away from a line to change it.\n\
         #\n\
         # Layers, last wins: these defaults; /etc/flowtel/flowtel.toml; /etc/flowtel/conf.d/*.toml by name; the file\n\
         # that --config names; OTEL_… variables; FLOWTEL_… variables (FLOWTEL_EXPORT__BATCH__MAX_AGE=2s); flags.\n\
         # `flowtel config` shows what holds, and where each value came from.\n\
         #\n\
         # Generated: flowtel config --reference > config/flowtel.toml\n",
    );
    for table in tables() {
        out.push('\n');
        comment(&mut out, &table.doc);
        line(&mut out, format_args!("[{}]", table.key));
        for entry in &table.entries {
            out.push('\n');
            comment(&mut out, &entry.doc);
            comment(&mut out, &limits(&entry.kind));
            let note = if is_set(entry) { "" } else { "  # not set" };
            line(&mut out, format_args!("#{} = {}{note}", entry.key.last(), shown(entry)));
        }
    }
    out
}

/// The reference as a page of the documentation.
pub fn reference_docs() -> String {
    let mut out = String::from(
        "# Configuration\n\
         \n\
         <!-- Generated: flowtel config --reference-docs > docs/configuration.md -->\n\
         \n\
         A configuration is made of layers; the last that sets a key wins:\n\
         \n\
         1. built-in defaults\n\
         2. `/etc/flowtel/flowtel.toml`\n\
         3. `/etc/flowtel/conf.d/*.toml`, by name\n\
         4. the file that `--config` names\n\
         5. OpenTelemetry's variables, `OTEL_…`\n\
         6. flowtel's own variables, `FLOWTEL_…`\n\
         7. flags; `--set KEY=VALUE` sets any key\n\
         \n\
         `flowtel config` prints the outcome with the origin of each value, and its output is a configuration file\n\
         itself. Secrets (header values; user, password and query of an address) are never printed.\n\
         \n\
         An unknown key, an unknown `FLOWTEL_…` variable and a value that can't be used end flowtel with exit code 78,\n\
         before anything is started. Where tables are merged (`export.headers`, `record.resource`), later layers add to\n\
         earlier ones. A variable that is set but empty counts as unset.\n\
         \n\
         Durations are written `250ms`, `1m 30s`; sizes `64MiB` (1,024s), `1MB` (1,000s) or as a number of bytes.\n",
    );
    for table in tables() {
        line(&mut out, format_args!("\n## {}\n\n{}\n", table.key, table.doc));
        out.push_str("| Key | Type | Default | Variable | Meaning |\n|---|---|---|---|---|\n");
        for entry in &table.entries {
            let default = if is_set(entry) { format!("`{}`", shown(entry)) } else { "not set".into() };
            let cells = [
                format!("`{}`", entry.key),
                kind(&entry.kind),
                default,
                format!("`{}`", reference::variable(&entry.key)),
                entry.doc.clone(),
            ];
            line(&mut out, format_args!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    out.push_str(
        "\n## OpenTelemetry's variables\n\n\
         By the [OTLP exporter specification](https://opentelemetry.io/docs/specs/otel/protocol/exporter/); of several\n\
         for one key the first that is set wins. Headers and Resource attributes are lists `name=value,name=value`,\n\
         percent-encoded. `OTEL_SERVICE_NAME` beats `service.name` of `OTEL_RESOURCE_ATTRIBUTES`.\n\n\
         | Variables | Key |\n|---|---|\n",
    );
    for rule in otel::RULES {
        let names: Vec<_> = rule.names.iter().map(|name| format!("`{name}`")).collect();
        line(&mut out, format_args!("| {} | `{}` |", names.join(", "), rule.key));
    }
    out.push_str(
        "\n`OTEL_SDK_DISABLED` is not obeyed: flowtel is no instrumented application, its records are its work. A wrong\n\
         value is an error where the specification lets an SDK pass over it with a warning.\n",
    );
    out
}

fn tables() -> impl Iterator<Item = &'static Table> {
    reference::tables().iter().filter(|table| !table.entries.is_empty())
}

fn is_set(entry: &Entry) -> bool {
    entry.default.as_ref().is_some_and(|v| !v.is_null())
}

/// The default, or where there is none an example.
fn shown(entry: &Entry) -> String {
    let value = entry.default.as_ref().filter(|v| !v.is_null()).or(entry.example.as_ref());
    value.map(literal).unwrap_or_default()
}

fn limits(kind: &Kind) -> String {
    match kind {
        Kind::Integer(min, max) => format!("From {min} to {max}."),
        Kind::Number(min, max) => format!("From {min} to {max}."),
        Kind::Duration(min, max) => format!("From {min} to {max}."),
        Kind::Size(min, max) => format!("From {min} to {max}."),
        _ => String::new(),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "boolean".into(),
        Kind::Integer(min, max) => format!("integer, {min} to {max}"),
        Kind::Integers(min, max) => format!("list of integers, {min} to {max}"),
        Kind::Number(min, max) => format!("number, {min} to {max}"),
        Kind::Text => "text".into(),
        Kind::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Kind::Words(words) => {
            format!("some of {}", words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "))
        }
        Kind::Rules => "list of rules".into(),
        Kind::Duration(min, max) => format!("duration, {min} to {max}"),
        Kind::Size(min, max) => format!("size, {min} to {max}"),
        Kind::Address => "address".into(),
        Kind::Secret => "secret text".into(),
        Kind::Texts => "table of texts".into(),
        Kind::Secrets => "table of secret texts".into(),
    }
}

fn comment(out: &mut String, text: &str) {
    let mut current = String::from("#");
    for word in text.split_whitespace() {
        if current.len() > 1 && current.chars().count() + 1 + word.chars().count() > WIDTH {
            line(out, format_args!("{current}"));
            current.truncate(1);
        }
        current.push(' ');
        current.push_str(word);
    }
    if current.len() > 1 {
        line(out, format_args!("{current}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    _ = writeln!(out, "{text}");
}
