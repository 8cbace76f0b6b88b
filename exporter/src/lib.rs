//! flowtel watches TCP connections begin in the Linux kernel and ships each as an OpenTelemetry log record.
//!
//! Data flows one way; a stage knows the one before it by its output type only:
//!
//! capture → flow → enrich (dns, owner, netns) → select → record → queue → export
//!
//! Read the rooms in that order. [`config`] and [`ledger`] are the two that all may use. [`view`] is for people who look on.

// Events are read as the kernel side wrote them, in the host's byte order; the object that is built in is little-endian,
// and what the verifier of a big-endian machine makes of it nobody has seen.
#[cfg(target_endian = "big")]
compile_error!(
    "flowtel runs on little-endian machines only: its kernel programs (exporter/bpf/flowtel.bpf.o) are built for \
     bpfel, and a big-endian kernel refuses them."
);

pub mod capture;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod dns;
pub mod enrich;
pub mod escape;
pub mod exit;
pub mod explain;
pub mod export;
pub mod flow;
pub mod gap;
pub mod ledger;
pub mod netns;
pub mod overload;
pub mod owner;
pub mod pipeline;
pub mod queue;
pub mod record;
pub mod replay;
pub mod rights;
pub mod select;
pub mod telemetry;
pub mod tls;
pub mod view;
mod words;
