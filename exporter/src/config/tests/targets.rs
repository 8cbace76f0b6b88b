//! Where records go.

use super::*;

fn target(settings: &[(&str, &str)]) -> Target {
    load_with(settings).unwrap_or_else(|e| panic!("{e}")).target
}

fn load_with(settings: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let mut sources = sources(&[]);
    sources.overrides = settings.iter().map(|(k, v)| Override::new("--set", Key::new(k), *v)).collect();
    load(&sources)
}

fn otlp(settings: &[(&str, &str)]) -> Otlp {
    match target(settings) {
        Target::Otlp(otlp) => *otlp,
        Target::Stdout { .. } => panic!("standard output"),
    }
}

#[test]
fn an_endpoint_means_otlp_unless_the_kind_says_otherwise() {
    let endpoint = ("export.endpoint", "http://h:4318");
    assert!(matches!(target(&[]), Target::Stdout { .. }));
    assert!(matches!(target(&[endpoint]), Target::Otlp(_)));
    let stdout = target(&[endpoint, ("export.kind", "stdout"), ("export.format", "json")]);
    assert!(matches!(stdout, Target::Stdout { format: Format::Json }));
}

#[test]
fn otlp_without_an_endpoint_means_the_specifications_default() {
    let kind = ("export.kind", "otlp");
    assert_eq!(otlp(&[kind]).url, "http://localhost:4318/v1/logs");
    let grpc = otlp(&[kind, ("export.protocol", "grpc")]);
    assert_eq!((grpc.protocol, grpc.url.to_string().as_str()), (Protocol::Grpc, "http://localhost:4317/"));
}

#[test]
fn the_port_of_grpc_means_grpc_and_a_protocol_wins_over_it() {
    assert_eq!(otlp(&[("export.endpoint", "https://h:4317")]).protocol, Protocol::Grpc);
    for endpoint in ["http://h:4318", "http://h", "https://h:443"] {
        assert_eq!(otlp(&[("export.endpoint", endpoint)]).protocol, Protocol::HttpProtobuf, "{endpoint}");
    }
    let http = otlp(&[("export.endpoint", "http://h:4317"), ("export.protocol", "http/protobuf")]);
    assert_eq!(http.url, "http://h:4317/v1/logs");
}

