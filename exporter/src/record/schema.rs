//! The record, version 2: names, types, units and meanings of everything in it. The encoder takes its names from here,
//! and so do docs/schema.md and `flowtel schema`.
//!
//! Names follow OpenTelemetry's semantic conventions 1.44; what they have no name for is under `flowtel.`.

pub mod causes;
mod changes;
pub mod events;
pub mod json_schema;
pub mod knowledge;
pub mod privacy;
pub mod registry;
pub mod values;

/// Version of this schema. It changes with any name or meaning.
pub const VERSION: u8 = 2;
/// The conventions that the names follow where they have one.
pub const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.44.0";
/// Where this schema is described: schema_url of the scope.
pub const SCHEMA_URL: &str = "https://github.com/flowtel/flowtel/schemas/2.0.0";
/// What stood there in version 1.
pub const SCHEMA_URL_V1: &str = CONVENTIONS;
/// Key of the owner's real user id in version 1.
pub const USER_ID_V1: &str = "process.user.id";
/// Name of the instrumentation scope.
pub const SCOPE: &str = "flowtel";

/// Event name: a TCP flow began.
pub const BEGIN: &str = "flowtel.tcp.flow.begin";
/// Event name: a TCP flow ended.
pub const END: &str = "flowtel.tcp.flow.end";
/// Event name: an attempt never became a flow.
pub const FAILED: &str = "flowtel.tcp.flow.failed";
/// Event name: something is known to be missing.
pub const GAP: &str = "flowtel.gap";

/// Attribute of the Resource: which part of flows is recorded, where it is not all (`capture.sample`).
pub const SAMPLE_RATIO: &str = "flowtel.sample.ratio";

/// Attribute of the Resource: how much of IPv4 addresses is written, where it is not all (`record.shorten.ipv4`).
pub const IPV4_PREFIX: &str = "flowtel.address.ipv4.prefix";
/// The same of IPv6 addresses.
pub const IPV6_PREFIX: &str = "flowtel.address.ipv6.prefix";

/// Event name: a TCP flow was open already when flowtel started.
pub const OPEN: &str = "flowtel.tcp.flow.open";

/// Event name: a TCP flow is open, and this is what has passed so far.
pub const UPDATE: &str = "flowtel.tcp.flow.update";

/// Event name: what a client said first over TLS.
pub const CLIENT_HELLO: &str = "flowtel.tls.client_hello";

