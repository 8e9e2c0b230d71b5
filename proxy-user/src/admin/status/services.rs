//! Services and their servers, as `weir status` tells of them.

use std::{sync::atomic::Ordering, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{
    carried::{self, CarryingStatus},
    drains::{self, DrainStatus},
    text,
};
use crate::{
    balance::Field as _,
    clock::Moment,
    config::model::{self, ServerAt},
    control::reports::Watched,
    drain::DrainList,
    fleet::shared::board::Board,
    health::{Status, breaker::Breaker},
    service::{
        Service,
        waits::{self, Waits},
    },
    snapshot::Snapshot,
    trace,
    variants::MadeOf,
};

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceStatus {
    pub name: String,
    pub requests: u64,
    pub retries: u64,
    /// Requests that two servers were asked at a time, since the first took long.
    #[serde(default)]
    pub hedged: u64,
    /// Of these, those that the second server answered first.
    #[serde(default)]
    pub hedges_won: u64,
    pub pages: u64,
    /// Answers of its servers with a status of 500 or more that clients got.
    #[serde(default)]
    pub errors: u64,
    #[serde(default)]
    pub waits: WaitsStatus,
    /// How it is decided which server gets a request: `round_robin`, `hash by client` …
    #[serde(default)]
    pub balance: String,
    /// The cookie that keeps visitors with their servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// Names of the services that it is made of, in the place of servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<String>,
    pub servers: Vec<ServerStatus>,
    /// One of its servers takes requests.
    #[serde(default)]
    pub can_answer: bool,
    /// Where its breaker stands, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
    /// So few servers are usable that all of them get requests (`panic`).
    #[serde(default)]
    pub panics: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerStatus {
    pub address: String,
    /// The name by which DNS told the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `starting`, `up`, `down`, `ejected` or `unchecked`; `unresolved` for a name that has no addresses yet.
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
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default = "one")]
    pub tier: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How much of its weight it has already, where it comes up slowly: 0.1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmth: Option<f32>,
    /// How long it takes to answer, in milliseconds, by what `balance = "latency"` goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// How long the last probe took that brought an answer, in milliseconds.
    #[serde(default)]
    pub probe_ms: Option<f64>,
    /// How often it was up and went down.
    #[serde(default)]
    pub falls: u32,
    /// While it is ejected: in how many seconds it is tried again.
    #[serde(default)]
    pub ejected_for: Option<f64>,
    /// How often the kernel has told that it doesn't acknowledge what is sent to it, or breaks connections off.
    #[serde(default)]
    pub kernel_reports: u32,
    /// Connections that were carried there untouched, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrying: Option<CarryingStatus>,
}

/// How long clients' answers took, up to their heads.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitsStatus {
    /// All of them together.
    pub seconds: f64,
    /// How many took at most 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000 milliseconds, and how many
    /// longer. Each is in one bucket only.
    pub buckets: Vec<u64>,
    /// The latest of each bucket that was traced, where one was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<WaitExample>,
}

/// An answer whose trace the collector has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitExample {
    /// Which of `buckets`, counted from 0.
    pub bucket: usize,
    pub trace_id: String,
    pub seconds: f64,
    /// Since 1970, in seconds.
    pub at: f64,
}

fn one() -> u32 {
    1
}

/// Whether the kernel tells of what servers don't acknowledge.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
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
    let services = snapshot.services.iter().zip(&snapshot.config.services);
    services.map(|(service, written)| of_service(snapshot, service, written, &drained, now)).collect()
}

fn of_service(
    snapshot: &Snapshot,
    service: &Service,
    written: &model::Service,
    drained: &DrainList,
    now: Moment,
) -> ServiceStatus {
    let unresolved = written.servers.iter().filter_map(|server| unresolved(snapshot, server));
    ServiceStatus {
        name: service.name.to_string(),
        requests: service.counters.requests.load(Ordering::Relaxed),
        retries: service.counters.retries.load(Ordering::Relaxed),
        hedged: service.hedging.as_ref().map_or(0, |hedging| hedging.counts().0),
        hedges_won: service.hedging.as_ref().map_or(0, |hedging| hedging.counts().1),
        pages: service.counters.pages.load(Ordering::Relaxed),
        errors: service.counters.errors.load(Ordering::Relaxed),
        waits: WaitsStatus {
            seconds: service.counters.waits.sum().as_secs_f64(),
            buckets: service.counters.waits.counts().into(),
            examples: examples(&service.counters.waits),
        },
        // One that is made of others leaves that to them.
        balance: if written.made_of.is_some() { String::new() } else { written.balancing.way.to_string() },
        sticky: written.balancing.sticky.as_ref().map(|sticky| sticky.name.to_string()),
        servers: (0..service.servers.len())
            .map(|index| of_server(service, index, drained, now))
            .chain(unresolved)
            .collect(),
        made_of: made_of(service),
        can_answer: service.can_answer(),
        breaker: service.breaker.as_ref().map(breaker),
        panics: service.panics(),
    }
}

