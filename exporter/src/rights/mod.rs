//! The rights of the start in; none of them afterwards. What flowtel needs to load its programs and to look around is given
//! up before the first lasting thread exists, so it holds for every thread.
//!
//! - [`capabilities`]: the one table of them, and the sets of a process;
//! - `user`: which user flowtel becomes;
//! - `ground`: directories that are given to that user;
//! - `files`: where it may read and write (Landlock);
//! - [`calls`]: which system calls it may make (seccomp), and what happens to others;
//! - [`state`]: what a process has left, to a person;
//! - [`signals`]: signals that wait until somebody hears them.
//!
//! # The order
//!
//! 1. [`Plan::of`] decides, and changes nothing.
//! 2. Files that only root may read are read (configuration, certificates).
//! 3. [`Plan::change_user`] gives flowtel's directories to the user and becomes that user, with all capabilities kept. From
//!    here on everything is opened as the user that opens it at the next start, so nobody needs CAP_DAC_OVERRIDE for it.
//! 4. Programs, maps, links, pins, sockets, the queue's directory and lock are opened. Threads that look around with these
//!    rights have ended.
//! 5. [`Plan::drop`]: capability sets, ambient set, bounding set, no_new_privs, not dumpable, no core file, Landlock, seccomp.
//! 6. Threads are started.
//!
//! Must never report as given up what a process still has: [`state`] asks the kernel.

pub mod calls;
pub mod capabilities;
mod files;
mod ground;
pub mod signals;
pub mod state;
mod user;

use std::{
    fmt, io,
    io::{Read as _, Write as _},
    path::PathBuf,
};

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, WaitOptions, geteuid, set_dumpable_behavior, setrlimit,
};

pub use self::{state::State, user::User};
use crate::config::{Config, QueueKind, Security};

