//! The valid `[acme]`.

use crate::tls::certificates::ServerAuthorities;

/// Where certificates are ordered, for the names that entrypoints list.
#[derive(Debug, Clone)]
pub struct Acme {
    /// `https`. Default: Let's Encrypt's.
    pub directory: http::Uri,
    /// Mail addresses.
    pub contact: Vec<String>,
    /// Whose certificate the directory's server may show.
    pub authorities: ServerAuthorities,
    /// Default HTTP-01.
    pub challenge: AcmeChallenge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    Http01,
    TlsAlpn01,
}

impl Acme {
    /// Whether both would do the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.directory == other.directory
            && self.contact == other.contact
            && self.authorities.same_as(&other.authorities)
            && self.challenge == other.challenge
    }
}
