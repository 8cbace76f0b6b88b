//! Fields of `LogRecord` (opentelemetry/proto/logs/v1/logs.proto) and of the messages in it, written one after the other.
//! Lengths are computed before a field is written, so nothing is moved.

use prost::encoding::{encode_varint, encoded_len_varint};

use super::text::Address;

/// First byte of a field: number and wire type (protobuf encoding guide). All numbers here are below 16.
pub(super) const fn tag(number: u8, wire: u8) -> u8 {
    number << 3 | wire
}
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LEN: u8 = 2;

/// Numbers of `LogRecord`'s fields.
pub(super) mod log_record {
    pub const TIME: u8 = 1;
    pub const SEVERITY_NUMBER: u8 = 2;
    pub const SEVERITY_TEXT: u8 = 3;
    pub const BODY: u8 = 5;
    pub const ATTRIBUTES: u8 = 6;
    pub const OBSERVED_TIME: u8 = 11;
    pub const EVENT_NAME: u8 = 12;
}

// `KeyValue`, `AnyValue` (opentelemetry/proto/common/v1/common.proto)
pub(super) const KEY: u8 = tag(1, LEN);
pub(super) const VALUE: u8 = tag(2, LEN);
pub(super) const STRING_VALUE: u8 = tag(1, LEN);
const BOOL_VALUE: u8 = tag(2, VARINT);
pub(super) const INT_VALUE: u8 = tag(3, VARINT);
const DOUBLE_VALUE: u8 = tag(4, FIXED64);
pub(super) const ARRAY_VALUE: u8 = tag(5, LEN);
/// Number of `ArrayValue`'s only field.
const ARRAY_VALUES: u8 = 1;

/// A fixed64 field.
#[inline(always)]
pub(super) fn fixed64(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(tag(number, FIXED64));
    out.extend_from_slice(&value.to_le_bytes());
}

/// A varint field.
#[inline(always)]
pub(super) fn varint(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(tag(number, VARINT));
    encode_varint(value, out);
}

/// A bytes, string or message field.
#[inline(always)]
pub(super) fn bytes(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(tag(number, LEN));
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// The head of a bytes, string or message field whose `len` bytes follow.
#[inline(always)]
pub(super) fn head(out: &mut Vec<u8>, number: u8, len: usize) {
    out.push(tag(number, LEN));
    encode_varint(len as u64, out);
}

/// A field that is an `AnyValue` with a string.
#[inline(always)]
pub(super) fn any_string(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    head(out, number, 1 + encoded_len_varint(value.len() as u64) + value.len());
    out.push(STRING_VALUE);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Begins a field that is an `AnyValue` with a string, which is written behind it. Returns where it begins, for
/// [`close_string`].
#[inline(always)]
pub(super) fn open_string(out: &mut Vec<u8>, number: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[tag(number, LEN), 0, STRING_VALUE, 0]);
    start
}

/// Ends such a field with the end of `out`.
#[inline(always)]
pub(super) fn close_string(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start - 4;
    if len + 2 < 128 {
        (out[start + 1], out[start + 3]) = (len as u8 + 2, len as u8);
    } else {
        close_long_string(out, start, len);
    }
}

/// The same where its lengths do not fit into a byte each: the string moves on by as much.
fn close_long_string(out: &mut Vec<u8>, start: usize, len: usize) {
    let any = 1 + encoded_len_varint(len as u64) + len;
    let more = encoded_len_varint(any as u64) + encoded_len_varint(len as u64) - 2;
    let end = out.len();
    out.resize(end + more, 0);
    out.copy_within(start + 4..end, start + 4 + more);
    let mut head = out.get_mut(start + 1..).unwrap_or_default();
    encode_varint(any as u64, &mut head);
    if let Some((first, mut rest)) = head.split_first_mut() {
        *first = STRING_VALUE;
        encode_varint(len as u64, &mut rest);
    }
}

/// Key and value of an attribute are together shorter than this in all but odd cases: then each length in it is one byte,
/// known without a look, and the constant key lets the compiler make it a few plain stores.
const SHORT: usize = 128 - 8;

/// Length of what comes before the value of a short string attribute, beside the key.
pub(super) const STRING_HEAD: usize = 8;

/// What comes before the value of a string attribute: `N` is [`STRING_HEAD`] and the key's length. To be used in constants:
/// most attributes' heads are known when this is compiled, and many values; then they are a few plain stores.
pub(super) const fn string_head<const N: usize>(key: &str, value: usize) -> [u8; N] {
    let any = 2 + value;
    assert!(N == key.len() + STRING_HEAD && key.len() + any < SHORT, "a short attribute");
    let mut head = [0; N];
    let all = 2 + key.len() + 2 + any;
    (head[0], head[1], head[2], head[3]) = (tag(log_record::ATTRIBUTES, LEN), all as u8, KEY, key.len() as u8);
    copy(&mut head, 4, key.as_bytes());
    (head[N - 4], head[N - 3], head[N - 2], head[N - 1]) = (VALUE, any as u8, STRING_VALUE, value as u8);
    head
}

/// A whole string attribute: `N` is [`STRING_HEAD`] and the lengths of key and value.
pub(super) const fn string<const N: usize, const HEAD: usize>(key: &str, value: &str) -> [u8; N] {
    let mut all = [0; N];
    copy(&mut all, 0, &string_head::<HEAD>(key, value.len()));
    copy(&mut all, HEAD, value.as_bytes());
    all
}

/// Fields one after the other, for constants: `N` is the sum of their lengths.
pub(super) const fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut all = [0; N];
    let (mut at, mut i) = (0, 0);
    while i < parts.len() {
        copy(&mut all, at, parts[i]);
        at += parts[i].len();
        i += 1;
    }
    assert!(at == N, "as long as it was said to be");
    all
}

