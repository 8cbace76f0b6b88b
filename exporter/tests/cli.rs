//! The program as a shell sees it: exit codes, and which of the two outputs says what.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn flowtel(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtel"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    flowtel(args).output().expect("the program starts")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_and_version_end_with_0_on_standard_output() {
    let version = output(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(texts(&version), (format!("flowtel {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    for args in [&["--help"][..], &["help"], &["config", "--help"], &["completions", "bash"]] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn manual_pages_are_written_for_each_command_that_help_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let output = output(&["man", path]);
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output).1);
    for page in [
        "flowtel.1",
        "flowtel-run.1",
        "flowtel-queue-inspect.1",
        "flowtel-explain.1",
        "flowtel-top.1",
        "flowtel-tail.1",
    ] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".TH ") && text.contains(env!("CARGO_PKG_VERSION")), "{page}: {text}");
    }
    // A hidden command has no page.
    assert!(!folder.path().join("flowtel-man.1").exists());
    let gone = folder.path().join("gone");
    assert_eq!(self::output(&["man", gone.to_str().expect("UTF-8")]).status.code(), Some(69));
}

#[test]
fn who_looks_on_needs_a_terminal_for_top_and_a_running_flowtel_for_tail() {
    let top = output(&["top"]);
    assert_eq!(top.status.code(), Some(64));
    assert!(texts(&top).1.contains("flowtel tail prints lines"), "{}", texts(&top).1);
    let nobody = "telemetry.status.socket=/nonexistent/status.sock";
    let tail = output(&["tail", "--set", nobody]);
    assert_eq!(tail.status.code(), Some(69));
    assert!(texts(&tail).1.contains("no flowtel answers at"), "{}", texts(&tail).1);
    for wrong in [&["tail", "--include", "cgroup=/a"][..], &["tail", "-o", "otlp"], &["top", "--speed", "2"]] {
        assert_eq!(output(wrong).status.code(), Some(64), "{wrong:?}");
    }
}

#[test]
fn wrong_arguments_end_with_64() {
    for args in [
        &["--nonsense"][..],
        &["nonsense"],
        &["--protocol", "http/json"],
        &["--header", "nonsense"],
        &["--set", "nonsense"],
        &["config", "--json", "--reference"],
        &["completions"],
    ] {
        let output = output(args);
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stdout.is_empty() && stderr.starts_with("flowtel: error: "), "{args:?}: {stderr}");
    }
}

#[test]
fn a_wrong_argument_cannot_act_on_the_terminal() {
    let (_, stderr) = texts(&output(&["\u{1b}[2Jgone"]));
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

#[test]
fn a_wrong_configuration_ends_with_78_before_anything_is_started() {
    for args in [
        &["--set", "export.endpiont=x"][..],
        &["run", "--endpoint", "ftp://h"],
        &["check", "--config", "/nonexistent/flowtel.toml"],
        &["config", "--cgroup", "relative"],
    ] {
        let output = output(args);
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(78), "{args:?}: {stderr}");
        assert!(stdout.is_empty(), "{stdout}");
        assert!(stderr.starts_with("flowtel: error: the configuration cannot be used\n  "), "{stderr}");
    }
    let variable = flowtel(&["config"]).env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json").output().expect("it starts");
    assert_eq!(variable.status.code(), Some(78));
    assert!(texts(&variable).1.contains("OTEL_EXPORTER_OTLP_PROTOCOL: export.protocol: expected \"grpc\""));
}

#[test]
fn status_without_a_running_flowtel_ends_with_69_and_names_the_socket() {
    for form in [&["status"][..], &["status", "--json"], &["status", "--watch=5"]] {
        let output = output(&[form, &["--set", "telemetry.status.socket=/nonexistent/flowtel.sock"]].concat());
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(69), "{stderr}");
        assert!(stdout.is_empty() && stderr.contains("no flowtel answers at /nonexistent/flowtel.sock"), "{stderr}");
    }
}

