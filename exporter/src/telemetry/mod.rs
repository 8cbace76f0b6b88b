//! What flowtel says of itself: its own log, metrics, health, and the answers of `flowtel status`. Never in the record
//! path: everything here reads what other rooms count anyway.
//!
//! - [`instance`]: what there is to look at;
//! - [`metrics`]: the list of metrics, pushed by OTLP or asked for by Prometheus;
//! - `admin`: the HTTP address, and the same at a socket;
//! - [`status`]: the local socket, and what comes out of it;
//! - `access`, `place`, `crowd`: who may ask at a local socket, how it comes to its path, and how many are served at once;
//! - [`notify`]: what systemd is told;
//! - [`service`]: all of that, running.

mod access;
mod admin;
mod crowd;
pub mod instance;
mod log;
pub mod metrics;
pub mod notify;
mod place;
mod process;
pub mod service;
pub mod status;

pub use instance::Instance;
pub use log::{set_level, start as start_log, tell_folded};
pub use service::{Prepared, Service};
