//! Whether an answer repeats the question that was asked: who forges one has to know that too, beside port and id.

/// Where the question starts: behind the header (RFC 1035, 4.1.1).
const START: usize = 12;
/// The longest name (RFC 1035, 3.1), and type and class behind it.
const MOST: usize = 255 + 4;

/// Whether the question in `message` begins like `asked`, the bytes of the query behind its header: as far as both go.
/// Letters count the same in either case. (`asked` may be cut short, and what follows its question is not compared.)
pub(super) fn is_repeated(asked: &[u8], message: &[u8]) -> bool {
    let Some(question) = question(message) else { return false };
    let length = question.len().min(asked.len());
    // A query always has more than the empty name.
    length > 0 && question[..length].eq_ignore_ascii_case(&asked[..length])
}

/// The first question: a name of labels, a type, a class. `None` where it is cut short, too long, or compressed (there is
/// nothing before it that it could point at).
fn question(message: &[u8]) -> Option<&[u8]> {
    let rest = message.get(START..)?;
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            0 => break,
            label @ 1..=63 => at += usize::from(label) + 1,
            _ => return None,
        }
        if at > MOST {
            return None;
        }
    }
    rest.get(..at + 1 + 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(question: &[u8]) -> Vec<u8> {
        [&[0; START][..], question, b"\0\0answer"].concat()
    }

    const ASKED: &[u8] = b"\x07example\x03com\0\0\x01\0\x01";

    #[test]
    fn the_same_question_is_repeated_in_whatever_case_and_however_it_was_cut() {
        assert!(is_repeated(ASKED, &message(ASKED)));
        assert!(is_repeated(ASKED, &message(b"\x07eXAMple\x03COM\0\0\x01\0\x01")));
        assert!(is_repeated(&ASKED[..9], &message(ASKED)));
        let with_edns = [ASKED, &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
        assert!(is_repeated(&with_edns, &message(ASKED)));
    }

    #[test]
    fn another_question_is_not() {
        assert!(!is_repeated(ASKED, &message(b"\x07example\x03org\0\0\x01\0\x01")));
        assert!(!is_repeated(ASKED, &message(b"\x07example\x03com\0\0\x1c\0\x01")), "another type");
        assert!(!is_repeated(ASKED, &message(b"\xc0\x0c\0\x01\0\x01")), "a pointer");
        assert!(!is_repeated(ASKED, &[0; START]));
        assert!(!is_repeated(b"", &message(ASKED)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(asked in prop::collection::vec(any::<u8>(), 0..64), message in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = is_repeated(&asked, &message);
        }
    }
}
