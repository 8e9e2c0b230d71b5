//! Weir, an eBPF-accelerated edge proxy.
//!
//! The modules stand in the order in which a connection and then a request travels through them; what they share
//! follows, and the control side, which never stands in a request's way, comes last. `ARCHITECTURE.md` has the
//! whole picture.

// === The way of a connection: accept → admission → TLS → HTTP ===
pub mod listen;
pub mod worker;
pub mod connection;
pub mod admission;
pub mod blocklist;
pub mod proxy_protocol;
pub mod handover;
pub mod hygiene;
pub mod passthrough;
pub mod tls;

// === The way of a request: identity → route → forwarding → middleware → server, or page ===
pub mod request;
pub mod glance;
pub mod identity;
pub mod https;
pub mod routing;
pub mod forwarding;
pub mod middleware;
pub mod service;
pub mod variants;
pub mod balance;
pub mod sticky;
pub mod cookies;
pub mod upstream;
pub mod page;
pub mod maintenance;
pub mod body;
pub mod upgrade;
pub mod access_log;
pub mod trace;

// === What both share ===
pub mod address;
pub mod clock;
pub mod packet;
pub mod snapshot;
pub mod health;
pub mod drain;

// === The control side ===
pub mod config;
pub mod control;
pub mod handoff;
pub mod privileges;
pub mod import;
pub mod state_file;
pub mod store;
pub mod fleet;
pub mod fetch;
pub mod providers;
pub mod allowlists;
pub mod acme;
pub mod dns;
pub mod kernel;
pub mod explain;
pub mod journal;
pub mod otlp;
pub mod admin;
pub mod metrics;
pub mod daemon_log;
pub mod demonstration;
pub mod allocator;
#[cfg(test)]
mod skew;
pub mod cli;
