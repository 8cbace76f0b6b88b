//! A receiver that answers as the test says, over HTTP/1.1 and HTTP/2, plain or TLS. It remembers what it was sent, and
//! how many requests it was sent at once.

use std::{
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tonic::Code;

/// What the server says to one request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Success with these bytes as the message or body: by gRPC or HTTP, as it was asked.
    Success(Vec<u8>),
    /// A gRPC status: code, message, details.
    Grpc(Code, &'static str, Vec<u8>),
    /// An HTTP status with headers and body.
    Http(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// No answer at all.
    Silence,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Without gRPC's frame, decompressed.
    pub(super) bytes: Vec<u8>,
    pub(super) accepted: bool,
}

type Script = dyn Fn(usize, &[u8]) -> Answer + Send + Sync;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
    tls: bool,
}

struct State {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    requests: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
    pause: Duration,
}

impl Server {
    /// Answers request `n` (from 0), whose bytes are given too, as `script` says.
    pub(super) async fn start(script: impl Fn(usize, &[u8]) -> Answer + Send + Sync + 'static) -> Self {
        Self::bind("127.0.0.1:0".parse().unwrap(), Duration::ZERO, None, script).await
    }

    pub(super) async fn bind(
        address: SocketAddr,
        pause: Duration,
        tls: Option<ServerConfig>,
        script: impl Fn(usize, &[u8]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            script: Box::new(script),
            received: Mutex::default(),
            requests: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            pause,
        });
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(accept(listener, acceptor.clone(), state.clone()));
        Self { address, state, task, tls: acceptor.is_some() }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://localhost:{}", if self.tls { "https" } else { "http" }, self.address.port())
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// The names of all records in requests that were answered with success, in the order they came.
    pub(super) fn accepted(&self) -> Vec<u64> {
        self.received().iter().filter(|r| r.accepted).flat_map(|r| super::names(&r.bytes)).collect()
    }

    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(SeqCst)
    }

    /// Connections taken so far.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }

    /// The most requests at once since the last call.
    pub(super) fn most_at_once(&self) -> usize {
        self.state.most.swap(0, SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        state.connections.fetch_add(1, SeqCst);
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(async move {
            match tls {
                None => serve(tcp, state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        serve(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, state.clone()));
    // A client that hangs up is no fault of the test.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let now = state.now.fetch_add(1, SeqCst) + 1;
    state.most.fetch_max(now, SeqCst);
    let n = state.requests.fetch_add(1, SeqCst);
    let (head, body) = request.into_parts();
    let mut bytes = match body.collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(_) => Vec::new(),
    };
    tokio::time::sleep(state.pause).await;
    let grpc = head.headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let (compressed, name) = if grpc {
        let flag = bytes[0];
        bytes.drain(..5);
        (flag == 1, "grpc-encoding")
    } else {
        (head.headers.contains_key("content-encoding"), "content-encoding")
    };
    if compressed {
        let mut plain = Vec::new();
        match head.headers[name].as_bytes() {
            b"gzip" => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map(drop),
            b"zstd" => zstd::stream::copy_decode(bytes.as_slice(), &mut plain),
            other => panic!("{other:?} was never asked for"),
        }
        .expect("valid");
        bytes = plain;
    }
    let answer = (state.script)(n, &bytes);
    let accepted = matches!(answer, Answer::Success(_));
    state.received.lock().unwrap().push(Received {
        path: head.uri.path().into(),
        headers: head.headers,
        bytes,
        accepted,
    });
    state.now.fetch_sub(1, SeqCst);
    Ok(match answer {
        Answer::Success(message) if grpc => grpc_response(Some(&message), Code::Ok, "", &[]),
        Answer::Success(body) => http_response(200, &[("content-type", "application/x-protobuf")], body),
        Answer::Grpc(code, message, details) => grpc_response(None, code, message, &details),
        Answer::Http(status, headers, body) => http_response(status, &headers, body),
        Answer::Silence => std::future::pending().await,
    })
}

fn http_response(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
    let builder = headers.iter().fold(Response::builder().status(status), |b, (k, v)| b.header(*k, *v));
    builder.body(Full::from(body).boxed_unsync()).expect("a valid response")
}

fn grpc_response(message: Option<&[u8]>, code: Code, words: &str, details: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(i32::from(code)));
    trailers.insert("grpc-message", HeaderValue::try_from(words).expect("plain words"));
    if !details.is_empty() {
        use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
        let value = BASE64_STANDARD_NO_PAD.encode(details);
        trailers.insert("grpc-status-details-bin", HeaderValue::try_from(value).expect("base64"));
    }
    let mut frame = BytesMut::new();
    if let Some(message) = message {
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("small"));
        frame.put_slice(message);
    }
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder().header("content-type", "application/grpc").body(body.boxed_unsync()).expect("a valid response")
}

/// A server that takes connections, sends `bytes` and hangs up.
pub(super) async fn garbage(bytes: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let task = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let talk = async |tcp: &mut TcpStream| {
                let mut some = [0; 8];
                tcp.read_exact(&mut some).await?;
                tcp.write_all(bytes).await?;
                tcp.shutdown().await
            };
            // What the client makes of it is the test's matter.
            let _ = talk(&mut tcp).await;
        }
    });
    (address, task)
}
