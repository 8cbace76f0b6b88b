//! OTLP/gRPC (OTLP specification, "OTLP/gRPC"): one unary call a batch, many at once over one HTTP/2 connection.
//!
//! The batch's bytes go on the wire as they are. The connection is made at the first request and made anew, name look-up
//! included, after it broke, a request got no answer in time, or the name points elsewhere. Proxies are those of the
//! environment's variables; a proxy has to let CONNECT through.
//!
//! tonic makes the channel; the call is made here, for what a codec of tonic's does not allow: to send a message without a
//! copy of it ([`message`]), and to take the receiver's status for what it is, whatever stands before it ([`answer`]).

use std::{
    future::poll_fn,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tokio_rustls::rustls::ClientConfig;
use tonic::{
    Code,
    body::Body,
    codegen::Service as _,
    transport::{Channel, Endpoint},
};

use super::{
    BuildError, Headers, Settings, USER_AGENT, build, cause, packed,
    peer::Peer,
    verdict::{self, MAX_ANSWER, Verdict},
    wire::{
        budget::{Budget, WINDOW},
        client::Failed,
        connector::{Connector, Plan},
        proxy,
    },
};
use crate::config::Compression;

mod answer;
mod message;
pub(super) use answer::Answer;
use message::Message;

const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
const NOT_GRPC: &str =
    "the port answers, but not as gRPC: is it the receiver's HTTP port? Set export.protocol to http/protobuf";

/// A client of one receiver.
#[derive(Debug)]
pub(super) struct Grpc {
    to: Endpoint,
    connector: Connector,
    /// `None` until the first request, for tonic needs the runtime to make it.
    channel: Mutex<Option<Channel>>,
    endpoint: String,
    headers: Headers,
    compression: Compression,
    timeout: Duration,
    budget: Budget,
}

// === impl Grpc

impl Grpc {
    pub(super) fn build(url: &url::Url, tls: ClientConfig, settings: &Settings) -> Result<Self, BuildError> {
        let error = |why: String| BuildError::Url { url: build::shown(url), why };
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(4317);
        // The connector does TLS itself, so tonic dials a plain URL; the origin says what the receiver is told.
        let dial = format!("http://{host}:{port}");
        let origin = format!("{}://{host}:{port}", url.scheme());
        let origin_uri: Uri = origin.parse().map_err(|e: http::uri::InvalidUri| error(e.to_string()))?;
        let to = Endpoint::from_shared(dial)
            .and_then(|to| to.user_agent(USER_AGENT))
            .map_err(|e| error(e.to_string()))?
            .origin(origin_uri)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_max_header_list_size(MAX_ANSWER as u32);
        let proxy = proxy::of(url)?;
        let budget = Budget::new(settings.concurrency.into());
        let plan = Plan {
            host,
            port,
            https: url.scheme() == "https",
            tls,
            protocols: &[b"h2"],
            peer: Peer::of(host, port, proxy.is_some()),
            proxy,
            forward: false,
            timeout: settings.timeout,
            budget: budget.clone(),
            gather: true,
        };
        Ok(Self {
            to,
            connector: Connector::build(plan).map_err(error)?,
            channel: Mutex::new(None),
            endpoint: origin,
            headers: Headers::build(settings)?,
            compression: settings.compression,
            timeout: settings.timeout,
            budget,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) async fn send(&self, bytes: Bytes) -> Verdict {
        match self.export(bytes).await {
            Ok(answer) => of_answer(&answer),
            Err(error) => verdict::of_no_answer(cause::reason(error.as_ref(), NOT_GRPC)),
        }
    }

    async fn export(&self, bytes: Bytes) -> Result<Answer, Failed> {
        let coding = packed::name(self.compression);
        self.call(EXPORT, packed::pack(self.compression, bytes)?, coding).await
    }

    /// Calls a method with a message, which is compressed by this coding already.
    pub(super) async fn call(
        &self,
        method: PathAndQuery,
        bytes: Bytes,
        coding: Option<&'static str>,
    ) -> Result<Answer, Failed> {
        if let Ok(done) = tokio::time::timeout(self.timeout, self.exchange(method, bytes, coding)).await {
            return done;
        }
        // A connection that gives no answer may be dead: the next request gets a new one.
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Err(format!("no answer within {:?}", self.timeout).into())
    }

    async fn exchange(
        &self,
        method: PathAndQuery,
        bytes: Bytes,
        coding: Option<&'static str>,
    ) -> Result<Answer, Failed> {
        let size = bytes.len();
        let message = Message::new(bytes, coding.is_some()).ok_or("the request has more than 4 GiB")?;
        let mut request = Request::new(Body::new(message));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = method.into();
        let mut headers = self.headers.current();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(coding) = coding {
            headers.insert("grpc-encoding", HeaderValue::from_static(coding));
            // grpc-go, and with it the collector, compresses its answer as the request was.
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(coding));
        }
        *request.headers_mut() = headers;
        let mut channel = self.channel();
        self.budget.request(size);
        poll_fn(|cx| channel.poll_ready(cx)).await?;
        answer::read(channel.call(request).await?, &self.budget).await
    }

    /// Connections are to this peer; to be called before the first.
    #[cfg(test)]
    pub(super) fn with_peer(self, peer: Peer) -> Self {
        Self { connector: self.connector.with_peer(peer), ..self }
    }

    /// Bytes that were read so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        self.budget.spent()
    }

    fn channel(&self) -> Channel {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if self.connector.peer().has_moved() {
            tracing::info!(endpoint = self.endpoint, "the receiver's name points elsewhere; connecting anew");
            *channel = None;
        }
        channel.get_or_insert_with(|| self.to.connect_with_connector_lazy(self.connector.clone())).clone()
    }
}

fn of_answer(answer: &Answer) -> Verdict {
    if answer.code != Code::Ok {
        return verdict::of_grpc(answer.code, &answer.words, &answer.details);
    }
    // Success is success, whatever stands beside it.
    let response = answer.message.as_deref().and_then(|bytes| ExportLogsServiceResponse::decode(bytes).ok());
    response.map_or_else(verdict::of_undecodable_success, verdict::of_response)
}
