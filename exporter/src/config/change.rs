//! Two configurations in, the keys that differ out; and which of them can't be applied while flowtel runs.
//!
//! Must never quote a value: some are secrets.

use serde_json::Value as Json;

use super::{
    key::Key,
    types::{Capture, Config},
};

/// Tables and keys that hold from start to end, because what is attached to the kernel, or the kind of a stage, depends
/// on them. A changed one is kept as it was, and named.
const RESTART: &[&str] = &[
    "capture",
    "owner.acceptor",
    "owner.exec",
    "owner.arguments",
    "dns.enabled",
    "dns.ports",
    "flow.update",
    "queue.kind",
    "queue.path",
    "queue.sync_interval",
    "telemetry.group",
    "security",
    "log.format",
];

/// Keys in those tables that can be applied all the same.
const NEVERTHELESS: &[&str] = &["capture.filter", "capture.filter_default"];

/// What a changed configuration comes to for a flowtel that runs.
#[derive(Debug)]
pub struct Change {
    /// What holds from now on: the new one, with what needs a restart as it was.
    pub config: Config,
    /// Keys that are applied.
    pub applied: Vec<Key>,
    /// Keys that hold only after a restart.
    pub restart: Vec<Key>,
}

// === impl Change

impl Change {
    /// Compares. `old` is what holds now.
    pub fn new(old: &Config, mut new: Config) -> Self {
        let mut keys = Vec::new();
        differences(Key::default(), &json(old), &json(&new), &mut keys);
        // Secrets look alike as JSON.
        for (key, differs) in [
            ("export.headers", old.export.headers != new.export.headers),
            ("telemetry.metrics.headers", old.telemetry.metrics.headers != new.telemetry.metrics.headers),
            ("record.hash.key", old.record.hash.key != new.record.hash.key),
            ("export.endpoint", old.export.endpoint != new.export.endpoint),
            ("export.logs_endpoint", old.export.logs_endpoint != new.export.logs_endpoint),
            ("telemetry.metrics.endpoint", old.telemetry.metrics.endpoint != new.telemetry.metrics.endpoint),
        ] {
            let key = Key::new(key);
            if differs && !keys.iter().any(|k: &Key| k.is_within(&key) || *k == key) {
                keys.push(key);
            }
        }
        let is_of = |key: &Key, tables: &[&str]| {
            tables.iter().map(|k| Key::new(k)).any(|table| *key == table || key.is_within(&table))
        };
        let needs_restart = |key: &Key| is_of(key, RESTART) && !is_of(key, NEVERTHELESS);
        let (restart, applied) = keys.into_iter().partition(needs_restart);
        let (filter, filter_default) = (new.capture.filter, new.capture.filter_default);
        new.capture = Capture { filter, filter_default, ..old.capture.clone() };
        new.owner.acceptor = old.owner.acceptor;
        new.owner.exec = old.owner.exec;
        new.owner.arguments = old.owner.arguments;
        new.dns.enabled = old.dns.enabled;
        new.dns.ports.clone_from(&old.dns.ports);
        new.flow.update = old.flow.update;
        new.queue.kind = old.queue.kind;
        new.queue.path.clone_from(&old.queue.path);
        new.queue.sync_interval = old.queue.sync_interval;
        new.telemetry.group.clone_from(&old.telemetry.group);
        new.security.clone_from(&old.security);
        new.log.format = old.log.format;
        Self { config: new, applied, restart }
    }
}

fn json(config: &Config) -> Json {
    // Plain data with text keys: it can't fail.
    serde_json::to_value(config).unwrap_or_default()
}

fn differences(key: Key, old: &Json, new: &Json, keys: &mut Vec<Key>) {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) => {
            let gone = old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(name, _)| key.child(name));
            keys.extend(gone);
            for (name, value) in new {
                match old.get(name) {
                    Some(before) => differences(key.child(name), before, value, keys),
                    None => keys.push(key.child(name)),
                }
            }
        }
        _ if old != new => keys.push(key),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Level, LogFormat, Secret, Span};

    fn texts(keys: &[Key]) -> Vec<String> {
        keys.iter().map(Key::to_string).collect()
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_as_it_was() {
        let old = Config::default();
        let mut new = old.clone();
        new.capture.tick = Span(std::time::Duration::from_millis(20));
        new.capture.rings.flows.0 *= 2;
        new.log.format = LogFormat::Json;
        new.log.level = Level::Debug;
        new.dns.enabled = false;
        new.dns.ports = vec![5300];
        new.dns.max_addresses = 17;
        new.owner.acceptor = false;
        let Change { config, applied, restart } = Change::new(&old, new);
        assert_eq!(texts(&applied), ["dns.max_addresses", "log.level"]);
        let restarted =
            ["capture.tick", "capture.rings.flows", "owner.acceptor", "dns.enabled", "dns.ports", "log.format"];
        assert_eq!(texts(&restart), restarted);
        let mut expected = old.clone();
        expected.log.level = Level::Debug;
        expected.dns.max_addresses = 17;
        assert_eq!(config, expected);
    }

    #[test]
    fn a_changed_secret_is_a_change_and_is_not_quoted() {
        let mut old = Config::default();
        old.export.headers.insert("authorization".into(), Secret::new("one"));
        let mut new = old.clone();
        new.export.headers.insert("authorization".into(), Secret::new("two"));
        let change = Change::new(&old, new);
        assert_eq!(texts(&change.applied), ["export.headers"]);
        assert!(change.restart.is_empty());
        assert!(Change::new(&old, old.clone()).applied.is_empty());
        let mut keyed = old.clone();
        keyed.record.hash.key = Some(Secret::new("a key of 32 characters or more...."));
        assert_eq!(texts(&Change::new(&old, keyed).applied), ["record.hash.key"]);
    }
}