#[test]
fn the_path_for_logs_is_added_to_a_base_address() {
    for (base, url) in [
        ("http://h:4318", "http://h:4318/v1/logs"),
        ("http://h:4318/", "http://h:4318/v1/logs"),
        ("HTTP://h/otlp", "http://h/otlp/v1/logs"),
        ("https://h/otlp/?k=v", "https://h/otlp/v1/logs?k=v"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/logs"),
    ] {
        assert_eq!(otlp(&[("export.endpoint", base)]).url, url);
    }
}

#[test]
fn grpc_takes_scheme_host_and_port_only() {
    assert_eq!(otlp(&[("export.endpoint", "https://h:4317/path")]).url, "https://h:4317/");
}

#[test]
fn grpc_without_a_scheme_is_secure_unless_told_otherwise() {
    assert_eq!(otlp(&[("export.endpoint", "h:4317")]).url, "https://h:4317/");
    let insecure = ("export.insecure", "true");
    assert_eq!(otlp(&[("export.endpoint", "h:4317"), insecure]).url, "http://h:4317/");
    assert_eq!(otlp(&[("export.endpoint", "https://h:4317"), insecure]).url, "https://h:4317/", "a scheme wins");
    let error = load_with(&[("export.endpoint", "h:4318"), insecure]).expect_err("http needs a scheme");
    assert!(error.to_string().contains("needs http:// or https://"), "{error}");
}

#[test]
fn user_and_password_become_basic_authorization_and_leave_the_url() {
    let target = otlp(&[("export.endpoint", "https://me:a%20b@h:4318")]);
    assert_eq!(target.url, "https://h:4318/v1/logs");
    assert_eq!(target.headers["authorization"], "Basic bWU6YSBi");
    assert!(target.headers["authorization"].is_sensitive());
    let own = otlp(&[("export.endpoint", "https://me:x@h"), ("export.headers.authorization", "Bearer t")]);
    assert_eq!(own.headers["authorization"], "Bearer t", "a header that was set wins");
}

#[test]
fn an_address_that_cannot_be_used_is_refused() {
    for address in
        ["http://", "http://:4318", "http://h:", "http://h:0", "http://h:x", "h h", "unix:/x", "file:///x", ""]
    {
        let problems = load_with(&[("export.endpoint", address)]).map(|l| l.target).expect_err(address);
        assert_eq!(problems.problems()[0].key, Some(Key::new("export.endpoint")), "{address}");
    }
}

#[test]
fn a_header_of_the_transport_or_a_printed_placeholder_is_refused() {
    for (name, value) in [("content-type", "x"), ("Host", "x"), ("grpc-timeout", "1S"), ("x", "[hidden]")] {
        assert!(load_with(&[(&format!("export.headers.{name}"), value)]).is_err(), "{name}");
    }
}

// === where metrics go

fn metrics(settings: &[(&str, &str)]) -> Option<Otlp> {
    let config = load_with(settings).unwrap_or_else(|e| panic!("{e}")).config;
    config.telemetry.metrics.resolve(&config.export).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn metrics_are_pushed_only_where_somebody_asked_for_it() {
    let records = ("export.endpoint", "http://h:4318");
    let own = ("telemetry.metrics.endpoint", "http://m:4318/v1/metrics");
    assert!(metrics(&[]).is_none() && metrics(&[records]).is_none(), "many receivers of logs take none");
    assert!(metrics(&[own]).is_some() && metrics(&[own, ("telemetry.metrics.enabled", "false")]).is_none());
    assert!(metrics(&[records, ("telemetry.metrics.enabled", "true")]).is_some());
}

#[test]
fn metrics_go_to_the_receiver_of_records_by_a_path_of_their_own_or_where_they_are_sent() {
    let on = ("telemetry.metrics.enabled", "true");
    let url = |settings: &[(&str, &str)]| metrics(settings).expect("they are pushed").url.to_string();
    assert_eq!(url(&[on]), "http://localhost:4318/v1/metrics");
    assert_eq!(url(&[on, ("export.protocol", "grpc")]), "http://localhost:4317/");
    assert_eq!(url(&[on, ("export.endpoint", "https://h/otlp/")]), "https://h/otlp/v1/metrics");
    assert_eq!(url(&[("telemetry.metrics.endpoint", "http://m:1/x")]), "http://m:1/x");
    let grpc = metrics(&[("telemetry.metrics.endpoint", "http://m:4317"), ("export.endpoint", "http://h:4318")]);
    assert_eq!(grpc.map(|to| to.protocol), Some(Protocol::Grpc));
    let error = load_with(&[on, ("export.logs_endpoint", "http://h/logs")]).expect_err("no base address");
    assert!(error.to_string().contains("telemetry.metrics.enabled: needs telemetry.metrics.endpoint"), "{error}");
}

#[test]
fn a_secret_for_the_receiver_of_records_goes_nowhere_else() {
    let secret = ("export.headers.authorization", "secret");
    let own = ("telemetry.metrics.headers.x-team", "a");
    let file = ("export.headers_file", "/run/headers");
    let shared = metrics(&[secret, file, own, ("telemetry.metrics.enabled", "true")]).expect("they are pushed");
    assert_eq!(shared.headers_file.as_deref(), Some(std::path::Path::new("/run/headers")));
    assert_eq!(
        (&shared.headers["authorization"], &shared.headers["x-team"]),
        (&"secret".parse().unwrap(), &"a".parse().unwrap())
    );
    let elsewhere = metrics(&[secret, file, own, ("telemetry.metrics.endpoint", "http://m:4318/v1/metrics")]);
    let elsewhere = elsewhere.expect("they are pushed");
    assert_eq!(elsewhere.headers_file, None);
    let elsewhere = elsewhere.headers;
    assert!(elsewhere.get("authorization").is_none() && elsewhere.contains_key("x-team"));
    let error = load_with(&[("telemetry.metrics.headers.host", "h")]).expect_err("a header of the transport's");
    assert!(error.to_string().contains("telemetry.metrics.headers.host: "), "{error}");
}
