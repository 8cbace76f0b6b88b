//! The admin address and the admin socket: HTTP requests come in; `/metrics`, `/healthz` and `/readyz` go out.
//!
//! Whoever asks is hostile: a bounded number of connections, each with a bounded life, requests of bounded size, no body
//! is read, and who says nothing gives way to who comes ([`Crowd`]). At a socket of this host the kernel says who asks
//! ([`Access`]). On a loopback address a request that names another host is refused: a web page could otherwise read the
//! metrics through the reader's browser (DNS rebinding).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::{
    access::Access,
    crowd::{Crowd, Working},
    instance::Instance,
    metrics::prometheus::{self, CONTENT_TYPE},
    place::Place,
};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Connections that the kernel holds until they are taken.
const BACKLOG: i32 = 1024;
/// The life of one: scrapers that keep theirs open make a new one.
const LIFE: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How large it may be, in bytes.
const HEAD_SIZE: usize = 8 << 10;
const HEADERS: usize = 64;
/// Where the metrics are.
const METRICS: &str = "/metrics";

/// An address or a socket that is listened at, not answered at yet.
#[derive(Debug)]
pub(super) enum Listening {
    Address(TcpListener, SocketAddr),
    Socket(UnixListener, Place, Access),
}

/// The server. It ends when this is dropped, and a socket of it is taken away.
#[derive(Debug)]
pub(super) struct Admin {
    task: JoinHandle<()>,
    _place: Option<Place>,
}

// === impl Listening

impl Listening {
    /// Takes the address.
    pub(super) fn at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // Once more, for a longer queue.
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self::Address(listener, address))
    }

    /// Puts a socket at the path, for root, flowtel's own user and `group`.
    pub(super) fn at_socket(path: &Path, group: &str) -> io::Result<Self> {
        let access = Access::of(group);
        let (listener, place) = Place::take(path, access)?;
        Ok(Self::Socket(listener, place, access))
    }

    /// Begins to answer. Has to be called on tokio.
    pub(super) fn serve(self, instance: Arc<Instance>) -> Admin {
        match self {
            Self::Address(listener, address) => {
                tracing::info!(%address, "metrics and health at /metrics, /healthz and /readyz");
                let task = tokio::spawn(serve_address(listener, address.ip().is_loopback(), instance));
                Admin { task, _place: None }
            }
            Self::Socket(listener, place, access) => {
                tracing::info!(socket = %place, "metrics and health at /metrics, /healthz and /readyz");
                Admin { task: tokio::spawn(serve_socket(listener, access, instance)), _place: Some(place) }
            }
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Connections that are open live on until their answer is out, or their time.
        self.task.abort();
    }
}

async fn serve_address(listener: TcpListener, local: bool, instance: Arc<Instance>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "nobody can ask for health and metrics"),
    };
    let mut crowd = Crowd::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => crowd.admit(|working| connection(stream, local, working, Arc::clone(&instance))),
            Err(error) => refused(&error).await,
        }
    }
}

async fn serve_socket(listener: UnixListener, access: Access, instance: Arc<Instance>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "nobody can ask for health and metrics"),
    };
    let mut crowd = Crowd::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            // No browser comes here, so a request may name any host.
            Ok((stream, _)) if access.allows(&stream) => {
                crowd.admit(|working| connection(stream, false, working, Arc::clone(&instance)));
            }
            Ok(_) => {}
            Err(error) => refused(&error).await,
        }
    }
}

async fn refused(error: &io::Error) {
    tracing::warn!(%error, "the admin address can't take a connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    local: bool,
    working: Working,
    instance: Arc<Instance>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (instance, work) = (Arc::clone(&instance), working.begin());
        async move {
            let _work = work;
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

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
        let Listening::Address(_, address) = &listening else { panic!("it is one") };
        (*address, listening.serve(Arc::new(instance)))
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

    /// What is asked for is there at once: no longer than a few rounds of the scheduler.
    async fn is_healthy(address: SocketAddr) -> bool {
        let answer = tokio::time::timeout(HEAD_TIME / 2, ask(address, b"GET /healthz HTTP/1.0\r\n\r\n")).await;
        answer.is_ok_and(|answer| answer.contains(" 200 "))
    }

    #[tokio::test]
    async fn half_heads_and_those_who_do_not_read_keep_nobody_out() {
        let (address, _admin) = start(instance());
        let mut strangers = Vec::new();
        for n in 0..400 {
            let mut stranger = TcpStream::connect(address).await.expect("it listens");
            let words: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nHost: loc",
                // As many answers as it asks for, and reads none of them.
                _ => &b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20),
            };
            // It may have had to give way already.
            let _ = stranger.write_all(words).await;
            strangers.push(stranger);
        }
        assert!(is_healthy(address).await, "strangers keep everybody out");
        assert!(is_healthy(address).await);
    }

    #[tokio::test]
    async fn the_same_is_to_be_had_at_a_socket_that_goes_with_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let admin = Listening::at_socket(&path, "").expect("it can be made").serve(Arc::new(instance()));
        let mut stream = tokio::net::UnixStream::connect(&path).await.expect("it listens");
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
            .await
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
        drop(admin);
        assert!(!path.exists());
    }
}