/// SeverityNumber INFO (opentelemetry/proto/logs/v1/logs.proto).
pub const INFO: i32 = 9;
/// SeverityText that goes with [`INFO`].
pub const INFO_TEXT: &str = "INFO";
/// SeverityNumber WARN.
pub const WARN: i32 = 13;
/// SeverityText that goes with [`WARN`].
pub const WARN_TEXT: &str = "WARN";

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
    EVENT_NAME = "event.name" "string" "", "for Loki's own endpoint, or with record.event_name_attribute",
        "The event's name again: the log record has a field for it, which Loki drops. OpenTelemetry has deprecated the attribute.", "flowtel.tcp.flow.begin";
    UID = "log.record.uid" "string" "", "always",
        "Id of this record: 32 hex digits, the same on a copy of it and on nothing else. A flowtel of another scope (`capture.cgroup`) that sees the same connection has another id for its record.", "0e0b3ab0b1a7d1c0a4f0d5f7f1c2b3a4";
    FLOW_ID = "flowtel.flow.id" "string" "", "always, but on folded records",
        "Id of this side of the flow: 32 hex digits, the same on its begin, open and end, unique across hosts and boots, also where one socket has several flows.", "9f86d081884c7d659a2feaa0c55ad015";
    COMMUNITY_ID = "flowtel.flow.community_id" "string" "", "when both ports are known",
        "Community ID v1, seed 0: the same on both hosts and in Zeek, Suricata and Elastic.", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
    DIRECTION = "flowtel.flow.direction" "string" "", "when the begin or the attempt was seen, or the socket tells",
        "`outgoing`: this side initiated the connection; `incoming`: the peer did.", "outgoing";
    LOCAL = "flowtel.flow.local" "bool" "", "when true",
        "Both ends are on this host: the other side has a record of its own.", "true";
    SOURCE_ADDRESS = "source.address" "string" "", "when known: not where there was no way to the destination",
        "IP address of the initiator; an IPv4 connection on a dual-stack socket has a dotted one.", "10.0.0.5";
    SOURCE_PORT = "source.port" "int" "", "likewise, but on folded records",
        "Port of the initiator.", "43210";
    DESTINATION_ADDRESS = "destination.address" "string" "", "always",
        "IP address of the responder.", "93.184.216.34";
    DESTINATION_PORT = "destination.port" "int" "", "always, but where several are folded",
        "Port of the responder.", "443";
    TRANSPORT = "network.transport" "string" "", "always",
        "Transport protocol.", "tcp";
    NETWORK_TYPE = "network.type" "string" "", "always",
        "Version of IP: `ipv4` or `ipv6`.", "ipv4";
    TUNNEL = "flowtel.tunnel.type" "string" "", "replay, when the first packet captured of it came through a tunnel",
        "What carried the connection's packets in an IP packet of others, the innermost where one is in another: `ipip`, `6in4`, `4in6`, `6in6`, `gre`, `erspan`, `etherip`, `srv6`, `mpls`, `teredo`, `vxlan`, `geneve`, `gtp`, `l2tp`, `lisp`, `capwap`, `tzsp`. Not VLAN tags, MPLS or PPPoE of the link itself.", "vxlan";
    INTERFACE_NAME = "network.interface.name" "string" "", "with link-local addresses, when the socket is bound to an interface (always with IPv6) and its name can be had: in flowtel's own network namespace, or by the owner's /proc entry where that is in the flow's",
        "Interface that the link-local addresses belong to, by its name in the flow's network namespace.", "eth0";
    INTERFACE_INDEX = "flowtel.interface.index" "int" "", "instead of network.interface.name, when only the index is known",
        "The same by its index there.", "2";
    NETNS_INODE = "flowtel.netns.inode" "int" "", "when known for certain: where the kernel has BTF, or the namespace is flowtel's own, the host's, or one of those that were read at the start. Before Linux 5.14 not always of what happened between two flowtels (capture.pin)",
        "Network namespace that the local side is in, as `lsns` and /proc/PID/ns/net show it. Addresses mean something within it only: any user may make one and give it any addresses.", "4026531840";
    NETNS_HOST = "flowtel.netns.host" "bool" "", "with flowtel.netns.inode or .cookie, when known",
        "Whether it is the host's network namespace.", "true";
    NETNS_COOKIE = "flowtel.netns.cookie" "int" "", "instead of flowtel.netns.inode, when only the cookie is known. Before Linux 6.1 without BTF neither is known of incoming connections that nobody was seen to accept",
        "The same by the number that the kernel gave it for this boot (SO_NETNS_COOKIE).", "4097";
    HANDSHAKE = "flowtel.tcp.handshake.duration" "double" "s", "begin, when it was measured: not after a repeated SYN-ACK, nor with SYN cookies, nor of an incoming one whose first segment had data (TCP_DEFER_ACCEPT, Fast Open), nor where no packet left (TCP_REPAIR)",
        "Outgoing: from SYN to SYN-ACK. Incoming: from SYN-ACK to the completing ACK.", "0.0123";
    PID = "process.pid" "int" "", "when the owner is known",
        "Process that owns the local side, in the host's numbering.", "1234";
    USER_ID = "process.real_user.id" "int" "", "with process.pid",
        "Real user id of that process, in the host's numbering.", "1000";
    THREAD_NAME = "thread.name" "string" "", "with process.pid",
        "Name of the thread that did it (the kernel's comm, at most 15 bytes).", "curl";
    PROCESS_ROLE = "flowtel.process.role" "string" "", "with process.pid",
        "How the process came by the connection: it asked for it (`connector`), accepted it (`acceptor`), or listens on the socket that took it (`listener`).", "connector";
    PROCESS_SOURCE = "flowtel.process.source" "string" "", "with process.pid",
        "How the process is known: it was seen to call connect() (`connect`), accept() (`accept`), or listen() on the very socket that took the connection (`listener`: another process may have taken it from there); or it was found in /proc at flowtel's start (`snapshot`). docs/owners.md says when no process is named.", "connect";
    PROCESS_BEGIN_PID = "flowtel.process.begin.pid" "int" "", "update, client_hello and end, when its begin named another process",
        "The process that the begin of this flow named: accept() came later than 50 ms after the handshake.", "1230";
    EXECUTABLE_NAME = "process.executable.name" "string" "", "when the start of the program was seen, or /proc still showed that same process",
        "Base name of the executable that process ran then.", "curl";
    EXECUTABLE_PATH = "process.executable.path" "string" "", "with process.executable.name",
        "Path of it in its own mount namespace. It leads to the program where `flowtel.process.executable.state` is absent.", "/usr/bin/curl";
    EXECUTABLE_SOURCE = "flowtel.process.executable.source" "string" "", "with process.executable.name",
        "How it is known: `exec`, from the start of the program itself, for that of the process or the one that it is a copy of; `proc`, from /proc/PID/exe, up to a tick later.", "exec";
    EXECUTABLE_STATE = "flowtel.process.executable.state" "string" "", "when the path does not lead to the program, or may not",
        "`deleted` (removed or replaced since the start, in whichever mount namespace), `memfd` (a file of memory), `other_mount_namespace` (a path in another mount namespace than the host's: of a container, or of a service with a private one), `unknown_mount_namespace`, `called` (kernels without BTF: what the caller of execve() passed, which may be relative, a symbolic link or a script). Of `exec` it is as of the program's start, of `proc` as of the look.", "deleted";
    EXECUTABLE_DEVICE = "flowtel.process.executable.device" "string" "", "with flowtel.process.executable.state, but not `called`",
        "Device number of the executable's file system, major:minor: as /proc/PID/mountinfo (source `exec`) or stat(2) (`proc`) shows it.", "8:1";
    EXECUTABLE_INODE = "flowtel.process.executable.inode" "int" "", "with flowtel.process.executable.device",
        "Inode number of the executable there.", "1835023";
    CREATION_TIME = "process.creation.time" "string" "", "when the process is known, as for process.executable.name; not of a start that a kernel without BTF told",
        "When that process began, by the wall clock as it is now (ISO 8601, UTC): to the millisecond, of /proc to the hundredth of a second.", "2026-11-21T09:25:34.853Z";
    COMMAND = "process.command" "string" "", "when owner.arguments is `first`, and the start of the program was seen by its file (BTF)",
        "The first word that the program was started with, at most 255 bytes. The caller chooses it freely.", "curl";
    PARENT_PID = "process.parent_pid" "int" "", "when the process is known and has a parent; likewise",
        "Its parent: who it was when the program was started, or the process made; of /proc at the look.", "1200";
    PARENT_NAME = "flowtel.process.parent.executable.name" "string" "", "with process.parent_pid, when it is known",
        "Base name of the executable that the parent ran.", "bash";
    PARENT_PATH = "flowtel.process.parent.executable.path" "string" "", "with flowtel.process.parent.executable.name",
        "Path of it.", "/usr/bin/bash";
    CONTAINER_ID = "container.id" "string" "", "when in one",
        "Id of the container, from the path of the owner's cgroup.", "4f2c…";
    POD_UID = "k8s.pod.uid" "string" "", "when in one",
        "Uid of the pod, likewise.", "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
    UNIT = "flowtel.systemd.unit" "string" "", "when in one",
        "The innermost systemd unit, likewise.", "nginx.service";
    SOURCE_NAMES = "flowtel.source.dns.names" "string[]" "", "when known",
        "Names that this host saw resolve to source.address: the one asked for first, then CNAMEs; at most 16.", "[\"example.com\"]";
    SOURCE_NAMES_STATE = "flowtel.source.dns.state" "string" "", "with the names",
        "`fresh`, `expired` (their time to live is over, within the grace time), `static` (hosts file), `reverse` (only of a PTR answer; `dns.reverse`).", "fresh";
    SOURCE_NAMES_ORIGIN = "flowtel.source.dns.origin" "string" "", "with the names, when the owner is known",
        "Who learned them: `own` (the owner's user asked for them, in the owner's cgroup and network namespace), `other` (another user or cgroup of the same network namespace did; `dns.fallback`), `static` (hosts file). Names that were asked for in another network namespace are never given.", "own";
    SOURCE_NAMES_AGE = "flowtel.source.dns.age" "double" "s", "with the names, but not static ones",
        "Since the answer was seen.", "1.5";
    DESTINATION_NAMES = "flowtel.destination.dns.names" "string[]" "", "when known",
        "Names that this host saw resolve to destination.address.", "[\"example.com\"]";
    DESTINATION_NAMES_STATE = "flowtel.destination.dns.state" "string" "", "with the names",
        "As for the source.", "fresh";
    DESTINATION_NAMES_ORIGIN = "flowtel.destination.dns.origin" "string" "", "as for the source",
        "As for the source.", "own";
    DESTINATION_NAMES_AGE = "flowtel.destination.dns.age" "double" "s", "with the names, but not static ones",
        "As for the source.", "1.5";
    DURATION = "flowtel.flow.duration" "double" "s", "end and update, when the begin was seen; not of an end that nobody told (docs/losses.md)",
        "Since the begin.", "12.5";
    END_REASON = "flowtel.flow.end.reason" "string" "", "end, where something proves it: see Causes",
        "`fin`, `reset.local`, `reset.remote`, `timeout`.", "fin";
    CAUSE_SOURCE = "flowtel.cause.source" "string" "", "with flowtel.flow.end.reason, and with error.type but where nothing tells the cause",
        "How that is known: `socket_error`, `segment`, `timer`, `call`, `state`; see Causes.", "socket_error";
    SOURCE_BYTES = "flowtel.source.bytes" "int" "By", "update, and end that was told (docs/losses.md); not of a socket in a SOCKMAP, whose bytes TCP need not count (known where the kernel has BTF)",
        "Payload bytes that the source sent and the destination acknowledged; exact after `fin`. Of an update so far.", "1234";
    DESTINATION_BYTES = "flowtel.destination.bytes" "int" "By", "with flowtel.source.bytes",
        "Payload bytes that the destination sent and the source acknowledged; exact after `fin`. Of an update so far.", "56789";
    SOURCE_PACKETS = "flowtel.source.packets" "int" "{segment}", "update, and end that was told",
        "Segments of the source.", "10";
    DESTINATION_PACKETS = "flowtel.destination.packets" "int" "{segment}", "update, and end that was told",
        "Segments of the destination.", "12";
    RETRANSMITS = "flowtel.tcp.retransmits" "int" "{segment}", "update, and end that was told",
        "Segments that the local side sent again.", "0";
    RTT = "flowtel.tcp.rtt" "double" "s", "update and end, when there is one",
        "Smoothed round trip time of the local side.", "0.0121";
    DELTA_SOURCE_BYTES = "flowtel.delta.source.bytes" "int" "By", "update, and with flow.update end; with flowtel.source.bytes, if it is known what was recorded before: not on the first update of a flow whose begin flowtel missed",
        "What of flowtel.source.bytes passed since the flow's last update, or since its begin. Those of all updates and of the end add up to the end's flowtel.source.bytes. Of a flow that is older than flowtel they count from when it was found. Below zero only if a replay of packets out of order had recorded too much.", "1000";
    DELTA_DESTINATION_BYTES = "flowtel.delta.destination.bytes" "int" "By", "with flowtel.delta.source.bytes",
        "The same of flowtel.destination.bytes.", "50000";
    DELTA_SOURCE_PACKETS = "flowtel.delta.source.packets" "int" "{segment}", "as flowtel.delta.source.bytes, but of sockets in a SOCKMAP too",
        "The same of flowtel.source.packets.", "8";
    DELTA_DESTINATION_PACKETS = "flowtel.delta.destination.packets" "int" "{segment}", "with flowtel.delta.source.packets",
        "The same of flowtel.destination.packets.", "10";
    DELTA_RETRANSMITS = "flowtel.delta.tcp.retransmits" "int" "{segment}", "with flowtel.delta.source.packets",
        "The same of flowtel.tcp.retransmits.", "0";
    TLS_SERVER_NAME = "flowtel.tls.server_name" "string" "", "client_hello, when the client names a server and that is in what was seen",
        "The server that the client asks for (SNI), as it says itself: lower case, without the root's dot, odd bytes as `\\DDD`. With `flowtel.tls.ech` perhaps not the one it means.", "example.com";
    TLS_PROTOCOLS = "flowtel.tls.protocols" "string[]" "", "client_hello, when the client offers any (ALPN)",
        "Application protocols that the client offers, in its order, without GREASE; at most 16.", "[\"h2\",\"http/1.1\"]";
    TLS_VERSIONS = "flowtel.tls.versions" "string[]" "", "client_hello, when they are in what was seen",
        "Versions of TLS that the client offers, in its order, without GREASE: `1.3`, `1.2`, `1.1`, `1.0`, `3.0` (SSL), others as hex; at most 16. Of a client that sends no list the highest one.", "[\"1.3\",\"1.2\"]";
    TLS_JA4 = "flowtel.tls.ja4" "string" "", "client_hello, when all of the ClientHello was seen",
        "JA4 fingerprint of the client: the same for one program and version, whatever the server. Never of a part.", "t13d1516h2_8daaf6152771_e5627efa2ab1";
    TLS_ECH = "flowtel.tls.ech" "bool" "", "client_hello, when true",
        "The client sends an encrypted ClientHello too (ECH), or pretends to (GREASE): nobody on the way can tell. If it is real flowtel.tls.server_name is the outer one, of whoever hosts the server.", "true";
    TLS_PARTIAL = "flowtel.tls.partial" "bool" "", "client_hello, when true",
        "Not all of the ClientHello was seen: it is longer than 4 KiB, or part of it never came by. What is missing here may have been said.", "true";
    ERROR_TYPE = "error.type" "string" "", "failed",
        "`refused`, `timed_out`, `unreachable`, `aborted`, `denied`, `_OTHER`; see Causes.", "refused";
    ATTEMPTS = "flowtel.tcp.attempts" "int" "{segment}", "failed",
        "SYNs sent, or seen; 0 where none left.", "3";
    FOLD_COUNT = "flowtel.fold.count" "int" "{event}", "on folded records",
        "This record stands for so many alike: of one source, and of one destination and port where those are told.", "1000";
    FOLD_DURATION = "flowtel.fold.duration" "double" "s", "on folded records",
        "From the first of them, whose time this record has, to the last.", "0.8";
    FOLD_PORTS = "flowtel.fold.destination.ports" "int" "{port}", "on folded records",
        "Different destination ports among them.", "1000";
    CLIENT_ADDRESS = "client.address" "string" "", "group client_server; as source.address",
        "The same as source.address: who initiated the connection is its client.", "10.0.0.5";
    CLIENT_PORT = "client.port" "int" "", "group client_server; as source.port",
        "The same as source.port.", "43210";
    SERVER_ADDRESS = "server.address" "string" "", "group client_server",
        "The same as destination.address.", "93.184.216.34";
    SERVER_PORT = "server.port" "int" "", "group client_server; as destination.port",
        "The same as destination.port.", "443";
    TRACEE_DIRECTION = "conn_direction" "string" "", "group tracee; as flowtel.flow.direction",
        "Tracee's field: `outgoing` or `incoming`.", "outgoing";
    TRACEE_SRC = "src" "string" "", "group tracee; as source.address",
        "Tracee's field: the same as source.address.", "10.0.0.5";
    TRACEE_DST = "dst" "string" "", "group tracee",
        "Tracee's field: the same as destination.address.", "93.184.216.34";
    TRACEE_SRC_PORT = "src_port" "int" "", "group tracee; as source.port",
        "Tracee's field: the same as source.port.", "43210";
    TRACEE_DST_PORT = "dst_port" "int" "", "group tracee; as destination.port",
        "Tracee's field: the same as destination.port.", "443";
    TRACEE_SRC_DNS = "src_dns" "string[]" "", "group tracee; empty where no name is known",
        "Tracee's field: the same as flowtel.source.dns.names.", "[]";
    TRACEE_DST_DNS = "dst_dns" "string[]" "", "group tracee; empty where no name is known",
        "Tracee's field: the same as flowtel.destination.dns.names.", "[\"example.com\"]";
    GAP_EVENTS = "flowtel.gap.events" "int" "{event}", "gap",
        "How much was lost: events of the kernel, or records.", "1234";
    GAP_TOTAL = "flowtel.gap.total" "int" "{event}", "gap",
        "How much was lost at that stage for that reason since flowtel started, this included: should a gap record be lost, the next one shows it.", "5678";
    GAP_RECOVERED = "flowtel.gap.recovered" "int" "{event}", "gap, when there are any",
        "How many ends of flows, lost at that stage for that reason, the audit has found since the last such record: each has an end record of its own.", "1200";
    GAP_STAGE = "flowtel.gap.stage" "string" "", "gap",
        "Where it was lost: `kernel`, `capture`, `flow`, `queue`, `export`.", "kernel";
    GAP_REASON = "flowtel.gap.reason" "string" "", "gap",
        "Why: see docs/losses.md.", "flows_ring_full";
    GAP_SINCE = "flowtel.gap.since" "string" "", "gap",
        "The last time at which for certain nothing more had been lost (RFC 3339, UTC): it was lost between then and the record's own time.", "2026-11-22T10:00:00.123456789Z";
}

