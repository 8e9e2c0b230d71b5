//! The handshake stage of a connection: whose rules hold, whether they are kept, and what is known afterwards.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig,
    server::{Acceptor, ClientHello},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use super::{
    client::{ClientCertificate, Policy},
    entrypoint::{Rules, Terminator},
    names::Choice,
};
use crate::acme::{ALPN, Board};

/// What a finished handshake tells of a connection.
#[derive(Debug)]
pub struct Session {
    /// The host that the client asked for in its hello, in lower case.
    pub server_name: Option<Box<str>>,
    /// What it was shown.
    shown: Option<Choice>,
    policy: Policy,
    pub client: Option<ClientCertificate>,
    pub http2: bool,
}

impl Terminator {
    /// Shakes hands. The caller bounds the time. `None`: it was an ACME authority that asked for a proof, and got it.
    ///
    /// # Errors
    /// When the client breaks off, speaks no TLS, or keeps to no rule of ours.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Option<(TlsStream<S>, Session)>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let challenges = self.challenges();
        if challenges.is_none() && !self.depends_on_name() {
            let rules = self.everywhere();
            let stream = TlsAcceptor::from(rules.config.clone()).accept(stream).await?;
            let session = self.session(&stream, rules);
            return Ok(Some((stream, session)));
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if let Some(proof) = challenges.and_then(|board| proof(board, &hello.client_hello())) {
            // The certificate is all that the authority wants to see (RFC 8737, section 3).
            hello.into_stream(proof).await?.shutdown().await?;
            return Ok(None);
        }
        let rules: Arc<Rules> = match hello.client_hello().server_name() {
            Some(name) => self.rules(name).clone(),
            None => self.everywhere().clone(),
        };
        let stream = hello.into_stream(rules.config.clone()).await?;
        let session = self.session(&stream, &rules);
        Ok(Some((stream, session)))
    }

    fn session<S>(&self, stream: &TlsStream<S>, rules: &Rules) -> Session {
        let connection = stream.get_ref().1;
        let server_name = connection.server_name();
        Session {
            shown: self.choice(server_name),
            server_name: server_name.map(Into::into),
            policy: rules.policy,
            client: connection.peer_certificates().and_then(ClientCertificate::of),
            http2: connection.alpn_protocol() == Some(b"h2"),
        }
    }
}

/// With what an ACME authority is answered, if this is one.
fn proof(board: &Board, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
    let mut protocols = hello.alpn()?;
    let theirs = protocols.next() == Some(ALPN) && protocols.next().is_none();
    theirs.then(|| board.challenge_config(hello.server_name()?)).flatten()
}

// === impl Session ===

impl Session {
    /// Whether a request for `host` (in lower case, without a port) may be answered on this connection: the client must
    /// have been let in by the rules that hold for the host now, and have been shown a certificate that is good for it.
    /// A client that named no host was shown the default, and has to judge that itself.
    pub fn may_ask_for(&self, host: &str, terminator: &Terminator) -> bool {
        let named = match &self.server_name {
            // HTTP/1.0 names no host in its requests.
            Some(name) => host.is_empty() || **name == *host || self.covers(host),
            None => true,
        };
        named && terminator.rules(host).policy == self.policy
    }

    fn covers(&self, host: &str) -> bool {
        // Which of the kinds of keys it was isn't known here: all must cover.
        self.shown.as_ref().is_some_and(|shown| shown.iter().all(|shown| shown.covers(host)))
    }
}
