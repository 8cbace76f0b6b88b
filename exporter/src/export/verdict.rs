//! What an answer means. The receiver's answer goes in (a gRPC status, an HTTP status, or why there is none); a
//! [`Verdict`] comes out. Pure functions, exactly by the OTLP specification
//! (<https://opentelemetry.io/docs/specs/otlp/>, sections "OTLP/gRPC Response" and "OTLP/HTTP Response").
//!
//! Must never retry what the receiver refused for good, and never give up what may succeed later. All input is hostile:
//! it is decoded within bounds, and text of it is made printable and cut.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use serde::Deserialize;
use tonic::Code;

use super::text::{WORDS, printable, printable_bytes};

/// The longest wait that is read from an answer; `export.retry.longest_silence`, which is what holds, is at most this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The most bytes of an answer that are looked at.
pub const MAX_ANSWER: usize = 64 << 10;

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has all records.
    Delivered,
    /// The receiver has all records but `rejected` of them, which must not be sent again ("Partial Success"). With
    /// `rejected` 0 the message is a warning.
    Partial {
        /// Records that the receiver refused; it may claim more than it was sent.
        rejected: u64,
        /// The receiver's words.
        message: String,
    },
    /// Refused for good: sending it again can't help. The receiver may have kept some of the records.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// Not taken now, may be taken later ("Failures", "OTLP/gRPC Throttling", "OTLP/HTTP Throttling").
    Retry {
        /// No sooner than this, when the receiver said so; at most [`MAX_RETRY_AFTER`].
        after: Option<Duration>,
        /// Why.
        reason: Reason,
    },
    /// The request is larger than the receiver takes: to be split.
    TooLarge {
        /// The receiver's words.
        reason: Reason,
    },
}

/// Why something went wrong, and what a person can do about it where that is clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What happened, fit for a log line.
    pub text: String,
    /// What to do about it.
    pub remedy: Option<&'static str>,
    /// The HTTP status of a refusal, or the one that a gRPC status stands for.
    pub status: Option<u16>,
}

/// What an HTTP answer is judged by.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpAnswer<'a> {
    /// The status code.
    pub status: u16,
    /// The value of `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The value of `Retry-After`: seconds, or an HTTP date.
    pub retry_after: Option<&'a str>,
    /// The value of `Location`.
    pub location: Option<&'a str>,
    /// The body, or its beginning.
    pub body: &'a [u8],
}

/// The verdict on a gRPC status. `details` is the value of `grpc-status-details-bin`, a `google.rpc.Status`.
pub fn of_grpc(code: Code, message: &str, details: &[u8]) -> Verdict {
    let reason = Reason::new(
        if message.is_empty() {
            format!("gRPC {code:?}")
        } else {
            format!("gRPC {code:?}: {}", printable(message, WORDS))
        },
        grpc_remedy(code),
    )
    .of_status(match code {
        Code::Unauthenticated => Some(401),
        Code::PermissionDenied => Some(403),
        Code::NotFound | Code::Unimplemented => Some(404),
        _ => None,
    });
    let after = retry_info(details);
    match code {
        Code::Ok => Verdict::Delivered,
        Code::ResourceExhausted if after.is_some() => Verdict::Retry { after, reason },
        // tonic's servers say OUT_OF_RANGE where others say RESOURCE_EXHAUSTED.
        Code::ResourceExhausted | Code::OutOfRange if names_a_size(message) => Verdict::TooLarge { reason },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Verdict::Retry { after, reason },
        Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Verdict::Rejected { reason },
    }
}

/// The verdict on an HTTP answer. `now` is what a date in `Retry-After` is compared with.
pub fn of_http(answer: &HttpAnswer<'_>, now: SystemTime) -> Verdict {
    let status = answer.status;
    if (200..300).contains(&status) {
        return of_http_success(answer);
    }
    let words = http_words(answer);
    let mut text = format!("HTTP {status}");
    if let Some(phrase) = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()) {
        text = format!("{text} {phrase}");
    }
    if (300..400).contains(&status) {
        text = match answer.location {
            Some(to) => format!("{text}: a redirect to {}, which is not followed", printable(to, WORDS)),
            None => format!("{text}: a redirect, which is not followed"),
        };
    } else if !words.is_empty() {
        text = format!("{text}: {words}");
    }
    let reason = Reason::new(text, http_remedy(status)).of_status(Some(status));
    match status {
        429 | 502 | 503 | 504 => {
            Verdict::Retry { after: answer.retry_after.and_then(|value| retry_after(value, now)), reason }
        }
        413 => Verdict::TooLarge { reason },
        _ => Verdict::Rejected { reason },
    }
}

/// The verdict on a decoded success answer.
pub fn of_response(response: ExportLogsServiceResponse) -> Verdict {
    match response.partial_success {
        None => Verdict::Delivered,
        Some(ExportLogsPartialSuccess { rejected_log_records, error_message }) => {
            // A negative count is nonsense; the words are still worth a line.
            let rejected = u64::try_from(rejected_log_records).unwrap_or(0);
            if rejected == 0 && error_message.is_empty() {
                Verdict::Delivered
            } else {
                Verdict::Partial { rejected, message: printable(&error_message, WORDS) }
            }
        }
    }
}

