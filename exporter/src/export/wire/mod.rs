//! Connections to receivers, for both transports and for records and metrics alike: a place in, bytes to and fro out.
//!
//! - [`proxy`]: whether a proxy stands between, by the environment's variables;
//! - [`connector`]: TCP, the proxy's tunnel, TLS;
//! - [`budget`]: how much a receiver may send for what it was sent, whatever protocol it speaks;
//! - [`gather`]: small writes as large ones;
//! - [`client`]: HTTP over these.
//!
//! Must never read more than the budget: parsers below the answer (interim responses, HTTP/2's frames, TLS records) have no
//! end of their own.

pub(super) mod budget;
pub(super) mod client;
pub(super) mod connector;
mod gather;
pub(super) mod proxy;
