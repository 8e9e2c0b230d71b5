//! What the status tells of services and their servers.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{
    drains::{self, DrainStatus},
    text,
};
use crate::{
    clock::Moment,
    control::reports::Watched,
    health::{Status, breaker::Breaker},
    service::{Server, Service},
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub requests: u64,
    pub retries: u64,
    pub pages: u64,
    pub servers: Vec<ServerStatus>,
    /// Where its breaker stands, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// So few servers are usable that all of them get requests (`panic`).
    #[serde(default)]
    pub panics: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerStatus {
    pub address: String,
    /// `starting`, `up`, `down`, `ejected` or `unchecked`.
    pub status: String,
    pub since: String,
    pub why: String,
    /// It gets no new work, however well it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<DrainStatus>,
    pub requests: u64,
    pub failures: u64,
    /// Requests under way.
    #[serde(default)]
    pub active: u32,
    /// How long the last probe took that brought an answer, in milliseconds.
    #[serde(default)]
    pub probe_ms: Option<f64>,
    /// While it is ejected: in how many seconds it is tried again.
    #[serde(default)]
    pub ejected_for: Option<f64>,
    /// How often the kernel has told that it doesn't acknowledge what is sent to it, or breaks connections off.
    #[serde(default)]
    pub kernel_reports: u32,
}

/// Whether the kernel tells of what servers don't acknowledge.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServerWatchStatus {
    #[default]
    NotWanted,
    Unavailable {
        why: String,
    },
    On {
        cgroup: String,
    },
}

/// A service's breaker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// `closed`, `open`, `trial` or `recovering`.
    pub state: String,
    /// When it last opened, and why.
    pub opened: Option<String>,
    pub why: Option<String>,
    /// Requests that got the page because of it.
    pub refused: u64,
}

pub fn watched(watched: Watched) -> ServerWatchStatus {
    match watched {
        Watched::NotWanted => ServerWatchStatus::NotWanted,
        Watched::Unavailable(why) => ServerWatchStatus::Unavailable { why },
        Watched::From(cgroup) => ServerWatchStatus::On { cgroup },
    }
}

pub fn of(snapshot: &Snapshot, now: Moment) -> Vec<ServiceStatus> {
    let drained = snapshot.drains.list();
    let service = |service: &Service| ServiceStatus {
        name: service.name.to_string(),
        requests: service.counters.requests.load(Ordering::Relaxed),
        retries: service.counters.retries.load(Ordering::Relaxed),
        pages: service.counters.pages.load(Ordering::Relaxed),
        servers: service
            .servers
            .iter()
            .map(|one| ServerStatus {
                draining: drains::of_server(&drained, service, one),
                ..server(one, now)
            })
            .collect(),
        breaker: service.breaker.as_ref().map(breaker),
        panics: service.panics(),
    };
    snapshot.services.iter().map(|one| service(one)).collect()
}

fn server(server: &Server, now: Moment) -> ServerStatus {
    let health = &server.health;
    let status = health.status_at(now);
    let ejection = health.ejection.last().filter(|_| status == Status::Ejected);
    let change = ejection.unwrap_or_else(|| health.last_change());
    ServerStatus {
        address: server.addr.to_string(),
        status: status.name().to_owned(),
        since: text(change.at),
        why: change.why,
        draining: None,
        requests: server.counters.requests.load(Ordering::Relaxed),
        failures: server.counters.failures.load(Ordering::Relaxed),
        active: server.counters.active.load(Ordering::Relaxed),
        probe_ms: health.probe_took().map(|took| took.as_secs_f64() * 1000.0),
        ejected_for: health
            .ejection
            .left(now)
            .filter(|_| status == Status::Ejected)
            .map(|left| left as f64 / 1000.0),
        kernel_reports: health.kernel_reports(),
    }
}

fn breaker(breaker: &Breaker) -> BreakerStatus {
    let last = breaker.last();
    BreakerStatus {
        state: breaker.phase().name().to_owned(),
        opened: last.as_ref().map(|last| text(last.at)),
        why: last.map(|last| last.why),
        refused: breaker.refused(),
    }
}
