//! Sealed batches in, a receiver's verdict out: OTLP over gRPC, OTLP over HTTP, or standard output. The batch's bytes go
//! out as they are; nothing here is done record by record, save on standard output.
//!
//! Must never retry what the receiver refused for good, give up what it may take later while the queue has room, or
//! touch the capture thread.
//!
//! parse → validate → build → spawn: [`Settings`] say what is wanted, [`Exporter::build`] reads the files and reports
//! what is wrong before anything runs, [`Exporter::spawn`] starts to deliver, [`ExportHandle::drain`] ends it.
//!
//! Read [`verdict`] first: it decides what becomes of a batch. `pool` acts on it, `grpc` and `http` obtain it over
//! connections that `wire` makes, `stdout` needs none.

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{runtime, sync::watch, task::JoinHandle};

use crate::{
    config::{self, Compression, Format, Secret},
    ledger::Ledger,
    queue::Queue,
};

mod backoff;
mod build;
mod cause;
mod grpc;
mod headers;
mod http;
pub mod json;
mod metrics;
mod outage;
mod packed;
mod peer;
mod pool;
mod probe;
mod resolved;
mod split;
mod state;
mod stdout;
mod text;
mod tls;
pub mod verdict;
mod wire;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use build::BuildError;
pub use headers::Headers;
pub use metrics::MetricsClient;
pub use probe::ProbeError;
pub use split::split;
pub use state::{Known, LinkState, State};
pub(crate) use stdout::Name as FileName;
pub use stdout::{LinePrinter, json_line};
pub use text::printable;

use build::Transport;

/// `flowtel/VERSION`.
const USER_AGENT: &str = concat!("flowtel/", env!("CARGO_PKG_VERSION"));

/// What export has to know, resolved: no defaults are left to find.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where records go.
    pub target: Target,
    /// Compression of requests.
    pub compression: Compression,
    /// Headers, or gRPC metadata, of each request.
    pub headers: BTreeMap<String, Secret>,
    /// A file of further headers, which win; it is read again when it changed.
    pub headers_file: Option<PathBuf>,
    /// How long one request may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// Requests in flight at once; at least 1.
    pub concurrency: u16,
    /// The waits of retries.
    pub retry: Backoff,
    /// TLS for `https` URLs.
    pub tls: config::Tls,
    /// What is printed, beside whatever the target is where `beside` says so.
    pub print: Print,
    /// HTTP statuses of refusals after which batches are kept and tried again.
    pub hold: Vec<u16>,
    /// Print, too, where records go to a receiver.
    pub beside: bool,
}

/// What is printed, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Print {
    /// The form.
    pub format: Format,
    /// A file instead of standard output.
    pub path: Option<PathBuf>,
    /// When that file is put aside.
    pub rotate: config::Rotate,
    /// Compression of what is printed.
    pub compress: Compression,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output, or a file ([`Settings::print`]).
    Stdout,
    /// OTLP/gRPC.
    Grpc {
        /// `http://host:port` or `https://host:port`; without a port it is the scheme's own. A path is ignored, for
        /// gRPC's is fixed.
        url: String,
    },
    /// OTLP/HTTP with binary protobuf.
    Http {
        /// The full URL, path included.
        url: String,
    },
}

/// An exporter that could be built: its files are read, its URL and headers are valid. Nothing is connected.
#[derive(Debug)]
pub struct Exporter {
    transport: Transport,
    /// Prints what is delivered.
    beside: Option<stdout::Stdout>,
    concurrency: usize,
    retry: Backoff,
    hold: Vec<u16>,
}

/// A running exporter.
#[derive(Debug)]
pub struct ExportHandle {
    task: JoinHandle<()>,
    queue: Queue,
    closed: watch::Receiver<bool>,
    retire: watch::Sender<bool>,
    printer: Option<Printer>,
}

/// What prints beside the export.
#[derive(Debug)]
struct Printer {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

// === impl Settings

impl Settings {
    /// The settings of `export` towards `target`, which whoever resolved protocol and URL provides.
    pub fn new(export: &config::Export, target: Target) -> Self {
        Self {
            target,
            compression: export.compression,
            headers: export.headers.clone(),
            headers_file: export.headers_file.clone(),
            timeout: export.timeout.0,
            concurrency: export.concurrency,
            retry: Backoff {
                initial: export.retry.initial.0,
                max: export.retry.max.0,
                longest_silence: export.retry.longest_silence.0,
            },
            tls: export.tls.clone(),
            hold: export.hold.clone(),
            print: Print {
                format: export.format,
                path: export.path.clone(),
                rotate: export.rotate.clone(),
                compress: export.compress,
            },
            beside: export.kind == Some(config::ExportKind::Both),
        }
    }
}

// === impl Exporter

impl Exporter {
    /// Reads the TLS files, checks URL and headers, and opens `export.path`. Connects to nothing.
    ///
    /// # Errors
    /// Whatever would make each request fail: the error names the file, header or URL and says what to do.
    pub fn build(settings: &Settings) -> Result<Self, BuildError> {
        let exporter = Self::prepare(settings)?;
        exporter.open()?;
        Ok(exporter)
    }

