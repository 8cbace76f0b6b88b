//! Values in, keyed hashes out: HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value's text, cut to what an attribute holds.
//!
//! Anybody with the key can make the hash of a value again, and so find it in a store:
//! `printf %s 10.0.0.5 | openssl dgst -sha256 -hmac "$KEY"`. Without the key nobody can test a guess.

use std::fmt;

use ring::hmac;

use crate::record::text;

/// What a hashed text begins with: no address and no name of the DNS does.
pub const PREFIX: &[u8; 5] = b"hmac-";
/// Length of a hashed text: the prefix and 32 hex digits, 128 bits.
pub const TEXT_LEN: usize = PREFIX.len() + 32;
/// Hashed numbers are above every number of 32 bits, have 16 digits, and are exact as floating-point numbers, which many
/// readers of JSON make of them.
const NUMBER_BASE: u64 = 1 << 52;

/// Whether a text looks like one that was hashed.
pub fn is_hashed(text: &str) -> bool {
    text.len() == TEXT_LEN && text.as_bytes().starts_with(PREFIX)
}

/// Makes hashes with one key.
#[derive(Clone)]
pub struct Hasher(hmac::Key);

// === impl Hasher

impl Hasher {
    /// With this key.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The first 16 bytes of the HMAC, big-endian.
    fn head(&self, value: &[u8]) -> u128 {
        let tag = hmac::sign(&self.0, value);
        let head = tag.as_ref().first_chunk().copied().unwrap_or_default();
        u128::from_be_bytes(head)
    }

    /// Of a text: `hmac-` and 32 hex digits.
    pub fn text(&self, value: &[u8]) -> [u8; TEXT_LEN] {
        let mut out = [0; TEXT_LEN];
        let (prefix, digits) = out.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        digits.copy_from_slice(&text::hex(self.head(value)));
        out
    }

    /// Of a number, by its decimal text: 2^52 and the first 52 bits of the HMAC.
    pub fn number(&self, value: u64) -> u64 {
        NUMBER_BASE | (self.head(value.to_string().as_bytes()) >> 76) as u64
    }

    /// Of an id, by its 16 bytes.
    pub fn id(&self, id: u128) -> u128 {
        self.head(&id.to_be_bytes())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_hmac_that_openssl_and_python_make() {
        // printf %s 10.0.0.5 | openssl dgst -sha256 -hmac 0123456789abcdef
        let hasher = Hasher::new(b"0123456789abcdef");
        assert_eq!(hasher.text(b"10.0.0.5"), *b"hmac-057685d31af9dfa090c1afb0396ac8e5");
        // hmac.new(b"0123456789abcdef", b"1000", "sha256").digest()[:8], shifted right by 12, and 2**52
        assert_eq!(hasher.number(1000), 8_013_739_350_804_828);
        assert!((0..10_000).map(|n| hasher.number(n)).all(|n| (1 << 52..1 << 53).contains(&n)));
        assert_ne!(Hasher::new(b"0123456789abcdeg").text(b"10.0.0.5"), hasher.text(b"10.0.0.5"));
    }
}
