//! Stories of processes, as the kernel tells them.

use flowtel_common::exec::{EXEC, HOST, WHOLE};

use super::*;

/// A table, and a clock of its own.
struct Story(Execs);

impl Story {
    fn new() -> Self {
        Self(Execs::new(64))
    }

    fn forks(&mut self, at: u64, of: u32, child: u32) -> &mut Self {
        self.fork(at, of, child, of)
    }

    fn fork(&mut self, time: u64, of: u32, tgid: u32, parent: u32) -> &mut Self {
        let fork = Fork { kind: flowtel_common::exec::FORK, tgid, time, of, parent };
        self.0.on(&Told::Fork(fork));
        self
    }

    fn starts(&mut self, time: u64, tgid: u32, program: &str) -> &mut Self {
        let names = program.rsplit('/').filter(|name| !name.is_empty()).map(str::as_bytes);
        let names: Vec<u8> = flowtel_common::exec::entries(names).collect();
        let head = Exec {
            kind: EXEC,
            tgid,
            time,
            inode: 0,
            device: 0,
            flags: WHOLE | HOST,
            names: u32::try_from(names.len()).expect("short"),
            argument: 0,
        };
        self.0.on(&Told::Exec { head, names: &names, argument: b"word\0rest" });
        self
    }

    fn reaches(&mut self, until: u64, lost: u64) -> &mut Self {
        let reach = Reach { until: KernelTime(until), lost: KernelTime(lost), host_mounts: None };
        self.0.reaches(reach);
        self
    }

    fn open(&mut self, pid: u32, at: u64) -> Open {
        match self.0.at(pid, KernelTime(at)) {
            Said::Open(open) => open,
            other => panic!("{other:?}"),
        }
    }

    fn runs(&mut self, pid: u32, at: u64) -> Option<String> {
        self.open(pid, at).executable.map(|executable| executable.path.to_string())
    }
}

fn path(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_process_runs_what_it_started_last_before_the_time_asked_for() {
    let mut story = Story::new();
    story.forks(10, 1, 7).starts(20, 7, "/bin/sh").starts(30, 7, "/usr/bin/curl");
    assert_eq!(story.runs(7, 20), path("/bin/sh"));
    assert_eq!(story.runs(7, 29), path("/bin/sh"));
    assert_eq!(story.runs(7, 30), path("/usr/bin/curl"));
    assert_eq!(story.runs(7, 99), path("/usr/bin/curl"));
    assert_eq!(story.0.at(7, KernelTime(9)), Said::Later(KernelTime(10)));
    assert_eq!(story.0.at(8, KernelTime(9)), Said::Nothing);
}

#[test]
fn a_copy_runs_what_the_process_ran_that_made_it_and_a_copy_of_a_copy_too() {
    let mut story = Story::new();
    story.starts(10, 5, "/usr/bin/nginx").forks(20, 5, 6).forks(30, 6, 7).starts(40, 5, "/bin/other");
    assert_eq!(story.runs(6, 25), path("/usr/bin/nginx"));
    assert_eq!(story.runs(7, 50), path("/usr/bin/nginx"));
    let open = story.open(7, 50);
    assert_eq!((open.start, open.parent, open.of), (Some(KernelTime(30)), Some(6), None));
}

#[test]
fn a_copy_of_a_process_that_nothing_was_told_of_says_whose_it_is() {
    let mut story = Story::new();
    story.forks(20, 5, 6).forks(30, 6, 7);
    let open = story.open(7, 50);
    assert_eq!((open.executable, open.of, open.parent), (None, Some(5), Some(6)));
    assert!(story.0.is_silent(5, KernelTime(20)));
    assert!(!story.0.is_silent(6, KernelTime(20)));
}

#[test]
fn the_parent_is_the_one_that_the_kernel_names_and_ran_what_it_did_then() {
    let mut story = Story::new();
    story.starts(5, 3, "/bin/init").starts(10, 5, "/bin/bash").fork(20, 5, 6, 3).forks(21, 5, 7);
    story.starts(22, 5, "/bin/zsh").starts(23, 7, "/usr/bin/curl");
    let sister = story.open(6, 30);
    assert_eq!(sister.parent, Some(3));
    assert_eq!(sister.parent_executable.map(|e| e.path.to_string()), path("/bin/init"));
    let child = story.open(7, 30);
    assert_eq!(child.parent_executable.map(|e| e.path.to_string()), path("/bin/bash"));
    assert_eq!((child.start, child.parent), (Some(KernelTime(21)), Some(5)));
    assert_eq!(child.command.as_deref(), Some("word"));
}

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let mut story = Story::new();
    story.forks(10, 1, 7).starts(11, 7, "/bin/one").forks(50, 1, 7);
    assert_eq!(story.runs(7, 49), path("/bin/one"));
    let second = story.open(7, 50);
    assert_eq!((second.executable, second.of, second.start), (None, Some(1), Some(KernelTime(50))));
    story.starts(51, 7, "/bin/two");
    assert_eq!(story.open(7, 60).start, Some(KernelTime(50)));
}

#[test]
fn after_a_loss_nothing_older_is_believed_but_what_was_said_before() {
    let mut story = Story::new();
    story.forks(10, 1, 7).starts(11, 7, "/bin/one").starts(12, 8, "/bin/eight").reaches(20, 0);
    assert_eq!(story.runs(7, 15), path("/bin/one"));
    story.reaches(40, 30);
    assert_eq!(story.runs(7, 15), path("/bin/one"), "it was said before the loss");
    assert_eq!(story.0.at(7, KernelTime(35)), Said::Nothing);
    assert_eq!(story.0.at(8, KernelTime(15)), Said::Nothing);
    assert!(!story.0.is_silent(9, KernelTime(30)));
    // Neither are its copies, nor its children's parents.
    story.forks(41, 7, 9).starts(42, 9, "/bin/nine");
    let open = story.open(9, 41);
    assert_eq!((open.executable, open.parent_executable, open.of), (None, None, Some(7)));
    assert_eq!(story.runs(9, 45), path("/bin/nine"));
}

#[test]
fn what_proc_said_holds_only_where_nothing_was_started_before_it_was_read() {
    for (starts, holds) in [(None, true), (Some(35), true), (Some(28), false)] {
        let mut story = Story::new();
        story.forks(20, 5, 7).reaches(22, 0);
        story.open(7, 21);
        let process = Process::example("/usr/bin/python3");
        story.0.close(7, KernelTime(20), &process, Some((5, KernelTime(30))));
        // All that can have come before the reading is not known yet: so far it stands.
        assert_eq!(story.0.at(7, KernelTime(21)), Said::Process(Arc::clone(&process)));
        if let Some(at) = starts {
            story.starts(at, 5, "/bin/other");
        }
        story.reaches(40, 0);
        match story.0.at(7, KernelTime(21)) {
            Said::Process(said) => assert!(holds && Arc::ptr_eq(&said, &process), "{starts:?}"),
            Said::Open(open) => assert!(!holds && open.closed && open.executable.is_none(), "{starts:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn timelines_and_their_points_stay_within_their_bounds() {
    let mut story = Story::new();
    for pid in 1..10_000 {
        story.forks(u64::from(pid), 1, pid).starts(u64::from(pid), pid, "/bin/x");
        assert!(story.0.len() <= 64);
    }
    for at in 0..100 {
        story.starts(20_000 + at, 9_999, &format!("/bin/{at}"));
    }
    assert_eq!(story.runs(9_999, 20_097), path("/bin/97"));
    assert_eq!(story.0.at(9_999, KernelTime(20_095)), Said::Later(KernelTime(20_096)));
}
