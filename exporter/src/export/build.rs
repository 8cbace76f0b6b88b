//! Settings in, a transport that can work out; or an error that says what to mend.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use thiserror::Error;

use super::{Settings, Target, grpc::Grpc, http::Http, stdout::Stdout, tls, verdict::Verdict};

/// What is built of the settings.
#[derive(Debug)]
pub(super) enum Transport {
    Stdout(Stdout),
    Otlp(Arc<Otlp>),
}

/// A client of an OTLP receiver.
#[derive(Debug)]
pub(super) enum Otlp {
    Grpc(Box<Grpc>),
    Http(Box<Http>),
}

/// Why an exporter can't be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL is none that OTLP can be sent to.
    #[error("export endpoint {url:?}: {why}; expected http://HOST:PORT or https://HOST:PORT")]
    Url {
        /// As it was given, without user and password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header can't be sent.
    #[error("export header {name:?}: {why}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it; never holds the value.
        why: &'static str,
    },
    /// The file of headers can't be read, or doesn't hold headers.
    #[error("export.headers_file {}: {why}", path.display())]
    HeadersFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never holds a value.
        why: String,
    },
    /// A file of the TLS settings can't be read, or doesn't hold what it should.
    #[error("{setting} {}: {why}", path.display())]
    TlsFile {
        /// The setting's key.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate without its key, or the other way about.
    #[error("{given} is set, but not {missing}: a client certificate needs both")]
    HalfIdentity {
        /// The key of the setting that is there.
        given: &'static str,
        /// The key of the one that isn't.
        missing: &'static str,
    },
    /// The system has no trusted roots.
    #[error(
        "no trusted certificates found on this system ({why}); install ca-certificates, or set export.tls.ca_file to the receiver's authority"
    )]
    NoRoots {
        /// What the search met.
        why: String,
    },
    /// rustls refuses the settings.
    #[error("TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The environment names a proxy that can't be used.
    #[error("proxy (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY): {why}; unset the variable, or name the receiver in NO_PROXY")]
    Proxy {
        /// What is wrong with it.
        why: String,
    },
    /// Metrics can't be sent so.
    #[error("metrics: {0}")]
    Metrics(String),
    /// The file for records can't be opened.
    #[error("export.path {}: {why}", path.display())]
    OutputFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The thread that writes to standard output can't be started.
    #[error("cannot start the thread that writes to standard output: {0}")]
    Thread(#[source] io::Error),
}

// === impl Transport

impl Transport {
    pub(super) fn build(settings: &Settings) -> Result<Self, BuildError> {
        Ok(match &settings.target {
            Target::Stdout => Self::Stdout(Stdout::build(&settings.print)?),
            Target::Grpc { url } => {
                let (url, tls) = checked(url, settings)?;
                Self::Otlp(Arc::new(Otlp::Grpc(Box::new(Grpc::build(&url, tls, settings)?))))
            }
            Target::Http { url } => {
                let (url, tls) = checked(url, settings)?;
                Self::Otlp(Arc::new(Otlp::Http(Box::new(Http::build(&url, tls, settings)?))))
            }
        })
    }
}

// === impl Otlp

impl Otlp {
    /// Sends one request and judges the answer. Takes no longer than the timeout of the settings.
    pub(super) async fn send(&self, request: Bytes) -> Verdict {
        match self {
            Self::Grpc(grpc) => grpc.send(request).await,
            Self::Http(http) => http.send(request).await,
        }
    }

    /// What it is, in the words of the semantic conventions (`otel.component.type`).
    pub(super) const fn component(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "otlp_grpc_log_exporter",
            Self::Http(_) => "otlp_http_log_exporter",
        }
    }

    /// Bytes that were read so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        match self {
            Self::Grpc(grpc) => grpc.spent(),
            Self::Http(http) => http.spent(),
        }
    }

    /// Where requests go, for log lines: without user, password and query.
    pub(super) fn endpoint(&self) -> &str {
        match self {
            Self::Grpc(grpc) => grpc.endpoint(),
            Self::Http(http) => http.endpoint(),
        }
    }
}

/// The URL, and the TLS configuration towards it. TLS files are checked for plain URLs too: a mistake in them would
/// else come to light with the first `https`.
fn checked(url: &str, settings: &Settings) -> Result<(url::Url, tokio_rustls::rustls::ClientConfig), BuildError> {
    let parsed =
        url::Url::parse(url).map_err(|e| BuildError::Url { url: without_user(url).into(), why: e.to_string() })?;
    let error = |why: &str| BuildError::Url { url: without_user(&shown(&parsed)).into(), why: why.into() };
    let https = match parsed.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(error("the scheme is neither http nor https")),
    };
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(error("it names no host"));
    }
    let tls = tls::client_config(&settings.tls, https)?;
    Ok((parsed, tls))
}

/// A URL as log lines show it.
pub(super) fn shown(url: &url::Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that can't have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// The settings' headers, marked so that no debug output shows their values.
pub(super) fn headers(settings: &Settings) -> Result<http::HeaderMap, BuildError> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &settings.headers {
        let error = |why| BuildError::Header { name: name.clone(), why };
        let key: http::HeaderName = name.parse().map_err(|_| error("this is no header name"))?;
        let mut value = http::HeaderValue::try_from(value.expose())
            .map_err(|_| error("its value holds characters that a header can't have"))?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

/// `url` without what stands before an @.
fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}
