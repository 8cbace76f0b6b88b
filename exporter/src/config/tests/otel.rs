//! OpenTelemetry's variables, by the OTLP exporter specification.

use super::*;

#[test]
fn the_general_endpoint_is_a_base_and_the_one_for_logs_is_used_as_it_is() {
    let target = |env: &[(&str, &str)]| loaded(&sources(env)).target.to_string();
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/otlp");
    assert!(target(&[general]).starts_with("http://h:4318/otlp/v1/logs "));
    let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://h:4318/in");
    assert!(target(&[general, logs]).starts_with("http://h:4318/in "));
    assert!(target(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://h:4318")]).starts_with("http://h:4318/ "));
}

#[test]
fn a_variable_for_logs_wins_over_the_general_one() {
    let loaded = loaded(&sources(&[
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2000"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "3000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "GZIP"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "b=2%20%3D"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
    ]));
    let export = &loaded.config.export;
    assert_eq!(export.timeout, secs(2));
    assert_eq!(export.compression, Compression::Gzip);
    assert_eq!(export.protocol, Some(Protocol::Grpc));
    assert_eq!(export.headers.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(export.headers["b"].expose(), "2 =");
    let origin = loaded.origins.get(&Key::new("export.timeout")).to_string();
    assert_eq!(origin, "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT");
}

#[test]
fn all_variables_reach_their_keys() {
    let loaded = loaded(&sources(&[
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "250"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "3000"),
    ]));
    let export = loaded.config.export;
    assert_eq!(export.tls.ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(export.tls.cert_file.as_deref(), Some(Path::new("/cert")));
    assert_eq!(export.tls.key_file.as_deref(), Some(Path::new("/key")));
    assert!(export.insecure);
    assert_eq!(export.batch.max_records, 100);
    assert_eq!(export.batch.max_age, Span(Duration::from_millis(250)));
    assert_eq!(export.timeout, secs(3));
}

#[test]
fn the_service_name_of_its_own_variable_beats_that_of_the_attributes() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=pr%C3%B6d");
    let config = loaded(&sources(&[attributes])).config;
    assert_eq!(config.record.service_name, "a");
    assert_eq!(config.record.resource["deployment.environment.name"], "pröd");
    let config = loaded(&sources(&[attributes, ("OTEL_SERVICE_NAME", "b")])).config;
    assert_eq!(config.record.service_name, "b");
    assert!(!config.record.resource.contains_key("service.name"));
}

#[test]
fn a_wrong_value_is_an_error_that_names_the_variable_and_what_was_expected() {
    for (name, value, expected) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "expected \"grpc\" or \"http/protobuf\", found \"http/json\""),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "brotli", "expected \"none\", \"gzip\" or \"zstd\", found \"brotli\""),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "expected milliseconds, such as 10000, found \"10s\""),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "expected a duration from 1ms"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "1", "expected true or false, found \"1\""),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "-1", "expected a whole number from 1 to 1000000, found -1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///run/x", "neither http nor https"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%", "entry 1 is not percent-encoded"),
    ] {
        let problem = problem_of_env(&[(name, value)]);
        assert!(problem.starts_with(name) && problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_wrong_header_list_is_refused_without_being_quoted() {
    for value in ["a=1,hunter2", "=hunter2", "a=hunter2%", "a=hunter2%0a", "a b=hunter2"] {
        let problem = problem_of_env(&[("OTEL_EXPORTER_OTLP_HEADERS", value)]);
        assert!(problem.starts_with("OTEL_EXPORTER_OTLP_HEADERS: ") && !problem.contains("hunter2"), "{problem}");
    }
}
