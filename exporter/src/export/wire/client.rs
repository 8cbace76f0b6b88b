//! HTTP requests in, answers out, over kept connections: HTTP/2 where TLS agrees on it, else HTTP/1.1. Redirects are not
//! followed.
//!
//! Must never read more of an answer than is wanted: the connection is dropped instead.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::{
    super::{BuildError, USER_AGENT, build, peer::Peer, verdict::MAX_ANSWER},
    budget::{Budget, WINDOW},
    connector::{Connector, Plan},
    proxy,
};

/// How long a connection is kept without a request.
const IDLE: Duration = Duration::from_secs(90);

/// A client of one receiver. Clones share its connections.
#[derive(Debug, Clone)]
pub(in crate::export) struct Wire {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
    /// The receiver's. It has no user and no password: the configuration made a header of them.
    uri: Uri,
    /// What the proxy wants to be told with each request.
    proxy_authorization: Option<HeaderValue>,
    budget: Budget,
}

// === impl Wire

impl Wire {
    pub fn build(url: &Url, tls: ClientConfig, timeout: Duration, concurrency: usize) -> Result<Self, BuildError> {
        let error = |why: String| BuildError::Url { url: build::shown(url), why };
        let (host, https) = (url.host_str().unwrap_or_default(), url.scheme() == "https");
        let port = url.port_or_known_default().unwrap_or(4318);
        let proxy = proxy::of(url)?;
        let forward = proxy.is_some() && !https;
        let proxy_authorization = proxy.as_ref().filter(|_| forward).and_then(|proxy| proxy.basic_auth().cloned());
        let peer = Peer::of(host, port, proxy.is_some());
        let budget = Budget::new(concurrency);
        let plan = Plan {
            host,
            port,
            https,
            tls,
            protocols: &[b"h2", b"http/1.1"],
            proxy,
            forward,
            timeout,
            peer,
            budget: budget.clone(),
            gather: false,
        };
        let connector = Connector::build(plan).map_err(error)?;
        let mut plain = url.clone();
        plain.set_fragment(None);
        let uri = plain.as_str().parse().map_err(|e: http::uri::InvalidUri| error(e.to_string()))?;
        Ok(Self { client: client(&connector), connector, uri, proxy_authorization, budget })
    }

    /// Told whom connections reach.
    pub fn peer(&self) -> &Peer {
        self.connector.peer()
    }

    /// The same without any connection.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { client: client(&self.connector), ..self.clone() }
    }

    /// Connections are to this peer; to be called before the first.
    #[cfg(test)]
    pub fn with_peer(self, peer: Peer) -> Self {
        let connector = self.connector.clone().with_peer(peer);
        Self { client: client(&connector), connector, ..self }
    }

    /// What was read so far.
    #[cfg(test)]
    pub fn spent(&self) -> u64 {
        self.budget.spent()
    }

    /// Sends a request to the receiver. `size` is that of its body.
    pub async fn send(&self, mut request: Request<Full<Bytes>>, size: usize) -> Result<Response<Incoming>, Failed> {
        self.budget.request(size);
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if size == 0 {
            // hyper leaves it out, and some servers want to be told.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(value) = &self.proxy_authorization {
            headers.insert(header::PROXY_AUTHORIZATION, value.clone());
        }
        self.client.request(request).await.map_err(|e| Box::new(e) as Failed)
    }

    /// The answer's first [`MAX_ANSWER`] bytes. The rest is not read.
    pub async fn beginning(&self, body: Incoming) -> Result<Vec<u8>, Failed> {
        beginning(body, &self.budget).await
    }
}

/// Why there is no answer, or not the whole of it.
pub(in crate::export) type Failed = Box<dyn Error + Send + Sync>;

fn client(connector: &Connector) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http1_max_buf_size(MAX_ANSWER)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOW)
        .http2_max_header_list_size(MAX_ANSWER as u32)
        .build(connector.clone())
}

async fn beginning(mut body: Incoming, budget: &Budget) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else { continue };
        budget.wanted(chunk.len());
        let room = MAX_ANSWER - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(bytes)
}
