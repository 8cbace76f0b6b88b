//! What is known of a process: values that other rooms read.

use std::sync::Arc;

use super::Executable;
use crate::capture::WallTime;

/// A process, as it was at a time that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it ran then.
    pub executable: Option<Arc<Executable>>,
    /// When it began.
    pub created: Option<Created>,
    /// Who made it, or has taken it over since.
    pub parent: Option<Parent>,
    /// The first word that its program was started with.
    pub command: Option<Box<str>>,
}

#[cfg(test)]
impl Process {
    /// One that runs the executable at this path, of which nothing more is known.
    pub fn example(path: &str) -> Arc<Self> {
        let name = path.rsplit('/').next().unwrap_or_default();
        Self::named(name, path)
    }

    /// The same with another name.
    pub fn named(name: &str, path: &str) -> Arc<Self> {
        let executable = Executable { name: name.into(), ..Executable::example(path) };
        Arc::new(Self { executable: Some(Arc::new(executable)), created: None, parent: None, command: None })
    }
}

/// When a process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The time, rounded down.
    pub at: WallTime,
    /// To this many digits of a second.
    pub digits: u8,
}

/// A process's parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its process id in the initial pid namespace.
    pub pid: u32,
    /// What it ran.
    pub executable: Option<Arc<Executable>>,
}