/// The table above as Markdown.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "# The record\n\nSchema version {VERSION}; names follow {CONVENTIONS} where it has one. This page is generated: `flowtel schema > \
         docs/schema.md`.\n\n\
         ## Envelope\n\n\
         | field | value |\n|---|---|\n\
         | Resource | `service.name`, `service.version`, `service.instance.id` (UUIDv5 of the machine id and, below a cgroup, of that), `host.name`, \
         `host.id`, `host.arch`, `os.type`, and what OTEL_RESOURCE_ATTRIBUTES and `record.resource` add; \
         `{SAMPLE_RATIO}` (double) where `capture.sample` is below 1: each begin and end stands for 1 / ratio; \
         `{IPV4_PREFIX}`, `{IPV6_PREFIX}` (int) where `record.shorten` cuts addresses |\n\
         | Scope | `{SCOPE}`, its version, schema_url {SCHEMA_URL} |\n\
         | event_name | `{BEGIN}`: a TCP flow began, its handshake is complete; exactly one for each connection and side. \
         `{OPEN}`: it was open already when flowtel started, and has no begin; once for each start. \
         `{UPDATE}`: it is open, and this is what has passed so far; every `flow.update`, if anything did. \
         `{CLIENT_HELLO}`: what its client said first over TLS (`capture.tls`). \
         `{END}`: it ended. `{FAILED}`: an attempt never became a flow. `{GAP}`: something is known to be missing |\n\
         | time_unix_nano | when it happened in the kernel. Open: when it was seen. An end that nobody told: when the audit found it. Outgoing: when the peer's answer arrived; incoming: when the \
         handshake was complete. 0 in a replay of packets without a time |\n\
         | observed_time_unix_nano | when flowtel read it |\n\
         | severity | {INFO} `{INFO_TEXT}`; {WARN} `{WARN_TEXT}` for what failed and for gaps |\n\
         | body | one line for people, with the executable's name, else the thread's: `outgoing tcp 10.0.0.5:43210 -> 93.184.216.34:443 curl[1234]` |\n\n\
         Source is always the initiator of the connection, whichever side this host is. Only where nobody can tell, \
         as for an end whose begin was not seen, there is no direction, and the source is the local side.\n\n\
         A folded record stands for many alike. It has neither source port nor flow id, Community ID, handshake, \
         duration or round trip time; the owner where it was the same one; of bytes, segments and attempts the sum, of updates that of their \
         deltas alone.\n\n\
         A gap has `log.record.uid` and `flowtel.gap.…`, and nothing else.\n\n\
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
    text + &causes::markdown() + &knowledge::markdown() + &privacy::markdown() + &changes::markdown()
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
            assert!([BEGIN, OPEN, UPDATE, CLIENT_HELLO, END, FAILED, GAP].iter().all(|name| name.len() < 32));
            assert!(ATTRIBUTES[..i].iter().all(|b| b.name != a.name));
        }
    }
}
