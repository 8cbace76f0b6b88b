//! Attributes of network namespaces: which one in, its encoded attributes out. Most of a host's flows are in a few, so each is
//! encoded once and copied from then on.

use super::{schema, wire};
use crate::netns::Namespace;

/// Namespaces remembered: a power of two.
const SLOTS: usize = 16;

/// Encoded namespaces. Each has one slot that it can be in; whoever came last is in it.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    slots: [Option<(Namespace, Vec<u8>)>; SLOTS],
}

// === impl Spaces

impl Spaces {
    /// Fields `attributes` of `LogRecord`.
    #[inline]
    pub fn of(&mut self, namespace: &Namespace) -> &[u8] {
        let number = namespace.cookie.unwrap_or_default() ^ u64::from(namespace.inode.unwrap_or_default());
        let slot = &mut self.slots[number as usize % SLOTS];
        if slot.as_ref().is_none_or(|(of, _)| of != namespace) {
            *slot = None;
        }
        &slot.get_or_insert_with(|| (*namespace, encode(namespace))).1
    }
}

fn encode(namespace: &Namespace) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(inode) = namespace.inode {
        wire::int_attribute(&mut out, schema::NETNS_INODE, inode.into());
    }
    if let Some(host) = namespace.host {
        wire::bool_attribute(&mut out, schema::NETNS_HOST, host);
    }
    if let (None, Some(cookie)) = (namespace.inode, namespace.cookie) {
        wire::int_attribute(&mut out, schema::NETNS_COOKIE, cookie);
    }
    out
}

/// Appends which interface link-local addresses belong to.
#[cold]
pub(super) fn interface(out: &mut Vec<u8>, name: Option<&str>, index: u32) {
    match name {
        Some(name) => wire::string_attribute(out, schema::INTERFACE_NAME, name.as_bytes()),
        None => wire::int_attribute(out, schema::INTERFACE_INDEX, index.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_encoded_anew_and_what_does_not_is_not() {
        let base = Namespace { inode: Some(7), cookie: Some(1), host: Some(true) };
        // All of one slot.
        let variants = [
            base,
            Namespace { host: Some(false), ..base },
            Namespace { host: None, ..base },
            Namespace { inode: None, cookie: Some(6), ..base },
            Namespace { inode: Some(6), cookie: None, ..base },
            Namespace { inode: Some(7 + SLOTS as u32), ..base },
        ];
        let mut spaces = Spaces::default();
        for namespace in variants.iter().chain(variants.iter().rev()) {
            for _ in 0..2 {
                assert_eq!(spaces.of(namespace), encode(namespace));
            }
            let at = spaces.of(namespace).as_ptr();
            assert_eq!(spaces.of(namespace).as_ptr(), at, "it was there");
        }
    }
}
