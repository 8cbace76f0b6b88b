//! Settings: layers in, one validated [`Config`] out, each value with its origin. Starts and binds nothing.

mod types;
mod units;

pub use types::*;
pub use units::{Bytes, Secret, Span};
