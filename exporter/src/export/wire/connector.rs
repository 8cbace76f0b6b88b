//! A place in, a connection out: TCP, through a proxy's tunnel where one is set, and TLS over it where the URL says so. What
//! comes over it is counted from its first byte ([`Budget`]).

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
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tonic::codegen::Service;

use super::{
    super::peer::Peer,
    budget::{Budget, Metered},
    gather::Gather,
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What a connector is built of.
#[derive(Debug)]
pub(in crate::export) struct Plan<'a> {
    /// The receiver's host, as a URL has it.
    pub host: &'a str,
    /// And its port.
    pub port: u16,
    /// Whether TLS is spoken with the receiver, by `tls`.
    pub https: bool,
    /// Also for a proxy that wants TLS.
    pub tls: ClientConfig,
    /// What is offered to speak over TLS (ALPN).
    pub protocols: &'a [&'a [u8]],
    /// A proxy between.
    pub proxy: Option<Intercept>,
    /// The proxy is asked for each request and not for a tunnel: HTTP without TLS alone.
    pub forward: bool,
    /// How long to connect may take.
    pub timeout: Duration,
    /// Told whom a connection reaches.
    pub peer: Peer,
    /// What it may send.
    pub budget: Budget,
    /// Small writes are gathered: for users that read whenever they run, as HTTP/2 does.
    pub gather: bool,
}

/// Makes connections to one receiver. Each resolves the name anew.
#[derive(Clone)]
pub(in crate::export) struct Connector {
    dial: Dial,
    /// The receiver, as a plain URL whatever is spoken.
    to: Uri,
    proxy: Option<Intercept>,
    forward: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    gather: bool,
}

/// Makes connections to whom they go first: the receiver, or the proxy.
#[derive(Clone)]
struct Dial {
    tcp: HttpConnector,
    tls: TlsConnector,
    peer: Peer,
    budget: Budget,
}

/// A connection.
pub(in crate::export) struct Stream {
    io: Box<dyn Io>,
    /// The proxy at the other end takes requests, not a tunnel.
    proxied: bool,
    is_h2: bool,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

// === impl Connector

impl Connector {
    /// # Errors
    /// The host is none that a certificate can be for.
    pub fn build(plan: Plan<'_>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(plan.timeout));
        // TLS with a proxy is spoken here.
        tcp.enforce_http(false);
        // A receiver that vanished without a word is noticed while nothing is in flight; HTTP/2's own pings would make
        // many servers hang up on a client that sends them this often.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let mut config = plan.tls.clone();
        config.alpn_protocols = plan.protocols.iter().map(|name| name.to_vec()).collect();
        let name = || server_name(plan.host);
        let to = format!("http://{}:{}", plan.host, plan.port);
        let to = to.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        let tls = plan.https.then(name).transpose()?.map(|name| (TlsConnector::from(Arc::new(config)), name));
        let dial = Dial { tcp, tls: TlsConnector::from(Arc::new(plan.tls)), peer: plan.peer, budget: plan.budget };
        Ok(Self { dial, to, proxy: plan.proxy, forward: plan.forward, tls, timeout: plan.timeout, gather: plan.gather })
    }

    /// Told whom connections reach.
    pub fn peer(&self) -> &Peer {
        &self.dial.peer
    }

    #[cfg(test)]
    pub fn with_peer(self, peer: Peer) -> Self {
        Self { dial: Dial { peer, ..self.dial }, ..self }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned()).map_err(|e| e.to_string())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.dial.tcp.poll_ready(cx).map_err(Into::into)
    }

    /// There is one place that it connects to.
    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { mut dial, to, proxy, forward, tls, timeout, gather } = self.clone();
        let connect = async move {
            let io = match proxy {
                None => dial.call(to).await?.into_inner(),
                Some(proxy) if forward => dial.call(proxy.uri().clone()).await.map_err(by(&proxy))?.into_inner(),
                Some(proxy) => {
                    let tunnel = Tunnel::new(proxy.uri().clone(), dial);
                    let mut tunnel = match proxy.basic_auth() {
                        None => tunnel,
                        Some(auth) => tunnel.with_auth(auth.clone()),
                    };
                    tunnel.call(to).await.map_err(|e| by(&proxy)(e.into()))?.into_inner()
                }
            };
            let gathered = |io: Box<dyn Io>| if gather { Box::new(Gather::new(io)) } else { io };
            let Some((tls, name)) = tls else {
                return Ok(TokioIo::new(Stream { io: gathered(io), proxied: forward, is_h2: false }));
            };
            let io: TlsStream<_> = tls.connect(name, io).await?;
            let is_h2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(TokioIo::new(Stream { io: gathered(Box::new(io)), proxied: forward, is_h2 }))
        };
        // A peer that takes the connection and says nothing would hold up every later request.
        Box::pin(async move {
            tokio::time::timeout(timeout, connect)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

/// Names the proxy in an error.
fn by(proxy: &Intercept) -> impl Fn(Error) -> Error {
    move |e| format!("proxy {}: {e}", proxy.uri()).into()
}

// === impl Dial

impl Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { mut tcp, tls, peer, budget } = self.clone();
        Box::pin(async move {
            // A proxy's. The receiver's own is spoken through this.
            let secure =
                (to.scheme() == Some(&http::uri::Scheme::HTTPS)).then(|| server_name(to.host().unwrap_or_default()));
            let stream: TcpStream = tcp.call(to).await?.into_inner();
            if let Ok(reached) = stream.peer_addr() {
                peer.reached(reached.ip());
            }
            let (read, write) = stream.into_split();
            let io = tokio::io::join(Metered::new(read, budget), write);
            let io: Box<dyn Io> = match secure.transpose()? {
                None => Box::new(io),
                Some(name) => Box::new(tls.connect(name, io).await?),
            };
            Ok(TokioIo::new(io))
        })
    }
}

// === impl Stream

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.proxied);
        if self.is_h2 { connected.negotiated_h2() } else { connected }
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
        let plan = Plan {
            host: "receiver.example",
            port: 4317,
            https: false,
            tls: super::super::super::tls::client_config(&Default::default(), false).unwrap(),
            protocols: &[],
            proxy: matcher.intercept(&"https://receiver.example:4317".parse().unwrap()),
            forward: false,
            timeout: Duration::from_secs(5),
            peer: Peer::default(),
            budget: Budget::new(1),
            gather: true,
        };
        let mut connector = Connector::build(plan).unwrap();
        connector.call("http://receiver.example:4317".parse().unwrap()).await.map(|_| ()).unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT receiver.example:4317 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic "), "{asked}");
        assert!(!format!("{connector:?}").contains("secret"));
    }
}
