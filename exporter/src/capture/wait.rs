//! How the capture thread waits: for the next tick, for a ring that is half full, or for a stop.
//!
//! Programs do not wake the reader (a wake-up costs 20 µs in the packet path) unless a ring is half full. Edge-triggered
//! epoll sees only those wake-ups: level-triggered would return at once whenever a ring is not empty.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
};

/// Tells the capture thread to stop. Cheap to clone, may be used from any thread.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

/// Waits.
#[derive(Debug)]
pub struct Wait {
    epoll: OwnedFd,
    stop: Stop,
}

const STOP: u64 = 1;
const RING: u64 = 0;

impl Stop {
    /// A fresh one.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Asks for a stop; the thread notices at once.
    pub fn stop(&self) {
        // It can only fail with a counter that is full, and then it is set.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Wait {
    /// Waits on `stop`, and on `rings` for their forced wake-ups.
    ///
    /// # Errors
    /// The kernel refuses an epoll instance.
    pub fn new<F: AsFd>(stop: &Stop, rings: &[F]) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*stop.0, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        for ring in rings {
            epoll::add(
                &epoll,
                ring.as_fd(),
                epoll::EventData::new_u64(RING),
                epoll::EventFlags::IN | epoll::EventFlags::ET,
            )?;
        }
        Ok(Self { epoll, stop: stop.clone() })
    }

    /// Waits for at most `tick`. Returns whether a stop was asked for.
    pub fn wait(&self, tick: Duration) -> bool {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(RING) }; 8];
        let timeout =
            Timespec { tv_sec: tick.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: tick.subsec_nanos().into() };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(n) => events[..n].iter().any(|event| event.data.u64() == STOP),
            // Nothing else can go wrong with descriptors that are ours; go round once more.
            Err(Errno::INTR) => false,
            Err(_) => self.stopped(),
        }
    }

    fn stopped(&self) -> bool {
        rustix::io::read(&*self.stop.0, &mut [0u8; 8]).is_ok()
    }
}
