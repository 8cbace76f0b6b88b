//! Text from outside, made fit for a log line or a terminal: receivers, processes and DNS servers choose it.

use std::fmt::Write;

use crate::escape;

/// The most characters of a receiver's words that a log line holds.
pub(super) const WORDS: usize = 240;

/// `text` with every character escaped that could move a cursor, end a line or turn the reading direction, cut after
/// `max` characters.
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut rest = text.trim().chars();
    for c in rest.by_ref().take(max) {
        push_printable(&mut out, c);
    }
    if rest.next().is_some() {
        out.push('…');
    }
    out
}

/// As [`printable`], of bytes that may be no UTF-8.
pub(super) fn printable_bytes(bytes: &[u8], max: usize) -> String {
    // Four bytes a character at most; the cut keeps the work small whatever came.
    printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * max + 4)]), max)
}

/// Adds `c` to `out`, escaped where it isn't plain text.
pub(super) fn push_printable(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x100 && c.is_control() => {
            // Writing to a String can't fail.
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        c if escape::acts(c) => {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_act_on_a_terminal() {
        assert_eq!(printable("a\x1b[31m\nb\u{202e}c\u{9b}d", 100), r"a\x1b[31m\nb\u{202e}c\x9bd");
    }

    #[test]
    fn cuts_long_text_at_a_character() {
        assert_eq!(printable("äöüß", 3), "äöü…");
        assert_eq!(printable_bytes("€".repeat(1000).as_bytes(), 2), "€€…");
    }
}
