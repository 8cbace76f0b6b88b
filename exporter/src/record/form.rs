//! The configuration in; what form records take out: which version of the schema, and which attributes beside the usual ones.

use super::schema;
use crate::config::{Config, Groups, Target};

/// What form records take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The version of the schema, 1 or 2.
    pub version: u8,
    /// Write the event's name also as an attribute.
    pub event_name_attribute: bool,
    /// Further groups of attributes.
    pub groups: Groups,
}

// === impl Form

impl Form {
    /// As `config` wants it for `target`. Where `record.event_name_attribute` is not set, only Loki's own endpoint gets the
    /// attribute: it drops the field. Version 1 had it everywhere.
    pub fn of(config: &Config, target: &Target) -> Self {
        let record = &config.record;
        let usual = record.schema_version == 1 || is_loki(target);
        Self {
            version: record.schema_version,
            event_name_attribute: record.event_name_attribute.unwrap_or(usual),
            groups: record.groups,
        }
    }

    /// Key of the owner's real user id.
    pub(super) fn user_id(&self) -> &'static str {
        if self.version == 1 { schema::USER_ID_V1 } else { schema::USER_ID }
    }

    /// The scope's schema_url.
    pub(super) fn schema_url(&self) -> &'static str {
        if self.version == 1 { schema::SCHEMA_URL_V1 } else { schema::SCHEMA_URL }
    }
}

impl Default for Form {
    /// The newest version, without anything beside it.
    fn default() -> Self {
        Self { version: schema::VERSION, event_name_attribute: false, groups: Groups::default() }
    }
}

/// Whether records go to a Loki without a collector between: its OTLP endpoint is below `/otlp`
/// (https://grafana.com/docs/loki/latest/send-data/otel/).
fn is_loki(target: &Target) -> bool {
    matches!(target, Target::Otlp(otlp) if otlp.url.path().split('/').any(|part| part == "otlp"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, ExportKind};

    fn form(endpoint: &str, set: impl FnOnce(&mut Config)) -> Form {
        let mut config = Config::default();
        config.export.kind = Some(ExportKind::Otlp);
        config.export.endpoint = Some(Endpoint::new(endpoint));
        set(&mut config);
        let target = config.export.resolve().expect("a target");
        Form::of(&config, &target)
    }

    #[test]
    fn the_events_name_is_an_attribute_for_lokis_own_endpoint_alone() {
        assert!(form("http://loki:3100/otlp", |_| {}).event_name_attribute);
        assert!(!form("http://collector:4318", |_| {}).event_name_attribute);
        assert!(!form("http://collector:4317", |_| {}).event_name_attribute);
    }

    #[test]
    fn who_asks_for_the_attribute_or_for_none_gets_it_so() {
        assert!(form("http://collector:4318", |c| c.record.event_name_attribute = Some(true)).event_name_attribute);
        assert!(!form("http://loki:3100/otlp", |c| c.record.event_name_attribute = Some(false)).event_name_attribute);
    }

    #[test]
    fn version_1_has_its_names_and_the_attribute() {
        let form = form("http://collector:4318", |c| c.record.schema_version = 1);
        assert_eq!((form.user_id(), form.event_name_attribute), ("process.user.id", true));
        assert_eq!(Form::default().user_id(), "process.real_user.id");
    }
}
