//! The TLS settings in, one rustls configuration out, for gRPC and HTTP alike. Reads the files once; errors name them.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use super::BuildError;
use crate::config::Tls;

const CA_FILE: &str = "export.tls.ca_file";
const CERT_FILE: &str = "export.tls.cert_file";
const KEY_FILE: &str = "export.tls.key_file";

/// The client's side of TLS. The system's roots are read only when `https` needs them: they take a megabyte.
pub(super) fn client_config(tls: &Tls, https: bool) -> Result<ClientConfig, BuildError> {
    let roots = match &tls.ca_file {
        Some(path) => file_roots(path)?,
        None if https => system_roots()?,
        None => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&tls.cert_file, &tls.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(CERT_FILE, cert)?;
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|e| file_error(KEY_FILE, key, &e, "private key"))?;
            builder.with_client_auth_cert(chain, private).map_err(|e| BuildError::TlsFile {
                setting: KEY_FILE,
                path: key.clone(),
                why: format!("does not fit the certificate in {}: {e}", cert.display()),
            })
        }
        (Some(_), None) => Err(BuildError::HalfIdentity { given: CERT_FILE, missing: KEY_FILE }),
        (None, Some(_)) => Err(BuildError::HalfIdentity { given: KEY_FILE, missing: CERT_FILE }),
    }
}

fn file_roots(path: &Path) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA_FILE, path)? {
        roots.add(certificate).map_err(|e| BuildError::TlsFile {
            setting: CA_FILE,
            path: path.into(),
            why: format!("holds a certificate that can't be an authority: {e}"),
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, BuildError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry a few certificates that rustls can't read; the rest still serve.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(|| "the system's store is empty".into(), ToString::to_string);
    Err(BuildError::NoRoots { why })
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let error = |e: &pem::Error| file_error(setting, path, e, "certificate");
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|e| error(&e))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| error(&e))?;
    if found.is_empty() { Err(error(&pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn file_error(setting: &'static str, path: &Path, error: &pem::Error, wanted: &str) -> BuildError {
    let why = match error {
        pem::Error::Io(e) => format!("cannot be read: {e}"),
        pem::Error::NoItemsFound => format!("holds no {wanted} in PEM form (-----BEGIN …)"),
        e => format!("is no PEM file: {e}"),
    };
    BuildError::TlsFile { setting, path: path.into(), why }
}
