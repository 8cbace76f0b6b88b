//! What flowtel's kernel programs and its user space share.
//!
//! - [`event`]: the fixed-size facts that the kernel reports, byte for byte as they lie in the ring;
//! - [`exec`]: the same of processes: what one runs from now on, and of which it is a copy;
//! - [`kernel`]: where members of the kernel's structures lie;
//! - [`packet`]: where the TCP header of a packet is, and what its flags say;
//! - [`tally`]: the kernel's counters.
//!
//! One unit for both sides: the kernel object compiles exactly the code that the host's tests and fuzzers reach. Nothing
//! here allocates, blocks, panics or knows of maps and helpers.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod event;
pub mod exec;
pub mod kernel;
pub mod packet;
pub mod tally;
