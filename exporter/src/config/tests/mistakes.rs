//! What is said of a configuration that can't be used.

use super::*;

#[test]
fn a_least_time_to_live_above_the_longest_is_told_at_the_one_that_was_set() {
    assert_eq!(
        problems_of("[dns]\nmin_ttl = \"2h\""),
        ["flowtel.toml:2: dns.min_ttl: dns.min_ttl (2h) must not exceed dns.max_ttl (1h)"]
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_its_nearest_neighbour() {
    assert_eq!(
        problems_of("[export]\n\nendpiont = \"http://h:4318\""),
        ["flowtel.toml:3: export.endpiont: unknown key; the nearest known one is export.endpoint"]
    );
    assert_eq!(
        problems_of("[exprot]\nendpoint = \"x\"\nkind = 1"),
        ["flowtel.toml:1: exprot: unknown key; the nearest known one is export"]
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problems = problems_of("export = { concurrency = 0, timeout = \"soon\" }\nlog.level = \"loud\"\nqueue = 5");
    assert_eq!(
        problems,
        [
            "flowtel.toml:3: queue: expected a table of settings",
            "flowtel.toml:1: export.concurrency: expected a whole number from 1 to 64, found 0",
            "flowtel.toml:1: export.timeout: expected a duration from 1ms to 1h, such as \"250ms\" or \"1m 30s\", found \"soon\"",
            "flowtel.toml:2: log.level: expected \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", found \"loud\"",
        ]
    );
}

#[test]
fn values_of_the_wrong_kind_or_beyond_their_limits_are_refused() {
    for (text, expected) in [
        ("capture.tick = \"1ms\"", "a duration from 5ms to 1s"),
        ("capture.tick = 50", "a duration from 5ms to 1s"),
        ("capture.rings.flows = \"4KiB\"", "a size from 64KiB to 1GiB"),
        ("capture.rings.flows = \"100KiB\"", "a power of two, such as \"128KiB\""),
        ("capture.rings.owners = -1", "a size from 64KiB to 1GiB"),
        ("capture.cgroup = \"self/x\"", "\"self\" or an absolute path"),
        ("capture.exclude_self = \"yes\"", "true or false"),
        ("flow.max_attempts = 5", "a whole number from 1024 to 16777216"),
        ("export.batch.max_records = 0", "a whole number from 1 to 1000000"),
        ("export.batch.max_bytes = \"1GiB\"", "a size from 64KiB to 64MiB"),
        ("export.concurrency = 65", "a whole number from 1 to 64"),
        ("export.concurrency = 1.5", "found 1.5"),
        ("export.hold = [401, 413]", "413 is no status for which a batch is discarded"),
        ("export.hold = [200]", "200 is no status for which a batch is discarded"),
        ("export.timeout = \"0s\"", "a duration from 1ms to 1h"),
        ("export.protocol = \"http/json\"", "\"grpc\" or \"http/protobuf\", found \"http/json\""),
        ("export.endpoint = [\"a\"]", "an address such as \"http://host:4318\", found an array"),
        ("export.endpoint = { url = \"a\" }", "found a table"),
        ("record.resource = \"a=b\"", "a table of texts"),
        ("record.resource.\"\" = \"b\"", "an attribute's name"),
        ("record.resource.x = 5", "a text, found 5"),
        ("record.resource.\"service.name\" = \"x\"", "record.service_name"),
        ("record.service_name = \"\"", "a name"),
    ] {
        let problems = problems_of(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with("flowtel.toml:1: ") && problems[0].contains(expected), "{text}: {problems:?}");
    }
}

#[test]
fn what_selects_flows_is_checked_word_by_word() {
    for (text, expected) in [
        ("capture.events = \"flow\"", "expected some of \"network_events\", \"flows\""),
        ("capture.events = [\"flows\", \"flwos\"]", "found \"flwos\""),
        ("capture.events = []", "at least one event"),
        ("capture.events = 5", "found 5"),
        ("capture.events = [5]", "found an array"),
        ("capture.sample = 1.5", "a number from 0 to 1, found 1.5"),
        ("capture.sample = \"half\"", "a number from 0 to 1"),
        ("capture.filter_default = \"drop\"", "\"include\" or \"exclude\""),
        (
            "capture.filter = [\"include port=80\", \"exclude prot=80\"]",
            "capture.filter: rule 2: unknown condition \"prot\"",
        ),
        ("capture.filter = [{ port = 80 }]", "capture.filter: rule 1: expected action = \"include\" or \"exclude\""),
        (
            "capture.filter = [{ action = \"exclude\", source = \"10.0.0.0/99\" }]",
            "rule 1: source: expected an address",
        ),
        ("capture.filter = 5", "expected a list of rules"),
        ("record.groups = \"tracy\"", "expected some of \"client_server\", \"tracee\", found \"tracy\""),
        ("dns.ports = [53, 5353]", "5353 can't be watched: answers of multicast DNS"),
        ("dns.ports = [853]", "853 can't be watched: what is asked there is encrypted"),
        ("dns.ports = []", "expected 1 to 8 ports, found 0"),
        ("dns.ports = [1, 2, 3, 4, 5, 6, 7, 8, 9]", "found 9"),
        ("dns.ports = [70000]", "a list of whole numbers from 0 to 65535"),
        ("dns.ports = \"dns\"", "a list of whole numbers"),
        ("dns.reverse = true", "\"off\" or \"observed\""),
    ] {
        let problems = problems_of(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with("flowtel.toml:1: ") && problems[0].contains(expected), "{text}: {problems:?}");
    }
}

#[test]
fn rules_that_can_not_do_what_they_seem_to_are_told() {
    for (text, warning) in [
        ("filter = [\"exclude port=22\", \"include port=80\"]", "the last rule, include port=80, changes nothing"),
        ("filter = [\"include\", \"exclude port=22\"]", "rule 1 matches everything"),
        ("filter = [\"exclude cgroup=/a\"]\n[owner]\ncontainer = false", "owner.container is false"),
        ("filter = [\"exclude process=/a\"]\n[owner]\nexecutable = false", "owner.executable is false"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let warnings = loaded(&etc(dir.path(), &format!("[capture]\n{text}"))).warnings;
        assert!(warnings.iter().any(|w| w.to_string().contains(warning)), "{text}: {warnings:?}");
    }
    let sound = "[capture]\nfilter = [\"include port=80\", \"exclude src=10.0.0.0/8\"]\nsample = 1";
    let dir = tempfile::tempdir().expect("a directory");
    assert!(loaded(&etc(dir.path(), sound)).warnings.is_empty());
}

#[test]
fn values_that_do_not_fit_each_other_are_refused_at_the_one_that_was_set() {
    for (text, key) in [
        ("queue.max_bytes = \"1MiB\"", "queue.max_bytes"),
        ("export.batch.max_bytes = \"64MiB\"", "export.batch.max_bytes"),
        ("export.retry.initial = \"1m\"", "export.retry.initial"),
        ("export.retry.max = \"1ms\"", "export.retry.max"),
        ("export.tls.cert_file = \"/c\"", "export.tls.cert_file"),
        ("export.tls.key_file = \"/k\"", "export.tls.key_file"),
    ] {
        let problems = problems_of(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].starts_with(&format!("flowtel.toml:1: {key}: ")), "{text}: {problems:?}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_by_line_and_not_quoted() {
    let problems = problems_of("[export]\nheaders = { x-api-key = \"hunter2 }\n");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("flowtel.toml:2: not valid TOML: "), "{problems:?}");
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn the_file_of_the_flag_must_exist_and_be_readable() {
    let mut sources = sources(&[]);
    sources.config_file = Some("/nonexistent/mine.toml".into());
    let error = load(&sources).expect_err("there is no file");
    assert_eq!(error.problems()[0].to_string(), "/nonexistent/mine.toml: there is no such file");
    let dir = tempfile::tempdir().expect("a directory");
    sources.config_file = Some(dir.path().to_owned());
    let error = load(&sources).expect_err("it is a directory");
    assert!(error.problems()[0].to_string().contains("cannot be read"), "{error}");
}

#[test]
fn a_wrong_value_is_found_also_where_a_later_layer_hides_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut sources = etc(dir.path(), "log.level = \"loud\"");
    sources.env.insert("FLOWTEL_LOG__LEVEL".into(), "warn".into());
    assert!(load(&sources).is_err());
}

#[test]
fn an_unknown_variable_of_flowtel_is_refused_with_the_nearest_known_one() {
    for (name, near) in [
        ("FLOWTEL_EXPORT_ENDPOINT", "FLOWTEL_EXPORT__ENDPOINT"),
        ("FLOWTEL_EXPORT__TIMEOUTS", "FLOWTEL_EXPORT__TIMEOUT"),
        ("FLOWTEL_ENDPOINT", "FLOWTEL_EXPORT__ENDPOINT"),
    ] {
        assert_eq!(
            problem_of_env(&[(name, "x")]),
            format!("{name}: unknown variable; the nearest known one is {near}")
        );
    }
    assert!(problem_of_env(&[("FLOWTEL_EXPORT", "x")]).contains("this is a table; set the keys within it"));
    assert!(problem_of_env(&[("FLOWTEL_COLOUR", "x")]).contains("unknown key"));
}

#[test]
fn no_message_quotes_a_secret() {
    for text in [
        "export.headers.x = [\"hunter2\"]",
        "export.headers.x = 42424242",
        "export.headers.x = \"hunter2\\n\"",
        "export.headers.\"x y\" = \"hunter2\"",
        "export.headers.host = \"hunter2\"",
        "export.headers = \"x=hunter2\"",
        "export.endpoint = \"ftp://me:hunter2@host\"",
        "export.endpoint = \"me:hunter2@host:4318\"",
        "export.endpoint = \"http://me:hunter2@ho st\"",
        "export.endpoint = \"http://me:p@hunter2@host:0\"",
        "export.endpoint = \"http://h:99999/?key=hunter2\"",
        "export.endpoint = \"http://me:%hunter2@host\"",
    ] {
        let problems = problems_of(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(!problems[0].contains("hunter2") && !problems[0].contains("42424242"), "{problems:?}");
    }
}

#[test]
fn control_characters_of_a_file_are_not_passed_on() {
    let problems = problems_of("log.level = \"\\u001b[31mred\"\n\"\\u009b\" = 1");
    assert!(problems.iter().all(|p| !p.contains(['\u{1b}', '\u{9b}'])), "{problems:?}");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warning = |env: &[(&str, &str)]| {
        let warnings = loaded(&sources(env)).warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let endpoint = ("FLOWTEL_EXPORT__ENDPOINT", "http://h:4318");
    assert_eq!(warning(&[endpoint]), "");
    assert!(warning(&[endpoint, ("FLOWTEL_EXPORT__PROTOCOL", "grpc")]).contains("4318 is usually"));
    assert!(warning(&[endpoint, ("FLOWTEL_EXPORT__BATCH__MAX_BYTES", "8MiB")]).contains("more than 4MiB"));
    assert!(warning(&[endpoint, ("FLOWTEL_EXPORT__TLS__CA_FILE", "/ca")]).contains("http://"));
}

#[test]
fn a_hash_needs_one_key_and_what_is_hidden_in_one_place_only_is_told() {
    for (text, problem) in [
        ("hash.attributes = [\"addresses\"]", "record.hash.attributes: needs a key"),
        ("hash.attributes = [\"destination.port\"]", "found \"destination.port\""),
        ("attributes.exclude = [\"nobody\"]", "found \"nobody\""),
        ("hash.key_file = \"\"", "record.hash.key_file: expected a file's path"),
        ("shorten.ipv4 = 33", "a whole number from 0 to 32"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let error = super::super::load(&etc(dir.path(), &format!("[record]\n{text}"))).expect_err(text).to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let key = "hash.key = \"0123456789abcdef\"\n";
    for (text, warning) in [
        ("hash.attributes = [\"addresses\"]", "flowtel.destination.dns.names still shows whose address it is"),
        ("attributes.exclude = \"source.address\"", "flowtel.source.dns.names still shows"),
        ("", "record.hash.key: not used"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let warnings = loaded(&etc(dir.path(), &format!("[record]\n{key}{text}"))).warnings;
        assert!(warnings.iter().any(|w| w.to_string().contains(warning)), "{text}: {warnings:?}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let warnings = loaded(&etc(dir.path(), "[record]\nshorten.ipv4 = 24")).warnings;
    assert!(warnings.iter().any(|w| w.to_string().contains("can test guesses")), "{warnings:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let sound = format!("[record]\n{key}hash.attributes = [\"addresses\", \"names\"]");
    assert!(loaded(&etc(dir.path(), &sound)).warnings.is_empty());
}
