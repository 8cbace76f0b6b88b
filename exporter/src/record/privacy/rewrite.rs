//! One encoded record in; the same without what the policy leaves out, with other values and a new body, out.
//!
//! What is read here was written by the encoder a moment before. What can't be read all the same is left out.

use std::{net::IpAddr, sync::Arc};

use prost::encoding::decode_varint;

use super::policy::{Fate, PARTS, Part, Policy, Rule};
use crate::record::{
    text,
    wire::{self, ARRAY_VALUE, FIXED64, INT_VALUE, KEY, LEN, STRING_VALUE, VALUE, VARINT, log_record, tag},
};

/// The ids of a record before they are hashed.
#[derive(Debug, Clone, Copy)]
pub(in crate::record) struct Ids {
    /// The flow's id, or what stands for it.
    pub flow: u128,
    /// The record's id.
    pub record: u128,
}

/// Rewrites records.
#[derive(Debug)]
pub(in crate::record) struct Rewriter {
    policy: Arc<Policy>,
    /// The record as it becomes, up to the attributes.
    front: Vec<u8>,
    /// Its attributes.
    record: Vec<u8>,
    /// What the body is made of.
    parts: [Piece; PARTS],
}

/// A part of the body.
#[derive(Debug, Default)]
struct Piece {
    text: Vec<u8>,
    there: bool,
}

/// A field as it stands in a message.
struct Field<'a> {
    tag: u8,
    /// With its head.
    whole: &'a [u8],
    payload: &'a [u8],
}

// === impl Rewriter

impl Rewriter {
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, front: Vec::new(), record: Vec::new(), parts: Default::default() }
    }

    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Rewrites the fields of the `LogRecord` that stand in `out` from `start` on. `ending` appends what the body says
    /// behind the process: it holds nothing personal.
    pub fn rewrite(&mut self, out: &mut Vec<u8>, start: usize, ids: Ids, ending: impl FnOnce(&mut Vec<u8>)) {
        self.front.clear();
        self.record.clear();
        self.parts.iter_mut().for_each(|piece| piece.there = false);
        let mut rest = out.get(start..).unwrap_or_default();
        while let Some(field) = Field::next(&mut rest) {
            match field.tag {
                BODY => {}
                ATTRIBUTE => drop(self.attribute(&field, ids)),
                _ => self.front.extend_from_slice(field.whole),
            }
        }
        out.truncate(start);
        out.extend_from_slice(&self.front);
        let body = wire::open_string(out, log_record::BODY);
        words(out, &self.parts);
        ending(out);
        wire::close_string(out, body);
        out.extend_from_slice(&self.record);
    }

    /// Appends what becomes of an attribute; `None`: it can't be read, and nothing is.
    fn attribute(&mut self, field: &Field<'_>, ids: Ids) -> Option<()> {
        let mut rest = field.payload;
        let key = Field::next(&mut rest).filter(|field| field.tag == KEY)?.payload;
        let value = Field::next(&mut rest).filter(|field| field.tag == VALUE)?.payload;
        let Some(rule) = self.policy.rule(key) else {
            self.record.extend_from_slice(field.whole);
            return Some(());
        };
        let Self { policy, record, parts, .. } = self;
        let Rule { name, fate, part } = rule;
        let mut part = part.map(|part| &mut parts[part as usize]);
        match fate {
            Fate::LeaveOut => {}
            Fate::FlowId => wire::string_attribute(record, name, &text::hex(policy.id(ids.flow))),
            Fate::RecordId => {
                let id = ids.record ^ ids.flow ^ policy.id(ids.flow);
                wire::string_attribute(record, name, &text::hex(id));
            }
            Fate::Keep => {
                record.extend_from_slice(field.whole);
                if let Some(part) = &mut part {
                    part.take(Any::of(value)?);
                }
            }
            Fate::Shorten | Fate::ShortenAndHash | Fate::Hash => {
                let cut = |value| if fate == Fate::Hash { Some(Cut::Whole(value)) } else { network(policy, value) };
                let hasher = policy.hasher().filter(|_| fate != Fate::Shorten);
                match (Any::of(value)?, hasher) {
                    (Any::Text(value), None) => {
                        let cut = cut(value)?;
                        changed(record, name, cut.as_bytes(), &mut part);
                    }
                    (Any::Text(value), Some(hasher)) => {
                        changed(record, name, &hasher.text(cut(value)?.as_bytes()), &mut part);
                    }
                    (Any::Number(value), Some(hasher)) => {
                        let number = hasher.number(value);
                        wire::int_attribute(record, name, number);
                        if let Some(part) = &mut part {
                            part.take(Any::Number(number));
                        }
                    }
                    (Any::List(list), Some(hasher)) => {
                        let texts: Vec<_> = texts(list).map(|text| hasher.text(text)).collect();
                        let texts: Vec<&str> = texts.iter().filter_map(|text| str::from_utf8(text).ok()).collect();
                        wire::strings_attribute(record, name, &texts);
                        if let (Some(part), Some(first)) = (&mut part, texts.first()) {
                            part.take(Any::Text(first.as_bytes()));
                        }
                    }
                    // Only addresses are cut.
                    (Any::Number(_) | Any::List(_), None) => {}
                }
            }
        }
        Some(())
    }
}

