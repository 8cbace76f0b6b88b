//! What goes over the status socket to somebody who looks on: frames, one after the other, until either side ends it.
//!
//! ```text
//! frame:   kind (1 byte), length (4 bytes, little endian), so many bytes of content
//! content: H  Hello as JSON: the first frame
//!          R  records: missed before them (8 bytes), how many (4 bytes), an ExportLogsServiceRequest
//!          O  flows that are open: 1 if they are older than flowtel, else 0 (1 byte), an ExportLogsServiceRequest
//!          S  Status as JSON, once a second
//!          D  the reader was too slow and is dropped: missed until then (8 bytes); the last frame
//!          F  so many look on already that there is no room for another one; the only frame
//!          E  flowtel stops; the last frame
//! ```
//!
//! Must never trust a length: who answers may be no flowtel.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Status;
use crate::{config, escape::write_json};

/// Before the content: kind and length.
const HEAD: usize = 5;
/// The most bytes of one content: more than a batch may have (`export.batch.max_bytes`, 64 MiB and the last record).
const MOST: usize = 80 << 20;

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Who speaks, and what is recorded.
    Hello(Box<Hello>),
    /// Records, as they went into the queue.
    Records {
        /// Records that came before them and were not sent, because the reader was too slow.
        missed: u64,
        /// How many they are.
        records: u32,
        /// An `ExportLogsServiceRequest`.
        request: Bytes,
    },
    /// Flows that are open. The time of each record is its begin, if that was seen.
    Open {
        /// They are older than flowtel: the time of their record means nothing.
        older: bool,
        /// An `ExportLogsServiceRequest`.
        request: Bytes,
    },
    /// How flowtel is doing.
    Status(Box<Status>),
    /// The reader was too slow; nothing more comes.
    Dropped {
        /// Records that it missed until it was dropped.
        missed: u64,
    },
    /// Too many look on already; nothing comes.
    Full,
    /// flowtel stops; nothing more comes.
    End,
}

/// Who speaks, and what is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its version.
    pub version: String,
    /// Its process id, as it sees it.
    pub pid: u32,
    /// What it records.
    pub recording: Recording,
    /// Flows that are open.
    pub open_flows: u64,
}

/// Which part of what happens becomes a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Begins.
    pub begins: bool,
    /// Ends.
    pub ends: bool,
    /// Failed attempts.
    pub failed: bool,
    /// How often an open flow is told of, in seconds; `None`: never.
    pub update_seconds: Option<f64>,
    /// The part of flows that is recorded: 1 is all of them.
    pub sample: f64,
}

// === impl Recording

impl Recording {
    /// What a configuration asks for.
    pub fn of(config: &config::Config) -> Self {
        let events = config.capture.events;
        Self {
            begins: events.has(config::Events::BEGINS),
            ends: events.has(config::Events::ENDS),
            failed: events.has(config::Events::FAILED),
            update_seconds: config.updates().map(|every| every.as_secs_f64()),
            sample: config.capture.sample,
        }
    }
}

impl Default for Recording {
    fn default() -> Self {
        Self::of(&config::Config::default())
    }
}

// === impl Frame

impl Frame {
    /// What stands before the request, and the request: so that no batch is copied.
    pub(super) fn encode(self) -> (Bytes, Bytes) {
        let json = |value: serde_json::Result<Vec<u8>>| (BytesMut::new(), value.unwrap_or_default().into());
        let (kind, (before, body)): (u8, (BytesMut, Bytes)) = match self {
            Self::Hello(hello) => (b'H', json(to_json(&*hello))),
            Self::Status(status) => (b'S', json(to_json(&*status))),
            Self::Records { missed, records, request } => {
                let mut before = BytesMut::with_capacity(12);
                before.put_u64_le(missed);
                before.put_u32_le(records);
                (b'R', (before, request))
            }
            Self::Open { older, request } => (b'O', (BytesMut::from(&[u8::from(older)][..]), request)),
            Self::Dropped { missed } => (b'D', (BytesMut::from(&missed.to_le_bytes()[..]), Bytes::new())),
            Self::Full => (b'F', Default::default()),
            Self::End => (b'E', Default::default()),
        };
        let mut head = BytesMut::with_capacity(HEAD + before.len());
        head.put_u8(kind);
        head.put_u32_le(u32::try_from(before.len() + body.len()).unwrap_or(u32::MAX));
        head.extend_from_slice(&before);
        (head.freeze(), body)
    }

    /// Takes a frame off the front of what came; `None`: it is not there as a whole.
    ///
    /// # Errors
    /// It is no frame.
    pub(super) fn take(came: &mut BytesMut) -> io::Result<Option<Self>> {
        let Some((&[kind, a, b, c, d], rest)) = came.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MOST {
            return Err(wrong(format!("a frame of {length} bytes")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        came.advance(HEAD);
        let mut content = came.split_to(length).freeze();
        let short = || wrong("a frame that is too short".into());
        Ok(Some(match kind {
            b'H' => Self::Hello(from_json(&content)?),
            b'S' => Self::Status(from_json(&content)?),
            b'R' => {
                let missed = content.try_get_u64_le().map_err(|_e| short())?;
                let records = content.try_get_u32_le().map_err(|_e| short())?;
                Self::Records { missed, records, request: content }
            }
            b'O' => Self::Open { older: content.try_get_u8().map_err(|_e| short())? == 1, request: content },
            b'D' => Self::Dropped { missed: content.try_get_u64_le().map_err(|_e| short())? },
            b'F' => Self::Full,
            b'E' => Self::End,
            other => return Err(wrong(format!("a frame of kind {other}"))),
        }))
    }
}

fn to_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::new();
    write_json(&mut json, value).map(|()| json)
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))
}

fn wrong(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::tests::instance;

    fn frames() -> Vec<Frame> {
        let request = Bytes::from_static(b"request");
        let hello = Hello { version: "1".into(), pid: 7, recording: Recording::default(), open_flows: 3 };
        vec![
            Frame::Hello(Box::new(hello)),
            Frame::Records { missed: 5, records: 2, request: request.clone() },
            Frame::Open { older: true, request },
            Frame::Status(Box::new(Status::of(&instance()))),
            Frame::Dropped { missed: u64::MAX },
            Frame::Full,
            Frame::End,
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut bytes = Vec::new();
        for frame in frames() {
            let (head, body) = frame.encode();
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&body);
        }
        let (mut came, mut out) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            came.extend_from_slice(&[byte]);
            out.extend(Frame::take(&mut came).expect("frames"));
        }
        assert!(came.is_empty());
        let kinds = |frames: &[Frame]| frames.iter().map(std::mem::discriminant).collect::<Vec<_>>();
        assert_eq!(kinds(&out), kinds(&frames()));
        // Times of a status have more digits than JSON gives back.
        let rest = |frames: Vec<Frame>| frames.into_iter().filter(|f| !matches!(f, Frame::Status(_)));
        assert!(rest(out).eq(rest(frames())));
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_takes_no_memory() {
        for wrong in [&b"R\xff\xff\xff\xff"[..], b"x\0\0\0\0", b"H\x01\0\0\0{", b"R\x01\0\0\0a", b"O\0\0\0\0"] {
            assert!(Frame::take(&mut BytesMut::from(wrong)).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut came = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::take(&mut came) {}
        }
    }
}
