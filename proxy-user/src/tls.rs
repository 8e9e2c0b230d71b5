//! TLS: towards clients ([`entrypoint`]), towards servers ([`server`]), and what both read from files
//! ([`certificates`]).

pub mod certificates;
pub mod entrypoint;
pub mod server;
