//! The truth tables of the specification.

use proptest::prelude::*;

use super::*;

fn details(seconds: i64, nanos: i32) -> Vec<u8> {
    let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) };
    let any = Any { type_url: b"type.googleapis.com/google.rpc.RetryInfo".to_vec(), value: info.encode_to_vec() };
    RpcStatus { message: b"busy".to_vec(), details: vec![Any::default(), any] }.encode_to_vec()
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Partial { .. } => "partial",
        Verdict::Rejected { .. } => "rejected",
        Verdict::Retry { .. } => "retry",
        Verdict::TooLarge { .. } => "too large",
    }
}

fn after(verdict: &Verdict) -> Option<Duration> {
    match verdict {
        Verdict::Retry { after, .. } => *after,
        _ => None,
    }
}

fn http(status: u16) -> HttpAnswer<'static> {
    HttpAnswer { status, ..HttpAnswer::default() }
}

#[test]
fn each_of_the_17_grpc_codes_has_the_verdict_of_the_specification() {
    let expected = [
        (Code::Ok, "delivered", "delivered"),
        (Code::Cancelled, "retry", "retry"),
        (Code::Unknown, "rejected", "rejected"),
        (Code::InvalidArgument, "rejected", "rejected"),
        (Code::DeadlineExceeded, "retry", "retry"),
        (Code::NotFound, "rejected", "rejected"),
        (Code::AlreadyExists, "rejected", "rejected"),
        (Code::PermissionDenied, "rejected", "rejected"),
        (Code::ResourceExhausted, "rejected", "retry"),
        (Code::FailedPrecondition, "rejected", "rejected"),
        (Code::Aborted, "retry", "retry"),
        (Code::OutOfRange, "retry", "retry"),
        (Code::Unimplemented, "rejected", "rejected"),
        (Code::Internal, "rejected", "rejected"),
        (Code::Unavailable, "retry", "retry"),
        (Code::DataLoss, "retry", "retry"),
        (Code::Unauthenticated, "rejected", "rejected"),
    ];
    assert_eq!(expected.len(), 17);
    for (code, plain, with_retry_info) in expected {
        assert_eq!(word(&of_grpc(code, "words", &[])), plain, "{code:?}");
        assert_eq!(word(&of_grpc(code, "words", &details(1, 0))), with_retry_info, "{code:?} with RetryInfo");
    }
}

#[test]
fn a_refusal_that_names_a_size_asks_for_a_split() {
    for message in [
        "grpc: received message larger than max (5000000 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 5000000",
        "Request too large",
    ] {
        assert_eq!(word(&of_grpc(Code::ResourceExhausted, message, &[])), "too large");
        assert_eq!(word(&of_grpc(Code::Internal, message, &[])), "rejected");
    }
    let tonic = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
    assert_eq!(word(&of_grpc(Code::OutOfRange, tonic, &[])), "too large");
}

#[test]
fn retry_info_says_how_long_to_wait() {
    assert_eq!(after(&of_grpc(Code::Unavailable, "", &details(2, 500_000_000))), Some(Duration::from_millis(2500)));
    assert_eq!(after(&of_grpc(Code::Unavailable, "", &details(-5, -1))), Some(Duration::ZERO));
    assert_eq!(after(&of_grpc(Code::Unavailable, "", &details(i64::MAX, i32::MAX))), Some(MAX_RETRY_AFTER));
    assert_eq!(after(&of_grpc(Code::Unavailable, "", b"\xff\xff garbage")), None);
}

