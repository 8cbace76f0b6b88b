//! Values looked at together: a configuration whose values each are right comes in, what can't work goes out.

use flowtel_common::event::DNS_PORTS;

use super::{
    key::Key,
    origin::{Origin, Origins},
    problem::Problem,
    rules::Rule,
    target::{Target, TargetError},
    types::{Config, Protocol, QueueKind, Record},
    units::Bytes,
};

/// Above this, receivers with gRPC's usual limit refuse a request.
const USUAL_LIMIT: Bytes = Bytes(4 << 20);

/// What fits into sockaddr_un, with the zero that ends it (unix(7)).
const MAX_SOCKET: usize = 107;

/// Checks the whole. `Ok`: the target and warnings.
pub(super) fn validate(config: &Config, origins: &Origins) -> Result<(Target, Vec<Problem>), Vec<Problem>> {
    let mut check = Check { origins, problems: Vec::new() };
    capture(config, &mut check);
    owner(config, &mut check);
    dns(config, &mut check);
    record(config, &mut check);
    queue(config, &mut check);
    export(config, &mut check);
    output(config, &mut check);
    telemetry(config, &mut check);
    if let Err(e) = config.telemetry.metrics.resolve(&config.export)
        && e.key.starts_with("telemetry.")
    {
        check.target(e);
    }
    match config.export.resolve() {
        Ok(target) if check.problems.is_empty() => {
            let mut warn = Check { origins, problems: Vec::new() };
            warnings(config, &target, &mut warn);
            Ok((target, warn.problems))
        }
        Ok(_) => Err(check.problems),
        Err(e) => {
            check.target(e);
            Err(check.problems)
        }
    }
}

struct Check<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn at(&mut self, key: &Key, message: impl Into<String>) {
        self.problems.push(Problem::at(self.origins.get(key), key, message));
    }

    fn target(&mut self, e: TargetError) {
        let headers = ["export.headers", "telemetry.metrics.headers"];
        let header = headers.iter().find_map(|table| {
            let name = e.key.strip_prefix(table)?.strip_prefix('.')?;
            Some(Key::new(table).child(name))
        });
        self.at(&header.unwrap_or_else(|| Key::new(&e.key)), e.message);
    }

    fn require(&mut self, holds: bool, key: &str, message: impl Into<String>) {
        if !holds {
            self.at(&Key::new(key), message);
        }
    }

    /// Of two keys that don't fit each other, the one that somebody set.
    fn set_one<'k>(&self, first: &'k str, second: &'k str) -> &'k str {
        if *self.origins.get(&Key::new(first)) == Origin::Default { second } else { first }
    }
}

fn capture(config: &Config, check: &mut Check<'_>) {
    let cgroup = &config.capture.cgroup;
    let message = format!("expected \"root\", \"self\" or an absolute path, found \"{cgroup}\"");
    check.require(cgroup == "root" || cgroup == "self" || cgroup.starts_with('/'), "capture.cgroup", message);
    if let Some(pin) = &config.capture.pin {
        let message = format!("expected an absolute path, found \"{}\"", pin.display());
        check.require(pin.is_absolute(), "capture.pin", message);
    }
    check.require(!config.capture.events.is_empty(), "capture.events", "expected at least one event, found none");
    // The kernel takes rings of a power of two of pages only; the limits are above the largest page size, 64 KiB.
    let rings = &config.capture.rings;
    for (key, size) in [
        ("capture.rings.flows", rings.flows),
        ("capture.rings.owners", rings.owners),
        ("capture.rings.answers", rings.answers),
    ] {
        let message =
            format!("expected a power of two, such as \"{}\", found {size}", Bytes(size.0.next_power_of_two()));
        check.require(size.0.is_power_of_two(), key, message);
    }
}

fn owner(config: &Config, check: &mut Check<'_>) {
    let proc = &config.owner.proc;
    let message = format!("expected an absolute path, found \"{}\"", proc.display());
    check.require(proc.is_absolute(), "owner.proc", message);
}

fn dns(config: &Config, check: &mut Check<'_>) {
    let dns = &config.dns;
    let key = check.set_one("dns.min_ttl", "dns.max_ttl");
    let message = format!("dns.min_ttl ({}) must not exceed dns.max_ttl ({})", dns.min_ttl, dns.max_ttl);
    check.require(dns.min_ttl <= dns.max_ttl, key, message);
    let ports = &dns.ports;
    let message = format!("expected 1 to {DNS_PORTS} ports, found {}", ports.len());
    check.require((1..=DNS_PORTS).contains(&ports.len()), "dns.ports", message);
    let out_of_reach = [
        (0, "there is no port 0"),
        (853, "what is asked there is encrypted (DNS over TLS or QUIC), and can't be read"),
        (5353, "answers of multicast DNS go to a group and need no question, so anybody may forge them"),
    ];
    for (port, why) in out_of_reach {
        check.require(!ports.contains(&port), "dns.ports", format!("{port} can't be watched: {why}"));
    }
}