#[test]
fn an_address_that_others_can_reach_has_to_be_asked_for() {
    let address = "telemetry.admin.address=0.0.0.0:9464";
    let refused = output(&["config", "--set", address]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(texts(&refused).1.contains("telemetry.admin.allow_remote"), "{}", texts(&refused).1);
    let allowed = output(&["config", "--set", address, "--set", "telemetry.admin.allow_remote=true"]);
    assert_eq!(allowed.status.code(), Some(0), "{}", texts(&allowed).1);
}

#[test]
fn the_settings_are_printed_with_their_origins_and_without_colour_in_a_pipe() {
    let output = flowtel(&["config", "--log-level", "debug"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
        .output()
        .expect("it starts");
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stdout.contains("# OTEL_EXPORTER_OTLP_ENDPOINT\n") && stdout.contains("# flag --log-level\n"), "{stdout}");
    assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
}

#[test]
fn what_is_probably_not_meant_is_said_on_standard_error_only() {
    let output = output(&["config", "--endpoint", "http://h:4318", "--protocol", "grpc", "--json"]);
    let (stdout, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr.starts_with("flowtel: warning: flag --protocol: "), "{stderr}");
    assert!(serde_json::from_str::<serde_json::Value>(&stdout).is_ok(), "{stdout}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = flowtel(&["config", "--reference-docs"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
    assert_eq!((child.wait().expect("it ends").code(), said.as_str()), (Some(0), ""));
}

#[test]
fn the_reference_needs_no_configuration_that_is_right() {
    let output = flowtel(&["config", "--reference"]).env("FLOWTEL_NONSENSE", "1").output().expect("it starts");
    assert_eq!(output.status.code(), Some(0));
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/flowtel.toml");
    assert_eq!(texts(&output).0, std::fs::read_to_string(checked_in).expect("the reference file"));
}

/// A queue on disk with two batches, and the path of its one segment.
fn queue(directory: &Path) -> std::path::PathBuf {
    use flowtel::{config, ledger::Ledger, queue::Queue, record::Batch};
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message as _;
    let kind = config::QueueKind::Disk;
    let settings = config::Queue { kind, path: directory.into(), ..config::Queue::default() };
    let queue = Queue::open(&settings, std::sync::Arc::new(Ledger::default())).expect("the directory is new");
    for (time_unix_nano, records) in [(1_000, 3), (2_000, 5)] {
        let record = LogRecord { time_unix_nano, event_name: "an event".into(), ..LogRecord::default() };
        let scope_logs = vec![ScopeLogs { log_records: vec![record; records], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec().into();
        queue.push(Batch { bytes, records: records as u32, first: time_unix_nano, last: time_unix_nano });
    }
    assert_eq!(queue.abandon().queued, 8);
    directory.join("00000000000000000000.segment")
}

#[test]
fn a_queues_directory_is_inspected_verified_and_exported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("queue");
    let segment = queue(&path);
    let ask = |words: &[&str]| {
        let output = flowtel(&["queue"]).args(words).arg(&path).output().expect("the program starts");
        let (stdout, stderr) = texts(&output);
        (output.status.code(), stdout, stderr)
    };
    let (code, stdout, _) = ask(&["inspect"]);
    assert!(code == Some(0) && stdout.contains("1970-01-01"), "{stdout}");
    let (code, stdout, _) = ask(&["inspect", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(
        (code, &told["batches"], &told["records"], &told["segments"][0]["records"]),
        (Some(0), &2.into(), &8.into(), &8.into())
    );
    let (code, stdout, _) = ask(&["verify"]);
    assert!(code == Some(0) && stdout.starts_with("sound: 2 batches with 8 records wait"), "{stdout}");
    let (code, stdout, stderr) = ask(&["export"]);
    let lines: Vec<_> = stdout.lines().map(|line| line.matches("an event").count()).collect();
    assert_eq!((code, lines), (Some(0), vec![3, 5]), "{stderr}");
    let output = flowtel(&["queue", "export", "--format=protobuf"]).arg(&path).output().expect("the program starts");
    let mut bytes = &output.stdout[..];
    for records in [3, 5] {
        use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
        let request: ExportLogsServiceRequest =
            prost::Message::decode_length_delimited(&mut bytes).expect("a request with its length");
        assert_eq!(request.resource_logs[0].scope_logs[0].log_records.len(), records);
    }
    assert!(bytes.is_empty());

    // A byte of the second payload.
    let mut bytes = std::fs::read(&segment).expect("readable");
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&segment, &bytes).expect("writable");
    let (code, stdout, stderr) = ask(&["verify"]);
    assert!(code == Some(1) && stdout.contains("batch 1 of 5 records is damaged"), "{stdout} {stderr}");
    let (code, stdout, stderr) = ask(&["export"]);
    assert!(code == Some(1) && stdout.lines().count() == 1, "{stderr}");
    assert_eq!(std::fs::read(&segment).expect("readable"), bytes, "nothing is changed");
}

#[test]
fn a_queues_directory_that_is_not_there_ends_with_69() {
    for words in ["inspect", "verify", "export"] {
        let output = output(&["queue", words, "/nonexistent/\u{1b}[2J"]);
        let (stdout, stderr) = texts(&output);
        assert_eq!(output.status.code(), Some(69), "{stderr}");
        assert!(stdout.is_empty() && stderr.contains("/nonexistent/") && !stderr.contains('\u{1b}'), "{stderr:?}");
    }
}
