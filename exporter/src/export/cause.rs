//! Why no answer came: a client's chain of errors in, one line and a remedy out.

use std::{error::Error, io};

use tokio_rustls::rustls;

use super::{
    text::{WORDS, printable},
    verdict::Reason,
    wire::budget::TooMuch,
};

const TOO_MUCH: &str = "what answers there is broken, or means harm: check what listens at the endpoint";

/// The reason in a chain of errors, the innermost being the most telling.
pub(super) fn reason(error: &(dyn Error + 'static), remedy_for_garbage: &'static str) -> Reason {
    let (mut chain, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        chain.push(error);
        next = error.source();
    }
    let mut text = String::new();
    for part in chain.iter().map(ToString::to_string) {
        // Many errors repeat their source in their own words.
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
    }
    let remedy = chain
        .iter()
        .find_map(|e| e.downcast_ref::<rustls::Error>().or_else(|| inside_io(*e)))
        .and_then(tls_remedy)
        .or_else(|| chain.iter().find_map(|e| io_remedy(e.downcast_ref()?)))
        .or_else(|| word_remedy(&text, remedy_for_garbage));
    Reason::new(printable(&text, WORDS), remedy)
}

/// The TLS error that an I/O error wraps, as deep as it is: each layer of a connector wraps it once more, and
/// [`Error::source`] skips what an I/O error wraps.
fn inside_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner: &(dyn Error + 'static) = error.downcast_ref::<io::Error>()?.get_ref()?;
    inner.downcast_ref().or_else(|| inside_io(inner))
}

fn tls_remedy(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
    match error {
        // A bad signature is what another authority of the same name gives.
        Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => Some(
            "the receiver's certificate is signed by an authority that is not trusted: set export.tls.ca_file to it",
        ),
        Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            Some("the receiver's certificate is for another name: use that name in the endpoint")
        }
        Tls::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            Some("the receiver's certificate has expired, or this host's clock is wrong")
        }
        Tls::InvalidMessage(_) => Some("the port does not speak TLS: use http:// in the endpoint"),
        Tls::AlertReceived(
            Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA | Alert::HandshakeFailure,
        ) => Some("the receiver wants a client certificate it knows: set export.tls.cert_file and key_file"),
        _ => None,
    }
}

fn io_remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("nothing listens there: is the receiver running, is the port right?"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some("there is no route to it"),
        _ => None,
    }
}

/// Some libraries tell these apart by their words only.
fn word_remedy(text: &str, remedy_for_garbage: &'static str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&[TooMuch::WORDS]) {
        Some(TOO_MUCH)
    } else if has(&["dns error", "failed to lookup address"]) {
        Some("the host's name can't be resolved")
    } else if has(&["CertificateRequired", "certificate required"]) {
        Some("the receiver wants a client certificate: set export.tls.cert_file and key_file")
    } else if has(&["http2 error", "h2 protocol error", "invalid HTTP version", "InvalidMessage"]) {
        Some(remedy_for_garbage)
    } else {
        None
    }
}