fn record(config: &Config, check: &mut Check<'_>) {
    check.require(!config.record.service_name.trim().is_empty(), "record.service_name", "expected a name, found none");
    for name in config.record.resource.keys() {
        let key = Key::new("record.resource").child(name);
        if name.trim().is_empty() {
            check.at(&key, "expected an attribute's name, found none");
        } else if name == "service.name" {
            check.at(&key, "this attribute is set by record.service_name");
        }
    }
    let hash = &config.record.hash;
    let key = hash.key.is_some() || hash.key_file.is_some();
    check.require(
        key || hash.attributes.is_empty(),
        "record.hash.attributes",
        "needs a key: record.hash.key or record.hash.key_file",
    );
    let empty = hash.key_file.as_ref().is_some_and(|path| path.as_os_str().is_empty());
    check.require(!empty, "record.hash.key_file", "expected a file's path, found none");
}

/// What is hidden in one place and shown in another.
fn privacy(config: &Config, warn: &mut Check<'_>) {
    let Record { attributes, shorten, hash, .. } = &config.record;
    let hidden = |name: &str| hash.attributes.has(name) || attributes.exclude.has(name);
    for (address, names) in
        [("source.address", "flowtel.source.dns.names"), ("destination.address", "flowtel.destination.dns.names")]
    {
        let shown =
            config.dns.enabled && !hidden(names) && (attributes.include.is_empty() || attributes.include.has(names));
        let message = format!("{address} is hidden, but {names} still shows whose address it is");
        warn.require(!hidden(address) || !shown, "record.attributes.exclude", message);
    }
    let keyed = hash.key.is_some() || hash.key_file.is_some();
    let whole = |name: &str| {
        let included = attributes.include.is_empty() || attributes.include.has(name);
        included && !hidden(name) && shorten.ipv4.is_none() && shorten.ipv6.is_none()
    };
    let message = "without a key the ids of flows are still made of the whole addresses: who knows the host's boot id can test \
                   guesses; any key in record.hash.key_file prevents that";
    warn.require(keyed || (whole("source.address") && whole("destination.address")), "record.hash.key_file", message);
    let used = !hash.attributes.is_empty()
        || shorten.ipv4.is_some()
        || shorten.ipv6.is_some()
        || attributes.exclude != Default::default()
        || attributes.include != Default::default();
    let key = if hash.key.is_some() { "record.hash.key" } else { "record.hash.key_file" };
    warn.require(used || !keyed, key, "not used, because record.hash.attributes is empty");
}

fn queue(config: &Config, check: &mut Check<'_>) {
    let (queue, batch) = (config.queue.max_bytes, config.export.batch.max_bytes);
    let key = check.set_one("queue.max_bytes", "export.batch.max_bytes");
    let message = format!("queue.max_bytes ({queue}) must be at least twice export.batch.max_bytes ({batch})");
    check.require(queue.0 >= batch.0.saturating_mul(2), key, message);
    if config.queue.kind == QueueKind::Disk {
        let memory = config.queue.max_memory;
        let key = check.set_one("queue.max_memory", "export.batch.max_bytes");
        let message = format!("queue.max_memory ({memory}) must be at least twice export.batch.max_bytes ({batch})");
        check.require(memory.0 >= batch.0.saturating_mul(2), key, message);
        let path = &config.queue.path;
        let message = format!("expected an absolute path, found \"{}\"", path.display());
        check.require(path.is_absolute(), "queue.path", message);
    }
}

/// Statuses after which a batch is split, or sent again (opentelemetry-proto's specification, "OTLP/HTTP Response").
const NEVER_DISCARDED: [u16; 5] = [413, 429, 502, 503, 504];

fn export(config: &Config, check: &mut Check<'_>) {
    let retry = &config.export.retry;
    let key = check.set_one("export.retry.initial", "export.retry.max");
    let message = format!("export.retry.initial ({}) must not exceed export.retry.max ({})", retry.initial, retry.max);
    check.require(retry.initial <= retry.max, key, message);
    for status in &config.export.hold {
        let discards = (300..600).contains(status) && !NEVER_DISCARDED.contains(status);
        let message = format!(
            "{status} is no status for which a batch is discarded: 300 to 599, but 413 (the batch is split), 429, 502, 503 and 504 \
             (it is sent again anyway)"
        );
        check.require(discards, "export.hold", message);
    }
    match (&config.export.tls.cert_file, &config.export.tls.key_file) {
        (Some(_), None) => check.require(false, "export.tls.cert_file", "needs export.tls.key_file beside it"),
        (None, Some(_)) => check.require(false, "export.tls.key_file", "needs export.tls.cert_file beside it"),
        _ => {}
    }
    let (tls, headers_file) = (&config.export.tls, &config.export.headers_file);
    for (key, file) in [
        ("export.tls.ca_file", &tls.ca_file),
        ("export.tls.cert_file", &tls.cert_file),
        ("export.tls.key_file", &tls.key_file),
        ("export.headers_file", headers_file),
    ] {
        let empty = file.as_ref().is_some_and(|path| path.as_os_str().is_empty());
        check.require(!empty, key, "expected a file's path, found none");
    }
}

