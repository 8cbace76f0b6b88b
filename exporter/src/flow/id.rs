//! A flow's id: the same on every record of one side of a flow, also across a restart of flowtel, and unique across hosts
//! and boots.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
};

use siphasher::sip128::SipHasher13;

use crate::capture::KernelTime;

/// 128 bits from boot id, socket cookie and the socket's view of the 5-tuple; of a socket that is used again from its begin
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId(pub u128);

/// The random id that the kernel draws at each boot. It is the key of every hash, so that no peer can aim at an id.
#[derive(Clone, Copy)]
pub struct BootId([u8; 16]);

impl FlowId {
    /// The id of the flow on the socket `cookie` between these addresses, as the socket sees them.
    pub fn new(boot: &BootId, cookie: u64, local: SocketAddr, remote: SocketAddr) -> Self {
        let mut bytes = [0; 8 + 2 * 18];
        bytes[..8].copy_from_slice(&cookie.to_be_bytes());
        for (place, end) in [(8, local), (26, remote)] {
            let ip = match end.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            bytes[place..place + 16].copy_from_slice(&ip.octets());
            bytes[place + 16..place + 18].copy_from_slice(&end.port().to_be_bytes());
        }
        Self(boot.hash(&bytes))
    }

    /// The id of the flow since this time, where the socket may have had another one between the same addresses.
    pub fn at(self, boot: &BootId, since: KernelTime) -> Self {
        let mut bytes = [0; 16 + 8];
        bytes[..16].copy_from_slice(&self.0.to_be_bytes());
        bytes[16..].copy_from_slice(&since.0.to_be_bytes());
        Self(boot.hash(&bytes))
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl BootId {
    /// From 16 bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// This boot's (random(4), /proc/sys/kernel/random/boot_id).
    ///
    /// # Errors
    /// /proc is not mounted, or holds no UUID there.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        uuid::Uuid::parse_str(text.trim())
            .map(|id| Self(id.into_bytes()))
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("boot_id is not a UUID: {e}")))
    }

    /// The keyed hash of `bytes` (SipHash-1-3, 128 bits: what is wanted is that nobody can aim at an id, as for a hash table).
    pub fn hash(&self, bytes: &[u8]) -> u128 {
        SipHasher13::new_with_key(&self.0).hash(bytes).as_u128()
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootId")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_cookie_and_each_end_change_the_id_and_nothing_else_does() {
        let (a, b): (SocketAddr, SocketAddr) =
            ("10.0.0.1:1000".parse().expect("valid"), "10.0.0.2:80".parse().expect("valid"));
        let boot = BootId::new([7; 16]);
        let id = FlowId::new(&boot, 1, a, b);
        assert_eq!(id, FlowId::new(&boot, 1, a, b));
        assert_ne!(id, FlowId::new(&BootId::new([8; 16]), 1, a, b));
        assert_ne!(id, FlowId::new(&boot, 2, a, b));
        assert_ne!(id, FlowId::new(&boot, 1, b, a));
        assert_eq!(id.to_string().len(), 32);
        let again = id.at(&boot, KernelTime(5));
        assert_eq!(again, id.at(&boot, KernelTime(5)));
        assert!(![id, id.at(&boot, KernelTime(6)), id.at(&BootId::new([8; 16]), KernelTime(5))].contains(&again));
    }
}
