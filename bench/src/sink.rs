//! An OTLP receiver in a process of its own: it takes everything at once, over HTTP/1.1, HTTP/2 and gRPC on one port, and
//! decodes only when it is asked what it got, so that decoding never competes with what is measured.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Collected, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value, logs::v1::LogRecord,
};
use prost::Message;

use crate::{
    ending::with_us,
    flowtel::{self, Mode},
    namespaces::{CLIENT, SERVER},
};

/// The running receiver.
#[derive(Debug)]
pub struct Sink {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    port: u16,
}

/// What it got of the load's flows since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Got {
    pub outgoing: usize,
    pub incoming: usize,
    /// Different values of flowtel.flow.id.
    pub ids: usize,
    /// Different tuples.
    pub tuples: usize,
    pub requests: usize,
    pub bytes: usize,
    /// Records of ends.
    pub ends: usize,
    /// Of other connections on this machine.
    pub others: usize,
    /// The longest time between two requests, milliseconds: the load comes in one piece, so a long one is a receiver that
    /// stood still, or a sender.
    pub pause: usize,
}

/// A request and when it was complete. Its frames stay as they came: to join them now would cost the receiver a copy into
/// fresh memory, and make it the slowest part of what is measured.
#[derive(Debug)]
struct Taken {
    at: Instant,
    grpc: bool,
    frames: Collected<Bytes>,
}

impl Taken {
    /// The message.
    fn body(self) -> Bytes {
        let body = self.frames.to_bytes();
        // gRPC puts a flag and a length before its one message.
        if self.grpc { body.slice(5.min(body.len())..) } else { body }
    }
}

// === impl Sink

impl Sink {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = with_us(&mut command).arg("sink").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut answers = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let port = line.trim().parse().context("the sink's port")?;
        Ok(Self { child, answers, port })
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks what came since the last time.
    pub fn got(&mut self) -> Result<Got> {
        self.child.stdin.as_mut().context("no standard input")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let n: Vec<usize> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [outgoing, incoming, ids, tuples, requests, bytes, ends, others, pause] = n[..] else {
            bail!("the sink says {line:?}")
        };
        Ok(Got { outgoing, incoming, ids, tuples, requests, bytes, ends, others, pause })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Got

impl Got {
    fn count(taken: Vec<Taken>) -> Result<Self> {
        let pauses = taken.windows(2).map(|two| two[1].at.duration_since(two[0].at).as_millis());
        let pause = pauses.max().unwrap_or_default() as usize;
        let mut got = Self { requests: taken.len(), pause, ..Self::default() };
        let (mut ids, mut tuples) = (HashSet::new(), HashSet::new());
        for body in taken.into_iter().map(Taken::body) {
            got.bytes += body.len();
            let request = ExportLogsServiceRequest::decode(body)?;
            for record in request.resource_logs.iter().flat_map(|r| &r.scope_logs).flat_map(|s| &s.log_records) {
                let attributes = attributes(record);
                let get = |key| attributes.get(key).map(String::as_str).unwrap_or_default();
                if (get("source.address"), get("destination.address")) != (CLIENT, SERVER) {
                    got.others += 1;
                    continue;
                }
                if record.event_name == "flowtel.tcp.flow.end" {
                    got.ends += 1;
                    continue;
                }
                match get("flowtel.flow.direction") {
                    "outgoing" => got.outgoing += 1,
                    "incoming" => got.incoming += 1,
                    direction => bail!("a record with direction {direction:?}"),
                }
                ids.insert(get("flowtel.flow.id").to_owned());
                tuples.insert((get("source.port").to_owned(), get("destination.port").to_owned()));
            }
        }
        (got.ids, got.tuples) = (ids.len(), tuples.len());
        Ok(got)
    }

    /// Whether every connection of `n` was recorded at both ends, and none twice; and each end of it, where they are.
    pub fn is_exact(&self, n: usize) -> bool {
        let ends = if flowtel::mode() == Mode::All { 2 * n } else { 0 };
        self.outgoing == n && self.incoming == n && self.ids == 2 * n && self.tuples == n && self.ends == ends
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outgoing, incoming, ids, tuples, requests, bytes, ends, others, pause } = self;
        write!(f, "{outgoing} {incoming} {ids} {tuples} {requests} {bytes} {ends} {others} {pause}")
    }
}

fn attributes(record: &LogRecord) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(s) => s.clone(),
        Value::IntValue(i) => i.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = record.attributes.iter();
    pairs.filter_map(|kv| Some((kv.key.as_str(), text(kv.value.as_ref()?.value.as_ref()?)))).collect()
}

/// `sink`: says its port, then a line of counts for each line that it reads.
pub fn serve() -> Result<()> {
    let bodies: Arc<Mutex<Vec<Taken>>> = Arc::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?.port());
    let store = Arc::clone(&bodies);
    runtime.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let service = service_fn(move |request| take(request, Arc::clone(&store)));
                let mut server = auto::Builder::new(TokioExecutor::new());
                // A receiver's usual windows would measure its patience.
                server.http2().initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
                // The peer hung up: nothing to do about it.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    for line in std::io::stdin().lines() {
        line?;
        let taken = std::mem::take(&mut *bodies.lock().unwrap_or_else(PoisonError::into_inner));
        println!("{}", Got::count(taken)?);
    }
    Ok(())
}

async fn take(
    request: Request<Incoming>,
    store: Arc<Mutex<Vec<Taken>>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let grpc = request.headers().get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let frames = request.into_body().collect().await?;
    let taken = Taken { at: Instant::now(), grpc, frames };
    store.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
    let answer = Response::builder();
    Ok(if grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(trailers)) });
        answer.header("content-type", "application/grpc").body(body.boxed())
    } else {
        answer.header("content-type", "application/x-protobuf").body(Full::new(Bytes::new()).boxed())
    }
    .expect("constant headers"))
}
