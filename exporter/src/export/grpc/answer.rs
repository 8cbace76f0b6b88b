//! What comes back from a call: an HTTP response in, the call's status and message out, by "gRPC over HTTP2" and its
//! mapping of HTTP statuses.
//!
//! All of it is hostile. The status decides; a message that is too large, broken or missing changes nothing about it. tonic
//! has an end for none of these: it takes an answer above its limit for an error of the receiver's, and panics on details
//! that are no base64.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tonic::Code;

use super::super::{
    packed,
    verdict::MAX_ANSWER,
    wire::{budget::Budget, client::Failed},
};

/// The most of an answer that is read to find the status behind it. It is thrown away but for its beginning. Who goes on for
/// longer has said enough: a server writes a message only where it took the request, so to send that again would double it.
const MOST: usize = 4 << 20;
/// Before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Base64 as gRPC has it: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a call came to.
#[derive(Debug)]
pub(in crate::export) struct Answer {
    pub code: Code,
    /// The receiver's words, not escaped.
    pub words: String,
    /// A `google.rpc.Status`, if it is one.
    pub details: Vec<u8>,
    /// The message, where there is a whole one of a size that is read.
    pub message: Option<Vec<u8>>,
}

/// Reads a response to its end.
///
/// # Errors
/// It breaks off: what became of the request is not known.
pub(super) async fn read(response: http::Response<tonic::body::Body>, budget: &Budget) -> Result<Answer, Failed> {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut read, mut trailers) = (Vec::new(), 0, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(inner)?.into_data() {
            Ok(data) => {
                read += data.len();
                if read > MOST {
                    break;
                }
                budget.wanted(data.len());
                let room = (HEAD + MAX_ANSWER + 1).saturating_sub(bytes.len());
                bytes.extend_from_slice(&data[..data.len().min(room)]);
            }
            Err(frame) => trailers.extend(frame.into_trailers().ok().into_iter().flatten()),
        }
    }
    let coding = head.headers.get("grpc-encoding").and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let message = message(&bytes, coding);
    // Where there is no message both are one.
    let is_grpc = head.headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let status = [&head.headers, &trailers].into_iter().find_map(status);
    let (code, words, details) = status.unwrap_or_else(|| {
        let (code, words) = without_status(head.status, is_grpc && (message.is_some() || read > MOST));
        (code, words, Vec::new())
    });
    Ok(Answer { code, words, details, message })
}

/// tonic wraps what HTTP/2 says.
fn inner(status: tonic::Status) -> Failed {
    Box::new(status)
}

fn status(headers: &HeaderMap) -> Option<(Code, String, Vec<u8>)> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    let words = headers.get("grpc-message").map(|value| percent_decoded(value.as_bytes())).unwrap_or_default();
    let details = headers.get("grpc-status-details-bin").and_then(|value| BASE64.decode(value.as_bytes()).ok());
    Some((code, words, details.unwrap_or_default()))
}

/// As gRPC's mapping has it, but that an answer which is there stands for success: what counts is whether to send again.
fn without_status(status: StatusCode, is_answer: bool) -> (Code, String) {
    let code = match status.as_u16() {
        200 if is_answer => return (Code::Ok, String::new()),
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    (code, format!("HTTP {status} without a gRPC status"))
}

fn message(bytes: &[u8], coding: &str) -> Option<Vec<u8>> {
    let (&[compressed, length @ ..], rest) = bytes.split_first_chunk::<HEAD>()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let bytes = rest.get(..length).filter(|bytes| bytes.len() <= MAX_ANSWER)?;
    match compressed {
        0 => Some(bytes.to_vec()),
        1 => packed::unpack(coding, bytes, MAX_ANSWER),
        _ => None,
    }
}

/// `%` and two digits are a byte; what is none stays as it is.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<2>().filter(|_| byte == b'%');
        let value = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use proptest::prelude::*;

    use super::*;

    async fn answer(
        http: u16,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
        trailers: &[(&'static str, &str)],
    ) -> Answer {
        let map = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect()
        };
        let trailers = map(trailers);
        let body = Full::new(Bytes::from(body)).with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = http::Response::new(tonic::body::Body::new(body));
        *response.status_mut() = StatusCode::from_u16(http).expect("a status");
        *response.headers_mut() = map(headers);
        read(response, &Budget::new(1)).await.expect("it has an end")
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        bytes
    }

    #[tokio::test]
    async fn the_status_decides_whatever_the_message_is() {
        let large = framed(0, &vec![0; MAX_ANSWER + 1]);
        let bomb = framed(1, &packed::pack(crate::config::Compression::Gzip, vec![0; 1 << 20].into()).expect("memory"));
        for body in [large, bomb, framed(7, b"x"), b"\0\0\0\0\x09half".to_vec(), vec![]] {
            for (code, expected) in [("0", Code::Ok), ("14", Code::Unavailable), ("nonsense", Code::Unknown)] {
                let answer = answer(200, &[("grpc-encoding", "gzip")], body.clone(), &[("grpc-status", code)]).await;
                assert_eq!((answer.code, answer.message), (expected, None));
            }
        }
        let whole = answer(200, &[], framed(0, b"hello"), &[("grpc-status", "0")]).await;
        assert_eq!((whole.code, whole.message.as_deref()), (Code::Ok, Some(&b"hello"[..])));
    }

    #[tokio::test]
    async fn a_status_may_stand_in_the_headers_and_its_words_and_details_may_be_nonsense() {
        let headers = [("grpc-status", "8"), ("grpc-message", "too%20much %zz%"), ("grpc-status-details-bin", "!!")];
        let answer = answer(200, &headers, vec![], &[]).await;
        assert_eq!((answer.code, answer.words.as_str()), (Code::ResourceExhausted, "too much %zz%"));
        assert!(answer.details.is_empty());
        let padded = [("grpc-status", "14"), ("grpc-status-details-bin", "AQI=")];
        assert_eq!(self::answer(200, &padded, vec![], &[]).await.details, [1, 2]);
        let bare = [("grpc-status", "14"), ("grpc-status-details-bin", "AQI")];
        assert_eq!(self::answer(200, &bare, vec![], &[]).await.details, [1, 2]);
    }

    #[tokio::test]
    async fn without_a_status_http_has_the_word() {
        for (http, code) in [(404, Code::Unimplemented), (401, Code::Unauthenticated), (503, Code::Unavailable)] {
            assert_eq!(answer(http, &[], vec![], &[]).await.code, code);
        }
        assert_eq!(answer(200, &[("content-type", "text/html")], b"<html>".to_vec(), &[]).await.code, Code::Unknown);
        let grpc = [("content-type", "application/grpc+proto")];
        assert_eq!(answer(200, &grpc, framed(0, b""), &[]).await.code, Code::Ok, "a message is there");
        assert_eq!(answer(200, &grpc, vec![], &[]).await.code, Code::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_words_are_read(bytes in prop::collection::vec(any::<u8>(), 0..60), words in ".{0,30}") {
            for coding in ["identity", "gzip", "zstd", "?"] {
                if let Some(message) = message(&bytes, coding) {
                    prop_assert!(message.len() <= MAX_ANSWER);
                }
            }
            percent_decoded(&bytes);
            let encoded: String = words.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), words);
        }
    }
}
