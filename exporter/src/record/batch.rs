//! A sealed batch: the final bytes of one OTLP request.

use bytes::Bytes;

/// The final bytes of one `ExportLogsServiceRequest`, and what must be known about them without decoding. Whatever
/// sends it again sends the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Protobuf (opentelemetry/proto/collector/logs/v1/logs_service.proto), not compressed.
    pub bytes: Bytes,
    /// Log records in it; never 0.
    pub records: u32,
    /// The earliest record's time, nanoseconds since the Unix epoch.
    pub first: u64,
    /// The latest record's time, nanoseconds since the Unix epoch.
    pub last: u64,
}
