//! Stretches of a begin's or an end's record whose layout is known when this is compiled. Each is a constant with places
//! for its values, copied whole: field by field, each would be some stores and a look whether there is room.

use super::RECORD_HEAD;
use crate::{
    flow::{CommunityId, FlowId, Stamp, community_id::TEXT_LEN},
    record::{
        schema, text,
        wire::{self, FIXED64, LEN, STRING_HEAD, VARINT, log_record, tag},
    },
};

/// Bytes before an event's name.
const BEFORE_NAME: usize = RECORD_HEAD + 2 * (1 + 8) + 2 + (2 + schema::INFO_TEXT.len()) + 2;
/// Where the two times stand.
const TIME: usize = RECORD_HEAD + 1;
const OBSERVED: usize = TIME + 8 + 1;

const UID: usize = STRING_HEAD + schema::UID.len();
const FLOW_ID: usize = STRING_HEAD + schema::FLOW_ID.len();
const COMMUNITY_ID: usize = STRING_HEAD + schema::COMMUNITY_ID.len();
/// Bytes of an id as text.
const HEX: usize = 32;
/// Bytes of the three attributes with ids, and where the ids stand in them.
const IDS: usize = COMMUNITY_AT + TEXT_LEN;
const UID_AT: usize = UID;
const FLOW_AT: usize = UID_AT + HEX + FLOW_ID;
const COMMUNITY_AT: usize = FLOW_AT + HEX + COMMUNITY_ID;

const BEGIN: [u8; BEFORE_NAME + schema::BEGIN.len()] = front(schema::BEGIN);
const END: [u8; BEFORE_NAME + schema::END.len()] = front(schema::END);
const NO_IDS: [u8; IDS] = wire::concat(&[
    &wire::string_head::<UID>(schema::UID, HEX),
    &[0; HEX],
    &wire::string_head::<FLOW_ID>(schema::FLOW_ID, HEX),
    &[0; HEX],
    &wire::string_head::<COMMUNITY_ID>(schema::COMMUNITY_ID, TEXT_LEN),
    &[0; TEXT_LEN],
]);

/// What comes before the body.
const fn front<const N: usize>(name: &str) -> [u8; N] {
    wire::concat(&[
        &[0; RECORD_HEAD],
        &[tag(log_record::TIME, FIXED64), 0, 0, 0, 0, 0, 0, 0, 0],
        &[tag(log_record::OBSERVED_TIME, FIXED64), 0, 0, 0, 0, 0, 0, 0, 0],
        &[tag(log_record::SEVERITY_NUMBER, VARINT), schema::INFO as u8],
        &[tag(log_record::SEVERITY_TEXT, LEN), schema::INFO_TEXT.len() as u8],
        schema::INFO_TEXT.as_bytes(),
        &[tag(log_record::EVENT_NAME, LEN), name.len() as u8],
        name.as_bytes(),
    ])
}

/// Appends what comes before the body of a begin's record.
#[inline(always)]
pub(super) fn begin(out: &mut Vec<u8>, at: &Stamp) {
    stamped(out, BEGIN, at);
}

/// Appends what comes before the body of an end's record.
#[inline(always)]
pub(super) fn end(out: &mut Vec<u8>, at: &Stamp) {
    stamped(out, END, at);
}

#[inline(always)]
fn stamped<const N: usize>(out: &mut Vec<u8>, mut front: [u8; N], at: &Stamp) {
    front[TIME..TIME + 8].copy_from_slice(&at.wall.0.to_le_bytes());
    front[OBSERVED..OBSERVED + 8].copy_from_slice(&at.observed.0.to_le_bytes());
    out.extend_from_slice(&front);
}

/// Appends the attributes with the ids of the record, the flow and the connection.
#[inline(always)]
pub(super) fn ids(out: &mut Vec<u8>, uid: u128, flow: FlowId, connection: CommunityId) {
    let mut ids = NO_IDS;
    ids[UID_AT..UID_AT + HEX].copy_from_slice(&text::hex(uid));
    ids[FLOW_AT..FLOW_AT + HEX].copy_from_slice(&text::hex(flow.0));
    ids[COMMUNITY_AT..].copy_from_slice(&connection.text());
    out.extend_from_slice(&ids);
}
