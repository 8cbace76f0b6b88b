//! A SOCKMAP: connected sockets go in, and the kernel may move their bytes past TCP.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context as _, Result};

use crate::{
    scene::skip,
    sys::{self, halves},
};

// Commands and types of bpf(2) (include/uapi/linux/bpf.h).
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_TYPE_SOCKMAP: u32 = 15;

/// The map.
#[derive(Debug)]
pub struct SockMap(OwnedFd);

// === impl SockMap

impl SockMap {
    /// An empty one.
    ///
    /// # Errors
    /// Skips the scenario: the kernel has none.
    pub fn new() -> Result<Self> {
        const PLACES: u32 = 16;
        let attributes = [halves(MAP_TYPE_SOCKMAP, 4), halves(4, PLACES), 0];
        let map = sys::bpf_opened(MAP_CREATE, &attributes).map_err(|e| skip(format!("no SOCKMAP here: {e}")))?;
        Ok(Self(map))
    }

    /// Puts a connected socket in.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn put(&self, place: u32, socket: impl AsFd) -> Result<()> {
        let value = socket.as_fd().as_raw_fd();
        let map = self.0.as_raw_fd().unsigned_abs();
        let attributes = [map.into(), (&raw const place) as u64, (&raw const value) as u64, 0];
        sys::bpf(MAP_UPDATE_ELEM, &attributes).context("putting a socket into a SOCKMAP")?;
        Ok(())
    }
}
