//! Texts and numbers into columns: shortened, filled up, and with a unit.

use textwrap::core::display_width;

/// A count of bytes in at most five characters: `999`, `1.2k`, `34M`.
pub(crate) fn bytes(count: i64) -> String {
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

/// A number with a comma before each three digits.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time with about three digits.
pub(crate) fn time(seconds: f64) -> String {
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

/// `text` in at most `width` columns: what is too much goes out of its middle, because both ends say more. Of an address the
/// port is at the end, of a process its id, of a name its domain.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let (back, front) = (room.div_ceil(2), room / 2);
    let head: String = taken(text.chars(), front).collect();
    let tail: Vec<char> = taken(text.chars().rev(), back).collect();
    head + "…" + &tail.into_iter().rev().collect::<String>()
}

/// The beginning of `text` in at most `width` columns: what is too much goes off its end.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match width.checked_sub(1) {
        Some(room) if display_width(text) > width => taken(text.chars(), room).collect::<String>() + "…",
        Some(_) => text.to_owned(),
        None => String::new(),
    }
}

/// `name[id]` in at most `width` columns: what is too much goes off the name's end, so that the id stays whole.
pub(crate) fn shorten_process(text: &str, width: usize) -> String {
    let id = text.rfind('[').map_or("", |at| &text[at..]);
    match width.checked_sub(display_width(id) + 1) {
        Some(room) if display_width(text) > width => taken(text.chars(), room).collect::<String>() + "…" + id,
        _ => shorten(text, width),
    }
}

/// As many characters as fit.
fn taken(chars: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    let mut used = 0;
    chars.take_while(move |c| {
        used += display_width(c.encode_utf8(&mut [0; 4]));
        used <= width
    })
}

/// As [`shorten`], filled with blanks up to `width`.
pub(crate) fn cell(text: &str, width: usize) -> String {
    let mut cell = shorten(text, width);
    cell.extend(std::iter::repeat_n(' ', width.saturating_sub(display_width(&cell))));
    cell
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn numbers_have_commas() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_is_too_long_loses_its_middle_or_its_end() {
        assert_eq!(shorten("192.168.100.200:43210", 13), "192.16…:43210");
        assert_eq!(shorten("curl[1234]", 10), "curl[1234]");
        assert_eq!(shorten("漢字漢字漢字", 7), "漢…字");
        assert_eq!(shorten_process("python3.11[1708]", 14), "python3…[1708]");
        assert_eq!(shorten_process("curl[1708]", 10), "curl[1708]");
        assert_eq!(shorten_process("a-program[4194303]", 10), "…[4194303]");
        assert_eq!([cut("漢字漢字", 6), cut("abc", 3), cut("abc", 1), cut("abc", 0)], ["漢字…", "abc", "…", ""]);
        assert_eq!(shorten("abc", 1), "…");
        assert_eq!(shorten("abc", 0), "");
        assert_eq!(cell("ab", 4), "ab  ");
    }

    proptest! {
        #[test]
        fn a_cell_is_as_wide_as_its_column(text in "[ -~漢é\u{301}]{0,30}", width in 0usize..40) {
            prop_assert_eq!(display_width(&cell(&text, width)), width);
        }
    }
}
