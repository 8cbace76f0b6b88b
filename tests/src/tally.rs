//! OTLP as binary protobuf in, a few words about each record out: millions of records are counted without being kept.
//! Written against OTLP's .proto files, with nothing of flowtel's own code.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    hash::{BuildHasherDefault, Hasher},
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
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
/// The least bytes of an attribute that is an id: fewer are not looked into.
const SHORTEST_ID: usize = "log.record.uid".len() + 32;

/// A record, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen<'a> {
    /// `log.record.uid`.
    uid: u128,
    /// `flowtel.flow.id`; without one its own id.
    flow: u128,
    /// The event's name.
    name: &'a str,
    /// All of it.
    bytes: &'a [u8],
}

/// All that arrived.
#[derive(Debug, Default)]
pub struct Tally {
    /// The ids of all records.
    pub arrived: HashSet<u128, Spread>,
    /// Ids of records that came more than once, and how often beyond the first.
    pub copies: HashMap<u128, u32>,
    /// How many tell of each event, copies not counted.
    pub names: BTreeMap<String, u64>,
    /// Whose event of which name was told, by the name's number.
    events: HashSet<u128, Spread>,
    files: Vec<PathBuf>,
}

/// Ids are hashes already.
type Spread = BuildHasherDefault<Plain>;

/// A hasher that takes ids as they are.
#[derive(Debug, Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64 ^ (id >> 64) as u64;
    }
}

// === impl Tally

impl Tally {
    /// Adds what a collector wrote to its file.
    ///
    /// # Errors
    /// The file is not what it should be; or one event has two records.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        self.files.push(path.into());
        requests(path, |request| records(request, |seen| self.add(seen)))
    }

    /// Checks that records that came more than once are the same each time, byte for byte.
    ///
    /// # Errors
    /// One is not.
    pub fn check_copies(&self) -> Result<()> {
        let mut firsts: HashMap<u128, Vec<u8>> = HashMap::new();
        let mut compare = |seen: Seen<'_>| {
            if self.copies.contains_key(&seen.uid) {
                let first = firsts.entry(seen.uid).or_insert_with(|| seen.bytes.to_vec());
                ensure!(first == seen.bytes, "two records have the id {:032x}", seen.uid);
            }
            Ok(())
        };
        // Most often there are none.
        let files = if self.copies.is_empty() { &[][..] } else { &self.files };
        files.iter().try_for_each(|path| requests(path, |request| records(request, &mut compare)))
    }

    fn add(&mut self, seen: Seen<'_>) -> Result<()> {
        let Seen { uid, flow, name, .. } = seen;
        if !self.arrived.insert(uid) {
            *self.copies.entry(uid).or_default() += 1;
            return Ok(());
        }
        match self.names.get_mut(name) {
            Some(n) => *n += 1,
            None => drop(self.names.insert(name.to_owned(), 1)),
        }
        // FNV-1a: as good as a number for each of five names.
        let number = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        ensure!(
            self.events.insert(flow ^ u128::from(number)),
            "the record {uid:032x} tells what another one with another id tells"
        );
        Ok(())
    }
}

/// The requests in a file of the file exporter's: each has its length before it, four bytes, the highest first.
fn requests(path: &Path, mut tell: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
    let (mut length, mut request) = ([0; 4], Vec::new());
    while file.read(&mut length[..1])? == 1 {
        file.read_exact(&mut length[1..])?;
        request.resize(usize::try_from(u32::from_be_bytes(length))?, 0);
        file.read_exact(&mut request)?;
        tell(&request)?;
    }
    Ok(())
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

fn records<'a>(request: &'a [u8], mut tell: impl FnMut(Seen<'a>) -> Result<()>) -> Result<()> {
    fields(request, |field, resource_logs| match field {
        RESOURCE_LOGS => fields(resource_logs, |field, scope_logs| match field {
            SCOPE_LOGS => fields(scope_logs, |field, record| match field {
                LOG_RECORDS => tell(seen(record)?),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

fn seen(bytes: &[u8]) -> Result<Seen<'_>> {
    let (mut uid, mut flow, mut name) = (None, None, "");
    fields(bytes, |field, value| {
        match field {
            EVENT_NAME => name = std::str::from_utf8(value)?,
            ATTRIBUTES if value.len() >= SHORTEST_ID => match attribute(value)? {
                (b"log.record.uid", text) => uid = Some(id(text)?),
                (b"flowtel.flow.id", text) => flow = Some(id(text)?),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    })?;
    let uid = uid.context("a record without log.record.uid")?;
    Ok(Seen { uid, flow: flow.unwrap_or(uid), name, bytes })
}

/// Key and text of an attribute. The collector writes the key behind the value.
fn attribute(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (mut key, mut text) = (&b""[..], &b""[..]);
    fields(bytes, |field, bytes| match field {
        KEY => {
            key = bytes;
            Ok(())
        }
        VALUE => fields(bytes, |field, bytes| {
            text = if field == STRING_VALUE { bytes } else { text };
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok((key, text))
}

/// A number in hexadecimal digits.
fn id(text: &[u8]) -> Result<u128> {
    Ok(u128::from_str_radix(std::str::from_utf8(text)?, 16)?)
}

/// Each field that has bytes, with its number.
fn fields<'a>(mut message: &'a [u8], mut tell: impl FnMut(u64, &'a [u8]) -> Result<()>) -> Result<()> {
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
        if key & 7 == 2 {
            tell(key >> 3, bytes)?;
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

    /// A length in two bytes, as it may be written whatever it is.
    fn length(bytes: &[u8]) -> [u8; 2] {
        [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8]
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2], &length(bytes)[..], bytes].concat()
    }

    fn attribute(key: &str, value: &str) -> Vec<u8> {
        let value = field(1, value.as_bytes());
        field(6, &[field(1, key.as_bytes()), field(2, &value)].concat())
    }

    fn request(uid: u8, flow: u8, body: &str) -> Vec<u8> {
        let name = field(12, b"flowtel.tcp.flow.begin");
        // A time, as bytes of a fixed length, and a number: both are passed over.
        let others = [&[9][..], &[0xff; 8], &[16, 9]].concat();
        let attributes = [
            attribute("log.record.uid", &format!("{uid:032x}")),
            attribute("flowtel.flow.id", &format!("{flow:032x}")),
        ]
        .concat();
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
            tally.add_file(&path).and_then(|()| tally.check_copies()).map(|()| tally)
        };
        let [one, other] = [request(0xa1, 1, "x"), request(0xa2, 2, "x")];
        let counted = tally(&[one.clone(), other.clone(), one.clone()]).expect("sound");
        assert_eq!(counted.names, BTreeMap::from([("flowtel.tcp.flow.begin".to_owned(), 2)]));
        assert_eq!(counted.arrived.len(), 2);
        assert_eq!(counted.copies, HashMap::from([(0xa1, 1)]));
        for (wrong, why) in [
            (request(0xa1, 1, "y"), "two records have the id"),
            (request(0xa3, 1, "x"), "tells what another one"),
            (one[..one.len() - 1].to_vec(), "cut"),
        ] {
            let said = tally(&[one.clone(), other.clone(), wrong]).expect_err("found");
            assert!(format!("{said:#}").contains(why), "{said:#}");
        }
        let delimited = delimited(&[&length(&one)[..], &one, &length(&other), &other].concat());
        assert_eq!(delimited.expect("sound"), [0xa1, 0xa2]);
    }
}
