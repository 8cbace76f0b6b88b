//! A client for flowtel's own metrics, built as the one for records is: the same TLS, proxies, headers, bounds and errors.
//! What goes over it is not this room's business.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header, uri::PathAndQuery};
use tonic::Code;

use super::{
    BuildError, Settings, Target,
    build::{Otlp, Transport},
    cause, packed,
    text::{WORDS, printable},
    wire::client::Failed,
};
use crate::{
    config::{self, Protocol},
    export::resolved::headers,
};

const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export");

/// A client of a receiver of metrics.
#[derive(Debug, Clone)]
pub struct MetricsClient {
    otlp: Arc<Otlp>,
    /// Where it goes, without user, password and query.
    pub endpoint: String,
    /// How requests are to be compressed.
    pub compression: config::Compression,
    /// How long one request may take.
    pub timeout: Duration,
}

// === impl MetricsClient

impl MetricsClient {
    /// A client towards `to`, with the timeout, compression and TLS of `export`.
    ///
    /// # Errors
    /// As of [`super::Exporter::build`].
    pub fn build(to: &config::Otlp, export: &config::Export) -> Result<Self, BuildError> {
        let url = to.url.to_string();
        let target = match to.protocol {
            Protocol::Grpc => Target::Grpc { url },
            Protocol::HttpProtobuf => Target::Http { url },
        };
        let (headers, headers_file) = (headers(&to.headers), to.headers_file.clone());
        let settings = Settings { headers, headers_file, concurrency: 1, ..Settings::new(export, target) };
        let Transport::Otlp(otlp) = Transport::build(&settings)? else {
            return Err(BuildError::Metrics("they can't go to standard output".into()));
        };
        let endpoint = otlp.endpoint().to_owned();
        Ok(Self { otlp, endpoint, compression: settings.compression, timeout: settings.timeout })
    }

    /// Sends the body of a request, with its headers, to the receiver, whatever its URL; by gRPC where that was asked for. An
    /// answer in time is the caller's to see to.
    ///
    /// # Errors
    /// There is no answer, or it is one of gRPC's that says no; in one line.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failed> {
        let (head, body) = request.into_parts();
        let exchanged = match &*self.otlp {
            Otlp::Http(http) => http.post(body, own(&head.headers)).await.and_then(|(head, body)| {
                let mut response = Response::new(Bytes::from(body?));
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                Ok(response)
            }),
            Otlp::Grpc(grpc) => {
                let coding = coding(&head.headers)?;
                let answer = grpc.call(EXPORT, body, coding).await;
                answer.and_then(|answer| match answer.code {
                    Code::Ok => Ok(Response::new(answer.message.unwrap_or_default().into())),
                    code => Err(format!("gRPC {code:?}: {}", printable(&answer.words, WORDS)).into()),
                })
            }
        };
        exchanged.map_err(|error| cause::reason(error.as_ref(), "").text.into())
    }
}

/// What of a request's headers says what its body is. All others are the configuration's: what stands in variables of the
/// environment was meant for one receiver.
fn own(headers: &HeaderMap) -> HeaderMap {
    let about = [header::CONTENT_TYPE, header::CONTENT_ENCODING];
    about.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

/// The coding of a body, as gRPC has it for its message.
fn coding(headers: &HeaderMap) -> Result<Option<&'static str>, Failed> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let known = [config::Compression::Gzip, config::Compression::Zstd].into_iter().filter_map(packed::name);
    let found = known.into_iter().find(|name| value.as_bytes() == name.as_bytes());
    found.map(Some).ok_or_else(|| "the metrics are compressed in an unknown way".into())
}
