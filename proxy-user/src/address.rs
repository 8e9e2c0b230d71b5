//! Addresses that say whose they are, so that a peer can't be taken for a client, nor a server for an entrypoint.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The other end of an accepted TCP connection: perhaps the client, perhaps a CDN in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// Who asks, after trusted forwarding headers were heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub IpAddr);

/// An address that Weir listens on, as it is written in the entrypoint's `bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntrypointAddr(pub SocketAddr);

/// The address of an upstream server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerAddr(pub SocketAddr);

impl PeerAddr {
    /// The IP address; an IPv4 address that arrives in IPv6 clothes (`::ffff:a.b.c.d`) is undressed, since
    /// lists are written with plain IPv4 prefixes.
    pub fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EntrypointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
