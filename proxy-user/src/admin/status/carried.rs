//! Connections that are carried untouched, as `weir status` tells of them.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::passthrough::counters::Carrying;

/// Of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CarryingStatus {
    pub connections: u64,
    /// Those that are open.
    pub active: u32,
    /// Attempts to reach it that failed.
    pub failures: u64,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
}

/// `None`: nothing was ever carried there.
pub fn of(carrying: &Carrying) -> Option<CarryingStatus> {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let status = CarryingStatus {
        connections: count(&carrying.connections),
        active: carrying.active.load(Ordering::Relaxed),
        failures: count(&carrying.failures),
        bytes_to_server: count(&carrying.to_server),
        bytes_to_client: count(&carrying.to_client),
    };
    (status != CarryingStatus::default()).then_some(status)
}
