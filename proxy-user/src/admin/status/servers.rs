//! `GET /api/v1/servers` and `GET /api/v1/services`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::services::{self, ServerStatus, ServiceStatus};
use crate::{clock::Moment, snapshot::Snapshot};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServicesDocument {
    pub generation: u64,
    /// When this was read.
    pub at: String,
    pub services: Vec<ServiceStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServersDocument {
    pub generation: u64,
    /// When this was read.
    pub at: String,
    /// Of all services; a server of two services is there twice.
    pub servers: Vec<ServerOfService>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServerOfService {
    pub service: String,
    #[serde(flatten)]
    pub server: ServerStatus,
}

pub fn of_services(snapshot: &Snapshot) -> ServicesDocument {
    let services = services::of(snapshot, Moment::now());
    ServicesDocument { generation: snapshot.generation, at: super::now(), services }
}

pub fn document(snapshot: &Snapshot) -> ServersDocument {
    let services = services::of(snapshot, Moment::now()).into_iter();
    let servers = services.flat_map(|ServiceStatus { name, servers, .. }| {
        servers.into_iter().map(move |server| ServerOfService { service: name.clone(), server })
    });
    ServersDocument { generation: snapshot.generation, at: super::now(), servers: servers.collect() }
}
