//! What a request looks like on the wire.

use super::{server::Answer, *};
use crate::config::{Compression, Secret};

async fn delivered(target: impl Fn(&Server) -> Target, compression: Compression) -> (Batch, server::Received) {
    let server = Server::start(|_, _| Answer::Success(vec![])).await;
    let mut settings = Settings { compression, ..settings(target(&server)) };
    settings.headers.insert("x-scope-orgid".into(), Secret::new("tenant"));
    let export = Export::start(&settings);
    let batch = batch(0, 500);
    export.push(batch.clone());
    assert_eq!(export.finish().await, Fates { delivered: 500, ..Fates::default() });
    (batch, server.received().remove(0))
}

fn grpc(server: &Server) -> Target {
    Target::Grpc { url: server.url() }
}

fn http(server: &Server) -> Target {
    Target::Http { url: format!("{}/otlp/v1/logs", server.url()) }
}

#[tokio::test]
async fn grpc_sends_the_bytes_as_they_are_with_metadata_and_user_agent() {
    let (batch, received) = delivered(grpc, Compression::None).await;
    assert_eq!(received.bytes, batch.bytes);
    assert_eq!(received.path, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    assert_eq!(received.headers["x-scope-orgid"], "tenant");
    let agent = received.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with(&format!("{USER_AGENT} tonic/")), "{agent}");
}

#[tokio::test]
async fn http_sends_the_bytes_as_they_are_with_headers_and_user_agent() {
    let (batch, received) = delivered(http, Compression::None).await;
    assert_eq!(received.bytes, batch.bytes);
    assert_eq!(received.path, "/otlp/v1/logs");
    assert_eq!(received.headers["content-type"], "application/x-protobuf");
    assert_eq!(received.headers["x-scope-orgid"], "tenant");
    assert_eq!(received.headers["user-agent"], USER_AGENT);
}

#[tokio::test]
async fn gzip_or_zstd_is_sent_when_it_is_configured() {
    for (compression, word) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let (batch, received) = delivered(grpc, compression).await;
        assert_eq!(received.headers["grpc-encoding"], word);
        // The collector's answer comes back compressed as the request was.
        assert!(received.headers["grpc-accept-encoding"].to_str().expect("text").contains(word));
        assert_eq!(received.bytes, batch.bytes);
        let (batch, received) = delivered(http, compression).await;
        assert_eq!(received.headers["content-encoding"], word);
        assert_eq!(received.bytes, batch.bytes);
    }
}

#[tokio::test]
async fn headers_of_a_file_win_are_read_again_when_it_changed_and_stay_when_it_is_broken() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("headers");
    let write = |text: &str| {
        // In one step, as secrets are renewed.
        let aside = directory.path().join("aside");
        std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &file)).expect("written");
    };
    for target in [grpc, http] {
        write("authorization: Bearer one\n");
        let server = Server::start(|_, _| Answer::Success(vec![])).await;
        let mut settings = Settings { headers_file: Some(file.clone()), ..settings(target(&server)) };
        settings.headers.insert("authorization".into(), Secret::new("Bearer fixed"));
        settings.headers.insert("x-scope-orgid".into(), Secret::new("tenant"));
        let export = Export::start(&settings);
        let mut sent = 0;
        let mut token = async || {
            export.push(batch(sent, 1));
            sent += 1;
            until("the request", || server.received().len() as u64 == sent).await;
            let last = server.received().pop().expect("one");
            assert_eq!(last.headers["x-scope-orgid"], "tenant");
            last.headers["authorization"].to_str().expect("text").to_owned()
        };
        assert_eq!(token().await, "Bearer one");
        write("authorization: Bearer two\n");
        let deadline = tokio::time::Instant::now() + LONG;
        while token().await != "Bearer two" {
            assert!(tokio::time::Instant::now() < deadline, "the file is never read again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for broken in [Some("no header"), None] {
            match broken {
                Some(text) => write(text),
                None => std::fs::remove_file(&file).expect("it was there"),
            }
            tokio::time::sleep(Duration::from_millis(1100)).await;
            assert_eq!(token().await, "Bearer two");
        }
        export.finish().await;
    }
}

#[test]
fn what_would_make_each_request_fail_is_told_before_anything_starts() {
    let error = |settings: &Settings| Exporter::build(settings).map(|_| ()).expect_err("it is wrong").to_string();
    let url = |url: &str| error(&settings(Target::Http { url: url.into() }));
    assert!(url("ftp://user:secret@host/").contains("the scheme is neither http nor https"));
    assert!(!url("ftp://user:secret@host/").contains("secret"));
    assert!(!url("user:secret@host").contains("secret"));
    assert!(url("").contains("expected http://HOST:PORT"));
    let file = |path: &str| {
        error(&Settings { headers_file: Some(path.into()), ..settings(Target::Http { url: "http://h".into() }) })
    };
    assert!(file("/dev/zero").contains("cannot be read: this is no regular file"));
    assert!(file("/nonexistent/headers").contains("export.headers_file /nonexistent/headers: cannot be read: No such"));
    let mut header = settings(Target::Grpc { url: "http://localhost:4317".into() });
    header.headers.insert("authorization".into(), Secret::new("a\nb"));
    assert!(error(&header).contains("\"authorization\""));
    assert!(!error(&header).contains("a\nb"));
}
