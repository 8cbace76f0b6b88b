//! JA4, the fingerprint of a TLS client by FoxIO (BSD-3-Clause for this one of the JA4+ family):
//! <https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md>.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use super::is_grease;

/// Characters of a fingerprint.
pub const LEN: usize = 36;

/// A fingerprint, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; LEN]);

/// What a fingerprint is made of, GREASE and all.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    /// The version of the message itself.
    pub version: u16,
    /// Those of supported_versions.
    pub versions: &'a [u16],
    pub ciphers: &'a [u16],
    /// Types, in the order of the message.
    pub extensions: &'a [u16],
    /// The first protocol of ALPN.
    pub protocol: Option<&'a [u8]>,
    pub signatures: &'a [u16],
}

/// server_name and ALPN: they differ by the server, and are left out of the hash.
const LEFT_OUT: [u16; 2] = [0, 16];

impl Ja4 {
    /// Of these parts.
    pub(super) fn of(parts: &Parts<'_>) -> Self {
        let meant = |list: &[u16]| list.iter().copied().filter(|value| !is_grease(*value)).collect::<Vec<_>>();
        let (mut ciphers, mut extensions) = (meant(parts.ciphers), meant(parts.extensions));
        let version = meant(parts.versions).into_iter().max().unwrap_or(parts.version);
        let version = match version {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let name = if extensions.contains(&0) { 'd' } else { 'i' };
        let count = |list: &[u16]| list.len().min(99);
        let (first, last) = ends(parts.protocol.unwrap_or_default());
        let mut text = String::with_capacity(LEN);
        // Writing to a String can't fail.
        let _ = write!(text, "t{version}{name}{:02}{:02}{first}{last}", count(&ciphers), count(&extensions));
        ciphers.sort_unstable();
        extensions.retain(|extension| !LEFT_OUT.contains(extension));
        extensions.sort_unstable();
        let mut listed = list(&extensions);
        let signatures = meant(parts.signatures);
        if !signatures.is_empty() {
            listed.push('_');
            listed.push_str(&list(&signatures));
        }
        // Where there are no extensions at all the last part is zeros.
        let listed = if parts.extensions.is_empty() { String::new() } else { listed };
        for part in [list(&ciphers), listed] {
            text.push('_');
            text.push_str(&hash(&part));
        }
        let mut ja4 = [b'0'; LEN];
        ja4.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Self(ja4)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        // It was made of text.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The first and the last character of a protocol's name; where one is no letter or digit, of its bytes in hex.
fn ends(protocol: &[u8]) -> (char, char) {
    let hex = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    match (protocol.first(), protocol.last()) {
        (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() => {
            (char::from(*first), char::from(*last))
        }
        (Some(first), Some(last)) => (hex(first >> 4), hex(last & 15)),
        _ => ('0', '0'),
    }
}

fn list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for value in values {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{value:04x}");
    }
    text
}

/// The first 12 hex digits of SHA-256; zeros of nothing.
fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let mut hex = String::with_capacity(12);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(6) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ja4(parts: &Parts<'_>) -> String {
        Ja4::of(parts).as_str().to_owned()
    }

    /// The example of FoxIO's description, value by value.
    #[test]
    fn the_published_example_has_the_published_fingerprint() {
        let parts = Parts {
            version: 0x0303,
            versions: &[0x7a7a, 0x0304, 0x0303],
            ciphers: &[
                0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
                0x009d, 0x002f, 0x0035,
            ],
            extensions: &[
                0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b,
                0xff01, 0x000b, 0x000a, 0x0015, 0x5a5a,
            ],
            protocol: Some(b"h2"),
            signatures: &[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
        };
        assert_eq!(ja4(&parts), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        // Without signature algorithms there is no underscore behind the extensions (same page).
        assert!(ja4(&Parts { signatures: &[], ..parts }).starts_with("t13d1516h2_8daaf6152771_"));
    }

    #[test]
    fn what_is_not_there_is_zeros_and_odd_names_are_hex() {
        assert_eq!(ja4(&Parts { version: 0x0301, ..Parts::default() }), "t10i000000_000000000000_000000000000");
        for (protocol, ends) in [
            (&b"http/1.1"[..], "h1"),
            (b"h", "hh"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"),
            (b"01\xab\xcd23", "03"),
        ] {
            let found = ja4(&Parts { protocol: Some(protocol), ..Parts::default() });
            assert_eq!(&found[8..10], ends, "{protocol:?}");
        }
    }

    #[test]
    fn more_than_99_are_99() {
        let many: Vec<u16> = (0x100..0x200).collect();
        let parts = Parts { version: 0x0303, ciphers: &many, extensions: &many, ..Parts::default() };
        assert_eq!(&ja4(&parts)[..10], "t12i999900");
    }
}
