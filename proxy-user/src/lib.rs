//! Weir, an eBPF-accelerated edge proxy.
//!
//! The modules stand in the order in which a packet and then a request travels through them; the control side,
//! which never stands in a request's way, comes last. See `ARCHITECTURE.md` for the whole picture.

// === The way of a connection and of a request ===
pub mod tls;

// === The control side ===
pub mod config;
pub mod kernel;
