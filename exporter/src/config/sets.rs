//! What can be chosen several of: events, and groups of attributes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words::{self, Words};

/// Which events become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events(u8);

/// Which groups of attributes are written beside those that are always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups(u8);

macro_rules! set_of_words {
    ($name:ident, $words:expr) => {
        impl $name {
            const WORDS: Words = $words;

            /// Whether all of `other` is in it.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any of `other` is in it.
            pub const fn has_any(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether nothing is in it.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Both together.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                words::serialize(Self::WORDS, self.0, s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                words::deserialize(Self::WORDS, d).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                words::schema(Self::WORDS)
            }
        }
    };
}

set_of_words!(
    Events,
    &[
        ("network_events", Self::NETWORK_EVENTS.0),
        ("flows", Self::FLOWS.0),
        ("begins", Self::BEGINS.0),
        ("flowtel.tcp.flow.begin", Self::BEGINS.0),
        ("flowtel.tcp.flow.end", Self::ENDS.0),
        ("flowtel.tcp.flow.failed", Self::FAILED.0),
        ("flowtel.tcp.flow.open", Self::OPEN.0),
        ("flowtel.tcp.flow.update", Self::UPDATES.0),
        ("flowtel.tls.client_hello", Self::HELLOS.0),
        ("flowtel.gap", Self::GAPS.0),
        ("net_flow_tcp_begin", Self::BEGINS.0),
        ("net_flow_tcp_end", Self::ENDS.0),
    ]
);

set_of_words!(Groups, &[("client_server", Self::CLIENT_SERVER.0), ("tracee", Self::TRACEE.0)]);

impl Events {
    /// `flowtel.tcp.flow.begin`.
    pub const BEGINS: Self = Self(1);
    /// `flowtel.tcp.flow.end`.
    pub const ENDS: Self = Self(2);
    /// `flowtel.tcp.flow.failed`.
    pub const FAILED: Self = Self(4);
    /// `flowtel.tcp.flow.open`.
    pub const OPEN: Self = Self(8);
    /// `flowtel.gap`.
    pub const GAPS: Self = Self(16);
    /// `flowtel.tcp.flow.update`, where `flow.update` asks for them.
    pub const UPDATES: Self = Self(32);
    /// `flowtel.tls.client_hello`, where `capture.tls` asks for them.
    pub const HELLOS: Self = Self(64);
    /// The set `flows`.
    pub const FLOWS: Self = Self::BEGINS.and(Self::ENDS).and(Self::OPEN).and(Self::UPDATES);
    /// The set `network_events`: all.
    pub const NETWORK_EVENTS: Self = Self::FLOWS.and(Self::FAILED).and(Self::HELLOS).and(Self::GAPS);

    /// Whether ends have to be watched for: a failure is the end of a socket, too, and an update is of a flow that has not
    /// ended, as a ClientHello is.
    pub const fn needs_ends(self) -> bool {
        self.has_any(Self::ENDS.and(Self::FAILED).and(Self::UPDATES).and(Self::HELLOS))
    }
}

impl Groups {
    /// `client.*` and `server.*`.
    pub const CLIENT_SERVER: Self = Self(1);
    /// The fields of Tracee's net_flow_tcp_begin and net_flow_tcp_end.
    pub const TRACEE: Self = Self(2);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(json: &str) -> Result<Events, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn events_are_named_one_by_one_by_sets_and_by_the_names_they_had_in_tracee() {
        for (json, set) in [
            ("\"network_events\"", Events::NETWORK_EVENTS),
            ("[\"flows\"]", Events::FLOWS),
            ("\"begins\"", Events::BEGINS),
            ("\"net_flow_tcp_begin, net_flow_tcp_end\"", Events::BEGINS.and(Events::ENDS)),
            (
                "[\"flows\", \"flowtel.tcp.flow.failed\", \"flowtel.tls.client_hello\", \"flowtel.gap\"]",
                Events::NETWORK_EVENTS,
            ),
            ("[\"flowtel.tcp.flow.open\", \"flowtel.tcp.flow.begin\"]", Events::OPEN.and(Events::BEGINS)),
            ("[]", Events(0)),
        ] {
            assert_eq!(events(json), Ok(set), "{json}");
        }
        assert!(events("[\"flows\", \"flwos\"]").is_err_and(|e| e.contains("unknown word \"flwos\"")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bits in 0u8..128) {
            let text = serde_json::to_string(&Events(bits)).expect("words");
            prop_assert_eq!(events(&text), Ok(Events(bits)), "{}", text);
        }
    }
}