    /// As [`Self::build`], without the file of `export.path`, which [`Self::open`] opens: as the user that goes on writing.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn prepare(settings: &Settings) -> Result<Self, BuildError> {
        let beside =
            (settings.beside && settings.target != Target::Stdout).then(|| stdout::Stdout::build(&settings.print));
        Ok(Self {
            transport: Transport::build(settings)?,
            beside: beside.transpose()?,
            concurrency: settings.concurrency.max(1).into(),
            retry: settings.retry,
            hold: settings.hold.clone(),
        })
    }

    /// Opens the file of `export.path`, where there is one and it isn't open yet.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(&self) -> Result<(), BuildError> {
        let printed = match &self.transport {
            Transport::Stdout(stdout) => Some(stdout),
            Transport::Otlp(_) => self.beside.as_ref(),
        };
        printed.map_or(Ok(()), stdout::Stdout::open)
    }

    /// Begins to deliver what is in `queue`, on `runtime`, and counts each record's fate in `ledger`.
    pub fn spawn(self, queue: Queue, ledger: Arc<Ledger>, runtime: &runtime::Handle) -> ExportHandle {
        self.spawn_telling(queue, ledger, runtime, Arc::default())
    }

    /// As [`Self::spawn`], and tells `state` what is known of the receiver.
    pub fn spawn_telling(
        self,
        queue: Queue,
        ledger: Arc<Ledger>,
        runtime: &runtime::Handle,
        state: Arc<State>,
    ) -> ExportHandle {
        let closed = watch::Sender::new(false);
        let receiver = closed.subscribe();
        let (retire, retired) = watch::channel(false);
        let printer = self.beside.map(|stdout| Printer::start(stdout, &queue, runtime));
        let task = match self.transport {
            Transport::Stdout(stdout) => {
                state.begin(&stdout.to_string(), "flowtel.stdout_log_exporter");
                // What can't be written is lost and counted; nothing waits for it.
                state.up();
                runtime.spawn(stdout.run(queue.clone(), ledger, closed, retired))
            }
            Transport::Otlp(otlp) => {
                state.begin(otlp.endpoint(), otlp.component());
                let pool = pool::Pool::new(otlp, self.concurrency, self.retry, queue.clone(), ledger, state)
                    .holding(self.hold);
                runtime.spawn(async move {
                    pool.run(retired).await;
                    // Kept till here: to be dropped would read as closed.
                    drop(closed);
                })
            }
        };
        ExportHandle { task, queue, closed: receiver, retire, printer }
    }
}

// === impl Printer

impl Printer {
    /// How long the end waits for the last lines: a reader that doesn't read must not hold it up.
    const PATIENCE: Duration = Duration::from_secs(1);

    fn start(stdout: stdout::Stdout, queue: &Queue, runtime: &runtime::Handle) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { task: runtime.spawn(stdout.show(queue.watch(), stopped)), stop }
    }

    /// Ends it, once what was shown so far is printed.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(Self::PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

// === impl ExportHandle

impl ExportHandle {
    /// Whether standard output was closed by its reader. The answer can be read after the export has ended, too.
    pub fn unread(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }

    /// Returns once standard output was closed by its reader: nothing more can be written, flowtel had better stop.
    /// Never returns for other targets.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.closed.clone();
        async move {
            if closed.wait_for(|closed| *closed).await.is_err() {
                // The exporter has ended without that.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes way for another exporter of the same queue: takes no further batch, waits up to `limit` for the answers to
    /// requests in flight, and gives back what has none by then. The queue stays open, and nothing of it is lost.
    pub async fn retire(mut self, limit: Duration) {
        self.retire.send_replace(true);
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            // Its leases give their batches back as they are dropped.
            self.task.abort();
            let _ = self.task.await;
        }
        if let Some(printer) = self.printer {
            printer.stop().await;
        }
    }

    /// Ends the export: closes the queue and goes on delivering until it is empty, `grace` is over, or `cancel`
    /// returns. What is left then, requests in flight included, is counted `queued` where it is on the disk, else
    /// `undelivered`.
    pub async fn drain(mut self, grace: Duration, cancel: impl Future<Output = ()>) {
        self.queue.close();
        tokio::select! {
            _ = &mut self.task => {}
            () = tokio::time::sleep(grace) => {}
            () = cancel => {}
        }
        let left = self.queue.abandon();
        self.task.abort();
        if let Some(printer) = self.printer {
            printer.stop().await;
        }
        if left.queued > 0 {
            tracing::info!(
                records = left.queued,
                "stopped with records in the queue's directory: the next start delivers them"
            );
        }
        if left.lost > 0 {
            tracing::warn!(records = left.lost, "stopped with records undelivered: they are lost");
        }
    }
}
