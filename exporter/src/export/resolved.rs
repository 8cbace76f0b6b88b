//! From the configuration's words to this room's: where records go was decided by the configuration room.

use std::collections::BTreeMap;

use crate::config::{self, Protocol, Secret};

use super::{Settings, Target};

impl Settings {
    /// What a loaded configuration says of export.
    pub fn resolved(loaded: &config::Loaded) -> Self {
        let export = &loaded.config.export;
        match &loaded.target {
            config::Target::Stdout { .. } => Self::new(export, Target::Stdout),
            config::Target::Otlp(otlp) => {
                let url = otlp.url.to_string();
                let target = match otlp.protocol {
                    Protocol::Grpc => Target::Grpc { url },
                    Protocol::HttpProtobuf => Target::Http { url },
                };
                Self { headers: headers(&otlp.headers), ..Self::new(export, target) }
            }
        }
    }
}

/// Headers as settings: the values came from text, so they are text.
pub(super) fn headers(headers: &http::HeaderMap) -> BTreeMap<String, Secret> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), Secret::new(value.to_str().ok()?)))
    };
    headers.iter().filter_map(pair).collect()
}
