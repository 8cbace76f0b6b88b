//! A place in, a connection out: TCP, through a proxy's tunnel where one is set, and TLS over it where the URL says so.
//! tonic's own TLS can't take the configuration that HTTP uses, and it knows no proxies.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tonic::codegen::Service;

use super::{super::peer::Peer, gather::Gather};

/// Makes connections to one receiver. Each resolves the name anew.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    proxy: Option<Intercept>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    /// Told whom a connection reaches.
    peer: Peer,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

// === impl Connector

impl Connector {
    /// `proxy` is an HTTP proxy to CONNECT through; `tls` is the configuration and the host that the receiver's
    /// certificate must be for.
    pub(super) fn build(
        proxy: Option<Intercept>,
        tls: Option<(ClientConfig, &str)>,
        timeout: Duration,
        peer: Peer,
    ) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        // A receiver that vanished without a word is noticed while nothing is in flight; HTTP/2's own pings would make
        // many servers hang up on a client that sends them this often.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let tls = match tls {
            None => None,
            Some((mut config, host)) => {
                config.alpn_protocols = vec![b"h2".to_vec()];
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { tcp, proxy, tls, timeout, peer })
    }

    #[cfg(test)]
    pub(super) fn with_peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
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
        let Self { mut tcp, proxy, tls, timeout, peer } = self.clone();
        let connect = async move {
            let tcp = match proxy {
                None => tcp.call(to).await?,
                Some(proxy) => {
                    let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                    let mut tunnel = match proxy.basic_auth() {
                        None => tunnel,
                        Some(auth) => tunnel.with_auth(auth.clone()),
                    };
                    tunnel.call(to).await.map_err(|e| format!("proxy {}: {e}", proxy.uri()))?
                }
            };
            let tcp = tcp.into_inner();
            if let Ok(reached) = tcp.peer_addr() {
                peer.reached(reached.ip());
            }
            let io: Box<dyn Io> = match tls {
                None => Box::new(Gather::new(tcp)),
                Some((tls, name)) => Box::new(Gather::new(tls.connect(name, tcp).await?)),
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
        f.debug_struct("Connector")
            .field("proxy", &self.proxy)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel_to_the_receiver() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let matcher = Matcher::builder().https(format!("http://me:secret@{}", listener.local_addr().unwrap())).build();
        let asked = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                tcp.read_exact(&mut byte).await.unwrap();
                request.extend_from_slice(&byte);
            }
            tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let proxy = matcher.intercept(&"https://receiver.example:4317".parse().unwrap());
        let mut connector = Connector::build(proxy, None, Duration::from_secs(5), Peer::default()).unwrap();
        connector.call("http://receiver.example:4317".parse().unwrap()).await.map(|_| ()).unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT receiver.example:4317 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic "), "{asked}");
        assert!(!format!("{connector:?}").contains("secret"));
    }
}