fn examples(waits: &Waits) -> Vec<WaitExample> {
    let example = |(bucket, example): (usize, Option<waits::Example>)| {
        let waits::Example { trace, took, at } = example?;
        Some(WaitExample {
            bucket,
            trace_id: String::from_utf8_lossy(&trace::hex(trace)).into_owned(),
            seconds: took.as_secs_f64(),
            at: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        })
    };
    waits.examples().into_iter().enumerate().filter_map(example).collect()
}

fn made_of(service: &Service) -> Vec<String> {
    let name = |part: &Service| part.name.to_string();
    match &service.made_of {
        None => Vec::new(),
        Some(MadeOf::Split(split)) => split.variants.iter().map(|variant| name(&variant.service)).collect(),
        Some(MadeOf::Failover(parts)) => parts.iter().map(|part| name(part)).collect(),
        Some(MadeOf::Mirror(mirror)) => vec![name(&mirror.service), name(&mirror.to)],
    }
}

/// Notes at which host of the fleet servers were drained.
pub fn with_origins(mut services: Vec<ServiceStatus>, board: &Board) -> Vec<ServiceStatus> {
    for service in &mut services {
        for server in &mut service.servers {
            if let Some(drain) = &mut server.draining {
                let label = server.name.as_ref().unwrap_or(&server.address);
                drain.came_from(board, &service.name, label);
            }
        }
    }
    services
}

fn of_server(service: &Service, index: usize, drained: &DrainList, now: Moment) -> ServerStatus {
    let server = &service.servers[index];
    let health = &server.health;
    let status = health.status_at(now);
    let is_ejected = status == Status::Ejected;
    let ejection = health.ejection.last().filter(|_| is_ejected);
    let change = ejection.unwrap_or_else(|| health.last_change());
    let warmth = service.balancer.now(&service.servers, false).warmth(index);
    let measured = service.balancer.measures();
    ServerStatus {
        address: server.addr.to_string(),
        name: server.name.as_ref().map(ToString::to_string),
        status: status.name().to_owned(),
        since: text(change.at),
        why: change.why,
        draining: drains::of_server(drained, service, server),
        requests: server.counters.requests.load(Ordering::Relaxed),
        failures: server.counters.failures.load(Ordering::Relaxed),
        active: server.active(),
        weight: server.weight,
        tier: server.tier,
        zone: server.zone.as_ref().map(ToString::to_string),
        warmth: (warmth < 1.0).then_some(warmth),
        latency_ms: measured.then(|| f64::from(server.counters.latency.at(Moment::recent())) / 1000.0),
        probe_ms: health.probe_took().map(|took| took.as_secs_f64() * 1000.0),
        falls: health.falls(),
        ejected_for: health.ejection.left(now).filter(|_| is_ejected).map(|left| left as f64 / 1000.0),
        kernel_reports: health.kernel_reports(),
        carrying: carried::of(&server.counters.carrying),
    }
}

/// In the place of servers that a name doesn't stand for yet.
fn unresolved(snapshot: &Snapshot, server: &model::Server) -> Option<ServerStatus> {
    let (name, address) = match &server.at {
        ServerAt::Name { host, port, addresses } if addresses.is_empty() => (host, format!("{host}:{port}")),
        ServerAt::Service { name, found } if found.is_empty() => (name, name.to_string()),
        ServerAt::Address(_) | ServerAt::Name { .. } | ServerAt::Service { .. } => return None,
    };
    let fault = snapshot.names.known(name).and_then(|known| known.fault);
    Some(ServerStatus {
        address,
        name: Some(name.to_string()),
        status: "unresolved".to_owned(),
        since: String::new(),
        why: fault.unwrap_or_else(|| "DNS was not asked for it yet".to_owned()),
        draining: None,
        requests: 0,
        failures: 0,
        active: 0,
        weight: server.weight,
        tier: server.tier,
        zone: server.zone.as_ref().map(ToString::to_string),
        warmth: None,
        latency_ms: None,
        probe_ms: None,
        falls: 0,
        ejected_for: None,
        kernel_reports: 0,
        carrying: None,
    })
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
