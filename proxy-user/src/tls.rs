//! TLS: towards clients ([`handshake`], by the settings in [`entrypoint`]), towards servers ([`server`]), and what both
//! read from files ([`certificates`]).

pub mod certificates;
pub mod client;
pub mod entrypoint;
pub mod handshake;
pub mod names;
pub mod report;
pub mod server;
pub mod validity;
