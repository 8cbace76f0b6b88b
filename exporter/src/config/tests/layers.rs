//! Which layer wins, and what it says it was.

use super::*;

#[test]
fn without_any_source_all_is_default_and_goes_to_standard_output() {
    let loaded = loaded(&sources(&[]));
    assert_eq!(loaded.config, Config::default());
    assert!(matches!(loaded.target, Target::Stdout { format: Format::Auto }));
    assert_eq!(*loaded.origins.get(&Key::new("export.timeout")), Origin::Default);
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |sources: &Sources| {
        let loaded = loaded(sources);
        let origin = loaded.origins.get(&Key::new("export.batch.max_age")).to_string();
        (loaded.config.export.batch.max_age, origin.replace(&format!("{}/", dir.path().display()), ""))
    };
    let mut sources = etc(dir.path(), "[export.batch]\nmax_age = \"2s\"");
    assert_eq!(at(&sources), (secs(2), "flowtel.toml:2".into()));
    write(dir.path(), "conf.d/20.toml", "export.batch.max_age = \"4s\"");
    write(dir.path(), "conf.d/10.toml", "export.batch.max_age = \"3s\"");
    write(dir.path(), "conf.d/30.toml.bak", "export.batch.max_age = \"99s\"");
    write(dir.path(), "conf.d/.40.toml", "export.batch.max_age = \"99s\"");
    assert_eq!(at(&sources), (secs(4), "conf.d/20.toml:1".into()));
    write(dir.path(), "mine.toml", "\n\nexport = { batch = { max_age = \"5s\" } }");
    sources.config_file = Some(dir.path().join("mine.toml"));
    assert_eq!(at(&sources), (secs(5), "mine.toml:3".into()));
    sources.env.insert("OTEL_BLRP_SCHEDULE_DELAY".into(), "6000".into());
    assert_eq!(at(&sources), (secs(6), "OTEL_BLRP_SCHEDULE_DELAY".into()));
    sources.env.insert("FLOWTEL_EXPORT__BATCH__MAX_AGE".into(), "7s".into());
    assert_eq!(at(&sources), (secs(7), "FLOWTEL_EXPORT__BATCH__MAX_AGE".into()));
    sources.overrides.push(Override::new("--set", Key::new("export.batch.max_age"), "8s"));
    assert_eq!(at(&sources), (secs(8), "flag --set".into()));
}

#[test]
fn rules_and_words_come_from_files_variables_and_flags_and_the_last_layer_replaces_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = |sources: &Sources| {
        let config = loaded(sources).config;
        (config.capture.filter.0.iter().map(ToString::to_string).collect::<Vec<_>>(), config.capture.events)
    };
    let text = "[capture]\nevents = [\"net_flow_tcp_begin\", \"flowtel.gap\"]\n[[capture.filter]]\naction = \"exclude\"\n\
                destination_port = [22, \"8000-8999\"]\n[[capture.filter]]\naction = \"include\"";
    let mut sources = etc(dir.path(), text);
    let first =
        (vec!["exclude destination_port=22,8000-8999".to_owned(), "include".into()], Events::BEGINS.and(Events::GAPS));
    assert_eq!(rules(&sources), first);
    for (value, rule) in [
        ("include port=1; exclude", vec!["include port=1", "exclude"]),
        ("[\"include port=2\"]", vec!["include port=2"]),
        ("[{\"action\": \"exclude\", \"port\": 3}]", vec!["exclude port=3"]),
        ("[{ action = \"exclude\", port = [4] }, \"include\"]", vec!["exclude port=4", "include"]),
    ] {
        sources.env.insert("FLOWTEL_CAPTURE__FILTER".into(), value.into());
        assert_eq!(rules(&sources).0, rule, "{value}");
    }
    for (value, events) in [
        ("flows", Events::FLOWS),
        ("begins,flowtel.tcp.flow.failed", Events::BEGINS.and(Events::FAILED)),
        ("[\"net_flow_tcp_end\"]", Events::ENDS),
    ] {
        sources.env.insert("FLOWTEL_CAPTURE__EVENTS".into(), value.into());
        assert_eq!(rules(&sources).1, events, "{value}");
    }
    sources.overrides.push(Override::new("--include, --exclude", Key::new("capture.filter"), "exclude uid=0\ninclude"));
    sources.overrides.push(Override::new("--set", Key::new("capture.events"), "network_events"));
    sources.overrides.push(Override::new("--set", Key::new("capture.sample"), "0.25"));
    assert_eq!(rules(&sources), (vec!["exclude user=0".into(), "include".into()], Events::NETWORK_EVENTS));
    assert_eq!(loaded(&sources).config.capture.sample, 0.25);
}

