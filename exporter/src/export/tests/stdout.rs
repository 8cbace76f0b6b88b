//! Standard output: a reader that goes away, one that doesn't read, and a full disk.

use std::{
    io::{self, Write},
    sync::{Condvar, Mutex},
};

use super::*;
use crate::export::stdout::{self, Form, Raw, Stdout};

/// What was written, and what to do at the next write.
#[derive(Default)]
struct Pipe {
    written: Mutex<Vec<u8>>,
    room: Mutex<Option<usize>>,
    freed: Condvar,
    error: Mutex<Option<io::ErrorKind>>,
}

struct Sink(Arc<Pipe>);

impl Pipe {
    /// Takes `bytes` more, then fails with `error`, or blocks without one.
    fn limit(&self, bytes: Option<usize>, error: Option<io::ErrorKind>) {
        *self.room.lock().unwrap() = bytes;
        *self.error.lock().unwrap() = error;
        self.freed.notify_all();
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }
}

impl stdout::Sink for Sink {}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.0.room.lock().unwrap();
        while *room == Some(0) {
            if let Some(kind) = *self.0.error.lock().unwrap() {
                return Err(kind.into());
            }
            room = self.0.freed.wait(room).unwrap();
        }
        let n = room.map_or(bytes.len(), |room| room.min(bytes.len()));
        *room = room.map(|room| room - n);
        self.0.written.lock().unwrap().extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn export(form: Form) -> (Export, Arc<Pipe>) {
    let pipe = Arc::new(Pipe::default());
    (export_to(form, Sink(pipe.clone())), pipe)
}

fn export_to(form: Form, sink: impl stdout::Sink + 'static) -> Export {
    let stdout = Stdout::with_sink(form, Box::new(sink));
    let exporter = Exporter {
        transport: Transport::Stdout(stdout),
        concurrency: 1,
        retry: settings(Target::Stdout).retry,
        beside: None,
        hold: Vec::new(),
    };
    Export::spawn(exporter)
}

const LINES: Form = Form::Lines { colour: false, place: stdout::Place::Pipe };

#[tokio::test]
async fn each_batch_is_a_line_of_json_in_order() {
    let (export, pipe) = export(Form::Json);
    export.push(batch(1, 2));
    export.push(batch(3, 1));
    assert_eq!(export.finish().await, Fates { delivered: 3, ..Fates::default() });
    let text = pipe.text();
    assert!(text.ends_with('\n'));
    let lines: Vec<ExportLogsServiceRequest> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(names(&lines[0].encode_to_vec()), [1, 2]);
    assert_eq!(names(&lines[1].encode_to_vec()), [3]);
}

#[tokio::test]
async fn a_reader_that_went_away_is_told_and_what_it_missed_is_counted() {
    let (export, pipe) = export(LINES);
    // As long as `1970-01-01T00:00:00.000+00:00` and the empty columns behind it.
    let line = 29 + 1 + 6 + 1 + 1;
    pipe.limit(Some(2 * line + 3), Some(io::ErrorKind::BrokenPipe));
    export.push(batch(0, 5));
    export.push(batch(5, 5));
    tokio::time::timeout(LONG, export.handle.closed()).await.expect("it is told");
    export.push(batch(10, 1));
    assert_eq!(export.finish().await, Fates { delivered: 2, write_failed: 9, ..Fates::default() });
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_neither_the_queue_nor_the_end() {
    let (export, pipe) = export(LINES);
    pipe.limit(Some(0), None);
    (0..1000).for_each(|n| export.push(batch(n, 1)));
    assert_eq!(export.queue.waiting().records, 1000);
    let fates = export.stop(Duration::from_millis(20), std::future::pending()).await;
    assert_eq!(fates, Fates { undelivered: 1000, ..Fates::default() });
    pipe.limit(None, None);
}

#[tokio::test]
async fn after_a_full_disk_output_goes_on_with_a_whole_line() {
    let (export, pipe) = export(Form::Json);
    pipe.limit(Some(10), Some(io::ErrorKind::StorageFull));
    export.push(batch(0, 5));
    until("the failure", || export.ledger.records.write_failed.get() == 5).await;
    pipe.limit(None, None);
    export.push(batch(5, 1));
    assert_eq!(export.finish().await, Fates { delivered: 1, write_failed: 5, ..Fates::default() });
    let text = pipe.text();
    let last: ExportLogsServiceRequest = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(names(&last.encode_to_vec()), [5]);
}

#[tokio::test]
async fn closed_is_never_told_by_an_export_that_ended_well() {
    let (export, _) = export(LINES);
    let closed = export.handle.closed();
    export.finish().await;
    assert!(tokio::time::timeout(Duration::from_millis(20), closed).await.is_err());
}

#[tokio::test]
async fn a_pipe_whose_reader_went_away_is_told() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let export = export_to(LINES, Raw(writer));
    export.push(batch(0, 5));
    tokio::time::timeout(LONG, export.handle.closed()).await.expect("it is told");
    assert_eq!(export.finish().await, Fates { write_failed: 5, ..Fates::default() });
}

#[tokio::test]
async fn a_pipe_that_does_not_block_gets_everything() {
    let (mut reader, writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let read = std::thread::spawn(move || io::read_to_string(&mut reader).unwrap());
    let export = export_to(LINES, Raw(writer));
    (0..20).for_each(|n| export.push(batch(n * 1000, 1000)));
    assert_eq!(export.finish().await, Fates { delivered: 20_000, ..Fates::default() });
    assert_eq!(read.join().unwrap().lines().count(), 20_000);
}
