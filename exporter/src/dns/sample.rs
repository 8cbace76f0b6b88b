//! DNS messages for tests: made by hand field by field, and captured ones.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const AAAA: u16 = 28;
pub const HTTPS: u16 = 65;
/// A pointer to the name of the question.
pub const QUESTION: &[u8] = &[0xc0, 12];

/// Six addresses of one name, all owners compressed. Captured.
pub const SIX_ADDRESSES: &[u8] = b"\x9d\xe9\x81\x80\x00\x01\x00\x06\x00\x00\x00\x00\x06google\x03com\x00\x00\x01\x00\x01\
    \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4d\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4\x8b\
    \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4q\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4f\
    \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4e\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\xef\x00\x04@\xe9\xa4\x8a";
/// A CNAME without the address that it leads to; an unrelated address in the additional section. Captured.
pub const ONLY_AN_ALIAS: &[u8] =
    b"\x4a\xf0\x81\x80\x00\x01\x00\x01\x00\x01\x00\x01\x03www\x05skype\x03com\x00\x00\x01\x00\x01\
    \xc0\x0c\x00\x05\x00\x01\x00\x00\x0e\x10\x00\x1c\x07livecms\x0etrafficmanager\x03net\x00\
    \xc0\x42\x00\x02\x00\x01\x00\x01\xd5\xd3\x00\x11\x01g\x0cgtld-servers\xc0\x42\
    \x01a\xc0\x55\x00\x01\x00\x01\x00\x00\xa3\x1c\x00\x04\xc0\x05\x06\x1e";
/// Mixed case, as resolvers send it against forgery, and EDNS. Captured.
pub const MIXED_CASE_AND_EDNS: &[u8] = b"\x124\x81\x80\x00\x01\x00\x01\x00\x00\x00\x01\x05Proxy\x06GoLang\x03org\x00\
    \x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xcb\x00\x71\x50\x00\x00\x29\x20\x00\x00\x00\x00\x00\x00\x00";
/// No address of the kind asked for, no error. Captured.
pub const NO_DATA: &[u8] =
    b"\x124\x81\x80\x00\x01\x00\x00\x00\x00\x00\x01\x06static\x06crates\x02io\x00\x00\x1c\x00\x01\
    \x00\x00\x29\x20\x00\x00\x00\x00\x00\x00\x00";

/// A message being made.
#[derive(Debug, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// A response without records.
    pub fn response(question: &[u8], kind: u16) -> Self {
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(question);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        Self(bytes)
    }

    pub fn record(mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        let count = u16::from_be_bytes([self.0[6], self.0[7]]) + 1;
        self.0[6..8].copy_from_slice(&count.to_be_bytes());
        self.0.extend_from_slice(owner);
        self.0.extend_from_slice(&kind.to_be_bytes());
        self.0.extend_from_slice(&[0, 1]);
        self.0.extend_from_slice(&ttl.to_be_bytes());
        self.0.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.0.extend_from_slice(data);
        self
    }

    pub fn a(self, owner: &[u8], ttl: u32, address: [u8; 4]) -> Self {
        self.record(owner, A, ttl, &Ipv4Addr::from(address).octets())
    }

    pub fn aaaa(self, owner: &[u8], ttl: u32, address: &str) -> Self {
        self.record(owner, AAAA, ttl, &address.parse::<Ipv6Addr>().expect("an address").octets())
    }

    pub fn cname(self, owner: &[u8], ttl: u32, target: &[u8]) -> Self {
        self.record(owner, CNAME, ttl, target)
    }

    /// Sets a byte of the header.
    pub fn with(mut self, at: usize, byte: u8) -> Self {
        self.0[at] = byte;
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A name of ordinary labels, uncompressed.
pub fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}
