//! The last column: what the event has to say beside who and whom.

use crate::{export::text::printable, record::schema};

use super::{
    fields::{Fields, NAME},
    layout::shorten,
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

/// A count of bytes in at most five characters: `999`, `1.2k`, `34M`.
fn bytes(count: i64) -> String {
    let mut count = count.max(0) as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        if count < 999.5 {
            break;
        }
        count /= 1000.0;
        unit = next;
    }
    if unit.is_empty() || count >= 9.95 { format!("{count:.0}{unit}") } else { format!("{count:.1}{unit}") }
}

/// A time with about three digits.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.0005 => format!("{:.0} µs", (s * 1e6).max(0.0)),
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 599.5 => format!("{s:.0} s"),
        s if s < 5999.5 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_have_few_digits_and_a_unit() {
        let shown: Vec<_> = [0, 999, 1000, 9_949, 9_950, 99_900, 999_499, 999_500, i64::MAX].map(bytes).to_vec();
        assert_eq!(shown, ["0", "999", "1.0k", "9.9k", "10k", "100k", "999k", "1.0M", "9.2E"]);
        let shown: Vec<_> = [0.0, 0.000_061, 0.0125, 0.5, 1.26, 61.0, 149.0, 600.0, 9000.0, 1e9].map(time).to_vec();
        assert_eq!(
            shown,
            ["0 µs", "61 µs", "12.5 ms", "500 ms", "1.3 s", "61.0 s", "149 s", "10 min", "2.5 h", "11574.1 d"]
        );
    }
}
