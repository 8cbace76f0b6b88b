//! TLS with certificates of the test's own authority, both ways.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

use super::{server::Answer, *};
use crate::config::Tls;

/// An authority, and files for a client.
pub(super) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let this = Self { authority, dir };
        let (certificate, key) = this.sign("client");
        std::fs::write(this.file("client.pem"), certificate.pem()).unwrap();
        std::fs::write(this.file("client.key"), key.serialize_pem()).unwrap();
        this
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.into()]).unwrap().signed_by(&key, &self.authority).unwrap();
        (certificate, key)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn trust(&self) -> Tls {
        Tls { ca_file: Some(self.file("ca.pem")), ..Tls::default() }
    }

    fn identity(&self) -> Tls {
        Tls { cert_file: Some(self.file("client.pem")), key_file: Some(self.file("client.key")), ..self.trust() }
    }

    async fn server(&self, name: &str, wants_client: bool) -> Server {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let provider = Arc::new(ring::default_provider());
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            )
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.sign(name);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let address = "127.0.0.1:0".parse().unwrap();
        Server::bind(address, Duration::ZERO, Some(config), |_, _| Answer::Success(vec![])).await
    }
}

async fn probe(server: &Server, tls: &Tls) -> Vec<Result<String, String>> {
    let mut answers = Vec::new();
    for target in targets(server) {
        let settings = Settings { tls: tls.clone(), ..settings(target) };
        let exporter = Exporter::build(&settings).expect("the settings are right");
        answers.push(exporter.probe(LONG).await.map_err(|e| e.to_string()));
    }
    answers
}

fn assert_all_complain(answers: Vec<Result<String, String>>, words: &str) {
    for answer in answers {
        let complaint = answer.expect_err("it must not work");
        assert!(complaint.contains(words), "{complaint}");
    }
}

#[tokio::test]
async fn a_receiver_of_a_trusted_authority_gets_the_records() {
    let certificates = Certificates::new();
    let server = certificates.server("localhost", false).await;
    for target in targets(&server) {
        let export = Export::start(&Settings { tls: certificates.trust(), ..settings(target) });
        export.push(batch(0, 3));
        assert_eq!(export.finish().await, Fates { delivered: 3, ..Fates::default() });
    }
}

#[tokio::test]
async fn a_receiver_of_another_authority_gets_none() {
    let server = Certificates::new().server("localhost", false).await;
    let answers = probe(&server, &Certificates::new().trust()).await;
    assert_all_complain(answers, "set export.tls.ca_file");
}

#[tokio::test]
async fn a_receiver_with_another_name_gets_none() {
    let certificates = Certificates::new();
    let server = certificates.server("example.com", false).await;
    assert_all_complain(probe(&server, &certificates.trust()).await, "for another name");
}

#[tokio::test]
async fn a_receiver_that_wants_a_client_certificate_gets_it_or_is_told() {
    let certificates = Certificates::new();
    let server = certificates.server("localhost", true).await;
    let answers = probe(&server, &certificates.identity()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_all_complain(probe(&server, &certificates.trust()).await, "set export.tls.cert_file and key_file");
}

#[test]
fn a_bad_file_is_named_before_anything_starts() {
    let certificates = Certificates::new();
    let error = |tls: Tls| {
        let settings = Settings { tls, ..settings(Target::Grpc { url: "https://localhost:1".into() }) };
        Exporter::build(&settings).map(|_| ()).expect_err("a file is bad").to_string()
    };
    let missing = error(Tls { ca_file: Some("/none/ca.pem".into()), ..Tls::default() });
    assert!(missing.starts_with("export.tls.ca_file /none/ca.pem: cannot be read: No such file"), "{missing}");

    let no_certificate = error(Tls { ca_file: Some(certificates.file("client.key")), ..Tls::default() });
    assert!(no_certificate.contains("client.key: holds no certificate"), "{no_certificate}");

    let half = error(Tls { key_file: None, ..certificates.identity() });
    assert!(half.contains("export.tls.cert_file is set, but not export.tls.key_file"), "{half}");

    let other_key = certificates.file("other.key");
    std::fs::write(&other_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let unfit = error(Tls { key_file: Some(other_key), ..certificates.identity() });
    assert!(unfit.contains("other.key: does not fit the certificate in"), "{unfit}");
}
