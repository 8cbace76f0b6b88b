//! The configuration through its public door: sources in, settings or problems out.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use super::*;

mod layers;
mod mistakes;
mod otel;
mod targets;

/// Sources without any file, with these variables.
pub(super) fn sources(env: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::new(env.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))));
    sources.etc = "/nonexistent".into();
    sources
}

/// Sources with this text in `flowtel.toml`.
pub(super) fn etc(dir: &Path, text: &str) -> Sources {
    write(dir, "flowtel.toml", text);
    let mut sources = sources(&[]);
    sources.etc = dir.to_owned();
    sources
}

pub(super) fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory can be made");
    fs::write(path, text).expect("a file can be written");
}

pub(super) fn loaded(sources: &Sources) -> Loaded {
    load(sources).unwrap_or_else(|e| panic!("{e}"))
}

/// The problems of a file's text, as people read them, without the directory.
pub(super) fn problems_of(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let error = load(&etc(dir.path(), text)).expect_err("the configuration is wrong");
    let prefix = format!("{}/", dir.path().display());
    error.problems().iter().map(|p| p.to_string().replace(&prefix, "")).collect()
}

/// The one problem of an environment.
pub(super) fn problem_of_env(env: &[(&str, &str)]) -> String {
    let error = load(&sources(env)).expect_err("the configuration is wrong");
    assert_eq!(error.problems().len(), 1, "{error}");
    error.problems()[0].to_string()
}

pub(super) fn secs(n: u64) -> Span {
    Span(Duration::from_secs(n))
}

#[test]
fn the_reference_file_is_what_the_types_say() {
    let checked_in = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/flowtel.toml"));
    assert!(
        checked_in.is_ok_and(|text| text == reference_file()),
        "config/flowtel.toml is out of date: flowtel config --reference > config/flowtel.toml"
    );
}

#[test]
fn the_documentation_is_what_the_types_say() {
    let checked_in = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
    assert!(
        checked_in.is_ok_and(|text| text == reference_docs()),
        "docs/configuration.md is out of date: flowtel config --reference-docs > docs/configuration.md"
    );
}

#[test]
fn the_reference_file_is_a_configuration_that_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(loaded(&etc(dir.path(), &reference_file())).config, Config::default());
}

#[test]
fn every_line_of_the_reference_file_can_be_taken_in() {
    let text: String = reference_file().lines().map(|l| format!("{}\n", uncommented(l))).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let loaded = loaded(&etc(dir.path(), &text));
    for entry in reference::entries().filter(|e| !e.kind.is_map()) {
        assert!(matches!(loaded.origins.get(&entry.key), Origin::File { .. }), "{} is missing", entry.key);
    }
    assert_eq!(loaded.config.queue, Config::default().queue);
}

/// A setting is commented out by `#` alone, words by `# `.
fn uncommented(line: &str) -> &str {
    line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty()).unwrap_or(line)
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let loaded = loaded(&sources(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:hunter2@host:4318?token=hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hunter2"),
    ]));
    let text = format!("{loaded:?} {}", loaded.target);
    assert!(!text.contains("hunter2"), "{text}");
    // The URL that is posted to keeps its query: without it, the request wouldn't be let in.
    let Target::Otlp(otlp) = loaded.target else { panic!("not otlp") };
    assert_eq!(otlp.url.query(), Some("token=hunter2"));
}
