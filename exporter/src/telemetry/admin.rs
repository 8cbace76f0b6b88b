//! The admin address: HTTP requests come in; `/metrics`, `/healthz` and `/readyz` go out.
//!
//! Whoever asks is hostile: a bounded number of connections, each with a bounded life, requests of bounded size, no body
//! is read. On a loopback address a request that names another host is refused: a web page could otherwise read the
//! metrics through the reader's browser (DNS rebinding).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::{
    instance::Instance,
    metrics::prometheus::{self, CONTENT_TYPE},
};

/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 32;
/// The life of one: scrapers that keep theirs open make a new one.
const LIFE: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How large it may be, in bytes.
const HEAD_SIZE: usize = 8 << 10;
const HEADERS: usize = 64;
/// Where the metrics are.
const METRICS: &str = "/metrics";

/// An address that is listened at, not answered at yet.
#[derive(Debug)]
pub(super) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Admin(JoinHandle<()>);

// === impl Listening

impl Listening {
    /// Takes the address. Has to be called on tokio.
    pub(super) fn at(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, listener: TcpListener::from_std(listener)? })
    }

    /// Begins to answer. Has to be called on tokio.
    pub(super) fn serve(self, instance: Arc<Instance>) -> Admin {
        tracing::info!(address = %self.address, "metrics and health at /metrics, /healthz and /readyz");
        Admin(tokio::spawn(serve(self.listener, self.address.ip().is_loopback(), instance)))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Connections that are open live on until their answer is out, or their time.
        self.0.abort();
    }
}

async fn serve(listener: TcpListener, local: bool, instance: Arc<Instance>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Fails only when it is closed, which nobody does.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let instance = Arc::clone(&instance);
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(stream, local, instance).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin address can't take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, local: bool, instance: Arc<Instance>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let instance = Arc::clone(&instance);
        async move {
            let metrics = request.uri().path() == METRICS;
            let _fresh = if metrics { Some(instance.refresh().await) } else { None };
            let answer = answer(request.method(), request.uri().path(), request.headers(), local, &instance);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // What is wrong with a connection is the affair of the other side.
    let _ = tokio::time::timeout(LIFE, connection).await;
}

fn answer(method: &Method, path: &str, headers: &HeaderMap, local: bool, instance: &Instance) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if local && headers.get(header::HOST).is_some_and(|host| !is_this_host(host)) {
        return plain(StatusCode::FORBIDDEN, "ask for this host by its address, or as localhost\n");
    }
    match path {
        METRICS => {
            let mut metrics = plain(StatusCode::OK, prometheus::text(instance));
            metrics.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
            metrics
        }
        "/healthz" => match instance.is_alive() {
            Ok(()) => plain(StatusCode::OK, "ok\n"),
            Err(silence) => {
                let text = format!("the capture thread has stood still for {} s\n", silence.as_secs());
                plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        },
        "/readyz" => match instance.is_ready() {
            Ok(()) => plain(StatusCode::OK, "ok\n"),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

/// Whether a Host header is an address, or `localhost`: no name that somebody else's name server made up.
fn is_this_host(host: &header::HeaderValue) -> bool {
    let Ok(text) = host.to_str() else { return false };
    let name = match text.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => text.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::telemetry::metrics::tests::instance;

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // The server may close before it has read all of what it refuses.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn start(instance: Instance) -> (SocketAddr, Admin) {
        let listening = Listening::at(([127, 0, 0, 1], 0).into()).expect("a port is free");
        (listening.address, listening.serve(Arc::new(instance)))
    }

    #[tokio::test]
    async fn each_path_has_its_answer_and_others_are_refused() {
        let (address, _admin) = start(instance());
        let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        for (request, status, words) in [
            (get("/metrics", "127.0.0.1:9464"), 200, "flowtel_records_total"),
            (get("/metrics", "[::1]:9464"), 200, "version=0.0.4"),
            (get("/healthz", "localhost"), 200, "ok"),
            (get("/readyz", "localhost"), 200, "ok"),
            (get("/", "localhost"), 404, "/metrics"),
            (get("/metrics", "evil.example"), 403, "localhost"),
            ("POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n".into(), 405, "GET"),
            ("nonsense\r\n\r\n".into(), 400, ""),
            (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(64 << 10)), 431, ""),
        ] {
            let answer = ask(address, request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(words), "{answer}");
        }
    }

    #[tokio::test]
    async fn health_and_readiness_say_what_is_wrong() {
        let mut instance = instance();
        instance.ready = std::time::Instant::now() - super::super::instance::STALLED * 2;
        instance.batch_bytes = (1u64 << 40).into();
        let (address, _admin) = start(instance);
        for path in ["/healthz", "/readyz"] {
            let answer = ask(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.0 503 ") && answer.contains("stood still"), "{answer}");
        }
    }

    #[tokio::test]
    async fn idle_connections_leave_room_for_others_after_a_while() {
        let (address, _admin) = start(instance());
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let answer = tokio::time::timeout(HEAD_TIME * 3, ask(address, b"GET /healthz HTTP/1.0\r\n\r\n")).await;
        assert!(answer.is_ok_and(|answer| answer.contains(" 200 ")), "those who say nothing keep everybody out");
    }
}
