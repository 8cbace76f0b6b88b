//! The settings as types. Their documentation comments are the reference: `config/flowtel.toml` and
//! docs/configuration.md are generated from them, so the words cannot drift from the code.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    attributes::{AttributeNames, HashedNames},
    output::Rotate,
    rules::{Action, Rules},
    sets::{Events, Groups},
    units::{Bytes, Endpoint, Secret, Span},
};

/// All settings of flowtel. Each room has its own table and sees only that.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is watched, and how the kernel's events are read. A change needs a restart.
    pub capture: Capture,
    /// How events become flows.
    pub flow: Flow,
    /// What is looked up about the process behind a flow.
    pub owner: Owner,
    /// What becomes of more than there is room for.
    pub overload: Overload,
    /// Names for addresses, from the DNS answers that processes of this host get.
    pub dns: Dns,
    /// What is in a record.
    pub record: Record,
    /// Where sealed batches wait for the receiver.
    pub queue: Queue,
    /// Where records go.
    pub export: Export,
    /// What others may see of flowtel's own state: metrics, an address to ask, a socket for `flowtel status`.
    pub telemetry: Telemetry,
    /// Which rights flowtel gives up once it has started. A change needs a restart.
    pub security: Security,
    /// flowtel's own log, on standard error.
    pub log: Log,
}

/// What is watched, and how the kernel's events are read. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// The cgroup whose sockets are watched: `root` for the whole host; `self` for the group that flowtel runs in, which is its
    /// pod, or what Compose's `cgroup_parent` names (docs/sidecar.md); or the path of a cgroup v2 directory.
    pub cgroup: String,
    /// How often the kernel's rings are read. Also the longest that a flow waits before it becomes a record, twice over.
    #[schemars(extend("x-min" = "5ms", "x-max" = "1s"))]
    pub tick: Span,
    /// Which events become records: the sets `network_events` (all), `flows` (begin, end, open), `begins`, and names of
    /// events such as `flowtel.tcp.flow.end`; one, or a list. What no record needs is not watched for.
    pub events: Events,
    /// Which flows become records: rules such as `"exclude destination=10.0.0.0/8 port=443"`, or tables of the same; the
    /// first that matches decides. docs/selecting.md has all conditions. On the command line: `--include`, `--exclude`.
    pub filter: Rules,
    /// What becomes of flows that no rule matches: `include` or `exclude`. When not set: `exclude` where all rules
    /// include, else `include`.
    #[schemars(example = &"include")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_default: Option<Action>,
    /// The part of flows that is recorded, begin and end together: by the flow's id, so that a restart chooses the same.
    /// Failed attempts are all recorded. Below 1 the Resource says it as `flowtel.sample.ratio`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// At the start, list the connections that are open already: each becomes a record, and is followed to its end. In
    /// flowtel's own network namespace, and with CAP_SYS_ADMIN in all others.
    pub snapshot: bool,
    /// How often some of the flows that count as open are looked up in the kernel's list of sockets: one that is over without
    /// a word tells that another program keeps ends from flowtel, and gets its end record. `0s`: never.
    #[schemars(extend("x-min" = "0s", "x-max" = "1h"))]
    pub audit: Span,
    /// A directory on a BPF file system, such as `/sys/fs/bpf/flowtel`, in which programs and rings stay when flowtel ends:
    /// the next flowtel reads on there, so a restart or an upgrade misses no flow, as long as the rings have room for what
    /// happens meanwhile. `rm -r` of the directory detaches all. When not set nothing stays.
    #[schemars(example = &"/sys/fs/bpf/flowtel")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<PathBuf>,
    /// Record what clients say first over TLS (`flowtel.tls.client_hello`): the server's name that they ask for, protocols and versions
    /// that they offer, their JA4 fingerprint (docs/tls.md). `false`: it costs nothing. `capture.events` must include it.
    pub tls: bool,
    /// Leave out the connections that flowtel itself makes: to the receivers of records and of metrics.
    pub exclude_self: bool,
    /// Sizes of the rings between kernel and user space: powers of two. A ring counts twice as resident memory, for it is
    /// mapped doubly.
    pub rings: Rings,
}

/// Ring sizes: powers of two, at least 64 KiB. A ring counts twice as resident memory, for it is mapped doubly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rings {
    /// The ring of flow events: what begins, ends and fails.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub flows: Bytes,
    /// The ring of owner events: who asks for a connection, takes one, binds a port, drops a socket.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub owners: Bytes,
    /// The ring of name servers' answers.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub answers: Bytes,
    /// The ring of what processes run: which program one starts, of which other one it is a copy.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub execs: Bytes,
    /// The ring of what clients say first over TLS (`capture.tls`).
    #[schemars(extend("x-min" = "64KiB", "x-max" = "1GiB"))]
    pub hellos: Bytes,
}

