//! OTLP/HTTP with binary protobuf (OTLP specification, "OTLP/HTTP"): one POST a batch over kept connections.
//!
//! Redirects are not followed: a receiver that moved is told in the log, not found by accident. Proxies are those of the
//! environment's variables.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header, response::Parts};
use http_body_util::Full;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::{
    BuildError, Headers, Settings, build, cause, packed,
    verdict::{self, HttpAnswer, Verdict},
    wire::client::{Failed, Wire},
};
use crate::config::Compression;

/// A client of one receiver.
#[derive(Debug)]
pub(super) struct Http {
    /// Keeps connections; another one takes its place when the receiver's name points elsewhere.
    wire: Mutex<Wire>,
    endpoint: String,
    headers: Headers,
    compression: Compression,
    timeout: Duration,
}

// === impl Http

impl Http {
    pub(super) fn build(url: &Url, tls: ClientConfig, settings: &Settings) -> Result<Self, BuildError> {
        Ok(Self {
            wire: Mutex::new(Wire::build(url, tls, settings.timeout, settings.concurrency.into())?),
            endpoint: build::shown(url),
            headers: Headers::build(settings)?,
            compression: settings.compression,
            timeout: settings.timeout,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Connections are to this peer; to be called before the first.
    #[cfg(test)]
    pub(super) fn with_peer(self, peer: super::peer::Peer) -> Self {
        let wire = self.wire.into_inner().unwrap_or_else(PoisonError::into_inner).with_peer(peer);
        Self { wire: Mutex::new(wire), ..self }
    }

    /// Bytes that were read so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        self.wire().spent()
    }

    fn wire(&self) -> Wire {
        let mut kept = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.peer().has_moved() {
            tracing::info!(endpoint = self.endpoint, "the receiver's name points elsewhere; connecting anew");
            *kept = kept.anew();
        }
        kept.clone()
    }

    pub(super) async fn send(&self, request: Bytes) -> Verdict {
        self.export(request).await.unwrap_or_else(|error| {
            verdict::of_no_answer(cause::reason(
                error.as_ref(),
                "the port answers, but not as HTTP: is it the receiver's gRPC port? Set export.protocol to grpc",
            ))
        })
    }

    async fn export(&self, request: Bytes) -> Result<Verdict, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if let Some(coding) = packed::name(self.compression) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let (head, body) = self.post(packed::pack(self.compression, request)?, headers).await?;
        let body = match body {
            Ok(body) => body,
            // A success that broke off may have been a partial one: only the records again can tell.
            Err(error) if head.status.is_success() => return Err(error),
            Err(_) => Vec::new(),
        };
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let answer = HttpAnswer {
            status: head.status.as_u16(),
            content_type: text(header::CONTENT_TYPE),
            retry_after: text(header::RETRY_AFTER),
            location: text(header::LOCATION),
            body: &body,
        };
        Ok(verdict::of_http(&answer, SystemTime::now()))
    }

    /// Posts a body with these headers, which win over those of the settings. Returns the answer's head, and the beginning
    /// of its body.
    pub(super) async fn post(
        &self,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<(Parts, Result<Vec<u8>, Failed>), Failed> {
        if let Ok(done) = tokio::time::timeout(self.timeout, self.exchange(body, headers)).await {
            return done;
        }
        // A connection that gives no answer may be dead: the next request gets a new one.
        let mut kept = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = kept.anew();
        Err(format!("no answer within {:?}", self.timeout).into())
    }

    async fn exchange(&self, body: Bytes, headers: HeaderMap) -> Result<(Parts, Result<Vec<u8>, Failed>), Failed> {
        let (wire, size) = (self.wire(), body.len());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers.current();
        request.headers_mut().extend(headers);
        let (head, body) = wire.send(request, size).await?.into_parts();
        Ok((head, wire.beginning(body).await))
    }
}
