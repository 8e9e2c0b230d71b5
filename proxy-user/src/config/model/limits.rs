//! What an entrypoint takes from its clients, at most.

use std::time::Duration;

/// `limits = { head = "64KiB", head_time = "10s", … }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Fields in a request's head. Default 100; 10 to 1000.
    pub fields: usize,
    /// Bytes of a request's head. Default 64 KiB; 1 KiB to 1 MiB.
    pub head: usize,
    /// From a head's first byte to its last; also from the connection to its first byte. Default 10 s.
    pub head_time: Duration,
    /// A body that is on its way may stand still for so long, in either direction. Default 30 s.
    pub body_idle: Duration,
    /// Nothing has come from the server nor from the client: an answer that pauses, a WebSocket. Default 300 s.
    pub stream_idle: Duration,
    /// Between two requests of a connection. Default 75 s.
    pub keep_alive: Duration,
    /// At a time over one connection of HTTP/2. Default 128; 1 to 10000.
    pub streams: u32,
    /// Connections at a time, of all clients. Default 50000; `None`: as many as the system has.
    pub connections: Option<u32>,
    /// Connections at a time of one address (IPv6: of one /64). Never of peers that `client_ip` trusts. Default 1000;
    /// `None`: as many as there are.
    pub connections_per_client: Option<u32>,
}
