//! The last column: what the event has to say beside who and whom.

use super::fields::{Fields, NAME};
use crate::{
    export::text::printable,
    record::schema,
    words::{bytes, shorten, time},
};

/// The detail in at most `room` columns: in whole words where they fit, else in short ones.
pub(super) fn of(fields: &Fields<'_>, room: usize) -> String {
    let (mut long, mut short) = (Vec::new(), Vec::new());
    if let Some(count) = fields.int(schema::FOLD_COUNT) {
        long.push(format!("{count} times"));
        short.push(format!("{count}×"));
    }
    if let Some(reason) = fields.text(schema::ERROR_TYPE) {
        let reason = printable(reason, NAME);
        long.push(reason.clone());
        short.push(reason);
    }
    if let (Some(there), Some(back)) = (fields.int(schema::SOURCE_BYTES), fields.int(schema::DESTINATION_BYTES)) {
        long.push(format!("{} there, {} back", bytes(there), bytes(back)));
        short.push(format!("{}/{}", bytes(there), bytes(back)));
    }
    // What of it is new, of a flow that goes on.
    if let (Some(there), Some(back)) =
        (fields.int(schema::DELTA_SOURCE_BYTES), fields.int(schema::DELTA_DESTINATION_BYTES))
        && fields.text(schema::END_REASON).is_none()
    {
        long.push(format!("+{} there, +{} back new", bytes(there), bytes(back)));
    }
    if let Some(seconds) = fields.number(schema::DURATION) {
        long.push(format!("in {}", time(seconds)));
        short.push(time(seconds).replace(' ', ""));
    }
    if let Some(seconds) = fields.number(schema::HANDSHAKE) {
        long.push(format!("handshake {}", time(seconds)));
        short.push(time(seconds));
    }
    if let Some(reason) = fields.text(schema::END_REASON) {
        long.push(printable(reason, NAME));
    }
    let long = long.join(", ");
    if textwrap::core::display_width(&long) <= room { long } else { shorten(&short.join(" "), room) }
}
