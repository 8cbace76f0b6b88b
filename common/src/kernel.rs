//! Where members of the kernel's own structures lie. UAPI does not say everything that is worth knowing; the kernel's BTF
//! (/sys/kernel/btf/vmlinux) says where the rest is, for exactly the kernel that runs.
//!
//! User space finds each offset once, at the start, and gives them all to the programs as one constant array,
//! `OFFSETS`. A program asks for an offset by its index. 0 means "not known": no member that is asked for lies at the very
//! start of its structure. What hangs on an unknown offset is absent from the record.

/// A member of a structure: in `struct STRUCTURE`, the one that `path` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Name of the structure.
    pub structure: &'static str,
    /// Names of members, from the outside to the inside, with dots: `__sk_common.skc_net`. Members of anonymous structures
    /// and unions are named as C names them.
    pub path: &'static str,
}

macro_rules! members {
    ($($(#[$doc:meta])* $id:ident = $structure:literal $path:literal;)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "the enum only numbers the constants below")]
        enum Number { $($id,)* LEN }
        $(
            $(#[$doc])*
            pub const $id: usize = Number::$id as usize;
        )*
        /// How many offsets there are.
        pub const LEN: usize = Number::LEN as usize;
        /// The members, in the order of their indices.
        pub const MEMBERS: [Member; LEN] = [$(Member { structure: $structure, path: $path },)*];
    };
}

members! {
    /// The error that a socket reports next (`int`, an errno, positive).
    SOCK_ERR = "sock" "sk_err";
    /// The process of a thread (`pid_t`, in the initial pid namespace).
    TASK_TGID = "task_struct" "tgid";
    /// The thread's own id (`pid_t`).
    TASK_PID = "task_struct" "pid";
    /// Its name (16 bytes).
    TASK_COMM = "task_struct" "comm";
    /// What it acts as (pointer to `cred`).
    TASK_CRED = "task_struct" "cred";
    /// The real user id (`kuid_t`, one `uid_t`).
    CRED_UID = "cred" "uid";
    /// Its cgroups (pointer to `css_set`).
    TASK_CGROUPS = "task_struct" "cgroups";
    /// The one of the cgroup v2 tree (pointer to `cgroup`).
    CSS_SET_CGROUP = "css_set" "dfl_cgrp";
    /// A cgroup's directory (pointer to `kernfs_node`).
    CGROUP_NODE = "cgroup" "kn";
    /// Its inode number (`u64`).
    NODE_ID = "kernfs_node" "id";
    /// Where a thread's kernel stack begins (pointer).
    TASK_STACK = "task_struct" "stack";
}

/// The offsets of [`MEMBERS`], bytes.
pub type Offsets = [u32; LEN];
