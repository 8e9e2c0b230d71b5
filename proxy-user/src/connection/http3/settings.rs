//! HTTP/3 of an entrypoint as it runs: how QUIC is spoken there, and how clients learn of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::{
    address::EntrypointAddr,
    config::model::Limits,
    tls::{
        entrypoint::Terminator,
        quic::{self, ByName},
    },
};

/// A client is asked so often whether it is there. Many address translators forget a UDP flow after 30 s.
const PING: Duration = Duration::from_secs(25);

/// Taken of one request's body before somebody wants it.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Taken over one connection, and sent without an acknowledgement.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A control stream and QPACK's two, and some that a client may try out.
const ONE_WAY_STREAMS: u32 = 8;

/// Connections that nobody has looked at yet, per worker and address. They are looked at at once.
const INCOMING: usize = 1024;

/// Bytes that may come for each of them meanwhile.
const INCOMING_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Http3 {
    pub config: Arc<quinn::ServerConfig>,
    /// By port.
    alt_svc: Vec<(u16, HeaderValue)>,
}

impl Http3 {
    /// # Errors
    /// When there is no randomness, or no cipher that QUIC begins with.
    pub fn new(tls: Arc<Terminator>, bind: &[SocketAddr], limits: &Limits) -> Result<Self, rustls::Error> {
        let by_name = ByName::new(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = quinn::ServerConfig::new(Arc::new(by_name), quic::token_key()?);
        config
            .transport_config(Arc::new(transport(limits)))
            // Who came in was judged, counted and perhaps trusted by its address: a connection stays where it began.
            .migration(false)
            .max_incoming(INCOMING)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING as u64 * INCOMING_BYTES / 4);
        let mut alt_svc: Vec<(u16, HeaderValue)> = Vec::new();
        for port in bind.iter().map(SocketAddr::port) {
            if !alt_svc.iter().any(|(known, _)| *known == port)
                && let Ok(value) = HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400"))
            {
                alt_svc.push((port, value));
            }
        }
        Ok(Self { config: Arc::new(config), alt_svc })
    }

    /// What clients that came over TCP are told.
    pub fn alt_svc(&self, at: EntrypointAddr) -> HeaderValue {
        let known = self.alt_svc.iter().find(|(port, _)| *port == at.0.port());
        known.map_or(HeaderValue::from_static("clear"), |(_, value)| value.clone())
    }
}

fn transport(limits: &Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // Longer than QUIC can say is as good as for ever.
    let idle = IdleTimeout::try_from(limits.keep_alive.max(2 * PING)).ok();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_idle_timeout(idle)
        .keep_alive_interval(Some(PING))
        // HTTP has no use for datagrams.
        .datagram_receive_buffer_size(None);
    transport
}
