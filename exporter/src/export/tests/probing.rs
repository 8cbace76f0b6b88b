//! What `flowtel check` hears of a receiver.

use super::{server::Answer, *};

async fn probe(target: Target) -> Result<String, ProbeError> {
    Exporter::build(&settings(target)).expect("the settings are right").probe(Duration::from_secs(5)).await
}

async fn complaint(target: Target) -> String {
    probe(target).await.expect_err("the receiver is wrong").to_string()
}

#[tokio::test]
async fn a_receiver_that_takes_an_empty_request_is_well() {
    let server = Server::start(|_, _| Answer::Success(vec![])).await;
    for target in targets(&server) {
        let endpoint = probe(target).await.expect("it is well");
        assert!(endpoint.starts_with(&server.url()), "{endpoint}");
    }
    assert!(server.received().iter().all(|request| names(&request.bytes).is_empty()));
}

#[tokio::test]
async fn a_loki_that_misses_records_in_an_empty_request_is_well() {
    let words = b"error at least one valid stream is required for ingestion\n";
    let server = Server::start(|_, _| Answer::Http(422, vec![], words.to_vec())).await;
    probe(targets(&server)[1].clone()).await.expect("it is well");
    let server = Server::start(|_, _| Answer::Http(422, vec![], b"unprocessable\n".to_vec())).await;
    let complaint = complaint(targets(&server)[1].clone()).await;
    assert!(complaint.contains("HTTP 422 Unprocessable Entity: unprocessable"), "{complaint}");
}

#[tokio::test]
async fn a_closed_port_is_told_with_its_remedy() {
    let address = Server::start(|_, _| Answer::Silence).await.address;
    let url = format!("http://{address}");
    for target in [Target::Grpc { url: url.clone() }, Target::Http { url: url.clone() }] {
        let complaint = complaint(target).await;
        assert!(complaint.starts_with(&url), "{complaint}");
        assert!(complaint.contains("nothing listens there"), "{complaint}");
    }
}

#[tokio::test]
async fn a_wrong_path_is_told_with_its_remedy() {
    let server = Server::start(|_, _| Answer::Http(404, vec![], b"404 page not found\n".to_vec())).await;
    let complaint = complaint(targets(&server)[1].clone()).await;
    assert!(complaint.contains("HTTP 404 Not Found: 404 page not found (the path is wrong"), "{complaint}");
}

#[tokio::test]
async fn a_port_of_the_other_protocol_is_told_with_its_remedy() {
    let (address, _task) = server::garbage(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let complaint_of_grpc = complaint(Target::Grpc { url: format!("http://{address}") }).await;
    assert!(complaint_of_grpc.contains("Set export.protocol to http/protobuf"), "{complaint_of_grpc}");
    // A settings frame, as each HTTP/2 server begins.
    let (address, _task) = server::garbage(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    let complaint_of_http = complaint(Target::Http { url: format!("http://{address}") }).await;
    assert!(complaint_of_http.contains("Set export.protocol to grpc"), "{complaint_of_http}");
}

#[tokio::test]
async fn a_port_without_tls_is_told_with_its_remedy() {
    let (address, _task) = server::garbage(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let certificates = super::tls::Certificates::new();
    let url = format!("https://{address}");
    for target in [Target::Grpc { url: url.clone() }, Target::Http { url }] {
        let settings = Settings { tls: certificates.trust(), ..settings(target) };
        let exporter = Exporter::build(&settings).expect("the settings are right");
        let complaint = exporter.probe(LONG).await.expect_err("it speaks no TLS").to_string();
        assert!(complaint.contains("use http:// in the endpoint"), "{complaint}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_limit() {
    let server = Server::start(|_, _| Answer::Silence).await;
    let exporter = Exporter::build(&settings(targets(&server)[0].clone())).expect("the settings are right");
    let error = exporter.probe(Duration::from_millis(50)).await.expect_err("it is silent");
    assert!(error.retryable);
    assert!(error.to_string().contains("no answer within 50ms"), "{error}");
}
