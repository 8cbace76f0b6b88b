//! A client for flowtel's own metrics, built as the one for records is: the same TLS, proxies, headers and errors. What
//! goes over it is not this room's business.

use std::time::Duration;

use tonic::{metadata::MetadataMap, transport::Channel};

use super::{
    BuildError, Settings, Target,
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
    /// Requests are to be compressed.
    pub gzip: bool,
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
        /// Of each request.
        metadata: MetadataMap,
    },
    /// HTTP.
    Http {
        /// It sends the headers itself.
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
        let settings = Settings { headers: headers(&to.headers), ..Settings::new(export, target) };
        let Transport::Otlp(otlp) = Transport::build(&settings)? else {
            return Err(BuildError::Http("metrics can't go to standard output".into()));
        };
        let endpoint = otlp.endpoint().to_owned();
        let transport = match &*otlp {
            Otlp::Grpc(grpc) => {
                let (channel, metadata) = grpc.parts();
                MetricsTransport::Grpc { channel, metadata }
            }
            Otlp::Http(http) => {
                let (client, url) = http.parts();
                MetricsTransport::Http { client, url }
            }
        };
        let gzip = settings.compression == config::Compression::Gzip;
        Ok(Self { transport, endpoint, gzip, timeout: settings.timeout })
    }
}
