//! A directory in; an authority, a receiver's certificate for 127.0.0.1 and a client's in it, which can be replaced by others.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Files of TLS: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub struct Certificates(PathBuf);

// === impl Certificates

impl Certificates {
    /// Makes the directory, and the first ones.
    ///
    /// # Errors
    /// It can't be made or written to.
    pub fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir(&directory)?;
        let this = Self(directory);
        this.renew()?;
        Ok(this)
    }

    /// Puts others in their place, of another authority: each by a rename, as certbot and Kubernetes do it.
    ///
    /// # Errors
    /// They can't be written.
    pub fn renew(&self) -> Result<()> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        self.put("ca.pem", &authority.pem())?;
        for (who, name) in [("server", Ipv4Addr::LOCALHOST.to_string()), ("client", "flowtel".into())] {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new([name])?.signed_by(&key, &authority)?;
            self.put(&format!("{who}.pem"), &certificate.pem())?;
            self.put(&format!("{who}.key"), &key.serialize_pem())?;
        }
        Ok(())
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        let aside = self.0.join(format!("{name}.new"));
        fs::write(&aside, text)?;
        Ok(fs::rename(&aside, self.file(name))?)
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.0
    }
}
