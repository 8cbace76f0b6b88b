//! How much a receiver may send: what it was sent goes in, yes or no comes out at each read of a connection to it.
//!
//! An answer is small, but nothing in HTTP ends what may come before or beside it: interim responses (100, 103), HTTP/2's
//! PRIORITY, WINDOW_UPDATE, PING and SETTINGS frames, empty records of TLS. Each costs CPU time, for as long as the request's
//! timeout lasts. So each request pays for what may come back, and a connection that goes past that is dropped; the request
//! counts as one without an answer then, with the waits of those. Reads cost beside their bytes, for a system call costs
//! more than the byte that it brings.
//!
//! Must never drop a connection for what an honest receiver sends.

use std::{
    error, fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

/// What each request pays, in bytes: headers and trailers at their largest, a TLS handshake, and frames besides. Ten thousand
/// of the smallest frames: a few milliseconds of CPU time.
const REQUEST: u64 = 128 << 10;
/// For so many bytes of a request one more: HTTP/2 grants its window in pieces of a few KiB, 13 bytes each or twice that.
const BYTES: u64 = 16;
/// What a read costs beside its bytes.
const READ: u64 = 64;
/// How far HTTP/2 may read ahead of whoever takes the answer: its smallest window, and less than a request pays.
pub(in crate::export) const WINDOW: u32 = 65_535;
/// What is granted in a second without any request: pings that keep a connection alive, a certificate's renewal.
const SECOND: u64 = 1 << 10;

/// What a receiver may still send. Clones are of the same one; all its connections share it.
#[derive(Debug, Clone)]
pub(in crate::export) struct Budget {
    /// How many requests it is for.
    requests: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    left: u64,
    /// What the largest request so far paid.
    share: u64,
    filled: Instant,
    #[cfg(test)]
    read: u64,
}

/// The half of a connection that is read, counted.
#[derive(Debug)]
pub(super) struct Metered<T> {
    io: T,
    budget: Budget,
}

/// A receiver went past its budget.
#[derive(Debug)]
pub(in crate::export) struct TooMuch;

// === impl Budget

impl Budget {
    /// For a receiver with so many requests in flight. What was not used is not kept for longer than these need it.
    pub fn new(concurrency: usize) -> Self {
        let requests = concurrency as u64 + 1;
        let state = State {
            left: requests * REQUEST,
            share: REQUEST,
            filled: Instant::now(),
            #[cfg(test)]
            read: 0,
        };
        Self { requests, state: Arc::new(Mutex::new(state)) }
    }

    /// A request of so many bytes goes out.
    pub fn request(&self, bytes: usize) {
        let share = REQUEST + bytes as u64 / BYTES;
        let mut state = self.lock();
        // Those in flight may be as large as this one, or as the largest.
        state.share = state.share.max(share);
        state.left = (state.left + share).min(self.requests * state.share);
    }

    /// So many bytes of an answer are wanted, and were taken.
    pub fn wanted(&self, bytes: usize) {
        let mut state = self.lock();
        state.left = state.left.saturating_add(bytes as u64);
    }

    fn read(&self, bytes: usize) -> Result<(), TooMuch> {
        let mut state = self.lock();
        let since = state.filled.elapsed();
        if since >= Duration::from_secs(1) {
            state.filled = Instant::now();
            let most = self.requests * state.share;
            state.left = (state.left + since.as_secs() * SECOND).min(state.left.max(most));
        }
        #[cfg(test)]
        {
            state.read += bytes as u64;
        }
        state.left = state.left.checked_sub(bytes as u64 + READ).ok_or(TooMuch)?;
        Ok(())
    }

    /// Bytes that were read so far.
    #[cfg(test)]
    pub fn spent(&self) -> u64 {
        self.lock().read
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Metered

impl<T> Metered<T> {
    pub fn new(io: T, budget: Budget) -> Self {
        Self { io, budget }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        Poll::Ready(self.budget.read(read).map_err(io::Error::other))
    }
}

// === impl TooMuch

impl TooMuch {
    /// By which it is known where HTTP/2 has made its own error of it.
    pub const WORDS: &str = "the receiver sends far more than an answer; the connection was dropped";
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS)
    }
}

impl error::Error for TooMuch {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_read_past_the_budget_fails_and_a_request_grants_another_one() {
        let (mut far, near) = duplex(1 << 20);
        let budget = Budget::new(1);
        let mut near = Metered::new(near, budget.clone());
        let mut piece = [0; 1024];
        let reads = 2 * REQUEST / (1024 + READ);
        for _ in 0..reads {
            far.write_all(&piece).await.expect("there is room");
            near.read_exact(&mut piece).await.expect("within the budget");
        }
        far.write_all(&piece).await.expect("there is room");
        let error = near.read(&mut piece).await.expect_err("past it");
        assert!(error.get_ref().is_some_and(|inner| inner.is::<TooMuch>()), "{error}");
        budget.request(0);
        far.write_all(&piece).await.expect("there is room");
        near.read_exact(&mut piece).await.expect("within the next one");
    }

    #[test]
    fn small_reads_cost_more_than_their_bytes_and_what_is_not_used_is_not_kept() {
        let budget = Budget::new(1);
        (0..1000).for_each(|_| budget.request(0));
        assert_eq!(budget.lock().left, 2 * REQUEST);
        let reads = (0..1_000_000).take_while(|_| budget.read(1).is_ok()).count() as u64;
        assert!(reads <= 2 * REQUEST / READ, "{reads}");
        budget.request(64 << 20);
        assert!(budget.lock().left > 4 << 20, "a large request is answered by many grants of its window");
        budget.wanted(1 << 20);
        assert!((0..20).all(|_| budget.read(64 << 10).is_ok()), "what is wanted is paid");
    }
}
