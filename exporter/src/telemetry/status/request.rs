//! What is asked over the status socket: one line in, a [`Request`] out. Who asks nothing, and only reads, gets the status.
//!
//! ```text
//! client: ""                                        server: Status as JSON
//! client: "flow 9f86d081884c7d659a2feaa0c55ad015\n" server: FlowAnswer as JSON
//! client: "tail\n"                                  server: frames, to the end
//! client: "top\n"                                   server: likewise, with open flows and the status
//! ```

use std::{fmt, io, time::Duration};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::flow::FlowId;

/// Longer than any request.
const MOST: u64 = 128;
/// How long a line may take: who asks for something says so at once.
const PATIENCE: Duration = Duration::from_millis(500);

const FLOW: &str = "flow ";
const TAIL: &str = "tail";
const TOP: &str = "top";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// How flowtel is doing.
    Status,
    /// What is known of an open flow.
    Flow(FlowId),
    /// Records as they are made.
    Tail,
    /// The same, with the flows that are open and how flowtel is doing.
    Top,
}

/// The answer to [`Request::Flow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// The flow is older than flowtel; of no meaning where there is none.
    pub older: bool,
    /// Its record; `None`: no such flow is open.
    pub request: Option<ExportLogsServiceRequest>,
}

// === impl Request

impl Request {
    /// Reads a request. A client that closes its side, or says nothing for a while, wants the status.
    ///
    /// # Errors
    /// What came is no request; or the socket fails.
    pub async fn read(stream: impl AsyncRead + Unpin) -> io::Result<Self> {
        let mut line = Vec::new();
        let mut stream = stream.take(MOST);
        let whole = async {
            while !line.ends_with(b"\n") && stream.read_buf(&mut line).await? > 0 {}
            io::Result::Ok(())
        };
        if let Ok(result) = tokio::time::timeout(PATIENCE, whole).await {
            result?;
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no request that is known");
        if line.is_empty() {
            return Ok(Self::Status);
        }
        let text = std::str::from_utf8(&line).map_err(|_e| wrong())?.trim_end();
        match text {
            TAIL => Ok(Self::Tail),
            TOP => Ok(Self::Top),
            other => other.strip_prefix(FLOW).and_then(flow_id).map(Self::Flow).ok_or_else(wrong),
        }
    }
}

impl fmt::Display for Request {
    /// The line that asks for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => Ok(()),
            Self::Flow(id) => writeln!(f, "{FLOW}{id}"),
            Self::Tail => writeln!(f, "{TAIL}"),
            Self::Top => writeln!(f, "{TOP}"),
        }
    }
}

/// A flow's id from its 32 hex digits.
pub fn flow_id(text: &str) -> Option<FlowId> {
    let right = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    right.then(|| u128::from_str_radix(text, 16).ok().map(FlowId))?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Request> {
        Request::read(bytes).await
    }

    #[tokio::test]
    async fn a_request_is_read_as_it_was_written_and_nothing_asks_for_the_status() {
        let id = FlowId(0x9f86_d081_884c_7d65_9a2f_eaa0_c55a_d015);
        for request in [Request::Flow(id), Request::Tail, Request::Top] {
            assert_eq!(read(request.to_string().as_bytes()).await.expect("a request"), request);
        }
        assert_eq!(read(b"").await.expect("a request"), Request::Status);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_however_long_it_is() {
        for wrong in [&b"flow 1\n"[..], b"flow zz86d081884c7d659a2feaa0c55ad015\n", b"\xff\n", &[b'a'; 4096]] {
            assert!(read(wrong).await.is_err(), "{wrong:?}");
        }
    }
}
