//! Process ids and cgroup ids of kernel events in; the executable, and container, pod and systemd unit out.
//!
//! - [`Processes`]: process id and kernel time → [`Process`], from what the kernel told of it (`execs`), else from /proc;
//! - [`Places`]: cgroup id → [`Place`], from the path of the cgroup;
//! - [`Hierarchies`]: process id and kernel time → [`Place`], where cgroups of version 1 say more;
//! - [`holders`]: inodes of sockets → the processes that hold them, from /proc, once;
//! - [`Lives`]: whether a process is still there;
//! - [`Helper`]: a process that keeps the rights which these questions need;
//! - [`cgroup_path`]: what such a path says, for each container runtime.
//!
//! Both are asked once an event, by one thread. Both remember what they found, within bounds, and ask the system once
//! for the same thing.
//!
//! Must never name a process, container or unit that may be another one's: what is not certain is absent. Must never
//! fail an event, wait for anything but the kernel's own files, or grow without bound.

pub mod cgroup_path;
mod execs;
pub(crate) mod generations;
mod helper;
mod hierarchies;
pub mod holders;
mod lives;
mod place;
mod process;
mod text;

pub use cgroup_path::Place;
pub use helper::Helper;
pub use hierarchies::Hierarchies;
pub use lives::Lives;
pub use place::Places;
pub(crate) use process::shows_kernel_threads;
pub use process::{Created, Executable, Parent, Process, Processes, Visibility};
