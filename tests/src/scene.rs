//! One scenario's belongings: processes, namespaces and files that it made are registered here and taken away when it
//! ends, however it ends. A scenario comes in as a function; out comes passed, failed, or ignored with the reason.

use std::{
    fmt,
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use libtest_mimic::{Completion, Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{netns, wait::patient};

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// How long it may take, in seconds, on an ordinary machine.
    pub limit: u64,
    /// What it does.
    pub run: fn(&Scene) -> Result<()>,
}

/// What a running scenario has made.
pub struct Scene {
    /// Tells this scene from others of this process.
    pub number: u32,
    directory: TempDir,
    belongings: Arc<Belongings>,
}

/// Processes and namespaces that are still there.
#[derive(Default)]
pub(crate) struct Belongings {
    processes: Mutex<Vec<u32>>,
    namespaces: Mutex<Vec<String>>,
}

/// Why a scenario can't run on this machine.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error that ends a scenario as ignored: this machine lacks something that it needs.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    Skip(reason.into()).into()
}

impl Scenario {
    /// A scenario that may take so many seconds.
    pub const fn new(name: &'static str, limit: u64, run: fn(&Scene) -> Result<()>) -> Self {
        Self { name, limit, run }
    }

    /// As a test of the harness. `missing`: what the whole machine lacks, if anything.
    pub fn trial(self, missing: Option<String>) -> Trial {
        Trial::ignorable_test(self.name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => self.guarded(),
        })
    }

    /// Runs it on a thread of its own, so that one that hangs can be given up.
    fn guarded(self) -> Result<Completion, Failed> {
        let belongings = Arc::<Belongings>::default();
        let scene = Scene::new(Arc::clone(&belongings)).map_err(|e| Failed::from(format!("{e:#}")))?;
        let (done, outcome) = mpsc::channel();
        thread::Builder::new()
            .name("scenario".into())
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| (self.run)(&scene)));
                drop(scene);
                // Nobody waits any more when the time was up.
                let _ = done.send(result);
            })
            .map_err(|e| Failed::from(e.to_string()))?;
        let result = outcome.recv_timeout(patient(Duration::from_secs(self.limit)));
        belongings.take_away();
        match result {
            Ok(Ok(Ok(()))) => Ok(Completion::Completed),
            Ok(Ok(Err(e))) => match e.downcast_ref::<Skip>() {
                Some(Skip(reason)) => Ok(Completion::ignored_with(reason)),
                None => {
                    // The causes a line each; a backtrace through the harness says nothing.
                    let causes: Vec<_> = e.chain().map(ToString::to_string).collect();
                    Err(causes.join("\n  because: ").into())
                }
            },
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                Err(format!("panicked: {}", text.unwrap_or_default()).into())
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("no end within {} s: given up, its processes killed", self.limit).into())
            }
            Err(RecvTimeoutError::Disconnected) => Err("the scenario's thread is gone".into()),
        }
    }
}

impl Scene {
    fn new(belongings: Arc<Belongings>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("flowtel-test-").tempdir().context("making a directory")?;
        // A flowtel that is started as root becomes another user, who has to go through.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { number: COUNT.fetch_add(1, Relaxed), directory, belongings })
    }

    /// A directory of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn belongings(&self) -> Arc<Belongings> {
        Arc::clone(&self.belongings)
    }
}

impl Belongings {
    pub(crate) fn add_process(&self, pid: u32) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
    }

    /// To be called before the process is waited for: afterwards its number may be another's.
    pub(crate) fn forget_process(&self, pid: u32) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != pid);
    }

    pub(crate) fn add_namespace(&self, name: &str) {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    pub(crate) fn forget_namespace(&self, name: &str) {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).retain(|n| n != name);
    }

    /// Ends and removes what is left.
    fn take_away(&self) {
        for pid in self.processes.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Gone already: as wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for name in self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            netns::delete(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::wait;

    fn outcome(limit: u64, run: fn(&Scene) -> Result<()>) -> Result<Completion, String> {
        Scenario::new("a scenario", limit, run).guarded().map_err(|failed| failed.message().unwrap_or_default().into())
    }

    #[test]
    fn a_scenario_that_hangs_is_given_up_and_what_it_started_is_killed() {
        let said = outcome(1, |scene| {
            let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?;
            scene.belongings().add_process(child.id());
            // Killed from outside, or never.
            child.wait()?;
            wait::pause(Duration::from_secs(600));
            Ok(())
        });
        assert!(said.is_err_and(|e| e.contains("no end within 1 s")));
    }

    #[test]
    fn a_panic_fails_and_a_lack_is_ignored_with_its_reason() {
        assert!(outcome(9, |_| panic!("because")).is_err_and(|e| e.contains("because")));
        let lack = outcome(9, |_| Err(skip("no such thing here")));
        assert!(matches!(lack, Ok(Completion::Ignored { reason: Some(reason) }) if reason == "no such thing here"));
    }
}
