use super::*;

const BEGIN: &str = r#"{"resourceLogs":[{"resource":{},"scopeLogs":[{"scope":{"name":"flowtel"},"logRecords":[{"timeUnixNano":"1","eventName":"flowtel.tcp.flow.begin","body":{"stringValue":"outgoing tcp 10.0.0.5:43210 -> 192.0.2.1:443 curl[1234]"},"attributes":[{"key":"flowtel.flow.id","value":{"stringValue":"9f86d081884c7d659a2feaa0c55ad015"}},{"key":"flowtel.flow.direction","value":{"stringValue":"outgoing"}},{"key":"process.pid","value":{"intValue":"1234"}},{"key":"flowtel.process.source","value":{"stringValue":"connect"}},{"key":"flowtel.destination.dns.names","value":{"arrayValue":{"values":[{"stringValue":"example.com"}]}}},{"key":"flowtel.destination.dns.state","value":{"stringValue":"fresh"}},{"key":"flowtel.destination.dns.age","value":{"doubleValue":1.5}}]}]}]}]}"#;

fn read(lines: &str) -> Result<Vec<Told>, told::ReadError> {
    let mut records = Vec::new();
    told::read(lines.as_bytes(), |record| {
        records.push(record);
    })?;
    Ok(records)
}

fn one(line: &str) -> String {
    let records = read(line).expect("a record");
    explain(&records[0], &|_| false)
}

/// The paragraph of a topic, its lines joined.
fn about(text: &str, topic: &str) -> String {
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.into_iter().find(|p| p.starts_with(&format!("{topic}: "))).unwrap_or_default()
}

#[test]
fn what_a_record_says_is_explained_by_how_it_is_known() {
    let text = one(BEGIN);
    assert!(
        text.starts_with("flowtel.tcp.flow.begin of flow 9f86d081884c7d659a2feaa0c55ad015: outgoing tcp"),
        "{text}"
    );
    assert!(about(&text, "process").starts_with("process: 1234. The process called connect()"), "{text}");
    assert!(about(&text, "destination's names").contains("seen 1.5 s before"), "{text}");
}

#[test]
fn what_a_record_lacks_is_explained_by_the_reasons_that_fit_it() {
    let text = one(BEGIN);
    let executable = about(&text, "executable");
    assert!(executable.starts_with("executable: not in this record. The process was gone"), "{text}");
    let handshake = about(&text, "handshake");
    assert!(handshake.contains("connect() was not seen") && !handshake.contains("SYN cookies"), "{text}");
    assert!(about(&text, "bytes").is_empty(), "a begin never has bytes: {text}");
}

#[test]
fn an_update_explains_what_passed_and_what_of_it_is_new() {
    let update = |more: &str| {
        format!(
            r#"{{"event_name":"flowtel.tcp.flow.update","attributes":{{"flowtel.source.bytes":1000,"flowtel.destination.bytes":7{more}}}}}"#
        )
    };
    let text = one(&update(r#","flowtel.delta.source.bytes":10"#));
    assert!(about(&text, "bytes").contains("what was acknowledged by then"), "{text}");
    assert!(about(&text, "bytes since the last update").starts_with("bytes since the last update: 10. What"), "{text}");
    let text = one(&update(""));
    assert!(about(&text, "bytes since the last update").contains("its begin was lost"), "{text}");
    assert!(about(&text, "duration").contains("older than flowtel"), "{text}");
    assert!(about(&text, "cause of the end").is_empty(), "it has not ended: {text}");
}

#[test]
fn every_line_fits_eighty_columns() {
    assert!(one(BEGIN).lines().all(|line| line.chars().count() <= 80), "{}", one(BEGIN));
}

#[test]
fn records_as_stores_give_them_back_are_understood() {
    let elastic = r#"{"_source":{"event_name":"flowtel.tcp.flow.failed","body":{"text":"incoming tcp"},"attributes":{"flowtel.flow.direction":"incoming","error.type":"refused","flowtel.cause.source":"segment"}}}"#;
    assert!(about(&one(elastic), "cause of the failure").contains("a reset"), "{}", one(elastic));
    let loki = r#"{"stream":{"event_name":"flowtel.tcp.flow.begin","flowtel_flow_direction":"incoming","process_pid":"7","flowtel_process_source":"listener"},"line":"incoming tcp"}"#;
    assert!(about(&one(loki), "process").contains("Inferred"), "{}", one(loki));
}

#[test]
fn what_is_no_record_is_refused_with_its_line() {
    let wrong = |lines: &str| read(lines).expect_err("refused").to_string();
    assert!(wrong("\n{\"a\":1}\n").starts_with("line 2: it has no event of flowtel"));
    assert!(wrong("nonsense").starts_with("line 1: it is no JSON"));
    assert!(wrong("[1]").starts_with("line 1: it is no JSON object"));
}

#[test]
fn control_characters_of_a_record_are_shown_and_not_obeyed() {
    let text = one(&BEGIN.replace("curl[1234]", "\\u001b[31mx"));
    assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}"), "{text}");
}

#[test]
fn what_was_hashed_or_left_out_is_said_so() {
    let hash = "hmac-057685d31af9dfa090c1afb0396ac8e5";
    let text = one(&BEGIN.replace("example.com", hash));
    let names = about(&text, "destination's names");
    assert!(
        names.starts_with(&format!("destination's names: {hash}. ")) && names.contains("a keyed hash of it"),
        "{text}"
    );
    assert!(!about(&one(BEGIN), "destination's names").contains("keyed hash"));
    let records = read(BEGIN).expect("a record");
    let text = explain(&records[0], &|attribute| attribute == schema::EXECUTABLE_PATH);
    let executable = about(&text, "executable");
    assert!(executable.ends_with("leaves process.executable.path out (record.attributes)."), "{text}");
}
