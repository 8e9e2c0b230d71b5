//! Certificates and authorities as they are read from files: whole, matching and usable, or a fault that says why.
//!
//! Reading happens while the configuration is validated, never on the path of a connection.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{RootCertStore, sign::CertifiedKey};

/// The certificates of an entrypoint, chosen by SNI.
#[derive(Debug)]
pub struct Certificates {
    /// In the order of their file names; the first is the default, for a client that names no host or an unknown one.
    pub entries: Vec<Certificate>,
}

/// A certificate chain with its key, and the names that it is good for.
#[derive(Debug)]
pub struct Certificate {
    pub file: PathBuf,
    /// The subject's DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    pub key: Arc<CertifiedKey>,
}

/// Whose client certificates an entrypoint accepts.
#[derive(Debug)]
pub struct ClientAuthorities(pub Arc<RootCertStore>);

/// Whose server certificates a service accepts.
#[derive(Debug, Clone)]
pub enum ServerAuthorities {
    /// The operating system's.
    System,
    /// Those of one file.
    Own(Arc<RootCertStore>),
    /// Anybody's: `insecure = true`. A standing warning.
    Anybody,
}

/// Why a certificate file can't be used. `Display` is a sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct CertificateFault {
    pub sentence: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Certificates {
    /// Reads `path`: a PEM file with chain and key, or a folder of `NAME.crt`/`NAME.pem` with `NAME.key` beside each
    /// (a PEM that carries its own key needs none).
    ///
    /// # Errors
    /// When nothing usable is there, or any file in it can't be read, parsed or paired: all such faults at once.
    pub fn read(path: &Path) -> Result<Self, Vec<CertificateFault>> {
        let _ = path;
        todo!()
    }
}

/// Reads the authorities of a PEM file.
///
/// # Errors
/// When the file can't be read, or holds no certificate.
pub fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, CertificateFault> {
    let _ = path;
    todo!()
}
