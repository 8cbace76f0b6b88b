//! OTLP/HTTP with binary protobuf (OTLP specification, "OTLP/HTTP"): one POST a batch over kept connections.
//!
//! Redirects are not followed: a receiver that moved is told in the log, not found by accident. HTTP_PROXY, HTTPS_PROXY
//! and NO_PROXY are obeyed.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http::{Uri, header};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, Response, Url, redirect};
use tokio_rustls::rustls::ClientConfig;

use super::{
    BuildError, Headers, Settings, USER_AGENT, build, cause,
    peer::Peer,
    verdict::{self, HttpAnswer, MAX_ANSWER, Reason, Verdict},
};
use crate::config::Compression;

/// The fastest, as with gzip: CPU is dearer here than bytes.
const ZSTD_LEVEL: i32 = 1;

/// A client of one receiver.
#[derive(Debug)]
pub(super) struct Http {
    /// Keeps connections; another one takes its place when the receiver's name points elsewhere.
    client: Mutex<Client>,
    tls: ClientConfig,
    peer: Peer,
    url: Url,
    endpoint: String,
    headers: Arc<Headers>,
    compression: Compression,
    timeout: Duration,
}

// === impl Http

impl Http {
    pub(super) fn build(url: Url, mut tls: ClientConfig, settings: &Settings) -> Result<Self, BuildError> {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = client(tls.clone(), settings.timeout).map_err(|e| BuildError::Http(cause::reason(&e, "").text))?;
        let proxied = |url: Uri| Matcher::from_env().intercept(&url).is_some();
        let proxied = url.as_str().parse().map_or(true, proxied);
        let port = url.port_or_known_default().unwrap_or(4318);
        Ok(Self {
            client: Mutex::new(client),
            tls,
            peer: Peer::of(url.host_str().unwrap_or_default(), port, proxied),
            endpoint: build::shown(&url),
            url,
            headers: Arc::new(Headers::build(settings)?),
            compression: settings.compression,
            timeout: settings.timeout,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The client, the URL, and the headers of requests, for somebody else's.
    pub(super) fn parts(&self) -> (Client, String, Arc<Headers>) {
        (self.client(), self.url.to_string(), Arc::clone(&self.headers))
    }

    /// Connections are to this peer; to be called before the first.
    #[cfg(test)]
    pub(super) fn with_peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    fn client(&self) -> Client {
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if self.peer.has_moved() {
            tracing::info!(endpoint = self.endpoint, "the receiver's name points elsewhere; connecting anew");
            // The same could be built before.
            if let Ok(fresh) = client(self.tls.clone(), self.timeout) {
                *kept = fresh;
            }
        }
        kept.clone()
    }

    pub(super) async fn send(&self, request: Bytes) -> Verdict {
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                // The URL is in the log line already, and may hold a password here.
                let error = error.without_url();
                verdict::of_no_answer(cause::reason(
                    &error,
                    "the port answers, but not as HTTP: is it the receiver's gRPC port? Set export.protocol to grpc",
                ))
            }
            Err(_) => verdict::of_no_answer(Reason::new(format!("no answer within {:?}", self.timeout), None)),
        }
    }

    async fn exchange(&self, request: Bytes) -> Result<Verdict, reqwest::Error> {
        let mut post = self.client().post(self.url.clone()).headers(self.headers.current());
        post = post.header(header::CONTENT_TYPE, "application/x-protobuf");
        let packed = match self.compression {
            Compression::None => None,
            Compression::Gzip => Some(("gzip", gzip(&request))),
            Compression::Zstd => Some(("zstd", zstd::bulk::compress(&request, ZSTD_LEVEL))),
        };
        let body = match packed {
            None => request,
            Some((coding, Ok(body))) => {
                post = post.header(header::CONTENT_ENCODING, coding);
                body.into()
            }
            Some((coding, Err(e))) => return Ok(verdict::of_no_answer(Reason::new(format!("{coding}: {e}"), None))),
        };
        let mut response = post.body(body).send().await?;
        if let Some(reached) = response.remote_addr() {
            self.peer.reached(reached.ip());
        }
        let body = beginning(&mut response).await;
        let status = response.status();
        let body = match body {
            Ok(body) => body,
            // A success that broke off may have been a partial one: only the records again can tell.
            Err(error) if status.is_success() => return Err(error),
            Err(_) => Vec::new(),
        };
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let answer = HttpAnswer {
            status: status.as_u16(),
            content_type: text(header::CONTENT_TYPE),
            retry_after: text(header::RETRY_AFTER),
            location: text(header::LOCATION),
            body: &body,
        };
        Ok(verdict::of_http(&answer, SystemTime::now()))
    }
}

/// A client without any connection.
fn client(tls: ClientConfig, timeout: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        // A receiver that vanished without a word is noticed even while no request is in flight.
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_user_timeout(Duration::from_secs(30))
        .http2_max_header_list_size(MAX_ANSWER as u32)
        .build()
}

/// The body's first [`MAX_ANSWER`] bytes. The rest is not read: the connection is dropped instead.
async fn beginning(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(body)
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Records repeat each other so much that the fastest level already takes most of it.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Level::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
