//! Strings, numbers and bytes as JSON.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::Odd;
use crate::escape::acts;

/// Adds a string with its quotes. Every character that acts on a terminal is escaped.
///
/// # Errors
/// It is no UTF-8.
#[inline(always)]
pub(super) fn string(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    out.push(b'"');
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        escaped(bytes, out)?;
    }
    out.push(b'"');
    Ok(())
}

/// Whether these are visible characters and spaces of ASCII that JSON takes as they are: almost every text is. Without a way
/// out of the loop, so that the compiler can look at many bytes at once.
#[inline(always)]
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |byte: &u8| (*byte >= 0x20) & (*byte < 0x7f) & (*byte != b'"') & (*byte != b'\\');
    bytes.iter().fold(true, |all, byte| all & plain(byte))
}

#[cold]
fn escaped(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Odd> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let text = str::from_utf8(bytes).map_err(|_| Odd::Invalid("a string is no UTF-8"))?;
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // All of them are in the basic plane.
            c if acts(c) => {
                let code = c as u32;
                out.extend_from_slice(b"\\u");
                out.extend([12, 8, 4, 0].map(|shift| HEX[(code >> shift & 0xf) as usize]));
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(())
}

/// Adds an integer.
#[inline(always)]
pub(super) fn int(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Adds an integer between quotes.
#[inline(always)]
pub(super) fn quoted_int(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.push(b'"');
    int(value, out);
    out.push(b'"');
}

/// Adds a floating-point number; those that JSON has no number for by their names in protobuf's mapping.
pub(super) fn double(value: f64, out: &mut Vec<u8>) -> Result<(), Odd> {
    if value.is_finite() {
        return serde_json::to_writer(out, &value).map_err(|_| Odd::Invalid("a number that can't be written"));
    }
    out.extend_from_slice(match value {
        f64::INFINITY => b"\"Infinity\"",
        f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"\"NaN\"",
    });
    Ok(())
}

/// Adds bytes in base64, with quotes.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Adds bytes in hexadecimal, with quotes.
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    out.extend(bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 0xf)]]));
    out.push(b'"');
}
