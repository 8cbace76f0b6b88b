//! What a client says first over TLS: bytes of a connection's beginning in, a [`Hello`] out.
//!
//! - [`Assembly`]: segments, in whatever order, put together; bounded;
//! - `read`: the ClientHello (RFC 8446, 4.1.2) in them, whole or as far as it goes;
//! - `ja4`: its JA4 fingerprint;
//! - `text`: names as they stand in records.
//!
//! Must never say more than the bytes do: a hello that isn't whole has no fingerprint, and of its lists only what is there
//! whole.

mod assembly;
mod ja4;
mod read;
#[cfg(test)]
pub(crate) mod sample;
mod text;

pub use assembly::{Assembly, MOST, MOST_PARTS};
pub use ja4::{Ja4, LEN as JA4_LEN};
pub use read::{Read, read};

/// The most names of protocols, and of versions, that a record has.
pub const MOST_LISTED: usize = 16;

/// What a client said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The server that it asks for (server_name, RFC 6066, 3): lower case, escaped.
    pub server_name: Option<String>,
    /// The protocols that it offers (ALPN, RFC 7301), in its order; at most [`MOST_LISTED`].
    pub protocols: Vec<String>,
    /// The versions of TLS that it offers, in its order; at most [`MOST_LISTED`].
    pub versions: Vec<String>,
    /// Its fingerprint; `None` where the hello isn't whole.
    pub ja4: Option<Ja4>,
    /// It has the extension encrypted_client_hello (RFC 9849), real or for show (GREASE): nobody can tell. Where it is real the
    /// server's name is the outer one.
    pub ech: bool,
    /// All of it was seen.
    pub whole: bool,
}

/// A value that stands in lists for none, so that servers get used to unknown ones (GREASE, RFC 8701).
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}
