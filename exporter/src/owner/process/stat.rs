//! A line of /proc/PID/stat in; the few fields that are needed out (proc_pid_stat(5); fs/proc/array.c, do_task_stat).
//!
//! The second field is the thread's name in parentheses, which the process chooses: it may hold spaces, line ends and
//! parentheses. No later field can hold a parenthesis, so fields are counted from the last `)`.
//!
//! Must never panic, whatever the bytes are, nor take a field from inside the name.

/// PF_KTHREAD (include/linux/sched.h): the kernel's own thread. No process can set it.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What is used of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 4: its parent; 0 where it has none.
    pub parent: u32,
    /// Field 22: when the process began, in clock ticks of CLOCK_BOOTTIME, rounded down.
    pub start: u64,
    /// Field 9, PF_KTHREAD: it is a thread of the kernel.
    pub kernel_thread: bool,
}

// === impl Stat

impl Stat {
    /// Reads a line. `None` where it is not one, or cut before field 22.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let name_ends = line.iter().rposition(|b| *b == b')')?;
        // The first field after the name is the third.
        let mut fields = line.get(name_ends + 1..)?.split(|b| *b == b' ').skip(1);
        let parent = u32::try_from(number(fields.nth(4 - 3)?)?).ok()?;
        let flags = number(fields.nth(9 - 4 - 1)?)?;
        let start = fields.nth(22 - 9 - 1)?;
        // A number at the very end may have been cut: the line goes on for thirty more fields.
        fields.next()?;
        Some(Self { parent, start: number(start)?, kernel_thread: flags & KERNEL_THREAD != 0 })
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(name: &str, flags: u64, start: u64) -> Vec<u8> {
        format!("4711 ({name}) S 1 4711 4711 0 -1 {flags} 120 0 3 0 7 8 9 10 20 0 1 0 {start} 8192 128 18446744073709551615 1 2 3 4 5 0 0\n").into_bytes()
    }

    #[test]
    fn the_start_is_found_behind_names_with_spaces_parentheses_and_line_ends() {
        for name in ["sh", "", "a b", ") S 1 2 3 4 5 6 7 8 9", "((", "))", "\n4711 (x) R", "Web Content"] {
            assert_eq!(
                Stat::parse(&line(name, 4_194_304, 987_654)),
                Some(Stat { parent: 1, start: 987_654, kernel_thread: false }),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_thread_of_the_kernel_is_told_by_its_flag_and_not_by_its_name() {
        assert!(Stat::parse(&line("kthreadd", 0x0020_8040, 1)).expect("a line").kernel_thread);
        assert!(!Stat::parse(&line("kthreadd", 0x0040_0100, 1)).expect("a line").kernel_thread);
    }

    #[test]
    fn a_line_cut_anywhere_before_the_fields_behind_the_start_is_refused() {
        let line = line("x", 0, 123_456);
        let end = line.windows(8).position(|w| w == b"123456 8").expect("it is there") + 7;
        for n in 0..end {
            assert_eq!(Stat::parse(&line[..n]), None, "{:?}", String::from_utf8_lossy(&line[..n]));
        }
        assert!(Stat::parse(&line[..end]).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Stat::parse(&bytes);
        }

        #[test]
        fn any_name_leaves_the_start_what_it_is(name in "[ ()\\n0-9A-Za-z]{0,15}", start in any::<u64>()) {
            prop_assert_eq!(Stat::parse(&line(&name, 0, start)).map(|s| s.start), Some(start));
        }
    }
}