/// What is to be given up, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    security: Security,
    /// Whom to become; `None`: flowtel stays who it is.
    user: Option<User>,
    /// Why it stays root, if it does.
    stays: Option<String>,
    files: files::Wanted,
    ground: ground::Wanted,
    /// The terminal's settings may be changed: they have to be put back at the end.
    terminal: bool,
}

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names a user that is none.
    #[error("security.user = {name:?}: this host has no such user; name another one, or a number")]
    NoUser {
        /// As it was given.
        name: String,
    },
    /// The configured user can't be used.
    #[error("flowtel can't become the user {user} (security.user): {why}")]
    User {
        /// Its name or number.
        user: String,
        /// Why not.
        why: String,
    },
    /// A step failed.
    #[error("giving up rights: {what}: {source}; security.drop = false leaves this out")]
    Step {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

// === impl Plan

impl Plan {
    /// Decides what is given up. `files` are the configuration's own files, which a reload reads again.
    ///
    /// # Errors
    /// The configured user doesn't exist, or flowtel can't become it.
    pub fn of(config: &Config, files: &[PathBuf]) -> Result<Self, Error> {
        let security = config.security.clone();
        let mut plan = Self {
            files: files::Wanted::of(config, files),
            ground: ground::Wanted::of(config),
            security,
            user: None,
            stays: None,
            terminal: false,
        };
        if !plan.security.drop {
            return Ok(plan);
        }
        let user = User::find(plan.security.user.as_deref())?;
        if !geteuid().is_root() {
            // Whoever started it has chosen the user already.
            return Ok(plan);
        }
        if user.uid == 0 {
            plan.stays = Some("security.user names it".into());
            return Ok(plan);
        }
        match plan.obstacle(&user, config) {
            None => plan.user = Some(user),
            Some(why) if plan.security.user.is_some() => {
                return Err(Error::User { user: user.to_string(), why });
            }
            Some(why) => plan.stays = Some(why),
        }
        Ok(plan)
    }

    /// Why flowtel can't become this user.
    fn obstacle(&self, user: &User, config: &Config) -> Option<String> {
        let missing = capabilities::missing(&["CAP_SETUID", "CAP_SETGID"]);
        if !missing.is_empty() {
            return Some(format!("{} is missing", missing.join(", ")));
        }
        if self.ground.needs_chown(user) && !capabilities::missing(&["CAP_CHOWN"]).is_empty() {
            return Some("CAP_CHOWN is missing, by which the user would get flowtel's directories".into());
        }
        // The queue looks once a second whether its directory is where it was.
        let queue = (config.queue.kind == QueueKind::Disk).then_some(&config.queue.path);
        queue.and_then(|path| ground::unreachable(path, user)).map(|above| {
            format!(
                "{} (queue.path) lies in {}, where the user {user} can't go",
                config.queue.path.display(),
                above.display()
            )
        })
    }

    /// The same, for a process that draws on a terminal.
    #[must_use]
    pub fn with_terminal(self) -> Self {
        Self { terminal: true, ..self }
    }

    /// Whether anything is given up.
    pub fn drops(&self) -> bool {
        self.security.drop
    }

    /// Whether a helper is wanted.
    pub fn wants_helper(&self) -> bool {
        self.security.drop && self.security.helper
    }

    /// Whom the processes become.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The filter of system calls.
    pub fn seccomp(&self) -> crate::config::Seccomp {
        self.security.seccomp
    }

    /// Whether the file of `export.path` lies in a directory that is the user's, or will be.
    pub fn gives_records(&self) -> bool {
        self.user.as_ref().is_some_and(|user| self.ground.foreign_records(user).is_none())
    }

    /// What a person should know.
    pub fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        if !self.drops() {
            hints.push("all rights of the start are kept (security.drop = false)".into());
        }
        if let Some(why) = &self.stays {
            hints.push(format!("flowtel stays user 0, without any capability: {why}"));
        }
        if let Some(user) = &self.user
            && user.is_fallback
        {
            hints.push(format!(
                "this host has no user flowtel: flowtel becomes {user}, and other processes of that user can stop it (security.user)"
            ));
        }
        if let Some(user) = &self.user {
            if let Some(directory) = self.ground.foreign_records(user)
                && !ground::allows(directory, user, 0o3)
            {
                hints.push(format!(
                    "{} is no directory of the user {user}: the file of records (export.path) is written there, and can't be put \
                     aside when it is large; use a directory that has nothing else in it, or give it to that user",
                    directory.display()
                ));
            }
            for path in self.files.unreadable(user) {
                hints.push(format!(
                    "{} can't be read by the user {user}: a reload will refuse it; give that user, or one of its groups, the \
                     right to read it",
                    path.display()
                ));
            }
        }
        hints
    }

    /// Gives flowtel's directories to the user, and becomes it, with all capabilities. Only where there is one thread.
    ///
    /// # Errors
    /// The kernel refuses, or a directory can't be given.
    pub fn change_user(&self) -> Result<(), Error> {
        if geteuid().is_root() {
            let to = self.user.as_ref().map_or((0, 0), |user| (user.uid, user.gid));
            self.ground.hand_over(to).map_err(|(what, source)| Error::Step { what, source })?;
        }
        self.change_user_alone()
    }

    /// Becomes the user, and gives nothing to it.
    pub(crate) fn change_user_alone(&self) -> Result<(), Error> {
        match &self.user {
            Some(user) => user.become_it().map_err(|(what, source)| Error::Step { what, source }),
            None => Ok(()),
        }
    }

    /// Gives everything up that can't be taken back. Only where there is one thread: those that it starts have no more.
    ///
    /// # Errors
    /// The kernel refuses a step that it has. What it has not (Landlock, seccomp) is left out, and the state says so.
    pub fn drop(&self) -> Result<(), Error> {
        if !self.drops() {
            return Ok(());
        }
        // rustix reads the auxiliary vector at the first question about it; later it could not.
        let _ = rustix::param::page_size();
        step("capabilities", capabilities::keep_only(&capabilities::kept_by_main()))?;
        self.seal()?;
        let landlock = if self.security.landlock { self.files.confine() } else { files::Confined::Off };
        state::note_landlock(landlock.to_string());
        calls::confine_main(self.security.seccomp, self.terminal)
            .map_err(|e| Error::Step { what: "seccomp", source: e })
    }

    /// Gives everything up in a process of its own, which ends then. Returns what it had left, in words. Only where there is one
    /// thread.
    ///
    /// # Errors
    /// As [`Self::change_user`] and [`Self::drop`].
    pub fn try_out(&self) -> Result<String, io::Error> {
        let (mut out, mut into) = io::pipe()?;
        // SAFETY: there is one thread, so the child may do whatever this process may; it never returns from here.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let left = self.change_user_alone().and_then(|()| self.drop());
                let text = match (left, State::own()) {
                    (Ok(()), Some(state)) => format!("+{state}"),
                    (Ok(()), None) => "-/proc/self/status can't be read".into(),
                    (Err(e), _) => format!("-{e}"),
                };
                // Whoever reads sees that something is missing.
                let _ = into.write_all(text.as_bytes());
                // SAFETY: it ends the process at once.
                unsafe { libc::_exit(0) }
            }
            child => {
                drop(into);
                let mut text = String::new();
                let read = out.read_to_string(&mut text);
                let _ = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty());
                read?;
                match text.split_at_checked(1) {
                    Some(("+", state)) => Ok(state.to_owned()),
                    Some((_, why)) => Err(io::Error::other(why.to_owned())),
                    None => Err(io::Error::other("the process that tried it was killed")),
                }
            }
        }
    }

    /// What is the same for each process.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        step("no_new_privs", rustix::thread::set_no_new_privs(true).map_err(Into::into))?;
        step("dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Into::into))?;
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        step("RLIMIT_CORE", setrlimit(Resource::Core, none).map_err(Into::into))
    }
}

fn step(what: &'static str, result: io::Result<()>) -> Result<(), Error> {
    result.map_err(|source| Error::Step { what, source })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.drops()) {
            (_, false) => f.write_str("nothing is given up"),
            (Some(user), true) => write!(f, "user {user}, no capability"),
            (None, true) => write!(f, "user {}, no capability", geteuid().as_raw()),
        }
    }
}
