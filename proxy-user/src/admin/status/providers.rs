//! Where further configuration comes from, and how that goes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text;
use crate::{
    config::{documents::Instead, model::Provider},
    control::state::ControlState,
    providers::Standing,
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderStatus {
    pub name: String,
    pub kind: String,
    pub order: u32,
    /// `fresh`: its source answered last time. `away`: it didn't; what it gave last stays. `silent`: it hasn't been asked.
    pub state: String,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since its source last said that this is what it has; perhaps to an earlier process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// What the source itself calls what it has: an entity tag, an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// So many documents of it run.
    pub documents: usize,
    /// Documents that are not as the source has them.
    pub faults: Vec<DocumentStatus>,
    /// What is left out of documents since it is defined before them: a line for each.
    pub conflicts: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DocumentStatus {
    pub name: String,
    /// `last_good`: what it was before stays. `kept`: it is gone at its source, and others need it. `nothing`: it is left
    /// out.
    pub instead: String,
    /// A line for each fault.
    pub why: String,
    /// All of it in a sentence.
    pub sentence: String,
}

/// In the order in which their documents come.
pub fn of(state: &ControlState, snapshot: &Snapshot) -> Vec<ProviderStatus> {
    let now = Timestamp::now();
    let providers = snapshot.config.providers.iter();
    providers.map(|provider| one(provider, state.providers.standing(&provider.name), now)).collect()
}

fn one(provider: &Provider, standing: Standing, now: Timestamp) -> ProviderStatus {
    let state = match standing.reachable {
        Some(true) => "fresh",
        Some(false) => "away",
        None => "silent",
    };
    let age = |confirmed: Timestamp| u64::try_from(now.duration_since(confirmed).as_secs()).unwrap_or(0);
    let document = |fault: &crate::config::documents::DocumentFault| DocumentStatus {
        name: fault.name.clone(),
        instead: match fault.instead {
            Instead::LastGood => "last_good",
            Instead::Itself => "kept",
            Instead::Nothing => "nothing",
        }
        .to_owned(),
        why: fault.why(),
        sentence: fault.sentence(),
    };
    ProviderStatus {
        name: provider.name.to_string(),
        kind: provider.kind().to_owned(),
        order: provider.order,
        state: state.to_owned(),
        since: standing.since.map(text),
        error: standing.error,
        age_seconds: standing.confirmed.map(age),
        revision: standing.revision,
        documents: standing.documents,
        faults: standing.faults.iter().map(document).collect(),
        conflicts: standing.conflicts,
    }
}
