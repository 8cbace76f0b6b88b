//! OTLP/gRPC (OTLP specification, "OTLP/gRPC"): one unary call a batch, many at once over one HTTP/2 connection.
//!
//! A codec puts the batch's bytes on the wire as they are. The connection is made at the first request and made anew,
//! name look-up included, after it broke, a request got no answer in time, or the name points elsewhere. HTTP_PROXY,
//! HTTPS_PROXY and NO_PROXY are obeyed; a proxy has to let CONNECT through.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::{Uri, uri::PathAndQuery};
use hyper_util::client::proxy::matcher::Matcher;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tokio_rustls::rustls::ClientConfig;
use tonic::{
    Request, Status,
    client::Grpc as Client,
    codec::{BufferSettings, Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use super::{
    BuildError, Headers, Settings, USER_AGENT, build, cause,
    peer::Peer,
    verdict::{self, MAX_ANSWER, Reason, Verdict},
};
use crate::config::Compression;

mod connector;
mod gather;
mod message;
use connector::Connector;
use message::{Sending, Uncompressed};

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
    peer: Peer,
    headers: Arc<Headers>,
    encoding: Option<CompressionEncoding>,
    timeout: Duration,
}

// === impl Grpc

impl Grpc {
    pub(super) fn build(url: &reqwest::Url, tls: ClientConfig, settings: &Settings) -> Result<Self, BuildError> {
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
            .origin(origin_uri.clone())
            .http2_max_header_list_size(MAX_ANSWER as u32);
        let proxy = Matcher::from_env().intercept(&origin_uri);
        let tls = (url.scheme() == "https").then_some((tls, host));
        let peer = Peer::of(host, port, proxy.is_some());
        Ok(Self {
            to,
            connector: Connector::build(proxy, tls, settings.timeout, peer.clone()).map_err(error)?,
            peer,
            channel: Mutex::new(None),
            endpoint: origin,
            headers: Arc::new(Headers::build(settings)?),
            encoding: match settings.compression {
                Compression::None => None,
                Compression::Gzip => Some(CompressionEncoding::Gzip),
                Compression::Zstd => Some(CompressionEncoding::Zstd),
            },
            timeout: settings.timeout,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The connection and the headers of requests, for somebody else's calls.
    pub(super) fn parts(&self) -> (Channel, Arc<Headers>) {
        (self.channel(), Arc::clone(&self.headers))
    }

    pub(super) async fn send(&self, bytes: Bytes) -> Verdict {
        match tokio::time::timeout(self.timeout, self.call(bytes)).await {
            Ok(Ok(Some(response))) => verdict::of_response(response),
            Ok(Ok(None)) => verdict::of_undecodable_success(),
            Ok(Err(status)) => of_status(&status),
            Err(_) => {
                // A connection that gives no answer may be dead: the next request gets a new one.
                *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
                verdict::of_no_answer(Reason::new(format!("no answer within {:?}", self.timeout), None))
            }
        }
    }

    async fn call(&self, bytes: Bytes) -> Result<Option<ExportLogsServiceResponse>, Status> {
        // Compressed it is a new buffer anyway.
        let message = if self.encoding.is_some() { None } else { Uncompressed::new(bytes.clone()) };
        let mut client =
            Client::new(Sending { channel: self.channel(), message }).max_decoding_message_size(MAX_ANSWER);
        if let Some(encoding) = self.encoding {
            // grpc-go, and with it the collector, compresses its answer as the request was.
            client = client.send_compressed(encoding).accept_compressed(encoding);
        }
        client.ready().await.map_err(|e| Status::from_error(e.into()))?;
        let mut request = Request::new(bytes);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.current());
        let codec = BytesCodec { size: request.get_ref().len() };
        client.unary(request, EXPORT, codec).await.map(tonic::Response::into_inner)
    }

    /// Connections are to this peer; to be called before the first.
    #[cfg(test)]
    pub(super) fn with_peer(self, peer: Peer) -> Self {
        Self { connector: self.connector.with_peer(peer.clone()), peer, ..self }
    }

    fn channel(&self) -> Channel {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if self.peer.has_moved() {
            tracing::info!(endpoint = self.endpoint, "the receiver's name points elsewhere; connecting anew");
            *channel = None;
        }
        channel.get_or_insert_with(|| self.to.connect_with_connector_lazy(self.connector.clone())).clone()
    }
}

fn of_status(status: &Status) -> Verdict {
    match std::error::Error::source(status) {
        // Made on this side: the connection failed, there is no answer.
        Some(source) => verdict::of_no_answer(cause::reason(source, NOT_GRPC)),
        None => verdict::of_grpc(status.code(), status.message(), status.details()),
    }
}

/// Bytes out, a response in; `None` when it isn't one, for the receiver's status still says success.
struct BytesCodec {
    size: usize,
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Option<ExportLogsServiceResponse>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self { size: self.size }
    }

    fn decoder(&mut self) -> Self {
        Self { size: 0 }
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(bytes);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Room for frame header and message at once: the buffer never grows.
        BufferSettings::new(self.size + 64, self.size + 64)
    }
}

impl Decoder for BytesCodec {
    type Item = Option<ExportLogsServiceResponse>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let response = ExportLogsServiceResponse::decode(&mut *bytes).ok();
        bytes.advance(bytes.remaining());
        Ok(Some(response))
    }
}
