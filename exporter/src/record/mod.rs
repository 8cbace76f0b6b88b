//! Flow events in, the bytes of log records and sealed batches out. Knows nothing of transport.
//!
//! - [`schema`]: every attribute by name, type, unit and meaning: the one place that they are written down;
//! - [`resource`]: who reports, once a batch;
//! - [`Encoder`]: a record field by field into the open batch, with no tree in between and nothing allocated for it;
//! - [`Form`]: the schema's version, and what is written beside the usual attributes;
//! - [`privacy`]: what the settings leave out, shorten and hash;
//! - [`Observer`]: which part of a host is observed, and the ids that follow from it;
//! - [`Batch`]: the final bytes of one request.

mod batch;
mod buffers;
mod encoder;
mod form;
mod groups;
mod observer;
mod owners;
mod pairs;
pub mod privacy;
pub mod resource;
pub mod schema;
mod spaces;
mod text;
mod wire;

pub use batch::Batch;
pub use encoder::{Encoder, Limits};
pub use form::Form;
pub use observer::Observer;