/// How events become flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flow {
    /// The most connection attempts remembered at once. Past it the oldest attempt is forgotten, and counted: its flow
    /// is still told, without handshake duration and owner.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_attempts: u32,
    /// The most flows followed from begin to end at once. Past it the oldest is forgotten, and counted: its end is still
    /// told, without duration, direction and owner.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_flows: u32,
    /// How long an attempt is remembered.
    #[schemars(extend("x-min" = "1s", "x-max" = "1day"))]
    pub attempt_age: Span,
    /// How often an open flow is recorded, if anything passed (`flowtel.tcp.flow.update`): what passed so far, and what of it
    /// is new. So a connection that lives for months is seen before it is over, and its bytes are spread over time
    /// (docs/updates.md). `0s`: never; then it costs nothing. `capture.events` must include it. A change needs a restart.
    #[schemars(extend("x-min" = "0s", "x-max" = "1day"))]
    pub update: Span,
}

/// What becomes of more than there is room for: docs/losses.md has the order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// Records a second that one cgroup (a container, a service, a user's session) may have for long. Past it its repeats
    /// are folded into counts, before that of others is. 0: no limit.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub cgroup_rate: u32,
    /// Records that one cgroup may have at once, beside these.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub cgroup_burst: u32,
}

/// What is looked up about the process behind a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Owner {
    /// Name the process that accepted an incoming connection, or listens on the socket that took it (docs/owners.md).
    /// Otherwise only who opened an outgoing one is named, which comes with its handshake's time.
    pub acceptor: bool,
    /// Tell the process's executable, and that of its parent. Of processes that were there before flowtel it is that of
    /// `/proc/PID/exe`, as it is when the event is read, a moment after it happened; for those of other users that needs
    /// CAP_SYS_PTRACE.
    pub executable: bool,
    /// Know executables from the start of each program, so that those which live for milliseconds have one, too. It costs
    /// each start of a program on this host less than a microsecond; `flowtel check` says what this kernel can tell. A change
    /// needs a restart.
    pub exec: bool,
    /// Tell the words that a program was started with: `off`, or `first`, the first of them (`process.command`), which the
    /// caller chooses freely. It is known of programs that started while flowtel ran. A change needs a restart.
    pub arguments: Arguments,
    /// Tell container, pod and systemd unit, from the cgroup's path. CAP_DAC_READ_SEARCH makes it fast and complete;
    /// without it the tree of cgroups is searched, in small steps.
    pub container: bool,
    /// Where the host's proc file system is mounted. In a container that does not share the host's process ids
    /// (`pid: host`, `hostPID`), mount the host's /proc into it and name it here.
    pub proc: PathBuf,
    /// The most processes remembered at once; past it, those not seen for longest are looked up anew.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub max_processes: u32,
    /// The most cgroups remembered at once.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub max_cgroups: u32,
}

/// Which words of a command line are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arguments {
    /// None.
    Off,
    /// The first one.
    First,
}

/// Names for addresses, from the DNS answers that processes of this host get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Learn names and write them into records. When `false`, the hosts file isn't read either.
    pub enabled: bool,
    /// A name counts as `fresh` at least this long, however short the time to live in its answer is: programs keep
    /// addresses longer than they are told to.
    #[schemars(extend("x-min" = "0s", "x-max" = "1day"))]
    pub min_ttl: Span,
    /// A name counts as `fresh` at most this long, whatever its answer says.
    #[schemars(extend("x-min" = "1s", "x-max" = "7days"))]
    pub max_ttl: Span,
    /// How long a name is still given after that, then as `expired`.
    #[schemars(extend("x-min" = "0s", "x-max" = "7days"))]
    pub grace: Span,
    /// The most addresses whose names are remembered. Past it, the container (cgroup) that has most loses its own
    /// oldest.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub max_addresses: u32,
    /// The most memory for names. Past it, the container (cgroup) that has most loses its own oldest.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "64GiB"))]
    pub max_bytes: Bytes,
    /// The most of `max_addresses` and `max_bytes`, in percent, that one container (cgroup) may take while there is
    /// room. Past it, it loses its own oldest.
    #[schemars(range(min = 1, max = 100))]
    pub source_share: u8,
    /// Names by reverse look-ups: `off`, or `observed`, where those that processes of this host ask for (PTR answers) are
    /// given to addresses that have no other name, as `reverse`. Whoever owns an address can give it any such name. They
    /// may take an eighth of the limits above.
    pub reverse: Reverse,
    /// The file with `static` names, in the form of hosts(5). It is read again within 10 s after it changed. An empty
    /// text: none. Its names are given to flows in the host's network namespace and in flowtel's own.
    pub hosts_file: PathBuf,
    /// Give a flow also names that only other users, containers or services (cgroups) of its network namespace asked for,
    /// where whoever made it did not; `flowtel.*.dns.origin` then says `other`. Names of another network namespace are never
    /// given.
    pub fallback: bool,
    /// UDP ports of name servers: 1 to 8. A change needs a restart. Out of reach are 853 (DNS over TLS and QUIC is encrypted)
    /// and 5353 (answers of multicast DNS go to a group, and need no question). A replay looks at port 53.
    pub ports: Vec<u16>,
}

