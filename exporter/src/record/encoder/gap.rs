//! The record of a gap. It has few attributes and comes seldom: nothing here has to be fast.

use std::io::Write as _;

use jiff::Timestamp;

use super::{Encoder, RECORD_HEAD, close_record};
use crate::{
    capture::WallTime,
    gap::Gap,
    record::{Batch, schema, text, wire},
};

impl Encoder {
    /// Appends the record of a gap. Returns a batch as [`Encoder::write`] does.
    pub fn write_gap(&mut self, gap: &Gap) -> Option<Batch> {
        let start = self.open.buffer.len();
        self.gap(gap);
        self.written(start, &gap.at)
    }

    fn gap(&mut self, gap: &Gap) {
        let Gap { at, uid, stage, reason, words, events, total, recovered, since } = gap;
        let name = schema::GAP;
        let mut body = Vec::new();
        let people = reason.replace('_', " ");
        // A Vec takes all that is written.
        let _ = write!(body, "gap: {events} {words} at {stage}, {people}, since {:.3}", timestamp(*since));
        let salt = self.salt;
        if *recovered > 0 {
            let _ = write!(body, "; ends found since: {recovered}");
        }
        let out = &mut self.open.buffer;
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD]);
        wire::fixed64(out, wire::log_record::TIME, at.wall.0);
        wire::fixed64(out, wire::log_record::OBSERVED_TIME, at.observed.0);
        wire::varint(out, wire::log_record::SEVERITY_NUMBER, schema::WARN as u64);
        wire::bytes(out, wire::log_record::SEVERITY_TEXT, schema::WARN_TEXT.as_bytes());
        wire::bytes(out, wire::log_record::EVENT_NAME, name.as_bytes());
        wire::any_string(out, wire::log_record::BODY, &body);
        if self.form.event_name_attribute {
            wire::string_attribute(out, schema::EVENT_NAME, name.as_bytes());
        }
        wire::string_attribute(out, schema::UID, &text::hex(*uid ^ salt));
        wire::int_attribute(out, schema::GAP_EVENTS, *events);
        wire::int_attribute(out, schema::GAP_TOTAL, *total);
        wire::string_attribute(out, schema::GAP_STAGE, stage.as_bytes());
        wire::string_attribute(out, schema::GAP_REASON, reason.as_bytes());
        if *recovered > 0 {
            wire::int_attribute(out, schema::GAP_RECOVERED, *recovered);
        }
        wire::string_attribute(out, schema::GAP_SINCE, timestamp(*since).to_string().as_bytes());
        close_record(out, start);
    }
}

/// As RFC 3339 has it, in UTC.
fn timestamp(wall: WallTime) -> Timestamp {
    // Every u64 of nanoseconds is within its range (years -9999 to 9999).
    Timestamp::from_nanosecond(wall.0.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}
