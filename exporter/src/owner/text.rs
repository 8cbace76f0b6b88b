//! Bytes that somebody else chose in; a text of bounded length out.
//!
//! Must never change valid UTF-8 within the bound.

/// The bytes as text, what is no UTF-8 replaced by U+FFFD, cut to at most `most` bytes before a character that does not
/// fit any more.
pub(super) fn bounded(bytes: &[u8], most: usize) -> String {
    // What lies behind the bound by more than a character is never looked at.
    let mut text = String::from_utf8_lossy(bytes.get(..most + 4).unwrap_or(bytes)).into_owned();
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_that_does_not_fit_is_left_out_whole() {
        assert_eq!(bounded("aü漢".as_bytes(), 6), "aü漢");
        assert_eq!(bounded("aü漢".as_bytes(), 5), "aü");
        assert_eq!(bounded("aü漢".as_bytes(), 2), "a");
        assert_eq!(bounded(b"\xff\xff", 4), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_text_is_kept_up_to_the_bound(text in ".{0,60}", most in 0usize..80) {
            let kept = bounded(text.as_bytes(), most);
            prop_assert!(kept.len() <= most && text.starts_with(&kept));
            prop_assert!(kept.len() == text.len() || text.len() > most && kept.len() + 4 > most);
        }
    }
}
