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
    /// When a task began: CLOCK_BOOTTIME, nanoseconds.
    TASK_START = "task_struct" "start_boottime";
    /// The task that made it, or took it over (a pointer).
    TASK_PARENT = "task_struct" "real_parent";
    /// A task's memory (a pointer).
    TASK_MM = "task_struct" "mm";
    /// A task's namespaces (a pointer).
    TASK_NAMESPACES = "task_struct" "nsproxy";
    /// The file that a process executes from now on (a pointer): what /proc/PID/exe will lead to, so of a script its
    /// interpreter (exec_binprm, fs/exec.c).
    BINARY_FILE = "linux_binprm" "file";
    /// Where the process's arguments begin, in its own memory.
    MM_ARGUMENTS = "mm_struct" "arg_start";
    /// A file's mount (a pointer).
    FILE_MOUNT = "file" "f_path.mnt";
    /// A file's entry in its directory (a pointer).
    FILE_DENTRY = "file" "f_path.dentry";
    /// An inode's number.
    INODE_NUMBER = "inode" "i_ino";
    /// An inode's file system (a pointer).
    INODE_FILE_SYSTEM = "inode" "i_sb";
    /// A file system's device number (the kernel's own `dev_t`).
    FILE_SYSTEM_DEVICE = "super_block" "s_dev";
    /// The directory that an entry is in (a pointer).
    DENTRY_PARENT = "dentry" "d_parent";
    /// The length of an entry's name (`u32`).
    DENTRY_LENGTH = "dentry" "d_name.len";
    /// An entry's name (a pointer).
    DENTRY_NAME = "dentry" "d_name.name";
    /// An entry's inode (a pointer).
    DENTRY_INODE = "dentry" "d_inode";
    /// Where an entry is held in the table of entries (a pointer): null for one that was removed.
    DENTRY_HELD = "dentry" "d_hash.pprev";
    /// What others know of a mount: pointers to mounts lead here.
    MOUNT_OUTSIDE = "mount" "mnt";
    /// A mount's own root (a pointer to an entry).
    MOUNT_ROOT = "mount" "mnt.mnt_root";
    /// The mount that it is mounted on (a pointer); itself for a root.
    MOUNT_PARENT = "mount" "mnt_parent";
    /// The entry that it is mounted on (a pointer).
    MOUNT_POINT = "mount" "mnt_mountpoint";
    /// A mount's namespace (a pointer).
    MOUNT_NAMESPACE = "mount" "mnt_ns";
    /// The mount namespace of a set of namespaces (a pointer).
    NAMESPACES_MOUNT = "nsproxy" "mnt_ns";
    /// A mount namespace's inode number (`unsigned int`).
    MOUNT_NAMESPACE_INODE = "mnt_namespace" "ns.inum";
    /// The pid namespace of a task's children (a pointer).
    NAMESPACES_PID = "nsproxy" "pid_ns_for_children";
    /// The pid namespace around one (a pointer); null around the first.
    PID_NAMESPACE_PARENT = "pid_namespace" "parent";
    /// The first process of a pid namespace (a pointer).
    PID_NAMESPACE_INIT = "pid_namespace" "child_reaper";
    /// The socket's network namespace (a pointer to `struct net`).
    SOCK_NET = "sock" "__sk_common.skc_net.net";
    /// The interface that a packet is on (a pointer to `struct net_device`).
    SKB_DEVICE = "sk_buff" "dev";
    /// The network namespace of an interface (a pointer to `struct net`).
    DEVICE_NET = "net_device" "nd_net.net";
    /// The inode number of a network namespace in nsfs (`unsigned int`).
    NET_INODE = "net" "ns.inum";
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

/// Members that are read at once, for each read costs: one, and how many bytes behind another one it lies. They have lain so in
/// all kernels; where they don't, what is made of them is not known.
pub const NEIGHBOURS: [(usize, usize, u32); 8] = [
    (TASK_TGID, TASK_PID, 4),
    (DENTRY_PARENT, DENTRY_HELD, 8),
    (DENTRY_LENGTH, DENTRY_HELD, 20),
    (DENTRY_NAME, DENTRY_HELD, 24),
    (DENTRY_INODE, DENTRY_HELD, 32),
    (MOUNT_POINT, MOUNT_PARENT, 8),
    (MOUNT_ROOT, MOUNT_PARENT, 16),
    (FILE_DENTRY, FILE_MOUNT, 8),
];

/// The offsets of [`MEMBERS`], bytes.
pub type Offsets = [u32; LEN];
