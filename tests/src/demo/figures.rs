//! What the story measured, for programs that read along.

use std::time::Duration;

use serde_json::{Value, json};

/// `None`: the story did not come that far.
#[derive(Debug, Default)]
pub struct Figures {
    pub visitor_ok: bool,
    /// SYNs of the stranger that reached the edge's network stack while it was on no list.
    pub stranger_passed: usize,
    /// Packets of the stranger that the gate counted as dropped.
    pub stranger_dropped: u64,
    pub requests: usize,
    pub failed_requests: Option<usize>,
    /// The longest that a visitor waited when a server was killed.
    pub refused_failover: Option<Duration>,
    /// The longest that a visitor waited when a server hung.
    pub hang_failover: Option<Duration>,
    /// From the last server's death to the first maintenance page.
    pub page: Option<Duration>,
    /// From the servers' return to the first request that one of them answered.
    pub recovery: Option<Duration>,
    /// From the saved file to the first connection of the source that it lets in.
    pub reload: Option<Duration>,
    /// From the saved file to the first packet of that source that is dropped again.
    pub unload: Option<Duration>,
    /// From the start of the next daemon until it answers.
    pub restart: Option<Duration>,
}

impl Figures {
    pub fn json(&self) -> Value {
        json!({
            "visitor_ok": self.visitor_ok,
            "stranger_passed": self.stranger_passed,
            "stranger_dropped": self.stranger_dropped,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "refused_failover_ms": self.refused_failover.map(milliseconds),
            "hang_failover_ms": self.hang_failover.map(milliseconds),
            "page_ms": self.page.map(milliseconds),
            "recovery_ms": self.recovery.map(milliseconds),
            "reload_ms": self.reload.map(milliseconds),
            "shut_out_ms": self.unload.map(milliseconds),
            "restart_ms": self.restart.map(milliseconds),
        })
    }
}

/// To a tenth.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// `12 ms`, or `0.4 ms` below ten.
pub fn words(duration: Duration) -> String {
    let value = milliseconds(duration);
    if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}
