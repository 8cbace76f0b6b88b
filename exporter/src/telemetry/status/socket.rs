//! The answering side of the status socket: whoever connects and may ask (`Access`) asks for one thing ([`Request`]) and gets it
//! as JSON; then the connection is closed. Some look on for longer (`stream`). Nothing can be changed. Who reads slowly is
//! dropped, and holds up neither others nor the capture thread.

use std::{io, os::unix::net::UnixListener, path::Path, sync::Arc, time::Duration};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, sync::Semaphore, task::JoinHandle, time::timeout};

use super::{
    Status,
    request::{FlowAnswer, Request},
    stream::{self, SEATS, View},
};
use crate::{
    escape::write_json,
    flow::FlowId,
    telemetry::{
        access::Access,
        crowd::{Crowd, Working},
        instance::Instance,
        place::Place,
    },
};

/// Answers at once.
const CONNECTIONS: usize = 32;
/// How long an answer may take to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long those who look on may take, at the end, to get what was recorded last.
const LAST: Duration = Duration::from_secs(1);

/// A socket that is at its path, not answered at yet. Dropped, it is taken away.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    place: Place,
    access: Access,
}

/// The server. It ends when this is dropped, and the socket is taken away.
#[derive(Debug)]
pub(crate) struct Server {
    task: JoinHandle<()>,
    seats: Arc<Semaphore>,
    _place: Place,
}

// === impl Listening

impl Listening {
    /// Puts a socket at the path, for root, flowtel's own user and `group`.
    pub(crate) fn at(path: &Path, group: &str) -> io::Result<Self> {
        let access = Access::of(group);
        let (listener, place) = Place::take(path, access)?;
        Ok(Self { listener, place, access })
    }

    /// Begins to answer. Has to be called on tokio.
    pub(crate) fn serve(self, instance: Arc<Instance>) -> Server {
        let seats = Arc::new(Semaphore::new(SEATS as usize));
        let task = tokio::spawn(serve(self.listener, self.access, instance, Arc::clone(&seats)));
        Server { task, seats, _place: self.place }
    }
}

// === impl Server

impl Server {
    /// Waits a moment for those who look on: once the queue is closed, they get what is left and end.
    pub(crate) async fn finish(self) {
        let _all_have_ended = timeout(LAST, self.seats.acquire_many(SEATS)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, access: Access, instance: Arc<Instance>, seats: Arc<Semaphore>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "the status socket can't be answered at"),
    };
    let mut crowd = Crowd::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            // The mode of the socket says the same; this holds whatever somebody does to that.
            Ok((stream, _)) if access.allows(&stream) => {
                let (instance, seats) = (Arc::clone(&instance), Arc::clone(&seats));
                crowd.admit(|working| async move {
                    // Who is gone, or slow, has nothing to be told.
                    let _ = answer(stream, &working, &instance, &seats).await;
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the status socket can't take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    working: &Working,
    instance: &Arc<Instance>,
    seats: &Arc<Semaphore>,
) -> io::Result<()> {
    let view = match Request::read(&mut stream).await? {
        Request::Tail => View::Tail,
        Request::Top => View::Top,
        request => return timeout(PATIENCE, once(stream, request, working, instance)).await.unwrap_or(Ok(())),
    };
    // There are few seats, and who has one keeps it, however many ask meanwhile.
    tokio::spawn(stream::show(stream, Arc::clone(instance), Arc::clone(seats), view));
    Ok(())
}

/// Answers with one JSON text.
async fn once(mut stream: UnixStream, request: Request, working: &Working, instance: &Instance) -> io::Result<()> {
    let json = {
        let _work = working.begin();
        let mut json = Vec::new();
        match request {
            Request::Flow(id) => write_json(&mut json, &flow(instance, id).await)?,
            _ => {
                let _fresh = instance.refresh().await;
                write_json(&mut json, &Status::of(instance))?;
            }
        }
        json
    };
    stream.write_all(&json).await?;
    stream.shutdown().await
}

/// What the capture thread knows of an open flow.
async fn flow(instance: &Instance, id: FlowId) -> FlowAnswer {
    let known = match &instance.asker {
        Some(asker) => asker.flow(id).await,
        None => None,
    };
    match known {
        Some(known) => FlowAnswer { older: known.older, request: ExportLogsServiceRequest::decode(known.request).ok() },
        None => FlowAnswer { older: false, request: None },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::telemetry::{
        metrics::tests::instance,
        status::ask::{AskError, ask},
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_status_comes_out_as_it_went_in_and_the_socket_is_taken_away_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sub/status.sock");
        let server = Listening::at(&path, "").expect("it can be made").serve(Arc::new(instance()));
        let status = ask(&path).expect("it answers");
        assert_eq!((status.pid, status.records.parts[0].count), (std::process::id(), 5));
        assert_eq!(Listening::at(&path, "").expect_err("somebody is there").kind(), io::ErrorKind::AddrInUse);
        drop(server);
        assert!(!path.exists() && fs::read_dir(directory.path().join("sub")).expect("it stays").count() == 0);
        assert!(matches!(ask(&path), Err(AskError::Nobody { .. })));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn those_who_do_not_read_keep_nobody_from_an_answer() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("status.sock");
        let _server = Listening::at(&path, "").expect("it can be made").serve(Arc::new(instance()));
        let mut deaf = Vec::new();
        for _ in 0..400 {
            // Where the kernel's queue is full it has to be waited for, as any client does.
            deaf.push(UnixStream::connect(&path).await);
        }
        let before = std::time::Instant::now();
        let asked = tokio::task::spawn_blocking(move || ask(&path)).await.expect("no panic");
        assert!(asked.is_ok() && before.elapsed() < PATIENCE, "{asked:?}");
    }
}
