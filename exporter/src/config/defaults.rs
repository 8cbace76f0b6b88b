//! The built-in layer: what a setting is when nothing says otherwise.

use std::{collections::BTreeMap, time::Duration};

use super::{
    output::Rotate,
    rules::Rules,
    sets::{Events, Groups},
    types::*,
    units::{Bytes, Span},
};

impl Default for Capture {
    fn default() -> Self {
        Self {
            cgroup: "root".into(),
            tick: Span(Duration::from_millis(50)),
            events: Events::NETWORK_EVENTS,
            filter: Rules::default(),
            filter_default: None,
            sample: 1.0,
            snapshot: true,
            audit: Span(Duration::from_secs(15)),
            pin: None,
            tls: false,
            exclude_self: true,
            rings: Rings::default(),
        }
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            flows: Bytes(2 << 20),
            owners: Bytes(1 << 20),
            answers: Bytes(512 << 10),
            execs: Bytes(256 << 10),
            hellos: Bytes(1 << 20),
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            max_attempts: 131_072,
            max_flows: 131_072,
            attempt_age: Span(Duration::from_secs(600)),
            update: Span(Duration::ZERO),
        }
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self {
            acceptor: true,
            executable: true,
            exec: true,
            arguments: Arguments::Off,
            container: true,
            proc: "/proc".into(),
            max_processes: 16_384,
            max_cgroups: 4096,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            enabled: true,
            min_ttl: Span(Duration::from_secs(30)),
            max_ttl: Span(Duration::from_secs(3600)),
            grace: Span(Duration::from_secs(600)),
            max_addresses: 65_536,
            max_bytes: Bytes(32 << 20),
            source_share: 50,
            reverse: Reverse::Off,
            hosts_file: "/etc/hosts".into(),
            fallback: true,
            ports: vec![53],
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self {
            schema_version: 2,
            event_name_attribute: None,
            groups: Groups::default(),
            service_name: "flowtel".into(),
            resource: BTreeMap::new(),
            attributes: Attributes::default(),
            shorten: Shorten::default(),
            hash: Hash::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            kind: QueueKind::Memory,
            path: "/var/lib/flowtel/queue".into(),
            sync_interval: Span(Duration::from_millis(200)),
            max_bytes: Bytes(64 << 20),
            max_memory: Bytes(64 << 20),
            on_full: OnFull::DropOldest,
        }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self {
            kind: None,
            endpoint: None,
            logs_endpoint: None,
            protocol: None,
            insecure: false,
            compression: Compression::None,
            headers: BTreeMap::new(),
            headers_file: None,
            timeout: Span(Duration::from_secs(10)),
            concurrency: 4,
            grace: Span(Duration::from_secs(10)),
            batch: Batch::default(),
            retry: Retry::default(),
            tls: Tls::default(),
            hold: Vec::new(),
            format: Format::Auto,
            path: None,
            rotate: Rotate::default(),
            compress: Compression::None,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        // More would not fit the CPU's caches between the thread that writes it and the one that sends it (docs/performance.md).
        Self { max_records: 512, max_bytes: Bytes(1 << 20), max_age: Span(Duration::from_secs(1)) }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Span(Duration::from_secs(1)),
            max: Span(Duration::from_secs(30)),
            longest_silence: Span(Duration::from_secs(300)),
        }
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self { cgroup_rate: 50_000, cgroup_burst: 1_000_000 }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            metrics: Metrics::default(),
            admin: Admin::default(),
            status: Status::default(),
            group: "flowtel".into(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: None,
            endpoint: None,
            protocol: None,
            headers: BTreeMap::new(),
            interval: Span(Duration::from_secs(60)),
        }
    }
}

impl Default for Status {
    fn default() -> Self {
        Self { socket: "/run/flowtel/status.sock".into() }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self { drop: true, user: None, seccomp: Seccomp::Enforce, landlock: true, helper: true }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Text, balance: false }
    }
}
