//! Those who look on at the status socket, `flowtel tail` and `flowtel top`: records as they go into the queue come in, frames
//! ([`Frame`]) go out, until the reader goes or flowtel stops.
//!
//! Nothing waits for a reader. Who falls behind misses records and is told how many; who takes nothing for [`STALL`] is
//! dropped: from then on it costs nothing, and if it reads again within [`LINGER`] it learns how many records it missed.
//! While nobody looks on, all of this costs nothing beyond a look at a number for each batch.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, buf::Chain};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    Status,
    frame::{Frame, Hello},
};
use crate::{
    pipeline::OpenFlows,
    queue::{Seen, Watcher},
    telemetry::instance::Instance,
};

/// How many may look on at once.
pub(super) const SEATS: u32 = 8;
/// How long one frame may take to be taken.
const STALL: Duration = Duration::from_secs(5);
/// How long one who was dropped may take until it reads again.
const LINGER: Duration = Duration::from_secs(60);
/// How often the status goes out.
const EVERY: Duration = Duration::from_secs(1);
/// Pieces of open flows that may wait for the reader.
const PIECES: usize = 4;

/// What somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Records.
    Tail,
    /// Records, the flows that are open, and how flowtel is doing.
    Top,
}

/// One who looks on.
struct Looker {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

/// What became of a frame.
enum Sent {
    /// It was taken.
    Whole,
    /// Not in time: this of it is left.
    Stalled(Chain<Bytes, Bytes>),
}

/// What comes next for a looker.
enum Next {
    Records(Option<Seen>),
    Open(Option<OpenFlows>),
    Status,
    Stop,
    /// The reader has gone.
    Gone,
}

/// Shows what is asked for until the reader goes, is dropped, or flowtel stops.
pub(super) async fn show(
    stream: UnixStream,
    instance: Arc<Instance>,
    seats: Arc<Semaphore>,
    view: View,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut looker = Looker { reader, writer };
    let Ok(_seat) = seats.try_acquire() else {
        looker.send(Frame::Full).await?;
        return Ok(());
    };
    // From here on nothing is missed: what is open already is asked for afterwards.
    let mut watcher = instance.queue.watch();
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        recording: instance.recording(),
        open_flows: instance.pulse.tables().flows,
    };
    let mut sent = looker.send(Frame::Hello(Box::new(hello))).await?;
    let (flows, mut open) = mpsc::channel(PIECES);
    if let (View::Top, Some(asker)) = (view, &instance.asker) {
        asker.open_flows(flows);
    } else {
        drop(flows);
    }
    let mut opens = true;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Sent::Stalled(rest) = sent {
            let missed = missed(watcher);
            return looker.part(rest, missed).await;
        }
        let mut byte = [0];
        let next = tokio::select! {
            biased;
            seen = watcher.next() => Next::Records(seen),
            piece = open.recv(), if opens => Next::Open(piece),
            _ = ticks.tick(), if view == View::Top => Next::Status,
            // A reader has nothing to say.
            _ = looker.reader.read(&mut byte) => Next::Gone,
            () = instance.queue.closed() => Next::Stop,
        };
        sent = match next {
            Next::Records(Some(seen)) => looker.send(records(seen)).await?,
            Next::Open(Some(OpenFlows { older, request })) => looker.send(Frame::Open { older, request }).await?,
            Next::Open(None) => {
                opens = false;
                continue;
            }
            Next::Status => looker.send(Frame::Status(Box::new(Status::of(&instance)))).await?,
            Next::Gone => return Ok(()),
            Next::Stop | Next::Records(None) => {
                // What was queued last, and then how it all went.
                while let Some(seen) = watcher.try_next() {
                    if let Sent::Stalled(_) = looker.send(records(seen)).await? {
                        return Ok(());
                    }
                }
                if view == View::Top {
                    looker.send(Frame::Status(Box::new(Status::of(&instance)))).await?;
                }
                looker.send(Frame::End).await?;
                return Ok(());
            }
        };
    }
}

/// How many records a watcher that is given up has not seen.
fn missed(mut watcher: Watcher) -> u64 {
    let unseen = std::iter::from_fn(|| watcher.try_next());
    unseen.map(|seen| seen.missed + u64::from(seen.batch.records)).sum()
}

fn records(seen: Seen) -> Frame {
    Frame::Records { missed: seen.missed, records: seen.batch.records, request: seen.batch.bytes }
}

// === impl Looker

impl Looker {
    async fn send(&mut self, frame: Frame) -> io::Result<Sent> {
        let (head, body) = frame.encode();
        let mut bytes = head.chain(body);
        let until = Instant::now() + STALL;
        while bytes.has_remaining() {
            match timeout_at(until, self.writer.write_buf(&mut bytes)).await {
                Ok(written) => _ = written?,
                Err(_late) => return Ok(Sent::Stalled(bytes)),
            }
        }
        Ok(Sent::Whole)
    }

    /// Sends the rest of a frame, and that it was the last, should the reader read again.
    async fn part(mut self, mut rest: Chain<Bytes, Bytes>, missed: u64) -> io::Result<()> {
        let (mut head, _) = Frame::Dropped { missed }.encode();
        let last = async {
            self.writer.write_all_buf(&mut rest).await?;
            self.writer.write_all_buf(&mut head).await?;
            self.writer.shutdown().await
        };
        timeout(LINGER, last).await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, path::PathBuf};

