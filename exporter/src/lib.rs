//! flowtel watches TCP connections begin in the Linux kernel and ships each as an OpenTelemetry log record.
//!
//! Data flows one way; a stage knows the one before it by its output type only:
//!
//! capture → flow → enrich (dns, owner, netns) → select → record → queue → export
//!
//! Read the rooms in that order. [`config`] and [`ledger`] are the two that all may use.

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
