//! Batches in, lines on standard output out: OTLP/JSON for programs, or a line a record for people.
//!
//! A thread of its own does the writing, so that a reader who doesn't read holds up nothing but the export; the queue
//! takes what comes meanwhile. Each batch is written at once, as whole lines. When the reader goes away, all that can't
//! be written any more is counted `write_failed`, and whoever holds the handle is told, to stop flowtel.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    sync::{Arc, mpsc},
    thread,
};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{oneshot, watch};

use super::outage::Seldom;
use crate::{config::Format, ledger::Ledger, queue::Queue, record::Batch};

mod json;
mod lines;

/// The exporter to standard output.
pub(super) struct Stdout(Writer);

/// The way to the writing thread.
struct Jobs(mpsc::SyncSender<Job>);

struct Job {
    batch: Batch,
    done: oneshot::Sender<Written>,
}

/// How far a batch got.
struct Written {
    /// Records whose line is out in whole.
    records: u32,
    error: Option<io::Error>,
}

/// The form of the output, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One request a line.
    Json,
    /// One record a line.
    Lines { colour: bool },
}

/// The writing thread's own.
struct Writer {
    form: Form,
    sink: Box<dyn Write + Send>,
    line: Vec<u8>,
    /// The last write broke off within a line.
    torn: bool,
}

/// A file descriptor without std's buffer, which would write line by line.
pub(super) struct Raw<F>(pub(super) F);

/// Adds a batch to `out` as it is written on standard output: one line of OTLP/JSON.
///
/// # Errors
/// It is no valid request.
pub fn json_line(batch: &Batch, out: &mut Vec<u8>) -> io::Result<()> {
    let request = ExportLogsServiceRequest::decode(batch.bytes.clone()).map_err(io::Error::other)?;
    json::write(&request, out)?;
    out.push(b'\n');
    Ok(())
}

// === impl Stdout

impl Stdout {
    /// The thread that writes is started by [`Self::run`].
    pub(super) fn build(format: Format) -> Self {
        Self::with_sink(Form::of(format), Box::new(Raw(rustix::stdio::stdout())))
    }

    pub(super) fn with_sink(form: Form, sink: Box<dyn Write + Send>) -> Self {
        Self(Writer { form, sink, line: Vec::new(), torn: false })
    }

    /// Writes until the queue is closed and empty, or until `retired` says so.
    pub(super) async fn run(
        self,
        queue: Queue,
        ledger: Arc<Ledger>,
        closed: watch::Sender<bool>,
        mut retired: watch::Receiver<bool>,
    ) {
        let jobs = match Jobs::start(self.0) {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::error!(%error, "the thread that writes to standard output can't be started");
                closed.send_replace(true);
                return;
            }
        };
        let mut failures = Seldom::default();
        loop {
            let lease = tokio::select! {
                biased;
                Ok(_) = retired.wait_for(|retired| *retired) => return,
                lease = queue.lease() => lease,
            };
            let Some(lease) = lease else { return };
            let written =
                if *closed.borrow() { Written { records: 0, error: None } } else { jobs.write(lease.batch()).await };
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
                Some(error) => {
                    if let Some(held) = failures.pass() {
                        let records = records - out;
                        tracing::error!(%error, records, more_such_errors = held, "cannot write to standard output");
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout").field("form", &self.0.form).finish_non_exhaustive()
    }
}

// === impl Jobs

impl Jobs {
    fn start(mut writer: Writer) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
        thread::Builder::new().name("stdout".into()).spawn(move || {
            for job in inbox {
                // Nobody waits for the answer when flowtel is stopping.
                let _ = job.done.send(writer.write(&job.batch));
            }
        })?;
        Ok(Self(jobs))
    }

    async fn write(&self, batch: &Batch) -> Written {
        let (done, answer) = oneshot::channel();
        // One batch at a time, so there is always room; without a thread there is nobody to write.
        if self.0.try_send(Job { batch: batch.clone(), done }).is_ok()
            && let Ok(written) = answer.await
        {
            return written;
        }
        Written { records: 0, error: Some(io::Error::other("the writing thread is gone")) }
    }
}

// === impl Form

impl Form {
    fn of(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        match format {
            Format::Auto if !terminal => Self::Json,
            Format::Json => Self::Json,
            Format::Auto | Format::Text => {
                let choice = anstream::AutoStream::choice(&io::stdout());
                Self::Lines { colour: choice != anstream::ColorChoice::Never }
            }
        }
    }
}

// === impl Writer

impl Writer {
    fn write(&mut self, batch: &Batch) -> Written {
        let request = match ExportLogsServiceRequest::decode(batch.bytes.clone()) {
            Ok(request) => request,
            Err(e) => return Written { records: 0, error: Some(io::Error::other(e)) },
        };
        self.line.clear();
        if self.torn {
            self.line.push(b'\n');
        }
        let torn = usize::from(self.torn);
        match self.form {
            Form::Json => {
                if let Err(e) = json::write(&request, &mut self.line) {
                    return Written { records: 0, error: Some(e.into()) };
                }
                self.line.push(b'\n');
            }
            Form::Lines { colour } => lines::write(&request, colour, &mut self.line),
        }
        let (bytes, error) = self.write_all();
        let out = &self.line[..bytes];
        self.torn = out.last().map_or(self.torn, |last| *last != b'\n');
        let lines = out.iter().filter(|b| **b == b'\n').count().saturating_sub(torn);
        let records = match self.form {
            _ if error.is_none() => batch.records,
            Form::Json => 0,
            Form::Lines { .. } => u32::try_from(lines).unwrap_or(u32::MAX),
        };
        Written { records, error }
    }

    /// Writes the line buffer, and says how far it came.
    fn write_all(&mut self) -> (usize, Option<io::Error>) {
        let _whole_lines = io::stdout().lock();
        let mut at = 0;
        while at < self.line.len() {
            match self.sink.write(&self.line[at..]) {
                Ok(0) => return (at, Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (at, Some(e)),
            }
        }
        (at, self.sink.flush().err())
    }
}

// === impl Raw

impl<F: AsFd> Write for Raw<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                // Whoever shares the terminal or pipe may have made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                },
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
