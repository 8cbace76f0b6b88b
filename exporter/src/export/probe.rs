//! One valid request without a record, to tell whether the receiver takes them.

use std::time::Duration;

use thiserror::Error;

use super::{
    Exporter,
    build::Transport,
    split,
    verdict::{self, Reason, Verdict},
};

/// Why records would not arrive: the receiver can't be reached, or doesn't take logs.
#[derive(Debug, Error)]
#[error("{endpoint}: {reason}")]
pub struct ProbeError {
    /// Where the request went.
    pub endpoint: String,
    /// Why, and what to do.
    pub reason: Reason,
    /// Whether flowtel would go on trying, and records would wait. Else they would be rejected.
    pub retryable: bool,
}

// === impl Exporter

impl Exporter {
    /// Sends an empty `ExportLogsServiceRequest` the way batches are sent, and waits for the answer no longer than `limit`.
    /// Returns where it was delivered to. Has to run on tokio.
    ///
    /// # Errors
    /// The reason why it was not delivered and, where it is clear, the remedy.
    pub async fn probe(&self, limit: Duration) -> Result<String, ProbeError> {
        let otlp = match &self.transport {
            Transport::Stdout(_) => return Ok("standard output".into()),
            Transport::Otlp(otlp) => otlp,
        };
        let endpoint = otlp.endpoint().to_owned();
        let verdict = tokio::time::timeout(limit, otlp.send(split::empty_request())).await;
        let no_answer = |_| verdict::of_no_answer(Reason::new(format!("no answer within {limit:?}"), None));
        let (reason, retryable) = match verdict.unwrap_or_else(no_answer) {
            // Nothing was sent, so a warning about nothing is no fault.
            Verdict::Delivered | Verdict::Partial { .. } => return Ok(endpoint),
            // It has read the request, and found what is true: that nothing is in it.
            Verdict::Rejected { reason } if misses_records_only(&reason) => return Ok(endpoint),
            Verdict::Rejected { reason } | Verdict::TooLarge { reason } => (reason, false),
            Verdict::Retry { reason, .. } => (reason, true),
        };
        Err(ProbeError { endpoint, reason, retryable })
    }
}

/// Whether a refusal says no more than that the request holds no record. Loki answers an empty request with status 422
/// and these words (`MissingStreamsErrorMsg` in its pkg/validation/validate.go).
fn misses_records_only(reason: &Reason) -> bool {
    reason.text.starts_with("HTTP 422") && reason.text.contains("at least one valid stream is required")
}
