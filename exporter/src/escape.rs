//! Text from outside made fit for a terminal: any text in, one line without control characters out; and the same for
//! JSON, whose readers find the text unchanged.
//!
//! A file name, a header or a server's answer could otherwise move the cursor, recolour or rewrite what was printed.
//! Must never change text that is harmless.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use serde::Serialize;
use serde_json::ser::Formatter;

/// Displays a text with its control characters written as `\n`, `\t`, `\u{1b}`; line ends too.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

/// Whether a character could act on a terminal instead of being shown: controls of ASCII and Latin-1, and the marks
/// that turn the direction of writing, which can make one text look like another.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `value` as one line of JSON, without its end. Every character that [`acts`] is escaped: JSON itself asks for that
/// below U+0020 only, and some readers take U+2028 and U+2029 for the end of a line.
///
/// # Errors
/// Those of `out`, and of the value.
pub fn write_json(out: impl Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Harmless))
}

/// The compact form, with nothing that acts.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        // Almost every text is plain.
        if fragment.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return out.write_all(fragment.as_bytes());
        }
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| acts(*c)) {
            out.write_all(&fragment.as_bytes()[plain..at])?;
            // All of them are in the basic plane.
            write!(out, "\\u{:04x}", u32::from(c))?;
            plain = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}

// === impl Escaped

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                c if acts(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sequence_is_shown_and_not_obeyed() {
        assert_eq!(Escaped("a\u{1b}[31mb\n\u{9b}\u{202e}").to_string(), "a\\u{1b}[31mb\\n\\u{9b}\\u{202e}");
    }

    #[test]
    fn harmless_text_stays_as_it_is() {
        assert_eq!(Escaped("grüße 漢字 \\ \"").to_string(), "grüße 漢字 \\ \"");
    }

    #[test]
    fn json_has_nothing_that_acts_and_its_reader_finds_the_same_text() {
        let text = "a\u{2028}b\u{2029}\u{202e}\u{2066}\u{61c}\u{7f}\u{9b}\n\"grüße 漢字\" \u{10ffff}";
        let mut out = Vec::new();
        write_json(&mut out, &[text]).expect("plain data");
        let line = String::from_utf8(out).expect("UTF-8");
        assert!(!line.chars().any(acts), "{line:?}");
        assert!(
            line.contains("grüße 漢字") && line.contains("\\u2028b\\u2029\\u202e\\u2066\\u061c\\u007f\\u009b"),
            "{line}"
        );
        let read: Vec<String> = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(read, [text]);
    }
}
