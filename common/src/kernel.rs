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
    /// What the application holds of a socket (pointer to `socket`).
    SOCK_SOCKET = "sock" "sk_socket";
    /// The file by which a process has it (pointer to `file`); null for the kernel's own.
    SOCKET_FILE = "socket" "file";
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
    /// An error that a socket was told of and that did not close it: what it reports if its timer gives up, or if it is asked
    /// (SO_ERROR; `int`).
    SOCK_ERR_SOFT = "sock" "sk_err_soft";
    /// Errors that a process may read one by one (a `sk_buff_head`).
    SOCK_ERRORS = "sock" "sk_error_queue";
    /// The last of them (a pointer to a `sk_buff`, or to the head itself where there is none).
    SOCK_LAST_ERROR = "sock" "sk_error_queue.prev";
    /// What its owner keeps in a `sk_buff`: in such a queue a `sock_exterr_skb`.
    SKB_CB = "sk_buff" "cb";
    /// The error in that (a `sock_extended_err`, include/uapi/linux/errqueue.h).
    EXTENDED_ERROR = "sock_exterr_skb" "ee";
    /// Not 0 while a process's call has the socket locked (`int`). Segments and timers find it 0.
    SOCK_OWNED = "sock" "sk_lock.owned";
    /// Whose the socket is besides its process's: of one in a SOCKMAP the kernel's `sk_psock` (a pointer, whose last three
    /// bits are flags).
    SOCK_USER_DATA = "sock" "sk_user_data";
    /// How large segments are cut (`int`): set as soon as there is a route (tcp_v6_connect, net/ipv6/tcp_ipv6.c).
    SOCK_GSO_TYPE = "sock" "sk_gso_type";
    /// Which IPv4 address a route was last asked for (`__be32`).
    INET_ROUTE_TO = "inet_sock" "cork.fl.u.ip4.daddr";
    /// The sequence number behind all that was written, the FIN included once the socket is closed (`u32`).
    TCP_WRITTEN = "tcp_sock" "write_seq";
}

/// The offsets of [`MEMBERS`], bytes.
pub type Offsets = [u32; LEN];
