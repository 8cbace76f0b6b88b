//! What the settings of `export` come to: the one place that decides where records go, and how; and flowtel's own metrics.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    otel::percent_decode,
    types::{Export, ExportKind, Format, Metrics, Protocol},
    units::{Endpoint, Secret},
};

/// Where records go.
#[derive(Debug, Clone)]
pub enum Target {
    /// Lines on standard output.
    Stdout {
        /// Their form.
        format: Format,
    },
    /// An OTLP receiver.
    Otlp(Box<Otlp>),
}

/// An OTLP receiver. Timeout, compression, TLS and the like are in [`Export`] as they are.
#[derive(Clone)]
pub struct Otlp {
    /// The transport.
    pub protocol: Protocol,
    /// For `http/protobuf` the full URL to post to; for `grpc` scheme, host and port. Holds no user and no password, but
    /// a query may hold a token: print the target instead.
    pub url: Uri,
    /// Headers, or gRPC metadata, of each request: the configured ones, and basic authorization where the address had a
    /// user. All are marked as sensitive: `Debug` does not show them.
    pub headers: HeaderMap,
    /// A file of further headers, which win.
    pub headers_file: Option<PathBuf>,
}

/// Why the settings come to no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    /// The key at fault.
    pub key: String,
    /// What was expected; quotes no secret.
    pub message: String,
}

/// What the OTLP specification names as defaults: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.
const DEFAULT_HTTP: &str = "http://localhost:4318";
const DEFAULT_GRPC: &str = "http://localhost:4317";
const GRPC_PORT: u16 = 4317;
const LOGS_PATH: &str = "/v1/logs";
const METRICS_PATH: &str = "/v1/metrics";

