//! TLS towards clients and towards servers.

pub mod certificates;
