//! A batch that a receiver finds too large goes in; two valid batches come out, with the same resource and scope, the
//! records in the same order. Must never lose or double a record.
//!
//! Works on the protobuf's structure alone (opentelemetry/proto/logs/v1/logs.proto): the records' bytes are copied as
//! they are, so the halves of a batch are the same bytes every time.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::record::Batch;

/// `resource_logs` of ExportLogsServiceRequest.
const RESOURCE_LOGS: u32 = 1;
/// `scope_logs` of ResourceLogs.
const SCOPE_LOGS: u32 = 2;
/// `log_records` of ScopeLogs.
const LOG_RECORDS: u32 = 2;
/// `time_unix_nano` of LogRecord.
const TIME: u32 = 1;

/// The two halves of a batch; `None` when it has a single record, or is not the protobuf that its count of records says.
pub fn split(batch: &Batch) -> Option<[Batch; 2]> {
    let request = Request::parse(&batch.bytes)?;
    let records = request.records();
    if records != batch.records as usize || records < 2 {
        return None;
    }
    let middle = records / 2;
    Some([request.part(0..middle), request.part(middle..records)])
}

struct Request<'a> {
    resources: Vec<Resource<'a>>,
}

struct Resource<'a> {
    /// All fields but the scopes, as they are.
    rest: Vec<&'a [u8]>,
    scopes: Vec<Scope<'a>>,
}

struct Scope<'a> {
    /// All fields but the records, as they are.
    rest: Vec<&'a [u8]>,
    /// The content of each record.
    records: Vec<&'a [u8]>,
}

/// A field: its number, the content where it is length-delimited, and all its bytes.
struct Field<'a> {
    number: u32,
    content: Option<&'a [u8]>,
    whole: &'a [u8],
}

// === impl Request

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut resources = Vec::new();
        for field in fields(bytes) {
            let field = field?;
            if field.number == RESOURCE_LOGS {
                resources.push(Resource::parse(field.content?)?);
            }
        }
        Some(Self { resources })
    }

    fn records(&self) -> usize {
        self.resources.iter().flat_map(|r| &r.scopes).map(|s| s.records.len()).sum()
    }

    fn part(&self, wanted: std::ops::Range<usize>) -> Batch {
        let (mut out, mut first, mut last, mut seen) = (BytesMut::new(), u64::MAX, 0, 0);
        for resource in &self.resources {
            let mut resource_out = BytesMut::new();
            let mut any = false;
            resource.rest.iter().for_each(|field| resource_out.put_slice(field));
            for scope in &resource.scopes {
                let here = seen..seen + scope.records.len();
                seen = here.end;
                let (from, to) = (wanted.start.max(here.start), wanted.end.min(here.end));
                if from >= to {
                    continue;
                }
                any = true;
                let mut scope_out = BytesMut::new();
                scope.rest.iter().for_each(|field| scope_out.put_slice(field));
                for record in &scope.records[from - here.start..to - here.start] {
                    put(&mut scope_out, LOG_RECORDS, record);
                    let time = time(record);
                    (first, last) = (first.min(time), last.max(time));
                }
                put(&mut resource_out, SCOPE_LOGS, &scope_out);
            }
            if any {
                put(&mut out, RESOURCE_LOGS, &resource_out);
            }
        }
        // The counts fit: they are at most the whole's, which is a u32.
        Batch { bytes: out.freeze(), records: u32::try_from(wanted.len()).unwrap_or(u32::MAX), first, last }
    }
}

impl<'a> Resource<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (mut rest, mut scopes) = (Vec::new(), Vec::new());
        for field in fields(bytes) {
            let field = field?;
            if field.number == SCOPE_LOGS { scopes.push(Scope::parse(field.content?)?) } else { rest.push(field.whole) }
        }
        Some(Self { rest, scopes })
    }
}

impl<'a> Scope<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (mut rest, mut records) = (Vec::new(), Vec::new());
        for field in fields(bytes) {
            let field = field?;
            if field.number == LOG_RECORDS { records.push(field.content?) } else { rest.push(field.whole) }
        }
        Some(Self { rest, records })
    }
}

