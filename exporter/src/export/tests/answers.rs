//! What becomes of records by the receiver's answer, over the wire.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use tonic::Code;

use super::{server::Answer, *};

const RETRIED: Fates = Fates { delivered: 3, rejected: 0, undelivered: 0, write_failed: 0 };
const REJECTED: Fates = Fates { delivered: 0, rejected: 3, undelivered: 0, write_failed: 0 };

/// What becomes of three records when the first answer is `first` and all others are success, and how many requests
/// that took.
async fn fates(target: usize, first: Answer) -> (Fates, usize) {
    let server = Server::start(move |n, _| if n == 0 { first.clone() } else { Answer::Success(vec![]) }).await;
    let export = Export::start(&settings(targets(&server)[target].clone()));
    export.push(batch(0, 3));
    (export.finish().await, server.requests())
}

async fn grpc(first: Answer) -> (Fates, usize) {
    fates(0, first).await
}

async fn http(first: Answer) -> (Fates, usize) {
    fates(1, first).await
}

#[tokio::test]
async fn what_grpc_may_retry_is_delivered_and_all_else_is_rejected_once() {
    use Code::*;
    for code in [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss] {
        assert_eq!(grpc(Answer::Grpc(code, "later", vec![])).await, (RETRIED, 2), "{code:?}");
    }
    for code in [
        Unknown,
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Unimplemented,
        Internal,
        Unauthenticated,
    ] {
        assert_eq!(grpc(Answer::Grpc(code, "never", vec![])).await, (REJECTED, 1), "{code:?}");
    }
}

#[tokio::test]
async fn what_http_may_retry_is_delivered_and_all_else_is_rejected_once() {
    for status in [429, 502, 503, 504] {
        assert_eq!(http(Answer::Http(status, vec![], vec![])).await, (RETRIED, 2), "{status}");
    }
    for status in [400, 401, 403, 404, 405, 408, 415, 500, 501, 505] {
        assert_eq!(http(Answer::Http(status, vec![], vec![])).await, (REJECTED, 1), "{status}");
    }
    for status in [200, 202, 204] {
        assert_eq!(http(Answer::Http(status, vec![], vec![])).await, (RETRIED, 1), "{status}");
    }
}

#[tokio::test]
async fn an_http_status_without_a_grpc_status_is_judged_by_its_meaning() {
    assert_eq!(grpc(Answer::Http(503, vec![], vec![])).await, (RETRIED, 2));
    assert_eq!(grpc(Answer::Http(404, vec![], vec![])).await, (REJECTED, 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let answer = Answer::Http(307, vec![("location", "/elsewhere")], vec![]);
    assert_eq!(http(answer).await, (REJECTED, 1));
}

#[tokio::test]
async fn the_receivers_wish_to_wait_is_obeyed() {
    let start = std::time::Instant::now();
    assert_eq!(http(Answer::Http(429, vec![("retry-after", "1")], vec![])).await, (RETRIED, 2));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_partial_success_is_counted_and_never_sent_again() {
    let answer = |rejected_log_records| {
        let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: "too old".into() };
        Answer::Success(ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec())
    };
    for target in [0, 1] {
        let one = Fates { delivered: 2, rejected: 1, ..Fates::default() };
        assert_eq!(fates(target, answer(1)).await, (one, 1));
        assert_eq!(fates(target, answer(i64::MAX)).await, (REJECTED, 1), "no more than were sent");
        assert_eq!(fates(target, answer(-1)).await, (RETRIED, 1));
    }
}

#[tokio::test]
async fn a_success_with_a_garbled_answer_is_not_sent_again() {
    for target in [0, 1] {
        assert_eq!(fates(target, Answer::Success(vec![0xff; 20])).await, (RETRIED, 1));
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let huge = vec![b'x'; 8 << 20];
    assert_eq!(http(Answer::Http(400, vec![], huge.clone())).await, (REJECTED, 1));
    // It says nothing that a success would not; sent again, the batch would be stored twice.
    let server = Server::start(move |_, _| Answer::Success(huge.clone())).await;
    let export = Export::start(&settings(Target::Grpc { url: server.url() }));
    export.push(batch(0, 3));
    assert_eq!(export.finish().await, RETRIED);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_split_until_it_fits() {
    for target in [0, 1] {
        let server = Server::start(move |_, bytes| {
            if names(bytes).len() <= 4 {
                Answer::Success(vec![])
            } else if target == 0 {
                Answer::Grpc(Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 4)", vec![])
            } else {
                Answer::Http(413, vec![], vec![])
            }
        })
        .await;
        let export = Export::start(&Settings { concurrency: 1, ..settings(targets(&server)[target].clone()) });
        export.push(batch(0, 30));
        export.push(batch(30, 3));
        assert_eq!(export.finish().await, Fates { delivered: 33, ..Fates::default() });
        assert_eq!(server.accepted(), (0..33).collect::<Vec<_>>(), "each once, in order");
    }
}

#[tokio::test]
async fn a_single_record_that_is_too_large_is_rejected_and_the_others_are_not() {
    let server = Server::start(|_, bytes| {
        if names(bytes).contains(&5) { Answer::Http(413, vec![], vec![]) } else { Answer::Success(vec![]) }
    })
    .await;
    let export = Export::start(&settings(targets(&server)[1].clone()));
    export.push(batch(0, 10));
    assert_eq!(export.finish().await, Fates { delivered: 9, rejected: 1, ..Fates::default() });
}

#[tokio::test]
async fn success_with_an_answer_too_large_to_read_is_a_delivery_and_no_request_is_split() {
    for size in [verdict::MAX_ANSWER + 1, 1 << 20, 3 << 20] {
        let server = Server::start(move |_, _| Answer::Success(vec![0; size])).await;
        let export = Export::start(&settings(targets(&server)[0].clone()));
        export.push(batch(0, 166));
        assert_eq!(export.finish().await, Fates { delivered: 166, ..Fates::default() }, "{size}");
        assert_eq!(server.requests(), 1, "{size}");
    }
}

#[tokio::test]
async fn words_and_details_that_are_nonsense_change_no_verdict() {
    let server = Server::start(|n, _| match n {
        0 => Answer::Http(
            200,
            vec![("content-type", "application/grpc"), ("grpc-status", "14"), ("grpc-status-details-bin", "!")],
            vec![],
        ),
        _ => Answer::Success(vec![]),
    })
    .await;
    let export = Export::start(&settings(targets(&server)[0].clone()));
    export.push(batch(0, 3));
    assert_eq!((export.finish().await, server.requests()), (RETRIED, 2));
}
