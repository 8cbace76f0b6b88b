//! What the audit of open flows counts: whether flows that are in flowtel's table are in the kernel's list of sockets, too.

use super::Counter;

/// The audit's counts. Look-ups: asked = there + gone + unsure.
#[derive(Debug, Default)]
pub struct Audit {
    /// Accepted connections whose callbacks another program has taken away as they began (the kernel's own count).
    pub callbacks_taken: Counter,
    /// Sockets that were asked for their states again, because another program had overwritten the flags (likewise).
    pub asked_again: Counter,
}