#[test]
fn each_http_status_has_the_verdict_of_the_specification() {
    let expected = [
        (200, "delivered"),
        (202, "delivered"),
        (204, "delivered"),
        (299, "delivered"),
        (301, "rejected"),
        (307, "rejected"),
        (400, "rejected"),
        (401, "rejected"),
        (403, "rejected"),
        (404, "rejected"),
        (405, "rejected"),
        (408, "rejected"),
        (409, "rejected"),
        (413, "too large"),
        (415, "rejected"),
        (422, "rejected"),
        (429, "retry"),
        (431, "rejected"),
        (500, "rejected"),
        (501, "rejected"),
        (502, "retry"),
        (503, "retry"),
        (504, "retry"),
        (505, "rejected"),
        (507, "rejected"),
        (599, "rejected"),
    ];
    for (status, verdict) in expected {
        assert_eq!(word(&of_http(&http(status), SystemTime::UNIX_EPOCH)), verdict, "{status}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let at = |value| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        after(&of_http(&HttpAnswer { retry_after: Some(value), ..http(503) }, now))
    };
    assert_eq!(at("7"), Some(Duration::from_secs(7)));
    assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
    assert_eq!(at("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(at("99999999999999999999999"), Some(MAX_RETRY_AFTER));
    assert_eq!(at("soon"), None);
    assert_eq!(at("-3"), None);
    assert_eq!(at(""), None);
}

#[test]
fn a_partial_success_is_told_with_the_receivers_words() {
    let answer = |rejected, message: &str| {
        let partial = ExportLogsPartialSuccess { rejected_log_records: rejected, error_message: message.into() };
        ExportLogsServiceResponse { partial_success: Some(partial) }
    };
    let body = answer(3, "too\nold").encode_to_vec();
    let protobuf = HttpAnswer { content_type: Some("application/x-protobuf"), body: &body, ..http(200) };
    let expected = Verdict::Partial { rejected: 3, message: r"too\nold".into() };
    assert_eq!(of_http(&protobuf, SystemTime::UNIX_EPOCH), expected);
    for json in [
        r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too\nold"}}"#,
        r#"{"partialSuccess":{"rejectedLogRecords":3,"errorMessage":"too\nold","new":[]}}"#,
    ] {
        let json =
            HttpAnswer { content_type: Some("application/json; charset=utf-8"), body: json.as_bytes(), ..http(200) };
        assert_eq!(of_http(&json, SystemTime::UNIX_EPOCH), expected);
    }
    assert_eq!(of_response(answer(0, "")), Verdict::Delivered);
    assert_eq!(of_response(answer(0, "slow down")), Verdict::Partial { rejected: 0, message: "slow down".into() });
    assert_eq!(of_response(answer(-9, "what")), Verdict::Partial { rejected: 0, message: "what".into() });
}

#[test]
fn a_success_that_is_no_otlp_answer_is_not_sent_again() {
    let answer = |content_type, body| of_http(&HttpAnswer { content_type, body, ..http(200) }, SystemTime::UNIX_EPOCH);
    assert_eq!(answer(Some("text/plain"), b"ok"), Verdict::Delivered);
    assert_eq!(word(&answer(Some("application/x-protobuf"), b"\xff\xff\xff")), "partial");
    assert_eq!(word(&answer(Some("application/json"), b"{{")), "partial");
    assert_eq!(answer(Some("application/json"), b"{}"), Verdict::Delivered);
    assert_eq!(word(&answer(Some("text/html"), b"<html>")), "rejected");
}

#[test]
fn a_receivers_words_are_cut_and_can_not_act_on_a_terminal() {
    let body = [b"\x1b[2J".as_slice(), &[b'x'; 100_000]].concat();
    let Verdict::Rejected { reason } = of_http(&HttpAnswer { body: &body, ..http(400) }, SystemTime::UNIX_EPOCH) else {
        panic!("400 is a rejection");
    };
    assert!(reason.text.starts_with(r"HTTP 400 Bad Request: \x1b[2Jxxx"), "{}", reason.text);
    assert!(reason.text.len() < 400);
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_or_wait_for_ever(
        status in any::<u16>(),
        code in 0..20i32,
        texts in prop::array::uniform4(prop::option::of(".{0,40}")),
        body in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec!["application/x-protobuf", "application/json", "text/plain", "text/html"]),
    ) {
        let [retry_after, location, message, date] = &texts;
        for content_type in [Some(kind), date.as_deref(), None] {
            let answer = HttpAnswer {
                status,
                content_type,
                retry_after: retry_after.as_deref(),
                location: location.as_deref(),
                body: &body,
            };
            let verdict = of_http(&answer, SystemTime::now());
            prop_assert!(after(&verdict).unwrap_or_default() <= MAX_RETRY_AFTER);
        }
        let verdict = of_grpc(Code::from(code), message.as_deref().unwrap_or_default(), &body);
        prop_assert!(after(&verdict).unwrap_or_default() <= MAX_RETRY_AFTER);
    }
}
