//! The width of a terminal in, the widths of the columns out.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_fill_the_line_whatever_its_width(width in 0usize..1000) {
            let Layout { line, source, destination, process, detail } = Layout::fit(width);
            prop_assert_eq!(line, width.max(60));
            prop_assert_eq!(TIME + EVENT + DIRECTION + 3 + 5 + source + destination + process + detail, line);
        }
    }
}
