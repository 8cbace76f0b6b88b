//! The bytes of a request in, one flat JSON object a record out: the time, the event, the body and each attribute under its
//! own name, with JSON's own types. For `jq`, and for stores that want a record a line.

use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::{
    Odd, in_order_or_again, messages, text,
    wire::{Value, Wire},
};
use crate::record::schema;

/// Adds a line for the log record with these bytes.
pub(super) fn record(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    in_order_or_again::<LogRecord>(bytes, out, object)?;
    out.push(b'\n');
    Ok(())
}

/// What stands before the attributes, wherever it was in the record.
#[derive(Default)]
struct Head<'a> {
    time: u64,
    observed: u64,
    severity: &'a [u8],
    event: &'a [u8],
    body: Option<&'a [u8]>,
}

fn object(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    let head = Head::of(bytes)?;
    out.extend_from_slice(b"{\"timestamp\":\"");
    time(head.time, out);
    out.extend_from_slice(b"\",\"observed_timestamp\":\"");
    time(head.observed, out);
    out.push(b'"');
    for (key, value) in [("event.name", head.event), ("severity_text", head.severity)] {
        if !value.is_empty() {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            text::string(value, out)?;
        }
    }
    if let Some(body) = head.body {
        out.extend_from_slice(b",\"body\":");
        any(body, 0, out)?;
    }
    let mut wire = Wire(bytes);
    while let Some((number, value)) = wire.next()? {
        if let (6, Value::Bytes(pair)) = (number, value) {
            let (key, value) = key_value(pair)?;
            // The record's own field says it already.
            if key != schema::EVENT_NAME.as_bytes() {
                out.push(b',');
                text::string(key, out)?;
                out.push(b':');
                any(value, 0, out)?;
            }
        }
    }
    out.push(b'}');
    Ok(())
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Odd> {
        let (mut head, mut wire) = (Self::default(), Wire(bytes));
        while let Some(field) = wire.next()? {
            match field {
                (1, Value::Fixed64(time)) => head.time = time,
                (11, Value::Fixed64(time)) => head.observed = time,
                (3, Value::Bytes(severity)) => head.severity = severity,
                (12, Value::Bytes(event)) => head.event = event,
                (5, Value::Bytes(_)) if head.body.is_some() => return Err(Odd::Order),
                (5, Value::Bytes(body)) => head.body = Some(body),
                (6 | 9 | 10, Value::Bytes(_)) | (2 | 7, Value::Varint(_)) | (8, Value::Fixed32(_)) => {}
                _ => return Err(Odd::Order),
            }
        }
        Ok(head)
    }
}

/// Key and value of a `KeyValue`.
fn key_value(bytes: &[u8]) -> Result<(&[u8], &[u8]), Odd> {
    let (mut key, mut any, mut wire) = (None, None, Wire(bytes));
    while let Some(field) = wire.next()? {
        match field {
            (1, Value::Bytes(bytes)) if key.is_none() => key = Some(bytes),
            (2, Value::Bytes(bytes)) if any.is_none() => any = Some(bytes),
            (3, Value::Varint(_)) => {}
            _ => return Err(Odd::Order),
        }
    }
    Ok((key.unwrap_or_default(), any.unwrap_or_default()))
}

/// An `AnyValue` as the JSON value that it is.
fn any(bytes: &[u8], depth: u8, out: &mut Vec<u8>) -> Result<(), Odd> {
    if depth >= messages::DEPTH {
        return Err(Odd::Deep);
    }
    let mut wire = Wire(bytes);
    let Some(field) = wire.next()? else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    if !wire.0.is_empty() {
        return Err(Odd::Order);
    }
    match field {
        (1, Value::Bytes(value)) => text::string(value, out)?,
        (2, Value::Varint(n)) => out.extend_from_slice(if n == 0 { b"false" } else { b"true" }),
        (3, Value::Varint(n)) => text::int(n as i64, out),
        (4, Value::Fixed64(bits)) => text::double(f64::from_bits(bits), out)?,
        (5, Value::Bytes(list)) => {
            out.push(b'[');
            each(list, out, |value, out| any(value, depth + 1, out))?;
            out.push(b']');
        }
        (6, Value::Bytes(list)) => {
            out.push(b'{');
            each(list, out, |pair, out| {
                let (key, value) = key_value(pair)?;
                text::string(key, out)?;
                out.push(b':');
                any(value, depth + 1, out)
            })?;
            out.push(b'}');
        }
        (7, Value::Bytes(value)) => text::base64(value, out),
        (8, Value::Varint(n)) => text::int(n as i32, out),
        _ => return Err(Odd::Order),
    }
    Ok(())
}

/// The elements of a list, with commas between.
fn each(
    list: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Odd>,
) -> Result<(), Odd> {
    let (mut wire, mut more) = (Wire(list), false);
    while let Some(element) = wire.again(1)? {
        if more {
            out.push(b',');
        }
        more = true;
        write(element, out)?;
    }
    if wire.0.is_empty() { Ok(()) } else { Err(Odd::Order) }
}

/// Nanoseconds since 1970 as RFC 3339 in UTC, to the nanosecond. Every `u64` is such a time: the last is in 2554.
fn time(nanoseconds: u64, out: &mut Vec<u8>) {
    use std::io::Write as _;

    match jiff::Timestamp::from_nanosecond(nanoseconds.into()) {
        // Writing to a Vec can't fail.
        Ok(time) => _ = write!(out, "{time:.9}"),
        Err(_) => text::int(nanoseconds, out),
    }
}
