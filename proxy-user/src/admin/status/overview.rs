//! `GET /api/v1/overview`: how this host stands, in figures that fit on one screen.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{GateStatus, StatusDocument};
use crate::{admin::ready, control::state::ControlState, journal::JOURNAL};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OverviewDocument {
    pub version: String,
    /// When this was read.
    pub at: String,
    pub started: String,
    /// Counts up with each configuration that was taken over.
    pub generation: u64,
    pub draining: bool,
    /// As `/ready` says.
    pub ready: bool,
    pub last_reload: String,
    pub last_reload_ok: bool,
    pub gate: GateStatus,
    pub traffic: Traffic,
    pub entrypoints: usize,
    pub routes: usize,
    pub services: ServiceCount,
    pub servers: ServerCount,
    pub allowlists: usize,
    /// Lists whose last fetch failed.
    pub allowlists_failing: usize,
    pub certificates: usize,
    /// When the first of them expires, in seconds since 1970.
    pub certificates_expire: Option<i64>,
    /// Windows of maintenance that hold now.
    pub maintenance: usize,
    /// Passthrough connections.
    pub flows: usize,
    /// The number of the latest event; 0: there was none.
    pub last_event: u64,
    /// What should not stay as it is.
    pub warnings: Vec<String>,
}

/// Of all entrypoints together, since the daemon began.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Open now.
    pub connections: u64,
    pub accepted: u64,
    /// Connections that were closed at accept: their peer is on no list, or blocked.
    pub turned_away: u64,
    pub handshake_failures: u64,
    pub requests: u64,
    /// Requests and connections that Weir refused or answered itself.
    pub refused: u64,
    /// Requests that a page answered in a server's place.
    pub pages: u64,
    /// Requests that were sent to another server, or once more.
    pub retries: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ServiceCount {
    pub all: usize,
    /// One of its servers takes requests.
    pub answering: usize,
}

/// Servers by their status. A server of two services counts twice.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ServerCount {
    pub all: usize,
    pub up: usize,
    pub down: usize,
    pub ejected: usize,
    pub starting: usize,
    pub unchecked: usize,
    /// Names that stand for no address yet.
    pub unresolved: usize,
    /// Whatever their status is.
    pub draining: usize,
}

/// `None` while the daemon starts.
pub async fn document(state: &ControlState) -> Option<OverviewDocument> {
    let status = super::of(state).await?;
    let snapshot = state.running()?.load_full();
    let retried = status.services.iter().map(|service| service.retries).sum();
    Some(OverviewDocument {
        at: super::now(),
        ready: ready::document(state).ready,
        traffic: traffic(&status, retried),
        routes: snapshot.config.routes.len(),
        services: ServiceCount {
            all: status.services.len(),
            answering: status.services.iter().filter(|service| service.can_answer).count(),
        },
        servers: servers(&status),
        entrypoints: status.entrypoints.len(),
        allowlists: status.allowlists.len(),
        allowlists_failing: status
            .allowlists
            .iter()
            .filter(|list| list.fetched.as_ref().is_some_and(|fetched| fetched.last_error.is_some()))
            .count(),
        certificates: status.certificates.len(),
        certificates_expire: status
            .certificates
            .iter()
            .filter(|certificate| certificate.state != "ordered")
            .map(|certificate| certificate.not_after)
            .min(),
        maintenance: status.maintenance.iter().filter(|one| one.on).count(),
        flows: status.forwarding.servers.iter().map(|server| server.flows as usize).sum(),
        last_event: JOURNAL.last(),
        version: status.version,
        started: status.started,
        generation: status.generation,
        draining: status.draining,
        last_reload: status.configuration.last_reload,
        last_reload_ok: status.configuration.last_reload_ok,
        gate: status.gate,
        warnings: status.warnings,
    })
}

fn traffic(status: &StatusDocument, retries: u64) -> Traffic {
    let mut traffic = Traffic { retries, ..Traffic::default() };
    for entrypoint in &status.entrypoints {
        traffic.connections += u64::from(entrypoint.connections);
        traffic.accepted += entrypoint.accepted;
        traffic.turned_away += entrypoint.not_listed + entrypoint.blocked;
        traffic.handshake_failures += entrypoint.handshake_failures;
        traffic.requests += entrypoint.requests;
        traffic.refused += entrypoint.refused.values().sum::<u64>();
        traffic.pages += entrypoint.pages.values().sum::<u64>();
    }
    traffic
}

fn servers(status: &StatusDocument) -> ServerCount {
    let mut count = ServerCount::default();
    for server in status.services.iter().flat_map(|service| &service.servers) {
        count.all += 1;
        count.draining += usize::from(server.draining.is_some());
        match server.status.as_str() {
            "up" => count.up += 1,
            "down" => count.down += 1,
            "ejected" => count.ejected += 1,
            "starting" => count.starting += 1,
            "unresolved" => count.unresolved += 1,
            _ => count.unchecked += 1,
        }
    }
    count
}
