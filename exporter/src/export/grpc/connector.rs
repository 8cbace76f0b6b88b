//! A place in, a connection out: TCP, and TLS over it where the URL says so. tonic's own TLS can't take the
//! configuration that HTTP uses.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tonic::codegen::Service;

/// Makes connections to one receiver. Each resolves the name anew.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

// === impl Connector

impl Connector {
    /// `tls` is the configuration and the host that the receiver's certificate must be for.
    pub(super) fn build(tls: Option<(ClientConfig, &str)>, timeout: Duration) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        // A receiver that vanished without a word is noticed while nothing is in flight; HTTP/2's own pings would make
        // many servers hang up on a client that sends them this often.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let tls = match tls {
            None => None,
            Some((mut config, host)) => {
                config.alpn_protocols = vec![b"h2".to_vec()];
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { tcp, tls, timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (tcp, tls, timeout) = (self.tcp.call(to), self.tls.clone(), self.timeout);
        let connect = async move {
            let tcp = tcp.await?.into_inner();
            let io: Box<dyn Io> = match tls {
                None => Box::new(tcp),
                Some((tls, name)) => Box::new(tls.connect(name, tcp).await?),
            };
            Ok(TokioIo::new(io))
        };
        // A peer that takes the connection and says nothing would hold up every later request.
        Box::pin(async move {
            tokio::time::timeout(timeout, connect)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}
