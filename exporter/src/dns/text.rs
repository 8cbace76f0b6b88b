//! Names as text: labels come in, lower-case text fit for a record goes out.
//!
//! Must never write a blank or a control character: lists of names are kept as one text with blanks between them.

/// The longest name that is stored, bytes of text. A name of ordinary letters has at most 253 (RFC 1035, 2.3.4); only one
/// with many escaped bytes is longer.
pub const MAX_NAME: usize = 255;

/// A name's text would be longer than [`MAX_NAME`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Appends a name made of `labels` (without the root's), dots between them. ASCII letters become lower case; a dot or
/// backslash in a label gets a backslash, and what is neither a letter nor another visible ASCII character becomes
/// `\DDD` (RFC 4343, 2.1).
///
/// # Errors
/// The text would be too long; `out` is as it was.
pub(super) fn append<'a>(out: &mut String, labels: impl Iterator<Item = &'a [u8]>) -> Result<(), TooLong> {
    let start = out.len();
    for label in labels.filter(|label| !label.is_empty()) {
        if out.len() > start {
            out.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => out.extend(['\\', char::from(*byte)]),
                0x21..=0x7e => out.push(char::from(byte.to_ascii_lowercase())),
                _ => out.extend(['\\', digit(byte / 100), digit(byte / 10 % 10), digit(byte % 10)]),
            }
        }
    }
    if out.len() - start > MAX_NAME {
        out.truncate(start);
        return Err(TooLong);
    }
    Ok(())
}

fn digit(value: u8) -> char {
    char::from(b'0' + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(labels: &[&[u8]]) -> Result<String, TooLong> {
        let mut out = String::new();
        append(&mut out, labels.iter().copied()).map(|()| out)
    }

    #[test]
    fn letters_become_lower_case_and_odd_bytes_are_escaped() {
        assert_eq!(text(&[b"WwW", b"Example", b"COM"]).as_deref(), Ok("www.example.com"));
        assert_eq!(
            text(&[b"a.b\\c", b"d e", b"\x00\x1b\xc3\xbc", b""]).as_deref(),
            Ok(r"a\.b\\c.d\032e.\000\027\195\188")
        );
        assert_eq!(text(&[b"_dmarc", b"xn--bcher-kva"]).as_deref(), Ok("_dmarc.xn--bcher-kva"));
        assert_eq!(text(&[b""]).as_deref(), Ok(""));
    }

    #[test]
    fn a_text_beyond_the_limit_is_refused_and_leaves_nothing_behind() {
        let mut out = String::from("before");
        let label = [0u8; 63];
        assert_eq!(append(&mut out, [&label[..], &label[..]].into_iter()), Err(TooLong));
        assert_eq!(out, "before");
        assert_eq!(append(&mut out, [&[b'a'; 63][..]; 3].into_iter()), Ok(()));
    }
}