/// `copy_from_slice`, for constants.
const fn copy(to: &mut [u8], at: usize, from: &[u8]) {
    let mut i = 0;
    while i < from.len() {
        to[at + i] = from[i];
        i += 1;
    }
}

/// An attribute whose key and string are constants.
macro_rules! constant_attribute {
    ($out:expr, $key:expr, $value:expr) => {{
        const HEAD: usize = $key.len() + $crate::record::wire::STRING_HEAD;
        const ALL: [u8; HEAD + $value.len()] = $crate::record::wire::string::<_, HEAD>($key, $value);
        $out.extend_from_slice(&ALL);
    }};
}

/// An attribute whose key and the length of whose string are constants.
macro_rules! array_attribute {
    ($out:expr, $key:expr, $value:expr, $len:expr) => {{
        const HEAD: [u8; $key.len() + $crate::record::wire::STRING_HEAD] =
            $crate::record::wire::string_head($key, $len);
        let value: [u8; $len] = $value;
        $out.extend_from_slice(&HEAD);
        $out.extend_from_slice(&value);
    }};
}

pub(super) use {array_attribute, constant_attribute};

/// An attribute with a string.
#[inline(always)]
pub(super) fn string_attribute(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let any = 2 + value.len();
    if key.len() + any < SHORT {
        short_key(out, key, any);
        out.extend_from_slice(&[STRING_VALUE, value.len() as u8]);
        out.extend_from_slice(value);
    } else {
        long_string_attribute(out, key, value);
    }
}

/// An attribute with an address.
#[inline(always)]
pub(super) fn address_attribute(out: &mut Vec<u8>, key: &str, address: &Address) {
    let len = address.as_bytes().len();
    short_key(out, key, 2 + len);
    out.extend_from_slice(&[STRING_VALUE, len as u8]);
    address.write(out);
}

#[cold]
fn long_string_attribute(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let any = 1 + encoded_len_varint(value.len() as u64) + value.len();
    head(out, log_record::ATTRIBUTES, 2 + key.len() + 1 + encoded_len_varint(any as u64) + any);
    head(out, KEY >> 3, key.len());
    out.extend_from_slice(key.as_bytes());
    head(out, VALUE >> 3, any);
    head(out, STRING_VALUE >> 3, value.len());
    out.extend_from_slice(value);
}

