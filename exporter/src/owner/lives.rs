//! Whether a process is still there: a process id and a kernel time in, yes or no out, from /proc. For listeners: whoever
//! called listen() may be gone and have left the socket to others, as a daemon does that forks after it.
//!
//! The answer "no" is certain: nobody has the number, only a zombie, or a process that began later. An answer is good for a
//! moment, so that it costs the same however many connections a listener has.

use std::{fs, path::PathBuf, time::Duration};

use super::{Processes, generations::Generations, process::stat::Stat};
use crate::{
    capture::{KernelTime, clock},
    config,
    flow::Owner,
};

/// How long an answer holds.
const MOMENT: Duration = Duration::from_millis(20);
/// The most processes whose answer is remembered.
const MOST: usize = 1024;

/// Which processes are there.
#[derive(Debug)]
pub struct Lives {
    /// Where /proc shows the host's processes.
    proc: Option<PathBuf>,
    tick_ns: u64,
    known: Generations<u32, Answer>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    asked: KernelTime,
    /// When the process began, rounded down to a tick; `None` where there is none.
    since: Option<KernelTime>,
}

impl Lives {
    /// Asks the proc file system of `config`, where it shows the host's processes. Where it doesn't, every answer is yes.
    pub fn new(config: &config::Owner) -> Self {
        Self {
            proc: Processes::shows_host(config).then(|| config.proc.clone()),
            tick_ns: clock::tick_ns(),
            known: Generations::new(MOST),
        }
    }

    /// Itself as a question: whether the process of an owner is still there.
    pub fn asked(mut self) -> impl FnMut(&Owner) -> bool + Send + 'static {
        move |owner| self.is_there(owner.pid, owner.since)
    }

    /// Whether the process that had this id at `at` is still there.
    pub fn is_there(&mut self, pid: u32, at: KernelTime) -> bool {
        let Some(proc) = &self.proc else { return true };
        let now = KernelTime::now();
        let fresh = |answer: &&mut Answer| u128::from(now.since(answer.asked)) < MOMENT.as_nanos();
        let since = match self.known.get(pid).filter(fresh) {
            Some(answer) => answer.since,
            None => {
                let line = fs::read(proc.join(pid.to_string()).join("stat")).ok();
                let since = line.as_deref().and_then(|line| since(line, self.tick_ns));
                self.known.insert(pid, Answer { asked: now, since });
                since
            }
        };
        since.is_some_and(|since| since <= at)
    }
}

/// When the process of a line of /proc/PID/stat began; `None` where it has ended and waits for its parent.
fn since(line: &[u8], tick_ns: u64) -> Option<KernelTime> {
    let state = line.get(line.iter().rposition(|b| *b == b')')? + 2)?;
    let start = Stat::parse(line)?.start;
    (!matches!(state, b'Z' | b'X')).then(|| clock::shown_as(start, tick_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_until_it_ends_and_never_before_it_began() {
        let mut lives = Lives::new(&config::Owner::default());
        if lives.proc.is_none() {
            return eprintln!("not tested: /proc does not show the host's processes");
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let (pid, began) = (child.id(), KernelTime::now());
        assert!(lives.is_there(pid, began) && lives.is_there(std::process::id(), began));
        assert!(!lives.is_there(pid, KernelTime(1)), "another one had the number then");
        child.kill().expect("killed");
        // A zombie.
        let ends = |lives: &mut Lives| {
            (0..500).any(|_| {
                lives.known = Generations::new(MOST);
                std::thread::yield_now();
                !lives.is_there(pid, began)
            })
        };
        assert!(ends(&mut lives));
        child.wait().expect("its end");
        assert!(ends(&mut lives));
    }

    #[test]
    fn what_is_no_line_has_no_start() {
        for line in [&b""[..], b")", b") ", b"1 (x) S 1", b"\xff"] {
            assert_eq!(since(line, 1), None);
        }
    }
}