/// Names by reverse look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reverse {
    /// None.
    Off,
    /// Of answers that processes of this host asked for.
    Observed,
}

/// What is in a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// The version of the record's schema: 2, or 1 for readers that don't know the newer names yet (docs/schema.md,
    /// "Changes since version 1"). Version 1 goes with the next release.
    #[schemars(range(min = 1, max = 2))]
    pub schema_version: u8,
    /// Write the event's name also as the attribute `event.name`, which OpenTelemetry has deprecated. When not set: only for
    /// Loki's own endpoint (`http://loki:3100/otlp`), which drops the log record's field for it.
    #[schemars(example = &true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_name_attribute: Option<bool>,
    /// Attributes that are written beside the usual ones: `client_server` (client.address and so on, of the semantic
    /// conventions), `tracee` (the fields of Tracee's net_flow_tcp_begin); one, or a list.
    pub groups: Groups,
    /// `service.name` of the Resource. OTEL_SERVICE_NAME sets it.
    pub service_name: String,
    /// Further attributes of the Resource. OTEL_RESOURCE_ATTRIBUTES adds to them.
    pub resource: BTreeMap<String, String>,
    /// Which attributes records have. docs/privacy.md says which are personal data.
    pub attributes: Attributes,
    /// Addresses are written as networks: the bits behind the prefix are 0.
    pub shorten: Shorten,
    /// Attributes whose values are written as keyed hashes. The same value gives the same hash, so records still join.
    pub hash: Hash,
}

/// Which attributes records have. The body leaves out what an attribute leaves out. `log.record.uid` and `event.name` stay
/// unless `exclude` names them; gap records stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attributes {
    /// Attributes that records have, by name, or groups: `addresses`, `names`, `users`, `containers`, `programs`,
    /// `processes`. An empty list: all.
    pub include: AttributeNames,
    /// Attributes that records don't have, named in the same way. It wins over `include`.
    pub exclude: AttributeNames,
}

/// Addresses are written as networks: the bits behind the prefix are 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shorten {
    /// Length of the prefix that stays of IPv4 addresses. 10.1.2.3 with 24 is 10.1.2.0. When not set: the whole address.
    /// The Resource then has `flowtel.address.ipv4.prefix`.
    #[schemars(range(min = 0, max = 32), example = &24)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u8>,
    /// The same for IPv6 addresses, as `flowtel.address.ipv6.prefix`.
    #[schemars(range(min = 0, max = 128), example = &48)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u8>,
}

