//! What flowtel says of itself: its own log, metrics, health, and the answers of `flowtel status`. Never in the record
//! path: everything here reads what other rooms count anyway.
//!
//! - [`instance`]: what there is to look at;
//! - [`metrics`]: the list of metrics, pushed by OTLP or asked for by Prometheus;

pub mod instance;
mod log;
pub mod metrics;
mod process;

pub use instance::Instance;
pub use log::{set_level, start as start_log, tell_folded};
