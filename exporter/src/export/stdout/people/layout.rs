//! The width of a terminal in, the widths of the columns out; and a text into its column.

use textwrap::core::display_width;

/// Widths of the columns, in characters of a terminal. The first three are always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The whole line.
    pub(super) line: usize,
    pub(super) source: usize,
    pub(super) destination: usize,
    pub(super) process: usize,
    pub(super) detail: usize,
}

/// The column of the time: `14:03:22.123`.
pub(super) const TIME: usize = 12;
/// The column of the event: `failed`.
pub(super) const EVENT: usize = 6;
/// The column of the direction: `out`.
pub(super) const DIRECTION: usize = 3;
/// Between source and destination. It always points from who asked for the connection to who was asked.
pub(super) const ARROW: &str = " → ";

/// Narrower terminals get lines for this width, which wrap.
const LEAST: usize = 60;
/// Least widths of source, destination, process and detail: what is there at 80 columns.
const LEAST_COLUMNS: [usize; 4] = [13, 14, 10, 14];
/// Widths that leave nothing to wish for: an IPv6 address with its port, a name with one, a program with its id.
const MOST_COLUMNS: [usize; 4] = [47, 64, 28, usize::MAX];
/// How what is more than 80 columns is shared, in parts of 8.
const SHARES: [usize; 4] = [2, 3, 1, 2];

// === impl Layout

impl Layout {
    /// Columns for a terminal of this width.
    pub(super) fn fit(width: usize) -> Self {
        let line = width.max(LEAST);
        let fixed = TIME + 1 + EVENT + 1 + DIRECTION + 1 + 3 + 1 + 1;
        let least: usize = LEAST_COLUMNS.iter().sum();
        let room = line - fixed;
        let mut columns = LEAST_COLUMNS;
        if room < least {
            columns = LEAST_COLUMNS.map(|column| column * room / least);
        } else {
            let more = room - least;
            for ((column, share), most) in columns.iter_mut().zip(SHARES).zip(MOST_COLUMNS) {
                *column = (*column + more * share / 8).min(most);
            }
        }
        let [source, destination, process, _] = columns;
        Self { line, source, destination, process, detail: room - source - destination - process }
    }
}

/// `text` in at most `width` columns: what is too much goes out of its middle, because both ends say more. Of an address the
/// port is at the end, of a process its id, of a name its domain.
pub(super) fn shorten(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let (back, front) = (room.div_ceil(2), room / 2);
    let head: String = taken(text.chars(), front).collect();
    let tail: Vec<char> = taken(text.chars().rev(), back).collect();
    head + "…" + &tail.into_iter().rev().collect::<String>()
}

/// `name[id]` in at most `width` columns: what is too much goes off the name's end, so that the id stays whole.
pub(super) fn shorten_process(text: &str, width: usize) -> String {
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
pub(super) fn cell(text: &str, width: usize) -> String {
    let mut cell = shorten(text, width);
    cell.extend(std::iter::repeat_n(' ', width.saturating_sub(display_width(&cell))));
    cell
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_long_loses_its_middle() {
        assert_eq!(shorten("192.168.100.200:43210", 13), "192.16…:43210");
        assert_eq!(shorten("curl[1234]", 10), "curl[1234]");
        assert_eq!(shorten("漢字漢字漢字", 7), "漢…字");
        assert_eq!(shorten_process("python3.11[1708]", 14), "python3…[1708]");
        assert_eq!(shorten_process("curl[1708]", 10), "curl[1708]");
        assert_eq!(shorten_process("a-program[4194303]", 10), "…[4194303]");
        assert_eq!(shorten("abc", 1), "…");
        assert_eq!(shorten("abc", 0), "");
        assert_eq!(cell("ab", 4), "ab  ");
    }

    proptest! {
        #[test]
        fn columns_fill_the_line_whatever_its_width(width in 0usize..1000) {
            let Layout { line, source, destination, process, detail } = Layout::fit(width);
            prop_assert_eq!(line, width.max(60));
            prop_assert_eq!(TIME + EVENT + DIRECTION + 3 + 5 + source + destination + process + detail, line);
        }

        #[test]
        fn a_cell_is_as_wide_as_its_column(text in "[ -~漢é\u{301}]{0,30}", width in 0usize..40) {
            prop_assert_eq!(display_width(&cell(&text, width)), width);
        }
    }
}
