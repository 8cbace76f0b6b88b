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
        Target::Otlp(otlp) => otlp,
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
