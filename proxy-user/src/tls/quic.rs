//! TLS for HTTP/3: an entrypoint's rules as QUIC wants to have them.
//!
//! Whose rules hold depends on the name in the client's hello, and rustls has nothing for QUIC that waits for a hello. So
//! [`Undecided`] begins with the rules for all, keeps the hello back until it is whole, and gives it to the session that
//! the name leads to. Certificates are chosen, and tickets made, by the very rules of the TCP side.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use quinn::{
    ConnectionId, Side, TransportErrorCode,
    crypto::{
        ExportKeyingMaterialError, HandshakeTokenKey, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
        Session, UnsupportedVersion,
        rustls::{NoInitialCipherSuite, QuicServerConfig},
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};
use rustls::server::Acceptor;

use super::{client::Policy, entrypoint::Terminator};

/// What HTTP/3 is called in TLS.
const ALPN: &[u8] = b"h3";

/// A hello of a browser has some 2 KiB.
const LONGEST_HELLO: usize = 16 * 1024;

/// The rules of an entrypoint, for QUIC.
pub struct ByName {
    terminator: Arc<Terminator>,
    everywhere: Arc<QuicServerConfig>,
    by_policy: HashMap<Policy, Arc<QuicServerConfig>>,
}

/// A handshake of which the rules are not known yet.
struct Undecided {
    rules: Arc<ByName>,
    version: u32,
    parameters: TransportParameters,
    /// Until the hello is whole, one that nothing was told.
    session: Box<dyn Session>,
    hello: Option<Vec<u8>>,
}

impl ByName {
    /// # Errors
    /// When the ciphers don't have the one that QUIC begins with. All presets have it.
    pub fn new(terminator: Arc<Terminator>) -> Result<Self, NoInitialCipherSuite> {
        let by_policy = terminator
            .all_rules()
            .map(|rules| {
                let mut config = (*rules.config).clone();
                config.alpn_protocols = vec![ALPN.to_vec()];
                // Early data can be replayed.
                config.max_early_data_size = 0;
                Ok((rules.policy, Arc::new(QuicServerConfig::try_from(config)?)))
            })
            .collect::<Result<HashMap<_, _>, NoInitialCipherSuite>>()?;
        let everywhere = by_policy[&terminator.everywhere().policy].clone();
        Ok(Self { terminator, everywhere, by_policy })
    }
}

/// Seals the tokens by which clients show that they are where they say. The workers share it.
pub fn token_key() -> Result<Arc<dyn HandshakeTokenKey>, rustls::Error> {
    static KEY: OnceLock<Arc<dyn HandshakeTokenKey>> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let mut secret = vec![0; 64];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    let secret = SECRET.get_or_init(|| secret);
    let key = aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, &[]).extract(secret);
    Ok(KEY.get_or_init(|| Arc::new(key)).clone())
}

/// What [`token_key`] is made of; empty: nobody has asked for it.
static SECRET: OnceLock<Vec<u8>> = OnceLock::new();

/// For a successor.
pub fn token_secret() -> &'static [u8] {
    SECRET.get().map_or(&[], Vec::as_slice)
}

/// Goes on with a predecessor's, before anybody has asked for one.
pub fn take_token_secret(secret: Vec<u8>) {
    if !secret.is_empty() {
        let _ = SECRET.set(secret);
    }
}

impl ServerConfig for ByName {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.everywhere.initial_keys(version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.everywhere.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        let session = self.everywhere.clone().start_session(version, parameters);
        if !self.terminator.depends_on_name() {
            return session;
        }
        let parameters = *parameters;
        Box::new(Undecided { rules: self, version, parameters, session, hello: Some(Vec::new()) })
    }
}

impl Undecided {
    /// The hello is whole: by whose rules it goes on.
    fn decide(&mut self, hello: &[u8]) {
        // Whatever is wrong with a hello is found again, and told to the client, by the session that gets it.
        if let Some(name) = server_name(hello) {
            let policy = self.rules.terminator.rules(&name).policy;
            if let Some(config) = self.rules.by_policy.get(&policy) {
                self.session = config.clone().start_session(self.version, &self.parameters);
            }
        }
    }
}

/// The name that a hello asks for, in lower case.
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut acceptor = Acceptor::default();
    // QUIC has no records, but the acceptor knows nothing else. They hold 16 KiB each.
    for piece in hello.chunks(LONGEST_HELLO) {
        let length = u16::try_from(piece.len()).ok()?.to_be_bytes();
        let record = [&[22, 3, 1], &length[..], piece].concat();
        acceptor.read_tls(&mut &record[..]).ok()?;
    }
    let accepted = acceptor.accept().ok()??;
    accepted.client_hello().server_name().map(str::to_ascii_lowercase).map(Into::into)
}

/// Whether a handshake message is whole: a byte for its kind, three for its length.
fn is_whole(message: &[u8]) -> bool {
    let [_, a, b, c, rest @ ..] = message else { return false };
    rest.len() >= u32::from_be_bytes([0, *a, *b, *c]) as usize
}

impl Session for Undecided {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(hello) = &mut self.hello else { return self.session.read_handshake(bytes) };
        hello.extend_from_slice(bytes);
        if !is_whole(hello) {
            if hello.len() > LONGEST_HELLO {
                return Err(TransportError {
                    code: TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                    frame: None,
                    reason: "the hello is too long".to_owned(),
                });
            }
            return Ok(false);
        }
        let hello = self.hello.take().unwrap_or_default();
        self.decide(&hello);
        self.session.read_handshake(&hello)
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buffer: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(buffer)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}
