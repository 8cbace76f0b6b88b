//! With the real /proc, and processes that each test starts itself.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, poll};

use super::{executable::State, *};

/// A process of the test's own, ended with it.
struct Running(Child);

impl Running {
    /// Starts a program that waits until it is ended.
    ///
    /// A program that this test has just written may be busy for a moment: a process that another test forks meanwhile
    /// has inherited the descriptor it was written by, until it execs.
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        for _ in 0..200 {
            match command.spawn() {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => {
                    // Nothing to poll: only the time passes.
                    let _ = poll(&mut [], Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 }));
                }
                other => return Self(other.expect("it starts")),
            }
        }
        panic!("the program stays busy");
    }

    fn cat() -> Self {
        Self::start(&mut Command::new("cat"))
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn end(mut self) {
        self.reap();
    }

    fn reap(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.reap();
    }
}

/// `None`, with the reason printed, where this process does not see the host's.
fn processes() -> Option<(Processes, Arc<Ledger>)> {
    let ledger = Arc::new(Ledger::default());
    let processes = Processes::new(&config::Owner::default(), Arc::clone(&ledger));
    let visibility = processes.visibility();
    if visibility.is_hidden() {
        println!("skipped: {visibility}");
        return None;
    }
    let own = std::fs::read_link("/proc/self").expect("a proc file system");
    if own.to_str() != Some(&*std::process::id().to_string()) {
        println!("skipped: the processes that this test starts have other ids in /proc");
        return None;
    }
    Some((processes, ledger))
}

