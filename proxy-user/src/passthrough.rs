//! Connections that are carried to a server untouched: nothing is decrypted, nothing is changed.

pub mod by_port;
pub mod client_hello;
