//! Text from outside made fit for a terminal: any text in, one line without control characters out.
//!
//! A file name, a header or a server's answer could otherwise move the cursor, recolour or rewrite what was printed.
//! Must never change text that is harmless.

use std::fmt::{self, Write as _};

/// Displays a text with its control characters written as `\n`, `\t`, `\u{1b}`; line ends too.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

/// Whether a character could act on a terminal instead of being shown: controls of ASCII and Latin-1, and the marks
/// that turn the direction of writing, which can make one text look like another.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
}
