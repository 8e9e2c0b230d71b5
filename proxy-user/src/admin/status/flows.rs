//! `GET /api/v1/flows`: passthrough connections that are known now.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::snapshot::Snapshot;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlowsDocument {
    pub generation: u64,
    /// When this was read.
    pub at: String,
    pub flows: Vec<FlowStatus>,
}

/// One passthrough connection.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FlowStatus {
    pub entrypoint: String,
    pub route: String,
    pub service: String,
    pub server: String,
    /// `address:port`
    pub client: String,
    /// The name in the client's hello, where it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// `relay`: user space copies it; `kernel`: it never comes that far.
    pub carried_by: String,
    pub since: String,
    pub bytes_from_client: u64,
    pub bytes_to_client: u64,
}

pub fn document(snapshot: &Snapshot) -> FlowsDocument {
    FlowsDocument { generation: snapshot.generation, at: super::now(), flows: Vec::new() }
}
