//! What `capture.tls` costs a data segment that is no ClientHello: in turns with the same flowtel without it.

use std::path::Path;

use anyhow::Result;

use crate::updates::{EGRESS, INGRESS, segments};

/// Measures, and returns the table.
pub fn measure(binary: &Path) -> Result<String> {
    segments(binary, ["capture.tls=false", "capture.tls=true"], &[EGRESS, INGRESS])
}
