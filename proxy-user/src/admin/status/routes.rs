//! `GET /api/v1/routes`: which requests go where.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{
        effective,
        model::{Carries, Config, Route},
    },
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RoutesDocument {
    pub generation: u64,
    /// In the order of the configuration; which one takes a request is up to how narrow they are (`weir explain`).
    pub routes: Vec<RouteStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RouteStatus {
    pub name: String,
    /// Names of all entrypoints at which it takes requests.
    pub entrypoints: Vec<String>,
    /// `*`: any.
    pub hosts: Vec<String>,
    pub path: String,
    /// What else must hold, in words.
    pub when: Vec<String>,
    /// What must not hold, in words.
    pub not: Vec<String>,
    pub priority: i32,
    /// Names, in the order in which requests pass.
    pub middleware: Vec<String>,
    /// `None`: its middleware answers every request.
    pub service: Option<String>,
    /// Since the daemon began, or since the route is in the configuration.
    pub requests: u64,
}

pub fn document(snapshot: &Snapshot) -> RoutesDocument {
    let routes = snapshot.config.routes.iter().zip(&snapshot.route_requests);
    let routes = routes.map(|(route, requests)| of(snapshot, route, requests.load(Ordering::Relaxed)));
    RoutesDocument { generation: snapshot.generation, routes: routes.collect() }
}

fn of(snapshot: &Snapshot, route: &Route, requests: u64) -> RouteStatus {
    let config: &Config = &snapshot.config;
    let entrypoints: Vec<String> = if route.entrypoints.is_empty() {
        let of_http = config.entrypoints.iter().filter(|one| one.carries == Carries::Http);
        of_http.map(|one| one.name.to_string()).collect()
    } else {
        route.entrypoints.iter().map(|id| config.entrypoints[id.0].name.to_string()).collect()
    };
    let conditions = |all: &[_]| all.iter().map(|one| effective::condition(config, one)).collect();
    RouteStatus {
        name: route.name.to_string(),
        entrypoints,
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        path: route.path.to_string(),
        when: conditions(&route.when),
        not: conditions(&route.not),
        priority: route.priority,
        middleware: route.middleware.iter().map(|id| config.middleware[id.0].name.to_string()).collect(),
        service: route.service.map(|id| config.services[id.0].name.to_string()),
        requests,
    }
}