/// Attributes whose values are written as keyed hashes. The same value gives the same hash, so records still join.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hash {
    /// Attributes to hash, by name, or groups: `addresses`, `names`, `users`, `containers`, `programs`, `processes`. It
    /// needs a key. docs/privacy.md has the form of the hashes.
    pub attributes: HashedNames,
    /// The key, at least 16 bytes; `openssl rand -hex 32` makes a good one. It is never printed. Better in a file or in the
    /// variable FLOWTEL_RECORD__HASH__KEY than in the configuration.
    #[schemars(example = &"the output of openssl rand -hex 32")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// A file that holds the key; it wins over `key`. A line end behind the key does not belong to it. It is read at the
    /// start and at each reload.
    #[schemars(example = &"/run/secrets/flowtel-hash-key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// Where sealed batches wait for the receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `memory`: batches wait in memory, and what waits is lost when flowtel is killed. `disk`: they wait in files too,
    /// and a restart goes on with them (docs/queue.md).
    pub kind: QueueKind,
    /// The directory of the queue on disk; made where it is missing. One flowtel at a time has it. A change needs a restart.
    pub path: PathBuf,
    /// How long what came may wait until it is written and synced, all at once: what a crash can cost, beside the tick and
    /// a batch's age. `0s` syncs after each batch. A change needs a restart.
    #[schemars(extend("x-min" = "0s", "x-max" = "1m"))]
    pub sync_interval: Span,
    /// The most bytes that wait: at least twice `export.batch.max_bytes`. On disk it counts the files, with all headers.
    #[schemars(extend("x-min" = "128KiB", "x-max" = "1TiB"))]
    pub max_bytes: Bytes,
    /// With the queue on disk: the most bytes of batches that wait in memory because the disk has not taken them yet. At
    /// least twice `export.batch.max_bytes`.
    #[schemars(extend("x-min" = "128KiB", "x-max" = "1TiB"))]
    pub max_memory: Bytes,
    /// What goes when the queue is full: `drop_oldest` or `drop_newest`. What went is counted.
    pub on_full: OnFull,
}

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// In memory.
    Memory,
    /// In files.
    Disk,
}

/// What a full queue drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The batch that has waited longest.
    DropOldest,
    /// The batch that just came.
    DropNewest,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// `stdout`, `otlp`, or `both`. When not set: `otlp` where an endpoint is set, else `stdout`. With `both`, records are
    /// printed as they come, whether or not the receiver takes them; what isn't printed in time isn't lost. `otlp` without an endpoint
    /// means `http://localhost:4318`, or port 4317 with `grpc`, as the OTLP exporter specification says.
    #[schemars(example = &"otlp")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExportKind>,
    /// The receiver: `http://host:4318` or `https://…`. For `http/protobuf` it is a base URL, to which `/v1/logs` is
    /// added; for `grpc` only scheme, host and port count, and `host:4317` alone will do. A user and a password in it
    /// are sent as basic authorization, and never printed. OTEL_EXPORTER_OTLP_ENDPOINT sets it.
    #[schemars(example = &"http://localhost:4318")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The receiver's full URL for logs, used as it is; wins over `endpoint` unless a later layer set that.
    /// OTEL_EXPORTER_OTLP_LOGS_ENDPOINT sets it.
    #[schemars(example = &"http://localhost:4318/v1/logs")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs_endpoint: Option<Endpoint>,
    /// `grpc` or `http/protobuf`. When not set: `grpc` where the endpoint's port is 4317, else `http/protobuf`.
    /// OTEL_EXPORTER_OTLP_PROTOCOL sets it.
    #[schemars(example = &"http/protobuf")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// For `grpc` and an endpoint without `http://` or `https://` only: plain text instead of TLS.
    /// OTEL_EXPORTER_OTLP_INSECURE sets it.
    pub insecure: bool,
    /// `none`, `gzip` or `zstd`. OTEL_EXPORTER_OTLP_COMPRESSION sets it.
    pub compression: Compression,
    /// Headers (gRPC: metadata) sent with each request. Values are never printed.
    /// OTEL_EXPORTER_OTLP_HEADERS adds to them.
    pub headers: BTreeMap<String, Secret>,
    /// A file of further headers, `name: value` a line, that win over `headers`. It is read again within a second after it
    /// changed: for tokens that are renewed. Put a new one in its place in one step (rename).
    #[schemars(example = &"/run/secrets/otlp-headers")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// How long one request may take. OTEL_EXPORTER_OTLP_TIMEOUT (ms) sets it, and where that is not set,
    /// OTEL_BLRP_EXPORT_TIMEOUT (ms).
    #[schemars(extend("x-min" = "1ms", "x-max" = "1h"))]
    pub timeout: Span,
    /// Requests in flight at once.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u16,
    /// How long flowtel goes on delivering after it was told to stop.
    #[schemars(extend("x-min" = "0s", "x-max" = "1h"))]
    pub grace: Span,
    /// When a batch is sealed: at whichever limit comes first.
    pub batch: Batch,
    /// How a request that failed is tried again: full jitter, between these waits, without an end while the queue has
    /// room.
    pub retry: Retry,
    /// TLS towards the receiver, for `https` endpoints. A client's certificate and key go together.
    pub tls: Tls,
    /// HTTP statuses that stop the delivery instead of discarding the batch: records wait in the queue, and flowtel tries again
    /// every minute. `[401, 403]` is for tokens that expire, `404` for a receiver that is being set up. Of gRPC's, UNAUTHENTICATED
    /// counts as 401, PERMISSION_DENIED as 403, NOT_FOUND and UNIMPLEMENTED as 404. OTLP itself says to discard them.
    pub hold: Vec<u16>,
    /// Form of what is printed: `auto` (lines for people on a terminal, OTLP/JSON in a pipe or a file), `text` (lines for
    /// people), `json` (OTLP/JSON, one request a line), or `ndjson` (one flat object a record).
    pub format: Format,
    /// Print into this file instead of on standard output. It is made where it is missing, with its rotated ones beside it,
    /// and appended to where it isn't. One that another program moves away (logrotate) is opened anew within a second.
    #[schemars(example = &"/var/log/flowtel/records.jsonl")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// When the file of `path` is put aside and a new one begun.
    pub rotate: Rotate,
    /// Compression of what is printed: `none`, `gzip` or `zstd`. Every batch can be unpacked as soon as it is written. Lines on
    /// a terminal are never compressed.
    pub compress: Compression,
}

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ExportKind {
    /// Standard output.
    Stdout,
    /// An OTLP receiver.
    Otlp,
    /// An OTLP receiver, and standard output beside it.
    Both,
}

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
pub enum Protocol {
    /// OTLP/gRPC.
    #[serde(rename = "grpc")]
    #[value(name = "grpc")]
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    #[serde(rename = "http/protobuf")]
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// Compression of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As it is.
    None,
    /// gzip.
    Gzip,
    /// zstd, for receivers that know it.
    Zstd,
}

