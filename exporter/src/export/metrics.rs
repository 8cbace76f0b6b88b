//! A client for flowtel's own metrics, built as the one for records is: the same TLS, proxies, headers and errors. What
//! goes over it is not this room's business.

use std::{sync::Arc, time::Duration};

use tonic::transport::Channel;

use super::{
    BuildError, Headers, Settings, Target,
    build::{Otlp, Transport},
};
use crate::{
    config::{self, Protocol},
    export::resolved::headers,
};

/// A client of a receiver of metrics.
#[derive(Debug)]
pub struct MetricsClient {
    /// Connected at the first request.
    pub transport: MetricsTransport,
    /// Where it goes, without user, password and query.
    pub endpoint: String,
    /// How requests are to be compressed.
    pub compression: config::Compression,
    /// Of each request.
    pub headers: Arc<Headers>,
    /// How long one request may take.
    pub timeout: Duration,
}

/// OTLP's transports.
#[derive(Debug)]
pub enum MetricsTransport {
    /// gRPC.
    Grpc {
        /// The connection.
        channel: Channel,
    },
    /// HTTP.
    Http {
        /// It sends no headers by itself.
        client: reqwest::Client,
        /// The full URL.
        url: String,
    },
}

// === impl MetricsClient

impl MetricsClient {
    /// A client towards `to`, with the timeout, compression and TLS of `export`. Has to be called on tokio.
    ///
    /// # Errors
    /// As of [`super::Exporter::build`].
    pub fn build(to: &config::Otlp, export: &config::Export) -> Result<Self, BuildError> {
        let url = to.url.to_string();
        let target = match to.protocol {
            Protocol::Grpc => Target::Grpc { url },
            Protocol::HttpProtobuf => Target::Http { url },
        };
        let (headers, headers_file) = (headers(&to.headers), to.headers_file.clone());
        let settings = Settings { headers, headers_file, ..Settings::new(export, target) };
        let Transport::Otlp(otlp) = Transport::build(&settings)? else {
            return Err(BuildError::Http("metrics can't go to standard output".into()));
        };
        let endpoint = otlp.endpoint().to_owned();
        let (transport, headers) = match &*otlp {
            Otlp::Grpc(grpc) => {
                let (channel, headers) = grpc.parts();
                (MetricsTransport::Grpc { channel }, headers)
            }
            Otlp::Http(http) => {
                let (client, url, headers) = http.parts();
                (MetricsTransport::Http { client, url }, headers)
            }
        };
        Ok(Self { transport, endpoint, compression: settings.compression, headers, timeout: settings.timeout })
    }
}
