//! What the log says: an outage twice, a rejection seldom, and nothing that could act on a terminal.

use std::{
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tracing::subscriber::DefaultGuard;

use super::{server::Answer, *};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Listens on this thread, on which the test's runtime runs too.
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self, words: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(words)).map(Into::into).collect()
    }
}

#[tokio::test]
async fn an_outage_is_told_once_when_it_begins_and_once_when_it_ends() {
    let (log, _guard) = Log::listen();
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let server = Server::start(move |_, _| {
        if is_down.load(SeqCst) { Answer::Http(503, vec![], b"busy".to_vec()) } else { Answer::Success(vec![]) }
    })
    .await;
    let export = Export::start(&settings(targets(&server)[1].clone()));
    (0..20).for_each(|n| export.push(batch(n, 1)));
    until("many refusals", || server.requests() > 20).await;
    let began = log.lines("the receiver takes no records");
    assert_eq!(began.len(), 1, "{began:?}");
    assert!(began[0].contains("up to 64.0 MiB; retrying"), "{began:?}");
    assert!(began[0].contains("reason=HTTP 503 Service Unavailable: busy"), "{began:?}");
    assert!(began[0].contains(&server.url()), "{began:?}");
    assert!(log.lines("the receiver is back").is_empty());
    down.store(false, SeqCst);
    export.finish().await;
    let ended = log.lines("the receiver is back");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(ended[0].contains("down_for=") && ended[0].contains("records_waiting=19"), "{ended:?}");
}

#[tokio::test]
async fn rejections_are_no_flood_and_the_receivers_words_are_harmless() {
    let (log, _guard) = Log::listen();
    let server = Server::start(|_, _| Answer::Http(400, vec![], b"\x1b[31mno\nno".to_vec())).await;
    let export = Export::start(&settings(targets(&server)[1].clone()));
    (0..50).for_each(|n| export.push(batch(n, 1)));
    assert_eq!(export.finish().await, Fates { rejected: 50, ..Fates::default() });
    let lines = log.lines("rejected a batch for good");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r"HTTP 400 Bad Request: \x1b[31mno\nno"), "{lines:?}");
}
