//! TLS towards servers: whom to trust, which name to ask for.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::model::{ServerProtocol, ServiceTls},
    tls::certificates::ServerAuthorities,
};

/// How to speak TLS to the servers of a service. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    /// For each protocol that may be wanted.
    http1: TlsConnector,
    http2: TlsConnector,
    auto: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// # Errors
    /// When the system's authorities can't be had.
    pub fn new(tls: &ServiceTls) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &tls.authorities {
            ServerAuthorities::System => builder.with_platform_verifier()?,
            ServerAuthorities::Own(roots) => builder.with_root_certificates(roots.clone()),
            ServerAuthorities::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider)))
            }
        };
        // Sessions are resumed (by default: 256 of them, in memory), which the snapshot keeps over a reload.
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key.clone()))),
        };
        let mut offering = |protocols: &[&str]| {
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            TlsConnector::from(Arc::new(config.clone()))
        };
        Ok(Self {
            http1: offering(&["http/1.1"]),
            http2: offering(&["h2"]),
            auto: offering(&["h2", "http/1.1"]),
            name: tls.server_name.clone(),
        })
    }

    /// Whether both are one and the same, or neither is there.
    pub fn same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one.auto.config(), other.auto.config()),
            _ => false,
        }
    }

    /// # Errors
    /// When the handshake fails: the server isn't trusted, doesn't carry the name, or doesn't speak TLS.
    pub async fn connect<S>(&self, stream: S, protocol: ServerProtocol) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = match protocol {
            ServerProtocol::Http1 => &self.http1,
            ServerProtocol::Http2 => &self.http2,
            ServerProtocol::Auto => &self.auto,
        };
        connector.connect(self.name.clone(), stream).await
    }

    /// A session for who drives it without tokio, and speaks no HTTP in it.
    ///
    /// # Errors
    /// When rustls refuses the settings.
    pub fn session(&self) -> Result<ClientConnection, rustls::Error> {
        let mut config = ClientConfig::clone(self.auto.config());
        config.alpn_protocols.clear();
        ClientConnection::new(Arc::new(config), self.name.clone())
    }

    /// The name, as a Host field carries it.
    pub fn host(&self) -> String {
        self.name.to_str().into_owned()
    }
}

/// `insecure = true`: the connection is encrypted, but whoever answers is believed. Signatures are still checked,
/// so that a broken peer shows.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
