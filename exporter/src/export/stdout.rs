//! Batches in, lines out, on standard output or into a file: OTLP/JSON or flat JSON for programs, or a line a record for
//! people.
//!
//! A thread of its own does the writing, so a reader who doesn't read holds up nothing but the export. The queue takes what
//! comes meanwhile. Each batch is written at once, as whole lines. When the reader goes away, everything that can't be written
//! any more is counted `write_failed`, and whoever holds the handle is told, to stop flowtel.

use std::{
    fmt, io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

use tokio::sync::{oneshot, watch};

use super::{BuildError, Print, json::Transcoder, outage::Seldom};
use crate::{
    ledger::Ledger,
    queue::{Queue, Watcher},
    record::Batch,
};

mod file;
mod form;
mod pack;
mod people;
mod printer;
mod sink;
mod writer;

use file::File;
pub(crate) use file::Name;
pub(super) use form::Form;
use pack::Pack;
#[cfg(test)]
pub(super) use people::Place;
pub use printer::LinePrinter;
pub(super) use sink::{Raw, Sink};
use writer::{Writer, Written};

/// The exporter that writes lines.
pub(super) struct Stdout {
    /// Until its thread is started, by the first job: none may be there before flowtel has given its rights up.
    writer: Mutex<Option<Box<Writer>>>,
    jobs: OnceLock<mpsc::SyncSender<Job>>,
    /// `standard output`, or the file's path.
    place: String,
}

struct Job {
    what: What,
    done: oneshot::Sender<Written>,
}

enum What {
    Write(Batch),
    /// Write what is held back.
    Finish,
}

/// Adds a batch to `out` as it is written on standard output: one line of OTLP/JSON.
///
/// # Errors
/// It is no valid request.
pub fn json_line(batch: &Batch, out: &mut Vec<u8>) -> io::Result<()> {
    Transcoder::default().write(&batch.bytes, out, &mut |_| Ok(()))?;
    out.push(b'\n');
    Ok(())
}

// === impl Stdout

impl Stdout {
    /// What prints as these settings say. A file isn't open yet.
    ///
    /// # Errors
    /// The path names no file, or there can't be a thread.
    pub(super) fn build(print: &Print) -> Result<Self, BuildError> {
        let form = Form::of(print);
        let (place, sink): (_, Box<dyn Sink>) = match &print.path {
            None => ("standard output".into(), Box::new(Raw(rustix::stdio::stdout()))),
            Some(path) => {
                let error = |e: io::Error| BuildError::OutputFile { path: path.clone(), why: e.to_string() };
                (path.display().to_string(), Box::new(File::new(path, print.rotate.clone()).map_err(error)?))
            }
        };
        let pack = if form.is_for_terminal() { None } else { Pack::of(print.compress).map_err(BuildError::Thread)? };
        Ok(Self::new(Writer::new(form, sink, pack), place))
    }

    /// Opens the file, where it isn't open yet.
    ///
    /// # Errors
    /// It can't be opened.
    pub(super) fn open(&self) -> Result<(), BuildError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = writer.as_mut().map_or(Ok(()), |writer| writer.open());
        opened.map_err(|e| BuildError::OutputFile { path: self.place.clone().into(), why: e.to_string() })
    }

    #[cfg(test)]
    pub(super) fn with_sink(form: Form, sink: Box<dyn Sink>) -> Self {
        Self::new(Writer::new(form, sink, None), "a test".into())
    }

    fn new(writer: Writer, place: String) -> Self {
        Self { writer: Mutex::new(Some(Box::new(writer))), jobs: OnceLock::new(), place }
    }

    /// The way to the writing thread, which is started where it isn't there. `None`: there can't be one.
    fn jobs(&self) -> Option<&mpsc::SyncSender<Job>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            match start(*writer) {
                Ok(jobs) => _ = self.jobs.set(jobs),
                Err(error) => tracing::error!(%error, "the thread that writes to {} can't be started", self.place),
            }
        }
        self.jobs.get()
    }

    /// Writes until the queue is closed and empty, or until `retired` says so.
    pub(super) async fn run(
        self,
        queue: Queue,
        ledger: Arc<Ledger>,
        closed: watch::Sender<bool>,
        mut retired: watch::Receiver<bool>,
    ) {
        let mut failures = Seldom::default();
        loop {
            let lease = tokio::select! {
                biased;
                Ok(_) = retired.wait_for(|retired| *retired) => None,
                lease = queue.lease() => lease,
            };
            let Some(lease) = lease else { break };
            let written = if *closed.borrow() {
                Written { records: 0, error: None }
            } else {
                self.write(What::Write(lease.batch().clone())).await
            };
            let records = u64::from(lease.done());
            let out = u64::from(written.records).min(records);
            ledger.records.delivered.add(out);
            ledger.records.write_failed.add(records - out);
            match written.error {
                None => {}
                Some(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    tracing::info!("standard output was closed by its reader");
                    closed.send_replace(true);
                }
                Some(error) => self.complain(&error, records - out, &mut failures),
            }
        }
        self.write(What::Finish).await;
    }

    /// Writes what `watcher` sees, until `stopped` says so and all is written, or nobody reads any more. Nothing is counted:
    /// what isn't printed is not lost.
    pub(super) async fn show(self, mut watcher: Watcher, mut stopped: watch::Receiver<bool>) {
        let mut failures = Seldom::default();
        loop {
            let seen = tokio::select! {
                biased;
                seen = watcher.next() => seen,
                _ = stopped.wait_for(|stopped| *stopped) => watcher.try_next(),
            };
            let Some(seen) = seen else { break };
            if seen.missed > 0 {
                tracing::warn!(records = seen.missed, "{} is too slow: records were not printed", self.place);
            }
            let records = seen.batch.records;
            let written = self.write(What::Write(seen.batch)).await;
            match written.error {
                None => {}
                Some(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                    tracing::info!(
                        "nobody reads standard output any more: records are delivered, and no longer printed"
                    );
                    return;
                }
                Some(error) => {
                    self.complain(&error, records.saturating_sub(written.records).into(), &mut failures);
                }
            }
        }
        self.write(What::Finish).await;
    }

    fn complain(&self, error: &io::Error, records: u64, failures: &mut Seldom) {
        if let Some(held) = failures.pass() {
            tracing::error!(%error, records, more_such_errors = held, "cannot write to {}", self.place);
        }
    }

    async fn write(&self, what: What) -> Written {
        let (done, answer) = oneshot::channel();
        // One batch at a time, so there is always room; without a thread there is nobody to write.
        if let Some(jobs) = self.jobs()
            && jobs.try_send(Job { what, done }).is_ok()
            && let Ok(written) = answer.await
        {
            return written;
        }
        Written { records: 0, error: Some(io::Error::other("the writing thread is gone")) }
    }
}

fn start(mut writer: Writer) -> io::Result<mpsc::SyncSender<Job>> {
    let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
    let next = move |writer: &mut Writer| {
        while writer.holds() {
            match inbox.recv_timeout(people::HOLD / 2) {
                Err(mpsc::RecvTimeoutError::Timeout) => _ = writer.write_held(false),
                result => return result.ok(),
            }
        }
        inbox.recv().ok()
    };
    thread::Builder::new().name("stdout".into()).spawn(move || {
        while let Some(Job { what, done }) = next(&mut writer) {
            let written = match what {
                What::Write(batch) => writer.write(&batch),
                What::Finish => writer.write_held(true),
            };
            // Nobody waits for the answer when flowtel is stopping.
            let _ = done.send(written);
        }
    })?;
    Ok(jobs)
}

impl fmt::Debug for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Display for Stdout {
    /// Where it writes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}
