//! The parts of integration tests that use no stand-ins: the kernel, network namespaces, the flowtel binary and an
//! OpenTelemetry Collector. What goes in is a situation on the network; what comes out is every record about it, checked
//! whole.
//!
//! - [`scene`]: what one scenario has started, taken away again however it ends; time limits; skipping with a reason;
//! - [`machine`]: what this machine can't do;
//! - [`netns`]: network namespaces with a wire between them;
//! - [`traffic`]: servers and clients; [`forge`]: hand-made segments, for peers that no kernel plays;
//! - [`sniffer`]: captures of a wire; [`rival`]: other BPF programs at the places of flowtel's; [`sockmap`]: sockets whose
//!   bytes pass TCP by;
//! - [`child`]: processes of their own; [`listening`]: such as listen; [`load`]: many connections a second from some, in a [`cgroup`] of their own;
//! - [`flowtel`], [`collector`]: the two programs, and [`watching`]: both together; [`balance`]: what flowtel says at its end;
//! - [`record`]: OTLP/JSON, decoded; [`expect`]: the records that there must be, and no others; [`tally`]: too many to look
//!   at one by one;
//! - [`status`]: what flowtel says of itself while it runs;
//! - [`certificates`], [`proxy`]: what may lie between flowtel and a receiver;
//! - [`ports`]: where receivers can listen; [`objects`]: the kernel's lists of BPF programs and links;
//! - [`sys`], [`wait`]: system calls that need a wrapper, and waiting for a condition.

pub mod balance;
pub mod certificates;
pub mod cgroup;
pub mod child;
pub mod collector;
pub mod expect;
pub mod flowtel;
pub mod forge;
pub mod hoard;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod listening;
pub mod load;
pub mod machine;
pub mod netns;
pub mod objects;
pub mod ports;
pub mod proxy;
pub mod record;
pub mod rival;
pub mod scene;
pub mod sniffer;
pub mod sockmap;
pub mod status;
pub mod sys;
pub mod tally;
pub mod traffic;
pub mod wait;
pub mod watching;
