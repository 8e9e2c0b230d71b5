//! The valid `tls` of entrypoints and services, and what goes with it.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;

use super::HostMatch;
use crate::tls::certificates::{Certificate, Certificates, ClientAuthorities, ServerAuthorities};

/// `tls = { certificates = "/etc/weir/certs", client_ca = "…" }`
#[derive(Debug, Clone)]
pub struct EntrypointTls {
    /// Those of files. Empty only where there is `store` or `acme`.
    pub certificates: Arc<Certificates>,
    /// Also those of the fleet's store. Never without [`super::Fleet::keys`].
    pub store: bool,
    /// Names whose certificates are ordered, in lower case, each once. Never without [`super::Config::acme`].
    pub acme: Vec<Arc<str>>,
    /// Default: the first certificate.
    pub unknown_host: UnknownHost,
    /// So long before its end a certificate is reported. Default 30 days.
    pub expiry_warning: Duration,
    /// Default 1.2; always 1.3 with `modern` cipher suites.
    pub min_version: TlsVersion,
    pub ciphers: CipherSuites,
    /// By preference; at least one, each once.
    pub alpn: Vec<Alpn>,
    /// Whose certificates clients show; `None`: nobody is asked for one.
    pub clients: Option<ClientAuth>,
    /// Tell servers of the client's certificate. Default false.
    pub client_headers: bool,
    /// What differs for hosts; each host once, always exact or a wildcard.
    pub hosts: Vec<HostTls>,
}

/// `host."app.example.com" = { client_ca = "…" }`
#[derive(Debug, Clone)]
pub struct HostTls {
    pub host: HostMatch,
    pub clients: Option<ClientAuth>,
}

/// `client_ca = "…", client_auth = "require"`
#[derive(Debug, Clone)]
pub struct ClientAuth {
    pub authorities: Arc<ClientAuthorities>,
    pub need: Need,
}

/// What becomes of a client without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It is refused. The default.
    Require,
    /// It is served.
    Request,
}

/// What a client gets that asks for a name which no certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownHost {
    /// The first certificate.
    Default,
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherSuites {
    Intermediate,
    /// Those of TLS 1.3 alone.
    Modern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    H2,
    Http11,
}

/// `redirect = "https"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectToHttps {
    /// `None`: 443, which URLs leave out.
    pub port: Option<u16>,
    /// 301, 302, 307 or 308. Default 308.
    pub status: http::StatusCode,
    /// Paths that are served all the same, with what is below them.
    pub except: Vec<Arc<str>>,
}

/// `tls = { server_name = "app.example.com", ca = "…", insecure = false }`
#[derive(Debug, Clone)]
pub struct ServiceTls {
    /// The name that is sent as SNI and that the server's certificate must carry.
    pub server_name: ServerName<'static>,
    /// Whom to trust: the file's authorities, or the system's.
    pub authorities: ServerAuthorities,
    /// What Weir shows to servers that ask for it.
    pub certificate: Option<Arc<Certificate>>,
}

impl Alpn {
    pub fn name(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Http11 => "http/1.1",
        }
    }
}

impl ServiceTls {
    /// Whether both would do the same: then connections, and the sessions to resume, outlive a reload.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let chain = |tls: &Self| tls.certificate.as_ref().map(|certificate| certificate.key.cert.clone());
        self.server_name == other.server_name
            && self.authorities.same_as(&other.authorities)
            && chain(self) == chain(other)
    }
}