#[test]
fn a_later_layer_adds_to_tables_whose_keys_the_user_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut sources = etc(
        dir.path(),
        "[export.headers]\nX-Tenant = \"a\"\nAuthorization = \"b\"\n[record.resource]\nservice.version = \"1\"",
    );
    sources.env.insert("OTEL_EXPORTER_OTLP_HEADERS".into(), "authorization=c".into());
    sources.env.insert("FLOWTEL_RECORD__RESOURCE".into(), "{ \"deployment.environment.name\" = \"prod\" }".into());
    sources.overrides.push(Override::new("--set", Key::new("record.resource.host.name"), "h"));
    let loaded = loaded(&sources);
    let headers: Vec<_> = loaded.config.export.headers.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
    assert_eq!(headers, [("authorization", "c"), ("x-tenant", "a")], "header names know no case");
    let names: Vec<_> = loaded.config.record.resource.keys().map(String::as_str).collect();
    assert_eq!(names, ["deployment.environment.name", "host.name", "service.version"]);
    let key = Key::new("export.headers").child("authorization");
    assert_eq!(loaded.origins.get(&key).to_string(), "OTEL_EXPORTER_OTLP_HEADERS");
}

#[test]
fn an_endpoint_of_a_later_layer_replaces_an_earlier_logs_endpoint() {
    let mut sources = sources(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4318/in"),
    ]);
    assert!(loaded(&sources).target.to_string().starts_with("http://logs:4318/in "));
    sources.overrides.push(Override::new("--endpoint", Key::new("export.endpoint"), "http://mine:4318"));
    let loaded = loaded(&sources);
    assert!(loaded.target.to_string().starts_with("http://mine:4318/v1/logs "));
    assert_eq!(loaded.config.export.logs_endpoint, None);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let loaded = loaded(&sources(&[("FLOWTEL_LOG__LEVEL", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn variables_of_kubernetes_and_of_others_are_passed_over() {
    loaded(&sources(&[("FLOWTEL_SERVICE_HOST", "10.0.0.1"), ("FLOWTEL_PORT_4317_TCP", "tcp://10.0.0.1:4317")]));
    loaded(&sources(&[("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "?"), ("PATH", "/bin")]));
}

#[test]
fn numbers_and_booleans_of_variables_are_read_as_such() {
    let loaded = loaded(&sources(&[("FLOWTEL_CAPTURE__EXCLUDE_SELF", "False"), ("FLOWTEL_EXPORT__CONCURRENCY", " 8")]));
    assert!(!loaded.config.capture.exclude_self);
    assert_eq!(loaded.config.export.concurrency, 8);
}

#[test]
fn sizes_and_durations_may_be_written_in_all_their_forms() {
    let dir = tempfile::tempdir().expect("a directory");
    let sources =
        etc(dir.path(), "queue.max_bytes = 4194304\nexport.grace = \"1m 30s\"\nexport.batch.max_bytes = \"1MB\"");
    let config = loaded(&sources).config;
    assert_eq!((config.queue.max_bytes, config.export.grace), (Bytes(4 << 20), secs(90)));
    assert_eq!(config.export.batch.max_bytes, Bytes(1_000_000));
}
