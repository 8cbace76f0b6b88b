//! Flow events in, the bytes of log records and sealed batches out. Knows nothing of transport.

mod batch;

pub use batch::Batch;
