//! Each message of a request (opentelemetry/proto: collector/logs/v1, logs/v1, common/v1, resource/v1) from its bytes to JSON.
//!
//! A function a message. Each field is written with a comma behind it; [`close`] makes the last comma the closing brace.

use std::io;

use opentelemetry_proto::tonic::{common::v1::InstrumentationScope, resource::v1::Resource};

use super::{
    Full, Odd, PIECE, Transcoder, in_order_or_again, invalid, record, text,
    wire::{Seen, Value, Wire},
};

/// The most values within each other.
pub(super) const DEPTH: u8 = 24;

/// Gives each log record of a request to `each`, in whatever order the envelope's fields are.
pub(super) fn records(request: &[u8], each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    within(request, 1, &mut |logs| within(logs, 2, &mut |logs| within(logs, 2, each)))
}

/// Gives the bytes of each field `number` to `each`.
fn within(message: &[u8], number: u32, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut wire = Wire(message);
    while let Some(field) = wire.next().map_err(invalid)? {
        if let (is, Value::Bytes(bytes)) = field
            && is == number
        {
            each(bytes)?;
        }
    }
    Ok(())
}

/// Whether one pass can follow the envelope of a request: each field of it comes once, or in one row. What is within the
/// records, the resource and the scope isn't looked at.
pub(super) fn in_order(request: &[u8]) -> Result<bool, Odd> {
    let all = || -> Result<(), Odd> {
        let mut wire = Wire(request);
        while let Some(resource_logs) = wire.again(1)? {
            row(resource_logs, 3, |number, value| match (number, value) {
                (1..=3, Value::Bytes(scope_logs)) if number == 2 => row(scope_logs, 3, |number, value| {
                    if matches!((number, value), (1..=3, Value::Bytes(_))) { Ok(()) } else { Err(Odd::Order) }
                }),
                (1..=3, Value::Bytes(_)) => Ok(()),
                _ => Err(Odd::Order),
            })?;
        }
        if wire.0.is_empty() { Ok(()) } else { Err(Odd::Order) }
    };
    match all() {
        Ok(()) => Ok(true),
        Err(Odd::Order) => Ok(false),
        Err(odd) => Err(odd),
    }
}

