//! `[service.NAME] pool`, valid.

use std::time::Duration;

/// `pool = { warm = 2, idle = 256, idle_timeout = "4s" }`: what each worker keeps for each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Opened ahead. Default 0; never more than `idle`.
    pub warm: usize,
    /// Kept at most. Default 256.
    pub idle: usize,
    /// Default 4 s.
    pub idle_timeout: Duration,
}
