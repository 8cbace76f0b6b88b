//! Attributes that are written only where they are asked for (`record.groups`): other names for what is there already.

use super::{
    pairs::port,
    schema,
    wire::{string_attribute, strings_attribute},
};
use crate::{config::Groups, dns::Names, enrich::Enriched};

/// Appends the attributes of `groups`. `source` and `destination` are the texts of the two addresses.
#[cold]
pub(super) fn write(out: &mut Vec<u8>, groups: Groups, enriched: &Enriched<'_>, source: &[u8], destination: &[u8]) {
    let flow = &enriched.event.flow;
    let known = !flow.source.ip().is_unspecified();
    if groups.has(Groups::CLIENT_SERVER) {
        if known {
            string_attribute(out, schema::CLIENT_ADDRESS, source);
        }
        port(out, schema::CLIENT_PORT, &flow.source);
        string_attribute(out, schema::SERVER_ADDRESS, destination);
        port(out, schema::SERVER_PORT, &flow.destination);
    }
    if groups.has(Groups::TRACEE) {
        if let Some(direction) = flow.direction {
            string_attribute(out, schema::TRACEE_DIRECTION, direction.as_str().as_bytes());
        }
        if known {
            string_attribute(out, schema::TRACEE_SRC, source);
        }
        string_attribute(out, schema::TRACEE_DST, destination);
        port(out, schema::TRACEE_SRC_PORT, &flow.source);
        port(out, schema::TRACEE_DST_PORT, &flow.destination);
        strings_attribute(out, schema::TRACEE_SRC_DNS, enriched.source_names.as_ref().map_or(&[], Names::as_slice));
        let names = enriched.destination_names.as_ref().map_or(&[][..], Names::as_slice);
        strings_attribute(out, schema::TRACEE_DST_DNS, names);
    }
}