/// Form on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Lines for people on a terminal, OTLP/JSON in a pipe.
    Auto,
    /// Lines for people.
    Text,
    /// One `ExportLogsServiceRequest` a line, as the collector's `otlpjsonfile` receiver reads it.
    Json,
    /// One flat JSON object a record: its attributes under their own names.
    Ndjson,
}

/// When a batch is sealed: at whichever limit comes first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Records in it. OTEL_BLRP_MAX_EXPORT_BATCH_SIZE sets it.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_records: u32,
    /// Bytes before compression. Receivers usually refuse more than 4 MiB.
    #[schemars(extend("x-min" = "64KiB", "x-max" = "64MiB"))]
    pub max_bytes: Bytes,
    /// Age of its first record. OTEL_BLRP_SCHEDULE_DELAY (ms) sets it. On standard output a batch lasts one tick.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1h"))]
    pub max_age: Span,
}

/// How a request that failed is tried again: full jitter, between these waits, without an end while the queue has room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The first wait is a random time up to this; it doubles at each failure.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1h"))]
    pub initial: Span,
    /// No wait is longer.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1h"))]
    pub max: Span,
    /// The longest silence that a receiver can ask for (Retry-After, gRPC's RetryInfo). A longer one, or a date that is
    /// farther away, is cut to this.
    #[schemars(extend("x-min" = "0s", "x-max" = "1h"))]
    pub longest_silence: Span,
}

/// TLS towards the receiver, for `https` endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's. OTEL_EXPORTER_OTLP_CERTIFICATE sets it.
    #[schemars(example = &"/etc/flowtel/ca.pem")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate chain. OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE sets it.
    #[schemars(example = &"/etc/flowtel/client.pem")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's key. OTEL_EXPORTER_OTLP_CLIENT_KEY sets it.
    #[schemars(example = &"/etc/flowtel/client.key.pem")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// What others may see of flowtel's own state: metrics, an address to ask, a socket for `flowtel status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// flowtel's own metrics, pushed by OTLP.
    pub metrics: Metrics,
    /// An HTTP address for `/metrics` (Prometheus), `/healthz` and `/readyz`.
    pub admin: Admin,
    /// The socket that `flowtel status`, `explain`, `top` and `tail` ask.
    pub status: Status,
    /// The group, by name or number, whose members may ask at `status.socket` and `admin.socket`, beside root and
    /// flowtel's own user. The kernel says who asks. Where the host has no such group, or with an empty text: nobody else. A change needs a
    /// restart.
    pub group: String,
}

