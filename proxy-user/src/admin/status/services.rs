//! Services and their servers, as `weir status` tells of them.

use std::sync::atomic::Ordering;

use super::{ServerStatus, ServiceStatus, drains, text};
use crate::{
    balance::Field as _,
    clock::Moment,
    config::model::{self, ServerAt},
    service::Service,
    snapshot::Snapshot,
};

pub fn of(snapshot: &Snapshot) -> Vec<ServiceStatus> {
    let services = snapshot.services.iter().zip(&snapshot.config.services);
    services.map(|(service, written)| of_service(snapshot, service, written)).collect()
}

fn of_service(snapshot: &Snapshot, service: &Service, written: &model::Service) -> ServiceStatus {
    let unresolved = written.servers.iter().filter_map(|server| unresolved(snapshot, server));
    ServiceStatus {
        name: service.name.to_string(),
        requests: service.counters.requests.load(Ordering::Relaxed),
        retries: service.counters.retries.load(Ordering::Relaxed),
        pages: service.counters.pages.load(Ordering::Relaxed),
        // One that is made of others leaves that to them.
        balance: if written.made_of.is_some() { String::new() } else { written.balancing.way.to_string() },
        sticky: written.balancing.sticky.as_ref().map(|sticky| sticky.name.to_string()),
        servers: (0..service.servers.len())
            .map(|index| of_server(snapshot, service, index))
            .chain(unresolved)
            .collect(),
    }
}

fn of_server(snapshot: &Snapshot, service: &Service, index: usize) -> ServerStatus {
    let server = &service.servers[index];
    let change = server.health.last_change();
    let draining = drains::of_server(&snapshot.drains.list(), service, server);
    let warmth = service.balancer.now(&service.servers, false).warmth(index);
    let measured = service.balancer.measures();
    ServerStatus {
        address: server.addr.to_string(),
        name: server.name.as_ref().map(ToString::to_string),
        status: server.health.status().name().to_owned(),
        draining,
        since: text(change.at),
        why: change.why,
        requests: server.counters.requests.load(Ordering::Relaxed),
        failures: server.counters.failures.load(Ordering::Relaxed),
        active: server.active(),
        weight: server.weight,
        tier: server.tier,
        zone: server.zone.as_ref().map(ToString::to_string),
        warmth: (warmth < 1.0).then_some(warmth),
        latency_ms: measured.then(|| f64::from(server.counters.latency.at(Moment::recent())) / 1000.0),
    }
}

/// In the place of servers that a name doesn't stand for yet.
fn unresolved(snapshot: &Snapshot, server: &model::Server) -> Option<ServerStatus> {
    let ServerAt::Name { host, port, addresses } = &server.at else { return None };
    if !addresses.is_empty() {
        return None;
    }
    let fault = snapshot.names.known(host).and_then(|known| known.fault);
    Some(ServerStatus {
        address: format!("{host}:{port}"),
        name: Some(host.to_string()),
        status: "unresolved".to_owned(),
        draining: None,
        since: String::new(),
        why: fault.unwrap_or_else(|| "DNS was not asked for it yet".to_owned()),
        requests: 0,
        failures: 0,
        active: 0,
        weight: server.weight,
        tier: server.tier,
        zone: server.zone.as_ref().map(ToString::to_string),
        warmth: None,
        latency_ms: None,
    })
}
