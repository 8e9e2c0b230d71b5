//! TLS: towards clients ([`handshake`] and [`quic`], by the settings in [`entrypoint`]), towards servers ([`server`]), and what both
//! read from files ([`certificates`]).

pub mod certificates;
pub mod client;
pub mod entrypoint;
pub mod handshake;
pub mod names;
pub mod quic;
pub mod report;
pub mod server;
pub mod shelf;
pub mod tickets;
pub mod validity;
