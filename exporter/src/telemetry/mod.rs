//! What flowtel says of itself: its own log. Never in the record path.

mod log;

pub use log::start as start_log;