/// Headers that belong to the transports themselves.
const RESERVED: &[&str] =
    &["connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

// === impl Export

impl Export {
    /// Decides where records go.
    ///
    /// # Errors
    /// An address that can't be used, or a header that can't be sent. A configuration that was loaded has been through
    /// here.
    pub fn resolve(&self) -> Result<Target, TargetError> {
        let written = match (&self.logs_endpoint, &self.endpoint) {
            (Some(endpoint), _) => Some(("export.logs_endpoint", endpoint)),
            (None, Some(endpoint)) => Some(("export.endpoint", endpoint)),
            (None, None) => None,
        };
        // Both are checked, also the one that isn't used now: a mistake shows at once.
        let address = written.map(|(key, endpoint)| Address::parse(key, endpoint)).transpose()?;
        if let (Some(_), Some(other)) = (&self.logs_endpoint, &self.endpoint) {
            Address::parse("export.endpoint", other)?;
        }
        let mut headers = self.header_map()?;
        let otlp = match self.kind {
            Some(kind) => kind != ExportKind::Stdout,
            None => address.is_some(),
        };
        if !otlp {
            return Ok(Target::Stdout { format: self.format });
        }
        let port = address.as_ref().and_then(Address::port);
        let protocol = self.protocol.unwrap_or(match port {
            Some(GRPC_PORT) => Protocol::Grpc,
            _ => Protocol::HttpProtobuf,
        });
        let address = match address {
            Some(address) => address,
            None => {
                let default = if protocol == Protocol::Grpc { DEFAULT_GRPC } else { DEFAULT_HTTP };
                Address::parse("export.endpoint", &Endpoint::new(default))?
            }
        };
        if let Some(authorization) = address.basic_authorization()? {
            headers.entry(header::AUTHORIZATION).or_insert(authorization);
        }
        let path = if self.logs_endpoint.is_some() { None } else { Some(LOGS_PATH) };
        let url = address.url(protocol, self.insecure, path)?;
        let headers_file = self.headers_file.clone();
        Ok(Target::Otlp(Box::new(Otlp { protocol, url, headers, headers_file })))
    }

    fn header_map(&self) -> Result<HeaderMap, TargetError> {
        header_map("export.headers", &self.headers)
    }
}

// === impl Metrics

impl Metrics {
    /// Decides where flowtel's own metrics go; `None`: they are not pushed.
    ///
    /// # Errors
    /// As of [`Export::resolve`].
    pub fn resolve(&self, export: &Export) -> Result<Option<Otlp>, TargetError> {
        let own = self.endpoint.as_ref().map(|e| Address::parse("telemetry.metrics.endpoint", e)).transpose()?;
        let mut headers = header_map("telemetry.metrics.headers", &self.headers)?;
        if !self.enabled.unwrap_or(own.is_some()) {
            return Ok(None);
        }
        let path = if own.is_some() { None } else { Some(METRICS_PATH) };
        let shared = || match (&export.endpoint, &export.logs_endpoint) {
            (Some(endpoint), _) => Address::parse("export.endpoint", endpoint),
            (None, Some(_)) => Err(TargetError {
                key: "telemetry.metrics.enabled".into(),
                message: "needs telemetry.metrics.endpoint beside it, for export.logs_endpoint is for records only"
                    .into(),
            }),
            (None, None) => {
                let grpc = self.protocol.or(export.protocol) == Some(Protocol::Grpc);
                Address::parse("export.endpoint", &Endpoint::new(if grpc { DEFAULT_GRPC } else { DEFAULT_HTTP }))
            }
        };
        let mut headers_file = None;
        let address = match own {
            Some(own) => own,
            None => {
                // What is secret goes only where it was meant to go.
                for (name, value) in &export.header_map()? {
                    headers.entry(name).or_insert_with(|| value.clone());
                }
                headers_file.clone_from(&export.headers_file);
                shared()?
            }
        };
        if let Some(authorization) = address.basic_authorization()? {
            headers.entry(header::AUTHORIZATION).or_insert(authorization);
        }
        let by_port = if address.port() == Some(GRPC_PORT) { Protocol::Grpc } else { Protocol::HttpProtobuf };
        let protocol = self.protocol.or(export.protocol).unwrap_or(by_port);
        let url = address.url(protocol, export.insecure, path)?;
        Ok(Some(Otlp { protocol, url, headers, headers_file }))
    }
}

fn header_map(key: &str, headers: &BTreeMap<String, Secret>) -> Result<HeaderMap, TargetError> {
    headers.iter().map(|(name, value)| header_pair(key, name, value)).collect()
}

/// A header that can be sent with requests, marked as sensitive.
///
/// # Errors
/// Name or value can't be sent, or the header belongs to the transport. `key` is that of the setting.
pub fn header_pair(key: &str, name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue), TargetError> {
    let wrong = |message: &str| TargetError { key: format!("{key}.{name}"), message: message.into() };
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_e| wrong("expected a header name: letters, digits and - _ . without spaces"))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("grpc-") {
        return Err(wrong("this header belongs to the transport and cannot be set"));
    }
    if value.expose() == HIDDEN {
        return Err(wrong("the value is the placeholder that flowtel prints for a secret; put the secret here"));
    }
    let mut value = HeaderValue::from_str(value.expose())
        .map_err(|_e| wrong("the value has characters other than visible ASCII"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// What stands for a secret wherever one would be printed.
pub(super) const HIDDEN: &str = "[hidden]";

// === addresses

/// An address taken apart.
struct Address {
    key: &'static str,
    written: Endpoint,
    /// `None`: none was written.
    scheme: Option<Scheme>,
    user: Option<String>,
    /// Host and port.
    authority: Authority,
    path: PathAndQuery,
}

impl Address {
    fn parse(key: &'static str, written: &Endpoint) -> Result<Self, TargetError> {
        let wrong = |why: &str| wrong(key, written, why);
        let text = written.expose().trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(Scheme::HTTP), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(Scheme::HTTPS), rest),
            Some(_) => return Err(wrong("the scheme is neither http nor https")),
            None if text.starts_with("unix:") => return Err(wrong("unix sockets are not supported")),
            None => (None, text),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        let authority: Authority = host.parse().map_err(|_e| wrong("it has no valid host"))?;
        let port_written = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || (port_written && authority.port_u16().is_none_or(|p| p == 0)) {
            return Err(wrong("it has no valid host and port"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = path.parse().map_err(|_e| wrong("its path has characters that must be percent-encoded"))?;
        Ok(Self { key, written: written.clone(), scheme, user, authority, path })
    }

    fn port(&self) -> Option<u16> {
        self.authority.port_u16()
    }

    /// User and password, as RFC 7617 sends them.
    fn basic_authorization(&self) -> Result<Option<HeaderValue>, TargetError> {
        let Some(user) = &self.user else { return Ok(None) };
        let user = percent_decode(user).ok_or_else(|| self.wrong("user and password are not percent-encoded UTF-8"))?;
        let user = if user.contains(':') { user } else { format!("{user}:") };
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(user)))
            .map_err(|_e| self.wrong("user and password cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// `path`: what is added to the address's own, with HTTP; `None`: the address is used as it is.
    fn url(&self, protocol: Protocol, insecure: bool, path: Option<&str>) -> Result<Uri, TargetError> {
        let scheme = match (&self.scheme, protocol) {
            (Some(scheme), _) => scheme.clone(),
            (None, Protocol::Grpc) if insecure => Scheme::HTTP,
            (None, Protocol::Grpc) => Scheme::HTTPS,
            (None, Protocol::HttpProtobuf) => {
                return Err(self.wrong("http/protobuf needs http:// or https:// before the host"));
            }
        };
        let path = match (protocol, path) {
            (Protocol::Grpc, _) => PathAndQuery::from_static("/"),
            (Protocol::HttpProtobuf, None) => self.path.clone(),
            (Protocol::HttpProtobuf, Some(path)) => {
                let query = self.path.query().map(|q| format!("?{q}")).unwrap_or_default();
                format!("{}{path}{query}", self.path.path().trim_end_matches('/'))
                    .parse()
                    .map_err(|_e| self.wrong(&format!("{path} cannot be added to its path")))?
            }
        };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_e| self.wrong("it is no URL"))
    }

    fn wrong(&self, why: &str) -> TargetError {
        wrong(self.key, &self.written, why)
    }
}

fn wrong(key: &str, written: &Endpoint, why: &str) -> TargetError {
    TargetError {
        key: key.into(),
        message: format!("expected an address such as \"http://host:4318\", found \"{written}\": {why}"),
    }
}

// === impl Otlp

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("protocol", &self.protocol)
            .field("url", &Endpoint::new(self.url.to_string()))
            .field("headers", &self.headers)
            .field("headers_file", &self.headers_file)
            .finish()
    }
}

// === impl Target

impl fmt::Display for Target {
    /// One line for people, without anything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout { format: Format::Auto } => {
                f.write_str("standard output: lines for people on a terminal, OTLP/JSON in a pipe")
            }
            Self::Stdout { format: Format::Text } => f.write_str("standard output, as lines for people"),
            Self::Stdout { format: Format::Json } => f.write_str("standard output, as OTLP/JSON"),
            Self::Stdout { format: Format::Ndjson } => f.write_str("standard output, as a JSON object a record"),
            Self::Otlp(otlp) => {
                let protocol = match otlp.protocol {
                    Protocol::Grpc => "OTLP/gRPC",
                    Protocol::HttpProtobuf => "OTLP/HTTP with protobuf",
                };
                write!(f, "{} by {protocol}", Endpoint::new(otlp.url.to_string()))
            }
        }
    }
}
