//! The bytes of a request in, its OTLP/JSON out (OTLP specification, "JSON Protobuf Encoding"): keys in lowerCamelCase, 64-bit
//! integers as strings, enums as numbers, trace and span ids in hexadecimal, bytes in base64, fields with their default value
//! left out. The collector's `otlpjsonfile` receiver reads such lines.
//!
//! One pass over the wire, without a tree between: a record costs about as much as its JSON takes to copy. Protobuf leaves the
//! order of fields free, and lets a field come twice. A message that uses this freedom in a way that one pass can't follow (a
//! field that comes again after another one), or that holds fields of a newer version, is decoded and encoded again by prost
//! first, which leaves one field after the other. flowtel's own encoder never writes such a message.
//!
//! Must never write a character that acts on a terminal, or reads as the end of a line; must never write JSON for bytes that
//! are no request.

use std::io;

use opentelemetry_proto::tonic::{collector::logs::v1::ExportLogsServiceRequest, logs::v1::LogRecord};
use prost::Message;

mod flat;
mod messages;
#[cfg(test)]
mod tests;
mod text;
mod wire;

/// Bytes after which what is ready is handed on: large enough that a write's own cost doesn't count, small enough for the
/// CPU's inner caches.
pub const PIECE: usize = 256 << 10;

/// Why bytes could not be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Odd {
    /// A field comes again, or is unknown: prost has to read it.
    #[error("fields in an order that one pass can't follow")]
    Order,
    /// These bytes are no message.
    #[error("{0}")]
    Invalid(&'static str),
    /// Values within values, more than 24 of them: readers of JSON have limits of this kind.
    #[error("values are nested more than {} deep", messages::DEPTH)]
    Deep,
}

/// Transcodes requests. It keeps what one request has in common with the next: the resource and the scope.
#[derive(Debug, Default)]
pub struct Transcoder {
    resource: Static,
    scope: Static,
}

/// A part that is the same in one request after the other.
#[derive(Debug, Default)]
struct Static {
    wire: Vec<u8>,
    json: Vec<u8>,
}

// === impl Transcoder

impl Transcoder {
    /// Adds the request with these bytes to `out`, without a line's end. Whenever `out` holds more than [`PIECE`] bytes, `full`
    /// takes it, writes it elsewhere and empties it.
    ///
    /// # Errors
    /// The bytes are no request (`InvalidData`: what was added to `out` so far is no whole one), or those of `full`.
    pub fn write(&mut self, request: &[u8], out: &mut Vec<u8>, full: Full<'_>) -> io::Result<()> {
        if !messages::in_order(request).map_err(invalid)? {
            let again = ExportLogsServiceRequest::decode(request).map_err(io::Error::other)?.encode_to_vec();
            return messages::request(&again, out, self, full);
        }
        messages::request(request, out, self, full)
    }
}

/// Where the writer hands on what is ready.
type Full<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> io::Result<()>;

/// Adds a line for each record of a request to `out`: a flat JSON object. `full` as for [`Transcoder::write`].
///
/// # Errors
/// As of [`Transcoder::write`].
pub fn flat(request: &[u8], out: &mut Vec<u8>, full: Full<'_>) -> io::Result<()> {
    messages::records(request, &mut |record| {
        if out.len() >= PIECE {
            full(out)?;
        }
        flat::record(record, out).map_err(invalid)
    })
}

// === impl Static

impl Static {
    /// Adds the JSON of `wire`, which `write` makes where it is another one than the last.
    fn write(
        &mut self,
        wire: &[u8],
        out: &mut Vec<u8>,
        write: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), Odd>,
    ) -> Result<(), Odd> {
        if self.json.is_empty() || self.wire != wire {
            self.json.clear();
            if let Err(odd) = write(wire, &mut self.json) {
                self.json.clear();
                return Err(odd);
            }
            self.wire.clear();
            self.wire.extend_from_slice(wire);
        }
        out.extend_from_slice(&self.json);
        Ok(())
    }
}

/// Adds one log record to `out`.
fn record(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    in_order_or_again::<LogRecord>(bytes, out, messages::log_record)
}

/// Writes a message as it is, or, where one pass can't follow it, as prost encodes it.
fn in_order_or_again<M: Message + Default>(
    bytes: &[u8],
    out: &mut Vec<u8>,
    write: fn(&[u8], &mut Vec<u8>) -> Result<(), Odd>,
) -> Result<(), Odd> {
    let start = out.len();
    match write(bytes, out) {
        Err(Odd::Order) => {
            out.truncate(start);
            let message = M::decode(bytes).map_err(|_| Odd::Invalid("the bytes are no message of OTLP"))?;
            write(&message.encode_to_vec(), out)
        }
        result => result,
    }
}

fn invalid(odd: Odd) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, odd)
}