    use super::*;
    use crate::{
        record::Batch,
        telemetry::{
            metrics::tests::instance,
            status::{
                ask::{AskError, ask},
                attach::{Attached, Came, attach},
                request::Request,
                socket::{Listening, Server},
            },
        },
    };

    const WAIT: Duration = Duration::from_secs(20);

    fn batch(bytes: usize, records: u32) -> Batch {
        Batch { bytes: vec![b'a'; bytes].into(), records, first: 1, last: 2 }
    }

    struct Scene {
        instance: Arc<Instance>,
        path: PathBuf,
        server: Server,
        _directory: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let instance = Arc::new(instance());
        let server = Listening::at(&path, "").expect("it can be made").serve(Arc::clone(&instance));
        Scene { instance, path, server, _directory: directory }
    }

    fn frame(attached: &mut Attached) -> Frame {
        match attached.next(WAIT).expect("frames") {
            Came::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    fn looks(path: &std::path::Path, request: Request) -> Attached {
        let mut attached = attach(path, request).expect("it is there");
        assert!(matches!(frame(&mut attached), Frame::Hello(_)));
        attached
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_gets_each_batch_as_it_is_pushed_and_the_rest_at_the_stop() {
        let Scene { instance, path, server, _directory } = scene();
        let looked = tokio::task::spawn_blocking(move || {
            let tail = looks(&path, Request::Tail);
            let mut top = looks(&path, Request::Top);
            assert!(matches!(frame(&mut top), Frame::Status(_)));
            (tail, top)
        });
        let (mut tail, mut top) = looked.await.expect("no panic");
        instance.queue.push(batch(10, 3));
        instance.queue.push(batch(10, 4));
        instance.queue.close();
        let read = tokio::task::spawn_blocking(move || {
            for records in [3, 4] {
                let request = Bytes::from_static(b"aaaaaaaaaa");
                assert_eq!(frame(&mut tail), Frame::Records { missed: 0, records, request });
            }
            assert_eq!(frame(&mut tail), Frame::End);
            assert!(matches!(tail.next(WAIT), Ok(Came::Gone)));
            while frame(&mut top) != Frame::End {}
        });
        server.finish().await;
        read.await.expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_takes_nothing_is_dropped_and_learns_how_much_it_missed_when_it_reads_again() {
        let Scene { instance, path, server: _server, _directory } = scene();
        let mut deaf = tokio::task::spawn_blocking(move || looks(&path, Request::Tail)).await.expect("no panic");
        let pushed = 200;
        for _ in 0..pushed {
            // One of these is more than the socket holds.
            instance.queue.push(batch(512 << 10, 5));
        }
        // It has a seat, and no more costs than that, until it is dropped.
        let watched = || instance.queue.is_watched();
        assert!(watched());
        let until = Instant::now() + STALL * 4;
        while watched() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!watched(), "nothing is kept for it any more");
        instance.queue.push(batch(10, 1000));
        let (got, missed) = tokio::task::spawn_blocking(move || {
            let mut got = 0;
            loop {
                match frame(&mut deaf) {
                    Frame::Records { missed, records, .. } => got += missed + u64::from(records),
                    Frame::Dropped { missed } => return (got, missed),
                    other => panic!("{other:?}"),
                }
            }
        })
        .await
        .expect("no panic");
        assert_eq!((got + missed, got < missed), (pushed * 5, true));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn there_are_so_many_seats_and_each_is_free_again_when_its_reader_goes() {
        let Scene { path, server: _server, _directory, .. } = scene();
        let told = tokio::task::spawn_blocking(move || {
            let mut seated: Vec<_> = (0..SEATS).map(|_| looks(&path, Request::Tail)).collect();
            assert_eq!(frame(&mut attach(&path, Request::Top).expect("it answers")), Frame::Full);
            // Others are answered all the same, however many come.
            let asked = std::thread::scope(|all| {
                let asking: Vec<_> = (0..30).map(|_| all.spawn(|| ask(&path).is_ok())).collect();
                asking.into_iter().all(|one| one.join().is_ok_and(|answered| answered))
            });
            assert!(asked);
            assert!(matches!(seated[0].next(Duration::from_millis(10)), Ok(Came::Nothing)));
            seated.clear();
            let until = std::time::Instant::now() + WAIT;
            while frame(&mut attach(&path, Request::Tail).expect("it answers")) == Frame::Full {
                assert!(std::time::Instant::now() < until, "no seat becomes free");
            }
        });
        told.await.expect("no panic");
    }

    #[test]
    fn an_older_flowtel_that_knows_no_such_question_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let status = serde_json::to_vec(&Status::of(&instance())).expect("plain data");
        let server = std::thread::spawn(move || {
            for answer in [&[][..], &status] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut question = [0; 5];
                let _ = if answer.is_empty() { stream.read(&mut question) } else { Ok(0) };
                std::io::Write::write_all(&mut stream, answer).expect("it reads");
            }
        });
        let error = attach(&path, Request::Tail).expect("it is there").next(WAIT).expect_err("it refuses");
        assert!(matches!(error, AskError::Answer { why, .. } if why.contains("shows no records")));
        server.join().expect("it ended");
    }
}
