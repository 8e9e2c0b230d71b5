//! `GET /api/v1/configuration`: what is in force, with every default, and without secrets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ConfigurationStatus;
use crate::{
    config::effective::{self, Section},
    control::state::ControlState,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfigurationDocument {
    pub generation: u64,
    #[serde(flatten)]
    pub standing: ConfigurationStatus,
    /// Of secrets only that there is one; of certificates, middleware and what is long a fingerprint, to compare.
    pub sections: Vec<Section>,
}

/// `None` while the daemon starts.
pub fn document(state: &ControlState) -> Option<ConfigurationDocument> {
    let snapshot = state.running()?.load_full();
    Some(ConfigurationDocument {
        generation: snapshot.generation,
        standing: super::configuration(state),
        sections: effective::sections(&snapshot.config),
    })
}