/// Looks at the fields of a message, of which number 2 alone may come more than once, in one row.
fn row(message: &[u8], last: u32, mut look: impl FnMut(u32, Value<'_>) -> Result<(), Odd>) -> Result<(), Odd> {
    let (mut wire, mut seen) = (Wire(message), Seen::default());
    while let Some((number, value)) = wire.next()? {
        if number > last {
            return Err(Odd::Order);
        }
        seen.first(number)?;
        look(number, value)?;
        if number == 2 {
            while let Some(bytes) = wire.again(2)? {
                look(2, Value::Bytes(bytes))?;
            }
        }
    }
    Ok(())
}

/// `ExportLogsServiceRequest`. Its one field is there even when it is empty: readers tell logs from traces by it.
pub(super) fn request(bytes: &[u8], out: &mut Vec<u8>, of: &mut Transcoder, full: Full<'_>) -> io::Result<()> {
    out.extend_from_slice(b"{\"resourceLogs\":[");
    let mut wire = Wire(bytes);
    let mut more = false;
    while let Some(bytes) = wire.again(1).map_err(invalid)? {
        if more {
            out.push(b',');
        }
        more = true;
        resource_logs(bytes, out, of, full)?;
    }
    if !wire.0.is_empty() {
        return Err(invalid(Odd::Order));
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn resource_logs(bytes: &[u8], out: &mut Vec<u8>, of: &mut Transcoder, full: Full<'_>) -> io::Result<()> {
    out.push(b'{');
    let mut wire = Wire(bytes);
    while let Some(field) = wire.next().map_err(invalid)? {
        match field {
            (1, Value::Bytes(bytes)) => {
                out.extend_from_slice(b"\"resource\":");
                let write = |wire: &[u8], json: &mut Vec<u8>| in_order_or_again::<Resource>(wire, json, resource);
                of.resource.write(bytes, out, write).map_err(invalid)?;
            }
            (2, Value::Bytes(bytes)) => {
                out.extend_from_slice(b"\"scopeLogs\":[");
                scope_logs(bytes, out, of, full)?;
                while let Some(bytes) = wire.again(2).map_err(invalid)? {
                    out.push(b',');
                    scope_logs(bytes, out, of, full)?;
                }
                out.push(b']');
            }
            (3, Value::Bytes(url)) => filled(b"\"schemaUrl\":", url, out).map_err(invalid)?,
            _ => return Err(invalid(Odd::Order)),
        }
        comma(out);
    }
    close(out);
    Ok(())
}

fn scope_logs(bytes: &[u8], out: &mut Vec<u8>, of: &mut Transcoder, full: Full<'_>) -> io::Result<()> {
    out.push(b'{');
    let mut wire = Wire(bytes);
    while let Some(field) = wire.next().map_err(invalid)? {
        match field {
            (1, Value::Bytes(bytes)) => {
                out.extend_from_slice(b"\"scope\":");
                let write =
                    |wire: &[u8], json: &mut Vec<u8>| in_order_or_again::<InstrumentationScope>(wire, json, scope);
                of.scope.write(bytes, out, write).map_err(invalid)?;
            }
            (2, Value::Bytes(bytes)) => {
                out.extend_from_slice(b"\"logRecords\":[");
                record(bytes, out).map_err(invalid)?;
                while let Some(bytes) = wire.again(2).map_err(invalid)? {
                    if out.len() >= PIECE {
                        full(out)?;
                    }
                    out.push(b',');
                    record(bytes, out).map_err(invalid)?;
                }
                out.push(b']');
            }
            (3, Value::Bytes(url)) => filled(b"\"schemaUrl\":", url, out).map_err(invalid)?,
            _ => return Err(invalid(Odd::Order)),
        }
        comma(out);
    }
    close(out);
    Ok(())
}

fn resource(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    fields(bytes, out, |wire, field, out| {
        match field {
            (1, Value::Bytes(first)) => list(wire, 1, first, b"\"attributes\":[", out, |b, out| key_value(b, 0, out))?,
            (2, Value::Varint(n)) => number(b"\"droppedAttributesCount\":", n as u32, out),
            (3, Value::Bytes(first)) => list(wire, 3, first, b"\"entityRefs\":[", out, entity_ref)?,
            _ => return Err(Odd::Order),
        }
        Ok(())
    })
}

fn scope(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    fields(bytes, out, |wire, field, out| {
        match field {
            (1, Value::Bytes(name)) => filled(b"\"name\":", name, out)?,
            (2, Value::Bytes(version)) => filled(b"\"version\":", version, out)?,
            (3, Value::Bytes(first)) => list(wire, 3, first, b"\"attributes\":[", out, |b, out| key_value(b, 0, out))?,
            (4, Value::Varint(n)) => number(b"\"droppedAttributesCount\":", n as u32, out),
            _ => return Err(Odd::Order),
        }
        Ok(())
    })
}

/// `LogRecord`, without what [`super::record`] adds.
pub(super) fn log_record(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    fields(bytes, out, |wire, field, out| {
        match field {
            (1, Value::Fixed64(time)) => quoted_number(b"\"timeUnixNano\":", time, out),
            (2, Value::Varint(n)) => number(b"\"severityNumber\":", n as i32, out),
            (3, Value::Bytes(severity)) => filled(b"\"severityText\":", severity, out)?,
            (5, Value::Bytes(body)) => {
                out.extend_from_slice(b"\"body\":");
                any_value(body, 0, out)?;
            }
            (6, Value::Bytes(first)) => list(wire, 6, first, b"\"attributes\":[", out, |b, out| key_value(b, 0, out))?,
            (7, Value::Varint(n)) => number(b"\"droppedAttributesCount\":", n as u32, out),
            (8, Value::Fixed32(flags)) => number(b"\"flags\":", flags, out),
            (9, Value::Bytes(id)) => hex(b"\"traceId\":", id, out),
            (10, Value::Bytes(id)) => hex(b"\"spanId\":", id, out),
            (11, Value::Fixed64(time)) => quoted_number(b"\"observedTimeUnixNano\":", time, out),
            (12, Value::Bytes(name)) => filled(b"\"eventName\":", name, out)?,
            _ => return Err(Odd::Order),
        }
        Ok(())
    })
}

/// `EntityRef`. All its fields are written: the reader of opentelemetry-proto wants them.
fn entity_ref(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    out.push(b'{');
    let (mut wire, mut seen) = (Wire(bytes), Seen::default());
    while let Some((number, value)) = wire.next()? {
        seen.first(number)?;
        match (number, value) {
            (1, Value::Bytes(url)) => field(b"\"schemaUrl\":", url, out)?,
            (2, Value::Bytes(kind)) => field(b"\"type\":", kind, out)?,
            (3, Value::Bytes(first)) => list(&mut wire, 3, first, b"\"idKeys\":[", out, text::string)?,
            (4, Value::Bytes(first)) => list(&mut wire, 4, first, b"\"descriptionKeys\":[", out, text::string)?,
            _ => return Err(Odd::Order),
        }
        comma(out);
    }
    for (number, empty) in
        [(1, "\"schemaUrl\":\"\","), (2, "\"type\":\"\","), (3, "\"idKeys\":[],"), (4, "\"descriptionKeys\":[],")]
    {
        if !seen.has(number) {
            out.extend_from_slice(empty.as_bytes());
        }
    }
    close(out);
    Ok(())
}

/// `KeyValue`. Its key is written also when it is empty.
#[inline(always)]
fn key_value(bytes: &[u8], depth: u8, out: &mut Vec<u8>) -> Result<(), Odd> {
    // What nearly all look like: a key and a value, with lengths of one byte.
    if let [0x0a, key_len @ 1..=0x7f, rest @ ..] = bytes
        && let Some((key, [0x12, any_len @ 1..=0x7f, any @ ..])) = rest.split_at_checked(usize::from(*key_len))
        && any.len() == usize::from(*any_len)
    {
        out.extend_from_slice(b"{\"key\":");
        text::string(key, out)?;
        out.extend_from_slice(b",\"value\":");
        any_value(any, depth, out)?;
        out.push(b'}');
        return Ok(());
    }
    other_key_value(bytes, depth, out)
}

fn other_key_value(bytes: &[u8], depth: u8, out: &mut Vec<u8>) -> Result<(), Odd> {
    out.push(b'{');
    let (mut wire, mut seen) = (Wire(bytes), Seen::default());
    while let Some((number, value)) = wire.next()? {
        seen.first(number)?;
        match (number, value) {
            (1, Value::Bytes(key)) => field(b"\"key\":", key, out)?,
            (2, Value::Bytes(any)) => {
                out.extend_from_slice(b"\"value\":");
                any_value(any, depth, out)?;
            }
            (3, Value::Varint(n)) => self::number(b"\"keyStrindex\":", n as i32, out),
            _ => return Err(Odd::Order),
        }
        comma(out);
    }
    if !seen.has(1) {
        out.extend_from_slice(b"\"key\":\"\",");
    }
    close(out);
    Ok(())
}

/// `AnyValue`: which of its fields is set is its type, so that is written even when it is empty or 0.
#[inline(always)]
fn any_value(bytes: &[u8], depth: u8, out: &mut Vec<u8>) -> Result<(), Odd> {
    if let [0x0a, len @ 0..=0x7f, value @ ..] = bytes
        && value.len() == usize::from(*len)
    {
        out.extend_from_slice(b"{\"stringValue\":");
        text::string(value, out)?;
        out.push(b'}');
        return Ok(());
    }
    other_value(bytes, depth, out)
}

fn other_value(bytes: &[u8], depth: u8, out: &mut Vec<u8>) -> Result<(), Odd> {
    if depth >= DEPTH {
        return Err(Odd::Deep);
    }
    let mut wire = Wire(bytes);
    let Some(field) = wire.next()? else {
        out.extend_from_slice(b"{}");
        return Ok(());
    };
    if !wire.0.is_empty() {
        // The last one counts.
        return Err(Odd::Order);
    }
    match field {
        (1, Value::Bytes(value)) => {
            out.extend_from_slice(b"{\"stringValue\":");
            text::string(value, out)?;
        }
        (2, Value::Varint(n)) => {
            let value: &[u8] = if n == 0 { b"{\"boolValue\":false" } else { b"{\"boolValue\":true" };
            out.extend_from_slice(value);
        }
        (3, Value::Varint(n)) => {
            out.extend_from_slice(b"{\"intValue\":");
            text::quoted_int(n as i64, out);
        }
        (4, Value::Fixed64(bits)) => {
            out.extend_from_slice(b"{\"doubleValue\":");
            text::double(f64::from_bits(bits), out)?;
        }
        (5, Value::Bytes(values)) => {
            out.extend_from_slice(b"{\"arrayValue\":");
            value_list(values, out, |bytes, out| any_value(bytes, depth + 1, out))?;
        }
        (6, Value::Bytes(values)) => {
            out.extend_from_slice(b"{\"kvlistValue\":");
            value_list(values, out, |bytes, out| key_value(bytes, depth + 1, out))?;
        }
        (7, Value::Bytes(value)) => {
            out.extend_from_slice(b"{\"bytesValue\":");
            text::base64(value, out);
        }
        (8, Value::Varint(n)) => {
            out.extend_from_slice(b"{\"stringValueStrindex\":");
            text::int(n as i32, out);
        }
        _ => return Err(Odd::Order),
    }
    out.push(b'}');
    Ok(())
}

/// `ArrayValue` or `KeyValueList`. An empty one has its list, too: the reader of opentelemetry-proto wants it.
fn value_list(
    bytes: &[u8],
    out: &mut Vec<u8>,
    write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Odd>,
) -> Result<(), Odd> {
    let mut wire = Wire(bytes);
    match wire.again(1)? {
        None => out.extend_from_slice(b"{\"values\":["),
        Some(first) => {
            list(&mut wire, 1, first, b"{\"values\":[", out, write)?;
            out.pop();
        }
    }
    if !wire.0.is_empty() {
        return Err(Odd::Order);
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

// === parts of messages

/// A message whose fields `write` writes.
#[inline(always)]
fn fields<'a>(
    bytes: &'a [u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut Wire<'a>, (u32, Value<'a>), &mut Vec<u8>) -> Result<(), Odd>,
) -> Result<(), Odd> {
    out.push(b'{');
    let (mut wire, mut seen) = (Wire(bytes), Seen::default());
    while let Some(field) = wire.next()? {
        seen.first(field.0)?;
        write(&mut wire, field, out)?;
        comma(out);
    }
    close(out);
    Ok(())
}

/// A repeated field: `first`, and those that follow at once.
#[inline(always)]
fn list<'a>(
    wire: &mut Wire<'a>,
    number: u8,
    first: &'a [u8],
    key: &[u8],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&'a [u8], &mut Vec<u8>) -> Result<(), Odd>,
) -> Result<(), Odd> {
    out.extend_from_slice(key);
    write(first, out)?;
    while let Some(next) = wire.again(number)? {
        out.push(b',');
        write(next, out)?;
    }
    out.push(b']');
    Ok(())
}

fn field(key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    out.extend_from_slice(key);
    text::string(value, out)
}

/// A string, where it isn't empty.
fn filled(key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    if value.is_empty() { Ok(()) } else { field(key, value, out) }
}

fn hex(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.extend_from_slice(key);
        text::hex(value, out);
    }
}

/// A number, where it isn't 0.
fn number<N: itoa::Integer + Default + PartialEq>(key: &[u8], value: N, out: &mut Vec<u8>) {
    if value != N::default() {
        out.extend_from_slice(key);
        text::int(value, out);
    }
}

/// A 64-bit number, where it isn't 0.
fn quoted_number(key: &[u8], value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.extend_from_slice(key);
        text::quoted_int(value, out);
    }
}

/// Adds the comma behind a field, where one was written.
#[inline(always)]
fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b',')) {
        out.push(b',');
    }
}

/// Ends an object: in place of the comma behind its last field.
#[inline(always)]
fn close(out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = b'}',
        _ => out.push(b'}'),
    }
}
