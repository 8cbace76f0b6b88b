//! The record, version 1: names, types, units and meanings of everything in it. The encoder takes its names from here,
//! and so do docs/schema.md and `flowtel schema`.
//!
//! Names follow OpenTelemetry's semantic conventions 1.44; what they have no name for is under `flowtel.`.

/// Version of this schema. It changes with any name or meaning.
pub const VERSION: u32 = 1;
/// The conventions that the names follow (schema_url of the scope).
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Name of the instrumentation scope.
pub const SCOPE: &str = "flowtel";

/// Event name: a TCP flow began.
pub const BEGIN: &str = "flowtel.tcp.flow.begin";

/// SeverityNumber INFO (opentelemetry/proto/logs/v1/logs.proto).
pub const INFO: i32 = 9;
/// SeverityText that goes with [`INFO`].
pub const INFO_TEXT: &str = "INFO";

/// An attribute of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// Its type as OTLP has it: string, int, double, bool.
    pub kind: &'static str,
    /// UCUM unit, empty where it has none.
    pub unit: &'static str,
    /// When it is there.
    pub present: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// A value.
    pub example: &'static str,
}

macro_rules! attributes {
    ($($id:ident = $name:literal $kind:literal $unit:literal, $present:literal, $meaning:literal, $example:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $id: &str = $name;
        )*
        /// Every attribute that a record can have, in the order in which they are written.
        pub const ATTRIBUTES: &[Attribute] = &[
            $(Attribute { name: $name, kind: $kind, unit: $unit, present: $present, meaning: $meaning, example: $example },)*
        ];
    };
}

attributes! {
    EVENT_NAME = "event.name" "string" "", "always, unless record.event_name_attribute is off",
        "The event's name again: the log record has a field for it, which Loki drops.", "flowtel.tcp.flow.begin";
    UID = "log.record.uid" "string" "", "always",
        "Id of this record: 32 hex digits, the same on a copy of it and on nothing else.", "0e0b3ab0b1a7d1c0a4f0d5f7f1c2b3a4";
    FLOW_ID = "flowtel.flow.id" "string" "", "always",
        "Id of this side of the flow: 32 hex digits, unique across hosts and boots.", "9f86d081884c7d659a2feaa0c55ad015";
    COMMUNITY_ID = "flowtel.flow.community_id" "string" "", "always",
        "Community ID v1, seed 0: the same on both hosts and in Zeek, Suricata and Elastic.", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
    DIRECTION = "flowtel.flow.direction" "string" "", "always",
        "`outgoing`: this side initiated the connection; `incoming`: the peer did.", "outgoing";
    LOCAL = "flowtel.flow.local" "bool" "", "when true",
        "Both ends are on this host: the other side has a record of its own.", "true";
    SOURCE_ADDRESS = "source.address" "string" "", "always",
        "IP address of the initiator; an IPv4 connection on a dual-stack socket has a dotted one.", "10.0.0.5";
    SOURCE_PORT = "source.port" "int" "", "always",
        "Port of the initiator.", "43210";
    DESTINATION_ADDRESS = "destination.address" "string" "", "always",
        "IP address of the responder.", "93.184.216.34";
    DESTINATION_PORT = "destination.port" "int" "", "always",
        "Port of the responder.", "443";
    TRANSPORT = "network.transport" "string" "", "always",
        "Transport protocol.", "tcp";
    NETWORK_TYPE = "network.type" "string" "", "always",
        "Version of IP: `ipv4` or `ipv6`.", "ipv4";
    HANDSHAKE = "flowtel.tcp.handshake.duration" "double" "s", "begin, when known for certain",
        "Outgoing: from SYN to SYN-ACK. Incoming: from SYN-ACK to the completing ACK.", "0.0123";
    PID = "process.pid" "int" "", "when the owner is known",
        "Process that owns the local side, in the host's numbering.", "1234";
    USER_ID = "process.user.id" "int" "", "with process.pid",
        "User id of that process, in the host's numbering.", "1000";
    THREAD_NAME = "thread.name" "string" "", "with process.pid",
        "Name of the thread that did it (the kernel's comm, at most 15 bytes).", "curl";
    PROCESS_ROLE = "flowtel.process.role" "string" "", "with process.pid",
        "How the process came by the connection: `connector`.", "connector";
}

/// The table above as Markdown.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "# The record\n\nSchema version {VERSION}; names follow {SCHEMA_URL}. This page is generated: `flowtel schema > \
         docs/schema.md`.\n\n\
         ## Envelope\n\n\
         | field | value |\n|---|---|\n\
         | Resource | `service.name`, `service.version`, `service.instance.id` (UUIDv5 of the machine id), `host.name`, \
         `host.id`, `host.arch`, `os.type`, and what OTEL_RESOURCE_ATTRIBUTES and `record.resource` add |\n\
         | Scope | `{SCOPE}`, its version, schema_url {SCHEMA_URL} |\n\
         | event_name | `{BEGIN}`: a TCP flow began, its handshake is complete; exactly one for each connection and side |\n\
         | time_unix_nano | when it happened in the kernel. Outgoing: when the peer's answer arrived; incoming: when the \
         handshake was complete |\n\
         | observed_time_unix_nano | when flowtel read it |\n\
         | severity | {INFO} `{INFO_TEXT}` |\n\
         | body | one line for people: `outgoing tcp 10.0.0.5:43210 -> 93.184.216.34:443 curl[1234]` |\n\n\
         Source is always the initiator of the connection, whichever side this host is.\n\n\
         ## Attributes\n\n\
         | attribute | type | unit | present | meaning | example |\n|---|---|---|---|---|---|\n"
    );
    for a in ATTRIBUTES {
        let unit = if a.unit.is_empty() { "" } else { a.unit };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | `{}` |",
            a.name, a.kind, unit, a.present, a.meaning, a.example
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_what_the_code_says() {
        let page = include_str!("../../../docs/schema.md");
        assert!(page == markdown(), "docs/schema.md is out of date: flowtel schema > docs/schema.md");
    }

    #[test]
    fn names_are_unique_and_short_enough_for_a_one_byte_length() {
        for (i, a) in ATTRIBUTES.iter().enumerate() {
            assert!(a.name.len() < 128);
            assert!(ATTRIBUTES[..i].iter().all(|b| b.name != a.name));
        }
    }
}