fn pause(time: Duration) {
    let none: &mut [PollFd<'_>] = &mut [];
    let time = rustix::event::Timespec {
        tv_sec: time.as_secs().try_into().expect("short"),
        tv_nsec: time.subsec_nanos().into(),
    };
    poll(none, Some(&time)).expect("it waits");
}

/// Asks until the child has called exec: between fork and exec it runs the test's own program.
fn named(processes: &mut Processes, pid: u32, name: &str) -> Option<Arc<Executable>> {
    for _ in 0..200 {
        let found = processes.executable(pid, KernelTime::now());
        if found.as_ref().is_some_and(|e| &*e.name == name) {
            return found;
        }
        pause(Duration::from_millis(10));
    }
    None
}

fn counts(ledger: &Ledger) -> [u64; 5] {
    let l = &ledger.owner.executables;
    [&l.looked_up, &l.cached, &l.gone, &l.reused, &l.unreadable].map(Counter::get)
}

#[test]
fn a_process_is_named_by_what_it_runs() {
    let Some((mut processes, _)) = processes() else { return };
    let found = processes.executable(std::process::id(), KernelTime::now()).expect("this process");
    let expected = std::env::current_exe().expect("its path");
    assert_eq!((&*found.path, found.state == Some(State::Deleted)), (expected.to_str().expect("UTF-8"), false));
    assert_eq!(Some(&*found.name), expected.file_name().and_then(|n| n.to_str()));
}

#[test]
fn a_process_that_connects_at_once_after_its_start_is_named_where_numbers_suffice() {
    let Some((mut processes, _)) = processes() else { return };
    for _ in 0..20 {
        let child = Running::cat();
        let at = KernelTime::now();
        assert!(!numbers_suffice() || processes.executable(child.id(), at).is_some());
    }
}

#[test]
fn an_event_from_before_the_process_began_names_nobody() {
    let Some((mut processes, ledger)) = processes() else { return };
    let before = KernelTime(KernelTime::now().0 - 20_000_000);
    let child = Running::cat();
    assert_eq!(processes.executable(child.id(), before), None);
    assert_eq!(processes.executable(child.id(), KernelTime(0)), None);
    pause(Duration::from_millis(20));
    assert!(processes.executable(child.id(), KernelTime::now()).is_some());
    // From what is known now as well.
    assert_eq!(processes.executable(child.id(), before), None);
    assert_eq!(counts(&ledger)[3], 3);
}

#[test]
fn the_tick_of_the_start_counts_only_where_numbers_suffice() {
    assert_eq!(certain_since(700, 10_000_000, true), KernelTime(7_000_000_000));
    assert_eq!(certain_since(700, 10_000_000, false), KernelTime(7_010_000_000));
    assert_eq!(certain_since(u64::MAX, 10_000_000, false), KernelTime(u64::MAX));
}

#[test]
fn free_numbers_are_the_limit_less_the_threads() {
    assert_eq!(free_numbers("4194304\n", "0.20 0.18 0.12 1/80 11206\n"), Some(4_194_224));
    assert_eq!(free_numbers("301", "0.20 0.18 0.12 1/900 11206"), Some(0));
    assert_eq!(free_numbers("", "0.20 0.18 0.12 1/80 11206"), None);
    assert_eq!(free_numbers("32768", "0.20"), None);
}

#[test]
fn events_up_to_the_last_look_need_no_call_and_later_ones_need_one() {
    let Some((mut processes, ledger)) = processes() else { return };
    let child = Running::cat();
    let first = named(&mut processes, child.id(), "cat").expect("cat");
    let at = KernelTime::now();
    assert!(processes.executable(child.id(), at).is_some());
    let until = processes.known.get(child.id()).expect("known").until;
    assert!(until >= at);
    for _ in 0..1000 {
        let again = processes.executable(child.id(), at).expect("known");
        assert!(Arc::ptr_eq(&first, &again));
    }
    assert_eq!(processes.known.get(child.id()).expect("known").until, until, "nobody looked");
    processes.executable(child.id(), KernelTime::now()).expect("still there");
    assert!(processes.known.get(child.id()).expect("known").until > until, "looked");
    assert_eq!(ledger.owner.executables.looked_up.get(), 1);
}

#[test]
fn a_process_that_ended_is_still_named_for_what_it_did_and_not_for_what_came_after() {
    let Some((mut processes, ledger)) = processes() else { return };
    let child = Running::cat();
    let pid = child.id();
    named(&mut processes, pid, "cat").expect("cat");
    let during = KernelTime::now();
    processes.executable(pid, during).expect("cat");
    child.end();
    assert_eq!(processes.executable(pid, during).expect("known").name, "cat".into());
    assert_eq!(processes.executable(pid, KernelTime::now()), None);
    // The same again needs no further call: nobody had the number up to then.
    assert_eq!(processes.executable(pid, during), None);
    assert_eq!(counts(&ledger)[2], 2);
}

#[test]
fn a_zombie_and_a_thread_of_the_kernel_run_nothing() {
    let Some((mut processes, ledger)) = processes() else { return };
    let mut child = Running::cat();
    child.0.kill().expect("killed");
    pause(Duration::from_millis(50));
    assert_eq!(processes.executable(child.id(), KernelTime::now()), None);
    assert_eq!(counts(&ledger), [0, 0, 1, 0, 0]);
    // Without rights it can't be told from other processes that may not be read.
    assert_eq!(processes.executable(2, KernelTime::now()), None);
    assert_eq!(counts(&ledger)[2] + counts(&ledger)[4], 2);
}

#[test]
fn a_process_that_runs_another_program_later_has_the_new_name() {
    let Some((mut processes, _)) = processes() else { return };
    // It reads a line, and then becomes another program.
    let mut child = Running::start(Command::new("sh").args(["-c", "read line; exec cat"]).arg0("sh"));
    let pid = child.id();
    let shell = std::fs::canonicalize("/bin/sh").expect("a shell");
    let shell = shell.file_name().and_then(|n| n.to_str()).expect("a name");
    named(&mut processes, pid, shell).expect("the shell");
    let stdin = child.0.stdin.as_mut().expect("a pipe");
    std::io::Write::write_all(stdin, b"go\n").expect("written");
    named(&mut processes, pid, "cat").expect("what it became");
}

#[test]
fn a_program_whose_file_was_removed_keeps_its_name_and_is_marked() {
    let Some((mut processes, _)) = processes() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("a (strange) grüße\nname");
    let cat = Command::new("sh").args(["-c", "command -v cat"]).output().expect("a shell").stdout;
    std::fs::copy(String::from_utf8_lossy(&cat).trim(), &program).expect("copied");
    let child = Running::start(&mut Command::new(&program));
    let name = "a (strange) grüße\nname";
    assert_ne!(named(&mut processes, child.id(), name).expect("the copy").state, Some(State::Deleted));
    std::fs::remove_file(&program).expect("removed");
    let after = processes.executable(child.id(), KernelTime::now()).expect("still there");
    assert_eq!((&*after.name, after.state), (name, Some(State::Deleted)));
    assert_eq!(after.path.as_bytes(), program.as_os_str().as_encoded_bytes());
}

#[test]
fn numbers_that_no_process_has_are_gone_and_zero_is_nobody() {
    let Some((mut processes, ledger)) = processes() else { return };
    assert_eq!(processes.executable(u32::MAX, KernelTime::now()), None);
    assert_eq!(processes.executable(0, KernelTime::now()), None);
    assert_eq!(counts(&ledger), [0, 0, 1, 0, 1]);
}

#[test]
fn descriptors_and_memory_stay_within_their_bounds() {
    let Some((mut processes, ledger)) = processes() else { return };
    processes.handles = Generations::new(4);
    processes.known = Generations::new(8);
    let children: Vec<Running> = (0..12).map(|_| Running::cat()).collect();
    pause(Duration::from_millis(20));
    for _ in 0..3 {
        for child in &children {
            assert!(processes.executable(child.id(), KernelTime::now()).is_some());
            assert!(processes.handles.len() <= 4 && processes.known.len() <= 8);
        }
    }
    assert_eq!(ledger.owner.executables.asked(), 36);
}

#[test]
fn where_the_hosts_processes_are_not_shown_nobody_is_named() {
    let ledger = Arc::new(Ledger::default());
    for config in [
        config::Owner { proc: "/nonexistent".into(), ..config::Owner::default() },
        config::Owner { executable: false, ..config::Owner::default() },
    ] {
        let mut processes = Processes::new(&config, Arc::clone(&ledger));
        assert!(processes.visibility().is_hidden());
        assert_eq!(processes.executable(std::process::id(), KernelTime::now()), None);
    }
    assert_eq!(counts(&ledger), [0, 0, 0, 0, 2]);
}
