//! The Resource: who reports. Small, for Loki copies it onto every line.

use std::{collections::BTreeMap, fs};

use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::resource::v1::Resource as ProtoResource, transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::Resource;
use prost::Message;

use super::{Observer, schema};
use crate::config;

/// Where the machine's id is: machine-id(5), and where D-Bus keeps it on older systems.
const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// What is known of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, as uname gives it.
    pub name: String,
    /// Its machine id, 32 hex digits.
    pub id: Option<String>,
}

impl Host {
    /// This host.
    pub fn read() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = MACHINE_ID
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .map(|text| text.trim().to_owned())
            .find(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        Self { name, id }
    }
}

/// The Resource of all records that `observer` makes on `host`. What the configuration says wins over what was found.
pub fn build(config: &config::Record, host: &Host, observer: &Observer) -> Resource {
    let mut attributes = BTreeMap::from([
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", observer.instance_id(host).to_string()),
        ("host.name", host.name.clone()),
        ("host.arch", arch().to_owned()),
        ("os.type", "linux".to_owned()),
    ]);
    if let Some(id) = &host.id {
        attributes.insert("host.id", id.clone());
    }
    attributes.extend(config.resource.iter().map(|(key, value)| (key.as_str(), value.clone())));
    attributes.insert("service.name", config.service_name.clone());
    Resource::builder_empty()
        .with_attributes(attributes.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)))
        .build()
}

/// The same, with what a reader of sampled flows has to multiply by: each stands for `1 / ratio`. Nothing is added where
/// all are recorded.
pub fn sampled(resource: Resource, ratio: f64) -> Resource {
    if ratio >= 1.0 {
        return resource;
    }
    let attributes = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let ratio = KeyValue::new(schema::SAMPLE_RATIO, ratio);
    Resource::builder_empty().with_attributes(attributes.chain([ratio])).build()
}

/// The same, with what a reader of shortened addresses has to know: how much of them is written.
pub fn shortened(resource: Resource, shorten: &config::Shorten) -> Resource {
    let prefix = [(schema::IPV4_PREFIX, shorten.ipv4), (schema::IPV6_PREFIX, shorten.ipv6)];
    let prefix = prefix.into_iter().filter_map(|(key, bits)| Some(KeyValue::new(key, i64::from(bits?))));
    let attributes: Vec<_> = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    Resource::builder_empty().with_attributes(attributes.into_iter().chain(prefix)).build()
}

/// The bytes of an OTLP `Resource`, attributes in the order of their names: a restart gives the same bytes.
pub(super) fn encode(resource: &Resource) -> Vec<u8> {
    let mut attributes = ResourceAttributesWithSchema::from(resource).attributes.0;
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    ProtoResource { attributes, ..Default::default() }.encode_to_vec()
}

/// `host.arch` in the words of the semantic conventions.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(resource: &Resource, key: &str) -> Option<String> {
        resource.get(&key.to_owned().into()).map(|v| v.to_string())
    }

    #[test]
    fn the_instance_id_survives_a_restart_and_differs_between_machines() {
        let host = |id: &str| Host { name: "a".into(), id: Some(id.into()) };
        let config = config::Record::default();
        let first = build(&config, &host("0123456789abcdef0123456789abcdef"), &Observer::WHOLE_HOST);
        let again = build(&config, &host("0123456789abcdef0123456789abcdef"), &Observer::WHOLE_HOST);
        let other = build(&config, &host("1123456789abcdef0123456789abcdef"), &Observer::WHOLE_HOST);
        assert_eq!(encode(&first), encode(&again));
        assert_ne!(value(&first, "service.instance.id"), value(&other, "service.instance.id"));
    }

    #[test]
    fn what_is_configured_wins_and_the_host_name_is_always_there() {
        let mut config = config::Record { service_name: "edge".into(), ..Default::default() };
        config.resource.insert("deployment.environment.name".into(), "test".into());
        config.resource.insert("host.name".into(), "chosen".into());
        let resource = build(&config, &Host { name: "found".into(), id: None }, &Observer::WHOLE_HOST);
        assert_eq!(value(&resource, "service.name").as_deref(), Some("edge"));
        assert_eq!(value(&resource, "host.name").as_deref(), Some("chosen"));
        assert_eq!(value(&resource, "deployment.environment.name").as_deref(), Some("test"));
        assert_eq!(value(&resource, "host.id"), None);
    }
}
