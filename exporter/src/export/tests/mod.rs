//! The export against real servers on loopback: what is promised about each answer, about outages, and about the end.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message;

use super::*;
use crate::record::Batch;

mod answers;
mod end;
mod floods;
mod log;
mod moving;
mod otlp;
mod outages;
mod probing;
mod real;
mod server;
mod stdout;
mod tls;

use server::Server;

/// Longer than any test takes when it is right.
const LONG: Duration = Duration::from_secs(20);

/// Records named `from..from + records`, by their time.
fn batch(from: u64, records: u32) -> Batch {
    let last = from + u64::from(records) - 1;
    let log_records =
        (from..=last).map(|time_unix_nano| LogRecord { time_unix_nano, ..LogRecord::default() }).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let bytes = ExportLogsServiceRequest { resource_logs }.encode_to_vec().into();
    Batch { bytes, records, first: from, last }
}

/// The names of the records in a request.
fn names(request: &[u8]) -> Vec<u64> {
    let request = ExportLogsServiceRequest::decode(request).expect("a valid request");
    let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
    scopes.flat_map(|s| &s.log_records).map(|r| r.time_unix_nano).collect()
}

fn settings(target: Target) -> Settings {
    Settings {
        timeout: Duration::from_secs(5),
        retry: Backoff { initial: Duration::from_millis(2), max: Duration::from_millis(8), longest_silence: LONG },
        ..Settings::new(&config::Export::default(), target)
    }
}

fn queue(ledger: &Arc<Ledger>) -> Queue {
    Queue::new(&config::Queue::default(), ledger.clone())
}

/// A running export with its queue and ledger.
struct Export {
    handle: ExportHandle,
    queue: Queue,
    ledger: Arc<Ledger>,
}

impl Export {
    fn start(settings: &Settings) -> Self {
        let exporter = Exporter::build(settings).expect("the settings are right");
        Self::spawn(exporter)
    }

    fn spawn(exporter: Exporter) -> Self {
        let ledger = Arc::new(Ledger::default());
        let queue = queue(&ledger);
        let handle = exporter.spawn(queue.clone(), ledger.clone(), &runtime::Handle::current());
        Self { handle, queue, ledger }
    }

    fn push(&self, batch: Batch) {
        self.ledger.records.made.add(batch.records.into());
        self.queue.push(batch);
    }

    /// Delivers all there is; the balance must hold.
    async fn finish(self) -> Fates {
        self.stop(LONG, std::future::pending()).await
    }

    async fn stop(self, grace: Duration, cancel: impl Future<Output = ()>) -> Fates {
        self.handle.drain(grace, cancel).await;
        let r = &self.ledger.records;
        assert_eq!(r.waiting(), 0, "made = the sum of all fates");
        Fates {
            delivered: r.delivered.get(),
            rejected: r.rejected.get(),
            undelivered: r.undelivered.get(),
            write_failed: r.write_failed.get(),
        }
    }
}

/// What became of all records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fates {
    delivered: u64,
    rejected: u64,
    undelivered: u64,
    write_failed: u64,
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Both transports towards one server.
fn targets(server: &Server) -> [Target; 2] {
    [Target::Grpc { url: server.url() }, Target::Http { url: format!("{}/v1/logs", server.url()) }]
}