/// The fields of a message; `None` as the last item where it is malformed.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Option<Field<'_>>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let field = next_field(&mut left);
        if field.is_none() {
            left = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(left: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *left;
    let (number, wire_type) = decode_key(left).ok()?;
    let (is_message, length) = match wire_type {
        WireType::Varint => {
            decode_varint(left).ok()?;
            (false, 0)
        }
        WireType::SixtyFourBit => (false, 8),
        WireType::ThirtyTwoBit => (false, 4),
        WireType::LengthDelimited => (true, usize::try_from(decode_varint(left).ok()?).ok()?),
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let content = left.get(..length)?;
    left.advance(length);
    Some(Field { number, content: is_message.then_some(content), whole: &start[..start.len() - left.len()] })
}

fn put(out: &mut BytesMut, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.put_slice(content);
}

/// A record's time, 0 where it has none.
fn time(record: &[u8]) -> u64 {
    let field = fields(record).flatten().find(|field| field.number == TIME);
    field.and_then(|field| field.whole.last_chunk().copied()).map_or(0, u64::from_le_bytes)
}

/// A valid request without a record: what [`probe`](super::Exporter::probe) sends.
pub(super) fn empty_request() -> Bytes {
    Bytes::new()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::InstrumentationScope,
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
        resource::v1::Resource,
    };
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
        let record = (any::<u64>(), ".{0,20}").prop_map(|(time_unix_nano, event_name)| LogRecord {
            time_unix_nano,
            event_name,
            ..LogRecord::default()
        });
        let scope = (prop::collection::vec(record, 0..9), ".{0,8}").prop_map(|(log_records, name)| ScopeLogs {
            scope: Some(InstrumentationScope { name, ..InstrumentationScope::default() }),
            schema_url: "https://opentelemetry.io/schemas/1.44.0".into(),
            log_records,
        });
        let resource = prop::collection::vec(scope, 0..3).prop_map(|scope_logs| ResourceLogs {
            resource: Some(Resource { dropped_attributes_count: 7, ..Resource::default() }),
            scope_logs,
            schema_url: "a".into(),
        });
        prop::collection::vec(resource, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
    }

    /// Each record with what it stands under.
    fn flat(
        request: &ExportLogsServiceRequest,
    ) -> Vec<(Option<Resource>, Option<InstrumentationScope>, String, LogRecord)> {
        let scopes = request.resource_logs.iter().flat_map(|r| r.scope_logs.iter().map(move |s| (r, s)));
        scopes
            .flat_map(|(r, s)| {
                let under = move |record: &LogRecord| {
                    (r.resource.clone(), s.scope.clone(), format!("{} {}", r.schema_url, s.schema_url), record.clone())
                };
                s.log_records.iter().map(under)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_halves_hold_each_record_once_under_its_resource_and_scope(request in requests()) {
            let all = flat(&request);
            let whole = Batch { bytes: request.encode_to_vec().into(), records: all.len() as u32, first: 0, last: 0 };
            let Some(halves) = split(&whole) else {
                prop_assert!(all.len() < 2);
                return Ok(());
            };
            let mut together = Vec::new();
            for half in halves {
                let records = flat(&ExportLogsServiceRequest::decode(half.bytes).unwrap());
                prop_assert!(!records.is_empty());
                prop_assert_eq!(records.len(), half.records as usize);
                prop_assert_eq!(records.iter().map(|r| r.3.time_unix_nano).min(), Some(half.first));
                prop_assert_eq!(records.iter().map(|r| r.3.time_unix_nano).max(), Some(half.last));
                together.extend(records);
            }
            prop_assert_eq!(together, all);
        }

        #[test]
        fn garbage_is_not_split(bytes in prop::collection::vec(any::<u8>(), 0..200), records in 2..9u32) {
            if let Some(halves) = split(&Batch { bytes: bytes.into(), records, first: 0, last: 0 }) {
                prop_assert_eq!(halves[0].records + halves[1].records, records);
            }
        }
    }
}
