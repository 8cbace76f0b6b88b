//! Against tonic's own server, which knows nothing of these tests.

use std::{
    convert::Infallible,
    sync::Mutex,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
    transport,
};

use super::*;
use crate::config::Compression;

/// A logs service that takes requests of up to `limit` bytes.
#[derive(Clone)]
struct Logs {
    limit: usize,
    names: Arc<Mutex<Vec<u64>>>,
}

impl NamedService for Logs {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<::http::Request<Body>> for Logs {
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
            let grpc = Grpc::new(Raw).accept_compressed(CompressionEncoding::Gzip);
            let grpc = grpc.accept_compressed(CompressionEncoding::Zstd);
            Ok(grpc.max_decoding_message_size(this.limit).unary(Take(this), request).await)
        })
    }
}

struct Take(Logs);

impl UnaryService<Bytes> for Take {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.0.names.lock().unwrap().extend(names(request.get_ref()));
        std::future::ready(Ok(Response::new(Bytes::new())))
    }
}

struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

/// What arrives of 1,000 records in one batch at a server that takes `limit` bytes.
async fn arrived(limit: usize, compression: Compression) -> Vec<u64> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let logs = Logs { limit, names: Arc::default() };
    let server = transport::Server::builder().add_service(logs.clone());
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let settings = Settings { compression, concurrency: 1, ..settings(Target::Grpc { url }) };
    let export = Export::start(&settings);
    export.push(batch(1, 1000));
    assert_eq!(export.finish().await, Fates { delivered: 1000, ..Fates::default() });
    server.abort();
    let names = logs.names.lock().unwrap();
    names.clone()
}

#[tokio::test]
async fn tonics_server_gets_each_record_once_plain_and_compressed() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        assert_eq!(arrived(4 << 20, compression).await, (1..=1000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn tonics_words_for_too_large_lead_to_a_split() {
    assert_eq!(arrived(3000, Compression::None).await, (1..=1000).collect::<Vec<_>>());
}
