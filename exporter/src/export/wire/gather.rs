//! Small writes in, large ones out. HTTP/2 writes, and flushes, each of its frames of at most 16 KiB by itself, and each such
//! write goes all the way through TCP; a batch of a megabyte is 64 of them. So what is written is held until there is much, or
//! until whoever writes asks for an answer.
//!
//! A flush is deferred: it says "done", and wakes the task, which reads first thing when it runs again; reading writes what
//! is held. So nothing is held longer than the task needs to come round. Where the peer is slow, a flush waits for it as
//! any other: what was deferred once and could not be written then is not deferred again.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written at once: three frames or so. It is copied once more into the socket, and with this little it lies in the
/// CPU's inner caches then (with 256 KiB a record cost 0.1 µs more).
const MUCH: usize = 48 << 10;

/// A connection whose small writes are gathered. For users that read whenever they run, as HTTP/2 does.
#[derive(Debug)]
pub(super) struct Gather<T> {
    io: T,
    held: Vec<u8>,
    /// How much of it is written already.
    written: usize,
    /// The connection took no more when what is held was last written.
    blocked: bool,
}

// === impl Gather

impl<T: AsyncWrite + Unpin> Gather<T> {
    pub fn new(io: T) -> Self {
        Self { io, held: Vec::new(), written: 0, blocked: false }
    }

    /// Writes what is held.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.blocked = true;
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.blocked = false;
        self.held.clear();
        self.written = 0;
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() >= MUCH {
            ready!(self.poll_out(cx))?;
        }
        let before = self.held.len();
        for part in parts {
            let room = MUCH.saturating_sub(self.held.len());
            self.held.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        Poll::Ready(Ok(self.held.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() || self.held.len() >= MUCH || self.blocked {
            return self.poll_out(cx);
        }
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Where it can't be written now, there may be something to read all the same.
        if !self.held.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_out(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        task::Wake,
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn frames_that_are_flushed_one_by_one_go_out_together_when_the_task_reads() {
        let (near, mut far) = duplex(1 << 20);
        let mut gather = Gather::new(near);
        let woken = std::sync::Arc::<Woken>::default();
        let waker = std::sync::Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        for n in 0..3 {
            let (head, body) = ([n], [n; 1000]);
            let parts = [IoSlice::new(&head), IoSlice::new(&body)];
            assert!(matches!(Pin::new(&mut gather).poll_write_vectored(&mut cx, &parts), Poll::Ready(Ok(1001))));
            assert!(matches!(Pin::new(&mut gather).poll_flush(&mut cx), Poll::Ready(Ok(()))));
        }
        assert_eq!(gather.held.len(), 3003, "nothing has left yet");
        assert!(woken.0.load(Ordering::Relaxed) > 0, "and the task is to come again");
        let mut byte = [0];
        assert!(Pin::new(&mut gather).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending());
        assert!(gather.held.is_empty());
        let mut got = [9; 3003];
        far.read_exact(&mut got).await.expect("all of it");
        assert!(got[..1001].iter().all(|b| *b == 0) && got[2002..].iter().all(|b| *b == 2));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_holds_up_the_writer_and_wakes_nobody() {
        let (near, mut far) = duplex(100);
        let mut gather = Gather::new(near);
        let woken = std::sync::Arc::<Woken>::default();
        let waker = std::sync::Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        assert!(matches!(Pin::new(&mut gather).poll_write(&mut cx, &[1; 1000]), Poll::Ready(Ok(1000))));
        assert!(matches!(Pin::new(&mut gather).poll_flush(&mut cx), Poll::Ready(Ok(()))));
        let mut byte = [0];
        assert!(Pin::new(&mut gather).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending());
        let before = woken.0.load(Ordering::Relaxed);
        assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), before, "or the task would spin");
        far.read_exact(&mut [0; 50]).await.expect("what was written");
        assert!(woken.0.load(Ordering::Relaxed) > before, "there is room again");
    }

    #[tokio::test]
    async fn more_than_much_comes_out_whole_in_order_and_before_the_end() {
        let (near, mut far) = duplex(5000);
        let sent: Vec<u8> = (0..3 * MUCH + 17).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut gather = Gather::new(near);
            gather.write_all(&sent).await.expect("the peer reads");
            gather.shutdown().await.expect("the peer reads");
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("an end");
        writer.await.expect("no panic");
        assert_eq!(got, expected);
    }
}
