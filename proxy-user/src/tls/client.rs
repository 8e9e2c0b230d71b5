//! Certificates of clients: who must show one, and what servers are told of it.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::CertificateDer,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::model::{ClientAuth, Need};

pub const VERIFIED: HeaderName = HeaderName::from_static("x-client-cert-verified");
pub const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// Longer subjects are cut: a header is no place for a novel.
const LONGEST_SUBJECT: usize = 512;

/// By what a client was let in, to be compared: the same authorities and the same need have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Policy(u64);

/// What is told of a client's certificate. It was verified: others don't get through the handshake.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    subject: HeaderValue,
    fingerprint: HeaderValue,
}

// === impl Policy ===

impl Policy {
    pub fn of(clients: Option<&ClientAuth>) -> Self {
        let Some(clients) = clients else { return Self::default() };
        let mut hasher = DefaultHasher::new();
        clients.need.hash(&mut hasher);
        for root in &clients.authorities.0.roots {
            root.subject.as_ref().hash(&mut hasher);
            root.subject_public_key_info.as_ref().hash(&mut hasher);
            root.name_constraints.as_deref().hash(&mut hasher);
        }
        // 0 means that nobody is asked.
        Self(hasher.finish().max(1))
    }

    /// The same on another host of the same release.
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// What checks the certificates of clients.
///
/// # Errors
/// When none of the authorities is usable.
pub fn verifier(clients: Option<&ClientAuth>) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let Some(clients) = clients else { return Ok(Arc::new(NoClientAuth)) };
    let builder = WebPkiClientVerifier::builder_with_provider(
        clients.authorities.0.clone(),
        Arc::new(aws_lc_rs::default_provider()),
    );
    let builder = match clients.need {
        Need::Require => builder,
        Need::Request => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| rustls::Error::General(error.to_string()))
}

// === impl ClientCertificate ===

impl ClientCertificate {
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let mut fingerprint = String::with_capacity(64);
        for byte in ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, leaf).as_ref() {
            // Writing to a String can't fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Some(Self {
            subject: plain(&parsed.subject().to_string()),
            fingerprint: HeaderValue::try_from(fingerprint).ok()?,
        })
    }
}

/// Sets what servers are told, in the place of whatever the client has sent under these names.
pub fn tell(headers: &mut HeaderMap, certificate: Option<&ClientCertificate>) {
    match certificate {
        Some(certificate) => {
            headers.insert(VERIFIED, HeaderValue::from_static("SUCCESS"));
            headers.insert(SUBJECT, certificate.subject.clone());
            headers.insert(FINGERPRINT, certificate.fingerprint.clone());
        }
        None => {
            headers.insert(VERIFIED, HeaderValue::from_static("NONE"));
        }
    }
}

/// A header's value of visible ASCII: anything else, and what would make it ambiguous, as `%XX` of its UTF-8.
fn plain(text: &str) -> HeaderValue {
    let mut plain = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => plain.push(char::from(byte)),
            other => {
                let _ = write!(plain, "%{other:02X}");
            }
        }
    }
    plain.truncate(LONGEST_SUBJECT);
    HeaderValue::try_from(plain.trim()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn told(name: &str) -> HeaderMap {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let own = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(VERIFIED, HeaderValue::from_static("FORGED"));
        tell(&mut headers, ClientCertificate::of(&[own.der().clone()]).as_ref());
        headers
    }

    #[test]
    fn a_server_is_told_the_subject_and_the_fingerprint() {
        let headers = told("origin-pull");
        assert_eq!(headers[VERIFIED], "SUCCESS");
        assert!(headers[SUBJECT].to_str().unwrap().contains("CN=origin-pull"), "{headers:?}");
        assert_eq!(headers[FINGERPRINT].len(), 64);
        assert_eq!(headers.get_all(VERIFIED).iter().count(), 1);
    }

    #[test]
    fn what_a_subject_holds_can_break_no_header() {
        let headers = told("a\r\nX-Evil: 1\u{e9}%");
        let subject = headers[SUBJECT].to_str().unwrap();
        assert!(subject.contains("a%0D%0AX-Evil: 1%C3%A9%25"), "{subject}");
        assert!(told(&"x".repeat(5000))[SUBJECT].len() <= LONGEST_SUBJECT);
    }

    #[test]
    fn a_client_without_a_certificate_is_told_as_such() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, None);
        assert_eq!(headers[VERIFIED], "NONE");
        assert_eq!(headers.len(), 1);
    }
}