/// flowtel's own metrics, pushed by OTLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Push them. When not set: where `telemetry.metrics.endpoint` is set. Many receivers of records (Loki,
    /// Elasticsearch) take no metrics, so an endpoint for records alone does not turn them on.
    #[schemars(example = &true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The receiver's full URL for metrics, used as it is; for `grpc` only scheme, host and port count. When not set:
    /// that of `export.endpoint`, with `/v1/metrics`. OTEL_EXPORTER_OTLP_METRICS_ENDPOINT sets it.
    #[schemars(example = &"http://localhost:4318/v1/metrics")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// `grpc` or `http/protobuf`. When not set: as `export.protocol` says, and where that is not set either, `grpc` on
    /// port 4317, else `http/protobuf`. OTEL_EXPORTER_OTLP_METRICS_PROTOCOL sets it.
    #[schemars(example = &"grpc")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Headers (gRPC: metadata) sent with each request. Those of `export.headers` and `export.headers_file` go along only
    /// where the endpoint is that of `export`. Values are never printed. OTEL_EXPORTER_OTLP_METRICS_HEADERS adds to them.
    pub headers: BTreeMap<String, Secret>,
    /// How often they are pushed. OTEL_METRIC_EXPORT_INTERVAL (ms) sets it.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1day"))]
    pub interval: Span,
}

/// An HTTP address for `/metrics` (Prometheus), `/healthz` and `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// IP address and port, such as `127.0.0.1:9464`. An empty text: none. Whoever reaches it can read the metrics.
    pub address: String,
    /// Allow an `address` that other hosts can reach. There is no authorization and no TLS.
    pub allow_remote: bool,
    /// A path on this host at which the same is answered, for root, flowtel's own user and `telemetry.group`. The directory
    /// is made where it is missing. An empty text: none.
    #[schemars(example = &"/run/flowtel/admin.sock")]
    pub socket: PathBuf,
}

impl Admin {
    /// The address to listen at; `None` where there is none, or where the text is no address.
    pub fn resolve(&self) -> Option<SocketAddr> {
        self.address.trim().parse().ok()
    }
}

/// The socket that `flowtel status`, `explain`, `top` and `tail` ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    /// A path on this host, for root, flowtel's own user and `telemetry.group`. The directory is made where it is missing.
    /// An empty text: none.
    pub socket: PathBuf,
}

/// Which rights flowtel gives up once it has started. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Give up everything that the start alone needed: the user, all capabilities, the way to get others. docs/operations.md,
    /// "Rights", says what is left. `false` keeps all rights; it is a way out, not a setting to run with.
    pub drop: bool,
    /// The user that flowtel becomes, by name or number, where it is started as root. When not set: `flowtel`, where the
    /// host has that user, else 65534.
    #[schemars(example = &"flowtel")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What happens to a system call that flowtel does not need: `enforce` refuses it (EPERM), counts it, and names it
    /// in the log once; `log` lets it through and has the kernel log it; `off` filters nothing.
    pub seccomp: Seccomp,
    /// Confine file access to the directories that the configuration names and the system's own, where the kernel has
    /// Landlock (Linux 5.13 and newer).
    pub landlock: bool,
    /// Keep a small helper process with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, where the start has them. It reads the
    /// executables of other users' processes and the paths of cgroups, and can do nothing else.
    pub helper: bool,
}

/// What happens to a system call that flowtel does not need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// It is refused.
    Enforce,
    /// The kernel logs it and lets it through.
    Log,
    /// Nothing.
    Off,
}

/// flowtel's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`.
    pub level: Level,
    /// `text` or `json`. A change needs a restart.
    pub format: LogFormat,
    /// Print the whole balance at the end, not its last line alone: what became of every kernel event and of every record
    /// (docs/losses.md).
    pub balance: bool,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

// === impl Config

impl Config {
    /// How often open flows are recorded; `None`: never.
    pub fn updates(&self) -> Option<Duration> {
        let every = self.flow.update.0;
        (!every.is_zero() && self.capture.events.has(Events::UPDATES)).then_some(every)
    }

    /// Whether what clients say over TLS is recorded.
    pub fn hellos(&self) -> bool {
        self.capture.tls && self.capture.events.has(Events::HELLOS)
    }
}

// === impl Capture

impl Capture {
    /// Whether open flows are audited: their ends are to be reported.
    pub fn takes_audit(&self) -> bool {
        !self.audit.0.is_zero() && self.events.needs_ends()
    }

    /// Whether the connections that are open at the start are looked for.
    pub fn takes_snapshot(&self) -> bool {
        self.snapshot && (self.events.needs_ends() || self.events.has(Events::OPEN))
    }
}

// === impl Export

impl Export {
    /// Whether records are printed, on standard output or into a file.
    pub fn prints(&self) -> bool {
        match self.kind {
            Some(kind) => kind != ExportKind::Otlp,
            None => self.endpoint.is_none() && self.logs_endpoint.is_none(),
        }
    }
}
