//! OTLP as binary protobuf in, a few words about each record out: millions of records are counted without being kept.
//! Written against OTLP's .proto files, with nothing of flowtel's own code.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    hash::{DefaultHasher, Hasher as _},
    io::{BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};

// opentelemetry/proto/collector/logs/v1/logs_service.proto, logs/v1/logs.proto, common/v1/common.proto.
const RESOURCE_LOGS: u64 = 1;
const SCOPE_LOGS: u64 = 2;
const LOG_RECORDS: u64 = 2;
const ATTRIBUTES: u64 = 6;
const EVENT_NAME: u64 = 12;
const KEY: u64 = 1;
const VALUE: u64 = 2;
const STRING_VALUE: u64 = 1;

/// A record, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen<'a> {
    /// `log.record.uid`.
    uid: u128,
    /// Of the event's name and `flowtel.flow.id`: no two records have the same.
    event: u64,
    /// Of all its bytes.
    digest: u64,
    /// The event's name.
    name: &'a str,
}

/// All that arrived.
#[derive(Debug, Default)]
pub struct Tally {
    /// The digest of each id's record.
    pub arrived: HashMap<u128, u64>,
    /// Ids of records that came more than once, and how often beyond the first.
    pub copies: HashMap<u128, u32>,
    /// How many tell of each event, copies not counted.
    pub names: BTreeMap<String, u64>,
    events: HashSet<u64>,
}

// === impl Tally

impl Tally {
    /// Adds what a collector wrote to its file.
    ///
    /// # Errors
    /// The file is not what it should be; or two records have one id, or one event two.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let mut file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
        let (mut length, mut request) = ([0; 4], Vec::new());
        // The file exporter's form: each request has its length before it, four bytes, the highest first.
        while file.read(&mut length[..1])? == 1 {
            file.read_exact(&mut length[1..])?;
            request.resize(usize::try_from(u32::from_be_bytes(length))?, 0);
            file.read_exact(&mut request)?;
            records(&request, |seen| self.add(seen))?;
        }
        Ok(())
    }

    fn add(&mut self, seen: Seen<'_>) -> Result<()> {
        let Seen { uid, event, digest, name } = seen;
        if let Some(before) = self.arrived.insert(uid, digest) {
            ensure!(before == digest, "two records have the id {uid:032x}");
            *self.copies.entry(uid).or_default() += 1;
            return Ok(());
        }
        ensure!(self.events.insert(event), "the record {uid:032x} tells what another one with another id tells");
        match self.names.get_mut(name) {
            Some(n) => *n += 1,
            None => drop(self.names.insert(name.to_owned(), 1)),
        }
        Ok(())
    }
}

/// The ids of all records of requests that have their length before them as a varint, as `flowtel queue export` writes them.
///
/// # Errors
/// They are no such.
pub fn delimited(mut bytes: &[u8]) -> Result<Vec<u128>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = varint(&mut bytes)?;
        let request = take(&mut bytes, length)?;
        records(request, |seen| {
            all.push(seen.uid);
            Ok(())
        })?;
    }
    Ok(all)
}

fn records(request: &[u8], mut tell: impl FnMut(Seen<'_>) -> Result<()>) -> Result<()> {
    fields(request, RESOURCE_LOGS, |resource_logs| {
        fields(resource_logs, SCOPE_LOGS, |scope_logs| fields(scope_logs, LOG_RECORDS, |record| tell(seen(record)?)))
    })
}

fn seen(record: &[u8]) -> Result<Seen<'_>> {
    let (mut uid, mut flow, mut name) = (None, None, &b""[..]);
    fields(record, EVENT_NAME, |text| {
        name = text;
        Ok(())
    })?;
    fields(record, ATTRIBUTES, |attribute| {
        let mut key = &b""[..];
        fields(attribute, KEY, |text| {
            key = text;
            Ok(())
        })?;
        let into = match key {
            b"log.record.uid" => &mut uid,
            b"flowtel.flow.id" => &mut flow,
            _ => return Ok(()),
        };
        fields(attribute, VALUE, |value| {
            fields(value, STRING_VALUE, |text| {
                *into = Some(u128::from_str_radix(std::str::from_utf8(text)?, 16)?);
                Ok(())
            })
        })
    })?;
    let uid = uid.context("a record without log.record.uid")?;
    Ok(Seen {
        uid,
        // What tells of no flow tells of itself.
        event: digest(&(name, flow.unwrap_or(uid))),
        digest: digest(&record),
        name: std::str::from_utf8(name)?,
    })
}

fn digest(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Each field of this number that has bytes, one after the other.
fn fields<'a>(mut message: &'a [u8], wanted: u64, mut tell: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => varint(&mut message)?,
            5 => 4,
            other => bail!("wire type {other}"),
        };
        let bytes = take(&mut message, length)?;
        if key >> 3 == wanted && key & 7 == 2 {
            tell(bytes)?;
        }
    }
    Ok(())
}

fn take<'a>(from: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let (head, rest) = from.split_at_checked(usize::try_from(length)?).context("a message that is cut")?;
    *from = rest;
    Ok(head)
}

fn varint(from: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().context("a number that is cut")?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number without end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).expect("short")], bytes].concat()
    }

    fn attribute(key: &str, value: &str) -> Vec<u8> {
        let value = field(1, value.as_bytes());
        field(6, &[field(1, key.as_bytes()), field(2, &value)].concat())
    }

    fn request(uid: &str, flow: &str, body: &str) -> Vec<u8> {
        let name = field(12, b"flowtel.tcp.flow.begin");
        // A time, as bytes of a fixed length, and a number: both are passed over.
        let others = [&[9][..], &[0xff; 8], &[16, 9]].concat();
        let attributes = [attribute("log.record.uid", uid), attribute("flowtel.flow.id", flow)].concat();
        field(1, &field(2, &field(2, &[others, field(5, body.as_bytes()), attributes, name].concat())))
    }

    #[test]
    fn records_are_counted_copies_are_told_and_what_contradicts_itself_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let tally = |requests: &[Vec<u8>]| {
            let path = directory.path().join("out");
            let framed: Vec<_> =
                requests.iter().flat_map(|r| [&(r.len() as u32).to_be_bytes(), &r[..]].concat()).collect();
            std::fs::write(&path, framed).expect("written");
            let mut tally = Tally::default();
            tally.add_file(&path).map(|()| tally)
        };
        let [one, other] = [request("a1", "1", "x"), request("a2", "2", "x")];
        let counted = tally(&[one.clone(), other.clone(), one.clone()]).expect("sound");
        assert_eq!(counted.names, BTreeMap::from([("flowtel.tcp.flow.begin".to_owned(), 2)]));
        assert_eq!(counted.arrived.len(), 2);
        assert_eq!(counted.copies, HashMap::from([(0xa1, 1)]));
        for (wrong, why) in [
            (request("a1", "1", "y"), "two records have the id"),
            (request("a3", "1", "x"), "tells what another one"),
            (one[..one.len() - 1].to_vec(), "cut"),
        ] {
            let said = tally(&[one.clone(), other.clone(), wrong]).expect_err("found");
            assert!(format!("{said:#}").contains(why), "{said:#}");
        }
        let delimited = delimited(&[&[one.len() as u8], &one[..], &[other.len() as u8], &other[..]].concat());
        assert_eq!(delimited.expect("sound"), [0xa1, 0xa2]);
    }
}
