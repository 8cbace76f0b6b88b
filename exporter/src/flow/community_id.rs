//! Community ID version 1 (github.com/corelight/community-id-spec): one id for a connection, the same on both hosts and
//! in Zeek, Suricata and Elastic.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use sha1::{Digest, Sha1};

/// Length of the text form: `1:` and 20 bytes in base64.
pub const TEXT_LEN: usize = 2 + 28;

/// The digest behind a Community ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommunityId([u8; 20]);

impl Hash for CommunityId {
    /// Any part of a digest is as good as the whole.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        state.write_u64(u64::from_ne_bytes(*first));
    }
}

/// The seed that everybody uses who does not agree on another.
const SEED: [u8; 2] = [0, 0];
const TCP: u8 = 6;
/// RFC 4648, 4. Written out, for it is in each record.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl CommunityId {
    /// Of a TCP connection between two endpoints, in either order.
    pub fn tcp(a: SocketAddr, b: SocketAddr) -> Self {
        // By address, then port: `IpAddr` orders addresses of one version by their bytes, as the specification does.
        let (low, high) = if (a.ip(), a.port()) <= (b.ip(), b.port()) { (a, b) } else { (b, a) };
        let rest = |at: usize, bytes: &mut [u8]| {
            bytes[..2].copy_from_slice(&SEED);
            bytes[at] = TCP;
            bytes[at + 2..at + 4].copy_from_slice(&low.port().to_be_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&high.port().to_be_bytes());
        };
        if let (IpAddr::V4(low), IpAddr::V4(high)) = (low.ip(), high.ip()) {
            let mut bytes = [0; 2 + 4 + 4 + 2 + 4];
            bytes[2..6].copy_from_slice(&low.octets());
            bytes[6..10].copy_from_slice(&high.octets());
            rest(10, &mut bytes);
            return Self(Sha1::digest(bytes).into());
        }
        let octets = |ip: IpAddr| match ip {
            // Not in one connection with an IPv6 address.
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut bytes = [0; 2 + 16 + 16 + 2 + 4];
        bytes[2..18].copy_from_slice(&octets(low.ip()));
        bytes[18..34].copy_from_slice(&octets(high.ip()));
        rest(34, &mut bytes);
        Self(Sha1::digest(bytes).into())
    }

    /// The text form, `1:` and base64.
    pub fn text(&self) -> [u8; TEXT_LEN] {
        // 20 bytes are 28 characters with one of padding.
        let mut bytes = [0; 21];
        bytes[..20].copy_from_slice(&self.0);
        let mut text = [0; TEXT_LEN];
        text[..2].copy_from_slice(b"1:");
        for (four, three) in text[2..].chunks_exact_mut(4).zip(bytes.chunks_exact(3)) {
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            four.copy_from_slice(&[18, 12, 6, 0].map(|at| BASE64[(bits >> at) as usize & 63]));
        }
        text[TEXT_LEN - 1] = b'=';
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(a: &str, b: &str) -> String {
        let id = CommunityId::tcp(a.parse().expect("an endpoint"), b.parse().expect("an endpoint"));
        String::from_utf8(id.text().to_vec()).expect("base64 is ASCII")
    }

    #[test]
    fn the_vectors_of_other_implementations_come_out_both_ways_round() {
        for (a, b, expected) in [
            // published: community-id-spec's baseline and Zeek's community_id_v1 test
            ("128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("1.2.3.4:1122", "5.6.7.8:3344", "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            // from the reference implementation, pycommunityid
            ("[2001:db8::1]:50000", "[2001:db8::2]:443", "1:YXqXufkGr4i6TbJJYF83fvyDLZ8="),
            ("[fe80::1]:2000", "[fe80::1]:1000", "1:UeHG5CrpRrn3PMWjsixx1TbGRyY="),
            ("127.0.0.1:40000", "127.0.0.1:80", "1:5rFr+y3i0wpQbEhThSaj08U8BaE="),
        ] {
            assert_eq!(id(a, b), expected);
            assert_eq!(id(b, a), expected);
        }
    }
}