/// The verdict when no answer came. Whether the records arrived is unknown, so they are sent again, as the same bytes.
pub fn of_no_answer(reason: Reason) -> Verdict {
    Verdict::Retry { after: None, reason }
}

/// The verdict on an answer that says success and holds something else. The receiver took the request: sending it again
/// would only double it.
pub(super) fn of_undecodable_success() -> Verdict {
    Verdict::Partial { rejected: 0, message: "the receiver said success, but its answer is no OTLP answer".into() }
}

fn of_http_success(answer: &HttpAnswer<'_>) -> Verdict {
    let media_type = answer.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let response = if answer.body.is_empty() {
        return Verdict::Delivered;
    } else if media_type.eq_ignore_ascii_case("text/html") {
        // A web page is what a wrong host, a proxy's login or a wrong path answers. Nothing was stored.
        return Verdict::Rejected {
            reason: Reason::new(
                format!("HTTP {} with a web page: this is no OTLP receiver", answer.status),
                Some("check the endpoint's host, port and path (usually /v1/logs)"),
            ),
        };
    } else if media_type.eq_ignore_ascii_case("application/json") {
        serde_json::from_slice::<JsonResponse>(answer.body).ok().map(Into::into)
    } else if media_type.eq_ignore_ascii_case("application/x-protobuf") || media_type.is_empty() {
        ExportLogsServiceResponse::decode(answer.body).ok()
    } else {
        // Some receivers say "ok" in plain text.
        return Verdict::Delivered;
    };
    response.map_or_else(of_undecodable_success, of_response)
}

/// What the receiver says about an error: a `google.rpc.Status` or text.
fn http_words(answer: &HttpAnswer<'_>) -> String {
    if answer.content_type.is_some_and(|t| t.starts_with("application/x-protobuf")) {
        return RpcStatus::decode(answer.body).map(|s| printable_bytes(&s.message, WORDS)).unwrap_or_default();
    }
    printable_bytes(answer.body, WORDS)
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit a number are a long wait as well.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = SystemTime::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp());
        // A date in the past means: now.
        at.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The delay of a `google.rpc.RetryInfo` in the details. One without a delay asks for none.
fn retry_info(details: &[u8]) -> Option<Duration> {
    if details.len() > MAX_ANSWER {
        return None;
    }
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with(b"google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let wait = Duration::new(u64::try_from(delay.seconds).unwrap_or(0), 0)
        + Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0));
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether a refusal is about the request's size, by the words of grpc-go, grpc-java, gRPC core and tonic.
fn names_a_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "too large", "maximum size", "message size", "size limit", "body size"]
        .iter()
        .any(|words| message.contains(words))
}

fn grpc_remedy(code: Code) -> Option<&'static str> {
    match code {
        Code::Unimplemented => Some(
            "the port answers, but has no OTLP logs service: check that it is the receiver's gRPC port (usually 4317) and that the receiver takes logs",
        ),
        Code::Unauthenticated | Code::PermissionDenied => Some("check the credentials in export.headers"),
        _ => None,
    }
}

fn http_remedy(status: u16) -> Option<&'static str> {
    match status {
        300..=399 => Some("set the endpoint to the place it redirects to"),
        401 | 403 => Some("check the credentials in export.headers"),
        404 | 405 => Some("the path is wrong, or the receiver takes no logs: OTLP's is /v1/logs, Loki's /otlp/v1/logs"),
        415 => Some("the receiver takes no binary protobuf"),
        _ => None,
    }
}

// === an answer in JSON: int64 is text there, but some receivers write a number

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonResponse {
    partial_success: Option<JsonPartialSuccess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonPartialSuccess {
    rejected_log_records: JsonNumber,
    error_message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonNumber {
    Number(i64),
    Text(String),
}

impl Default for JsonPartialSuccess {
    fn default() -> Self {
        Self { rejected_log_records: JsonNumber::Number(0), error_message: String::new() }
    }
}

impl From<JsonResponse> for ExportLogsServiceResponse {
    fn from(json: JsonResponse) -> Self {
        let partial_success = json.partial_success.map(|partial| ExportLogsPartialSuccess {
            rejected_log_records: match partial.rejected_log_records {
                JsonNumber::Number(n) => n,
                JsonNumber::Text(text) => text.parse().unwrap_or(0),
            },
            error_message: partial.error_message,
        });
        Self { partial_success }
    }
}

// === protobuf of google/rpc: as much as is needed, texts as bytes so that bad UTF-8 hides nothing else

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(bytes = "vec", tag = "2")]
    message: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(bytes = "vec", tag = "1")]
    type_url: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

// === impl Reason

impl Reason {
    pub(super) fn new(text: impl Into<String>, remedy: Option<&'static str>) -> Self {
        Self { text: text.into(), remedy, status: None }
    }

    fn of_status(self, status: Option<u16>) -> Self {
        Self { status, ..self }
    }
}

impl fmt::Display for Reason {
    /// The text, then the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.remedy.map_or(Ok(()), |remedy| write!(f, " ({remedy})"))
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