const BODY: u8 = tag(log_record::BODY, LEN);
const ATTRIBUTE: u8 = tag(log_record::ATTRIBUTES, LEN);

fn changed(record: &mut Vec<u8>, name: &str, value: &[u8], part: &mut Option<&mut Piece>) {
    wire::string_attribute(record, name, value);
    if let Some(part) = part {
        part.take(Any::Text(value));
    }
}

/// An address as it stood, or the text of its network.
enum Cut<'a> {
    Whole(&'a [u8]),
    Network(text::Address),
}

impl Cut<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Whole(text) => text,
            Self::Network(address) => address.as_bytes(),
        }
    }
}

/// The network of an address that is written as text; `None`: it is no address.
fn network<'a>(policy: &Policy, address: &[u8]) -> Option<Cut<'a>> {
    let ip: IpAddr = str::from_utf8(address).ok()?.parse().ok()?;
    Some(Cut::Network(text::Address::new(policy.network(ip))))
}

/// The body up to its ending, of what there is.
fn words(out: &mut Vec<u8>, parts: &[Piece; PARTS]) {
    let there = |part: Part| Some(&parts[part as usize]).filter(|piece| piece.there).map(|piece| piece.text.as_slice());
    if let Some(direction) = there(Part::Direction) {
        out.extend_from_slice(direction);
        out.push(b' ');
    }
    out.extend_from_slice(b"tcp ");
    place(out, there(Part::SourceAddress), there(Part::SourcePort));
    out.extend_from_slice(b" -> ");
    place(out, there(Part::DestinationAddress), there(Part::DestinationPort));
    if let Some(name) = there(Part::DestinationName) {
        out.extend_from_slice(b" (");
        text::shown(out, &String::from_utf8_lossy(name));
        out.push(b')');
    }
    let name = there(Part::Executable).or_else(|| there(Part::Thread));
    let process = there(Part::Process);
    if name.is_some() || process.is_some() {
        out.push(b' ');
        text::shown(out, &String::from_utf8_lossy(name.unwrap_or_default()));
    }
    if let Some(process) = process {
        out.push(b'[');
        out.extend_from_slice(process);
        out.push(b']');
    }
}

/// An address and its port; `?` without the address.
fn place(out: &mut Vec<u8>, address: Option<&[u8]>, port: Option<&[u8]>) {
    let Some(address) = address else { return out.push(b'?') };
    // IPv6 addresses before a port in brackets (RFC 3986, 3.2.2).
    let brackets = port.is_some() && address.contains(&b':');
    if brackets {
        out.push(b'[');
    }
    out.extend_from_slice(address);
    if brackets {
        out.push(b']');
    }
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(port);
    }
}

// === impl Piece

impl Piece {
    fn take(&mut self, value: Any<'_>) {
        self.text.clear();
        match value {
            Any::Text(text) => self.text.extend_from_slice(text),
            Any::Number(number) => self.text.extend_from_slice(number.to_string().as_bytes()),
            Any::List(list) => match texts(list).next() {
                Some(first) => self.text.extend_from_slice(first),
                None => return,
            },
        }
        self.there = true;
    }
}

/// The values of `AnyValue` that can be changed.
enum Any<'a> {
    Text(&'a [u8]),
    Number(u64),
    /// The fields of `ArrayValue`.
    List(&'a [u8]),
}

impl<'a> Any<'a> {
    fn of(value: &'a [u8]) -> Option<Self> {
        let field = Field::next(&mut { value })?;
        match field.tag {
            STRING_VALUE => Some(Self::Text(field.payload)),
            ARRAY_VALUE => Some(Self::List(field.payload)),
            INT_VALUE => Some(Self::Number(decode_varint(&mut { field.payload }).ok()?)),
            _ => None,
        }
    }
}

/// The strings of an `ArrayValue`.
fn texts(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || Field::next(&mut list)).filter_map(|value| match Any::of(value.payload) {
        Some(Any::Text(text)) => Some(text),
        _ => None,
    })
}

// === impl Field

impl<'a> Field<'a> {
    /// The first field, which is taken off; `None` at the end, or where there is none.
    #[inline(always)]
    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let (all, mut tail) = (*rest, *rest);
        let tag = *tail.split_off_first()?;
        let len = match tag & 7 {
            // Nearly every length is a byte.
            LEN => match *tail.first()? {
                short @ 0..0x80 => {
                    tail = &tail[1..];
                    short.into()
                }
                _ => usize::try_from(decode_varint(&mut tail).ok()?).ok()?,
            },
            FIXED64 => 8,
            VARINT => tail.iter().position(|byte| *byte < 0x80)? + 1,
            _ => return None,
        };
        let (payload, after) = tail.split_at_checked(len)?;
        *rest = after;
        Some(Self { tag, whole: &all[..all.len() - after.len()], payload })
    }
}

#[cfg(test)]
mod tests;