/// An attribute with a list of strings.
pub(super) fn strings_attribute(out: &mut Vec<u8>, key: &str, values: &[&str]) {
    // AnyValue { array_value: ArrayValue { values: [AnyValue { string_value }] } }
    let one = |value: &str| 1 + encoded_len_varint(value.len() as u64) + value.len();
    let list: usize = values.iter().map(|value| 1 + encoded_len_varint(one(value) as u64) + one(value)).sum();
    let any = 1 + encoded_len_varint(list as u64) + list;
    head(out, log_record::ATTRIBUTES, 2 + key.len() + 1 + encoded_len_varint(any as u64) + any);
    head(out, KEY >> 3, key.len());
    out.extend_from_slice(key.as_bytes());
    head(out, VALUE >> 3, any);
    head(out, ARRAY_VALUE >> 3, list);
    for value in values {
        any_string(out, ARRAY_VALUES, value.as_bytes());
    }
}

/// An attribute with an integer. To be used where the key is a constant.
#[inline(always)]
pub(super) fn int_attribute(out: &mut Vec<u8>, key: &str, value: u64) {
    let len = encoded_len_varint(value);
    short_key(out, key, 1 + len);
    if value >= 1 << 28 {
        out.push(INT_VALUE);
        encode_varint(value, out);
        return;
    }
    // Ports, process ids and counts without a loop: seven bits in each byte, and in all but the last the eighth too.
    let seven = value & 0x7f | (value & 0x3f80) << 1 | (value & 0x1f_c000) << 2 | (value & 0xfe0_0000) << 3;
    let more = 0x0080_8080 & ((1 << (8 * (len - 1))) - 1);
    let bytes = (seven | more) << 8 | u64::from(INT_VALUE);
    block(out, &bytes.to_le_bytes(), 1 + len);
}

/// Appends the first `len` bytes of `block`. All of it is copied, and the rest taken back: that is a store or two, where to
/// copy a length that is not known is a call.
#[inline(always)]
pub(super) fn block<const N: usize>(out: &mut Vec<u8>, block: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(block);
    out.truncate(end);
}

/// An attribute with a floating-point number.
#[inline(always)]
pub(super) fn double_attribute(out: &mut Vec<u8>, key: &str, value: f64) {
    short_key(out, key, 1 + 8);
    out.push(DOUBLE_VALUE);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An attribute with a truth value.
#[inline(always)]
pub(super) fn bool_attribute(out: &mut Vec<u8>, key: &str, value: bool) {
    short_key(out, key, 2);
    out.extend_from_slice(&[BOOL_VALUE, value.into()]);
}

/// The head of an attribute whose `AnyValue` of `any` bytes follows; key and value are shorter than [`SHORT`] together.
#[inline(always)]
fn short_key(out: &mut Vec<u8>, key: &str, any: usize) {
    debug_assert!(key.len() + any < SHORT);
    let all = 2 + key.len() + 2 + any;
    out.extend_from_slice(&[tag(log_record::ATTRIBUTES, LEN), all as u8, KEY, key.len() as u8]);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&[VALUE, any as u8]);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_is_known_when_this_is_compiled_has_the_bytes_of_what_is_not() {
        const KEY: &str = "network.transport";
        let (mut constant, mut array, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        constant_attribute!(constant, KEY, "tcp");
        array_attribute!(array, KEY, *b"tcp", 3);
        string_attribute(&mut plain, KEY, b"tcp");
        assert_eq!((&constant, &array), (&plain, &plain));
    }

    #[test]
    fn an_integer_is_the_varint_that_a_decoder_reads() {
        for value in
            [0, 1, 127, 128, 443, 16_383, 16_384, 65_535, 2_097_151, 2_097_152, u64::from(u32::MAX), u64::MAX >> 1]
        {
            let mut out = Vec::new();
            int_attribute(&mut out, "k", value);
            let kv = KeyValue::decode(&out[2..]).expect("a message");
            assert_eq!(kv.value.and_then(|any| any.value), Some(Value::IntValue(value as i64)));
        }
    }
}
