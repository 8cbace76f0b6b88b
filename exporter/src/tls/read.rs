//! The ClientHello in a connection's first bytes. The `tls-parser` crate knows its fields; here is what frames them, and
//! what of one that isn't whole counts.

use tls_parser::{
    TlsExtension, TlsRecordType, parse_tls_client_hello_extension, parse_tls_extension_unknown,
    parse_tls_handshake_client_hello, parse_tls_record_header,
};

use super::{
    Hello, MOST_LISTED, is_grease,
    ja4::{Ja4, Parts},
    text,
};

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// No ClientHello.
    Nothing,
    /// The beginning of one, perhaps of no byte: as far as it goes.
    Part(Hello),
    /// One.
    Whole(Hello),
}

/// The first byte of a ClientHello message (RFC 8446, 4).
const CLIENT_HELLO: u8 = 1;
/// Bytes of a record's header, of a handshake message's.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// Extensions by number: server_name, signature_algorithms, ALPN, supported_versions, encrypted_client_hello.
const SERVER_NAME: u16 = 0;
const SIGNATURES: u16 = 13;
const ALPN: u16 = 16;
const VERSIONS: u16 = 43;
const ECH: u16 = 0xfe0d;
/// The type of a server's name that is one (RFC 6066, 3).
const HOST_NAME: u8 = 0;

/// Reads the first bytes that a side of a connection sent.
pub fn read(bytes: &[u8]) -> Read {
    let Some(message) = message(bytes) else { return Read::Nothing };
    let Some((head, body)) = message.split_first_chunk::<MESSAGE_HEADER>() else {
        let may_be = message.first().is_none_or(|first| *first == CLIENT_HELLO);
        return if may_be { Read::Part(Hello::default()) } else { Read::Nothing };
    };
    let [kind, a, b, c] = *head;
    if kind != CLIENT_HELLO {
        return Read::Nothing;
    }
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    match body.get(..length) {
        Some(whole) => match fields(whole, true) {
            Some(hello) => Read::Whole(hello),
            None => Read::Nothing,
        },
        None => Read::Part(fields(body, false).unwrap_or_default()),
    }
}

/// The handshake message in the first records, as far as there are bytes; `None` where they are no such records.
fn message(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while !bytes.is_empty() {
        let Ok((content, header)) = parse_tls_record_header(bytes) else {
            // Not even a header: its first byte tells all the same.
            let is = bytes.len() < RECORD_HEADER && bytes.first() == Some(&TlsRecordType::Handshake.0);
            return (is || !message.is_empty()).then_some(message);
        };
        if header.record_type != TlsRecordType::Handshake || header.version.0 >> 8 != 3 || header.len == 0 {
            // What follows the hello, or no hello at all.
            return (!message.is_empty()).then_some(message);
        }
        let there = content.len().min(header.len.into());
        let (now, rest) = content.split_at(there);
        message.extend_from_slice(now);
        bytes = rest;
    }
    Some(message)
}

/// The fields of a ClientHello; `None` where they don't make sense.
fn fields(message: &[u8], whole: bool) -> Option<Hello> {
    let (rest, contents) = parse_tls_handshake_client_hello(message).ok()?;
    // Where the list of extensions isn't there whole the parser leaves it: behind its length.
    let (mut list, all) = match (contents.ext, whole) {
        (Some(list), _) => (list, true),
        (None, true) => (&[][..], rest.is_empty()),
        (None, false) => (rest.get(2..).unwrap_or_default(), false),
    };
    let mut found = Found::default();
    while !list.is_empty() {
        let Ok((rest, TlsExtension::Unknown(kind, _))) = parse_tls_extension_unknown(list) else { break };
        found.take(kind.0, list);
        list = rest;
    }
    let whole = whole && all && list.is_empty();
    let version = contents.version.0;
    let protocols = found.protocols.iter().filter(|name| !is_odd(name));
    let ja4 = whole.then(|| {
        let ciphers: Vec<u16> = contents.ciphers.iter().map(|cipher| cipher.0).collect();
        Ja4::of(&Parts {
            version,
            versions: &found.versions,
            ciphers: &ciphers,
            extensions: &found.extensions,
            protocol: found.protocols.first().copied(),
            signatures: &found.signatures,
        })
    });
    // Without the extension the message's own version is the highest that is offered; of a part it may yet come.
    let listed = found.extensions.contains(&VERSIONS);
    let offered: &[u16] = if listed || !whole { &found.versions } else { &[version] };
    Some(Hello {
        server_name: found.server_name.and_then(text::server_name),
        protocols: protocols.filter_map(|name| text::protocol(name)).take(MOST_LISTED).collect(),
        versions: offered.iter().filter(|v| !is_grease(**v)).map(|v| version_text(*v)).take(MOST_LISTED).collect(),
        ja4,
        ech: found.extensions.contains(&ECH),
        whole,
    })
}

/// What the extensions say.
#[derive(Default)]
struct Found<'a> {
    extensions: Vec<u16>,
    server_name: Option<&'a [u8]>,
    protocols: Vec<&'a [u8]>,
    versions: Vec<u16>,
    signatures: Vec<u16>,
}

impl<'a> Found<'a> {
    /// Takes the extension of this kind that `list` starts with.
    fn take(&mut self, kind: u16, list: &'a [u8]) {
        let first = !self.extensions.contains(&kind);
        self.extensions.push(kind);
        // An extension may be there once (RFC 8446, 4.2): what a server takes from a second one nobody knows.
        if !first || ![SERVER_NAME, SIGNATURES, ALPN, VERSIONS].contains(&kind) {
            return;
        }
        match parse_tls_client_hello_extension(list) {
            Ok((_, TlsExtension::SNI(names))) => {
                self.server_name = names.into_iter().find(|(kind, _)| kind.0 == HOST_NAME).map(|(_, name)| name);
            }
            Ok((_, TlsExtension::ALPN(protocols))) => self.protocols = protocols,
            Ok((_, TlsExtension::SupportedVersions(versions))) => {
                self.versions = versions.into_iter().map(|version| version.0).collect();
            }
            Ok((_, TlsExtension::SignatureAlgorithms(signatures))) => self.signatures = signatures,
            // Not in order: it says nothing.
            _ => {}
        }
    }
}

/// Whether a protocol's name is one of GREASE.
fn is_odd(name: &[u8]) -> bool {
    matches!(*name, [a, b] if is_grease(u16::from_be_bytes([a, b])))
}

/// A version as semantic conventions have it (`tls.protocol.version`): its number; of others than these, theirs in hex.
fn version_text(version: u16) -> String {
    match version {
        0x0304 => "1.3".into(),
        0x0303 => "1.2".into(),
        0x0302 => "1.1".into(),
        0x0301 => "1.0".into(),
        0x0300 => "3.0".into(),
        other => format!("0x{other:04x}"),
    }
}

#[cfg(test)]
mod tests;