/// Rules that can't do what they seem to.
fn filter(config: &Config, warn: &mut Check<'_>) {
    let (capture, owner) = (&config.capture, &config.owner);
    let rules = &capture.filter.0;
    let asks = |any: fn(&Rule) -> bool| rules.iter().any(any);
    if asks(|rule| !rule.cgroup.is_empty() || !rule.container.is_empty()) && !owner.container {
        warn.require(false, "capture.filter", "cgroups and containers are not looked up, for owner.container is false");
    }
    if asks(|rule| rule.process.iter().any(|p| p.0.starts_with('/'))) && !owner.executable {
        warn.require(false, "capture.filter", "paths of executables are not looked up, for owner.executable is false");
    }
    let default = capture.filter.default_action(capture.filter_default);
    if let Some(last) = rules.last().filter(|last| last.action == default) {
        let message = format!("the last rule, {last}, changes nothing: what no rule matches has the same fate");
        warn.require(false, "capture.filter", message);
    }
    if let Some(n) = rules.iter().position(Rule::is_for_all).filter(|n| n + 1 < rules.len()) {
        let message = format!("rule {} matches everything: those behind it are never asked", n + 1);
        warn.require(false, "capture.filter", message);
    }
}

fn telemetry(config: &Config, check: &mut Check<'_>) {
    let admin = &config.telemetry.admin;
    if !admin.address.trim().is_empty() {
        match admin.resolve() {
            None => {
                let message = format!(
                    "expected an IP address and a port, such as \"127.0.0.1:9464\", found \"{}\"",
                    admin.address
                );
                check.require(false, "telemetry.admin.address", message);
            }
            Some(address) => check.require(
                address.ip().is_loopback() || admin.allow_remote,
                "telemetry.admin.address",
                format!(
                    "other hosts can reach {address}, and there is no authorization: set telemetry.admin.allow_remote \
                         where that is meant"
                ),
            ),
        }
    }
    let (status, admin) = (&config.telemetry.status.socket, &admin.socket);
    for (key, socket) in [("telemetry.status.socket", status), ("telemetry.admin.socket", admin)] {
        let message =
            format!("expected an absolute path of at most {MAX_SOCKET} bytes, found \"{}\"", socket.display());
        let fits = socket.as_os_str().is_empty() || (socket.is_absolute() && socket.as_os_str().len() <= MAX_SOCKET);
        check.require(fits, key, message);
    }
    let message = format!("expected another path than telemetry.status.socket, found \"{}\"", admin.display());
    check.require(admin.as_os_str().is_empty() || status != admin, "telemetry.admin.socket", message);
}

/// What is printed, and into which file.
fn output(config: &Config, check: &mut Check<'_>) {
    if let Some(path) = &config.export.path {
        let message = format!("expected an absolute path of a file, found \"{}\"", path.display());
        check.require(path.is_absolute() && path.file_name().is_some(), "export.path", message);
    }
}

fn warnings(config: &Config, target: &Target, warn: &mut Check<'_>) {
    filter(config, warn);
    privacy(config, warn);
    let export = &config.export;
    if export.path.is_some() && !export.prints() {
        warn.require(false, "export.path", "not used, because export.kind is otlp: set it to stdout or both");
    }
    let Target::Otlp(otlp) = target else {
        // Not said of variables: they are often set for a whole system, of which flowtel is one part.
        if matches!(warn.origins.get(&Key::new("export.endpoint")), Origin::Flag(_)) {
            warn.require(false, "export.endpoint", "not used, for export.kind is stdout");
        }
        return;
    };
    warn.require(
        export.batch.max_bytes <= USUAL_LIMIT,
        "export.batch.max_bytes",
        format!("receivers usually refuse more than {USUAL_LIMIT}"),
    );
    let unusual = match (otlp.protocol, otlp.url.port_u16()) {
        (Protocol::Grpc, Some(4318)) => Some("grpc, but 4318 is usually the port of http/protobuf"),
        (Protocol::HttpProtobuf, Some(4317)) => Some("http/protobuf, but 4317 is usually the port of grpc"),
        _ => None,
    };
    warn.require(unusual.is_none(), "export.protocol", unusual.unwrap_or_default());
    if otlp.url.scheme_str() == Some("http") && export.tls != crate::config::Tls::default() {
        warn.require(false, "export.tls", "not used, for the address begins with http://");
    }
}
