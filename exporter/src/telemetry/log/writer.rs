//! Formatted log lines in, the same on standard error out, with nothing in them that acts on a terminal or begins another
//! line: names of files, words of receivers and settings come from outside.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use tracing_subscriber::fmt::MakeWriter;

use crate::escape::acts;

/// Makes writers that keep a line one line.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneLine {
    /// Lines are JSON: characters are escaped as JSON does it.
    pub json: bool,
    /// Colours of the formatter's own are let through; it escapes those of others.
    pub colour: bool,
}

/// Writes one line.
pub(super) struct Writer(OneLine);

impl<'a> MakeWriter<'a> for OneLine {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        Writer(*self)
    }
}

impl Write for Writer {
    /// The formatter writes each line in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(self.0.fit(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

// === impl OneLine

impl OneLine {
    fn fit(self, line: &str) -> String {
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        let mut out = String::with_capacity(line.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if !acts(c) {
                out.push(c);
                continue;
            }
            let colour = (c == '\u{1b}' && self.colour).then(|| graphics(rest.as_str())).flatten();
            // Writing to a String can't fail.
            let _ = match (colour, c) {
                (Some(sequence), _) => {
                    out.push(c);
                    out.push_str(sequence);
                    rest = rest.as_str()[sequence.len()..].chars();
                    Ok(())
                }
                // All of them are in the basic plane. Outside of its strings JSON has no such character.
                (None, c) if self.json => write!(out, "\\u{:04x}", u32::from(c)),
                (None, '\n') => out.write_str("\\n"),
                (None, c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
            };
        }
        out + end
    }
}

/// The rest of a sequence that selects a colour (ECMA-48, SGR), if `text` begins with it.
fn graphics(text: &str) -> Option<&str> {
    let end = text.strip_prefix('[')?.find(|c: char| !c.is_ascii_digit() && c != ';')? + 1;
    text[end..].starts_with('m').then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_line_stays_within_the_line_that_quotes_it() {
        let text = OneLine { json: false, colour: false };
        assert_eq!(text.fit("INFO a\nERROR b\u{1b}[2J\u{202e}\n"), "INFO a\\nERROR b\\u{1b}[2J\\u{202e}\n");
        assert_eq!(text.fit("\u{1b}[31mred\n"), "\\u{1b}[31mred\n");
        let colour = OneLine { json: false, colour: true };
        assert_eq!(
            colour.fit("\u{1b}[1;31mred\u{1b}[0m \u{1b}[2J\u{1b}"),
            "\u{1b}[1;31mred\u{1b}[0m \\u{1b}[2J\\u{1b}"
        );
        let json = OneLine { json: true, colour: false };
        let line = json.fit("{\"a\":\"\u{9b}\u{202e}é\"}\n");
        assert_eq!(line, "{\"a\":\"\\u009b\\u202eé\"}\n");
        let value: serde_json::Value = serde_json::from_str(&line).expect("it is JSON still");
        assert_eq!(value["a"], "\u{9b}\u{202e}é");
    }
}
