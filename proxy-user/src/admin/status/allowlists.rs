//! What is told of allowlists: who keeps them current, how well that goes, and who is on them.

use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::text;
use crate::{
    allowlists::Standing,
    config::model::{Allowlist, AllowlistId, Config},
    control::state::ControlState,
    snapshot::Snapshot,
};

/// The answer to `GET /api/v1/allowlists`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AllowlistsDocument {
    pub generation: u64,
    pub allowlists: Vec<AllowlistStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AllowlistStatus {
    pub name: String,
    pub prefixes_v4: usize,
    pub prefixes_v6: usize,
    /// Names of the entrypoints whose `allow` or `trust` refers to it.
    pub entrypoints: Vec<String>,
    /// `None`: it is what the configuration says, and nothing else.
    pub fetched: Option<FetchedStatus>,
    /// Who is on it, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FetchedStatus {
    pub urls: Vec<String>,
    /// What is in force: `fetched`, `kept` (from the disk; no fetch has succeeded since the start), `built-in` (no fetch
    /// has ever succeeded), or `nothing` but what the configuration says.
    pub in_force: String,
    /// Since the source last said that this is the list.
    pub age_seconds: Option<u64>,
    /// One for each URL.
    pub etags: Vec<Option<String>>,
    pub last_fetch: Option<String>,
    /// `None`: the last fetch went well, or there was none yet.
    pub last_error: Option<String>,
    /// From one fetch to the next. `None`: it is fetched only when that is asked for.
    pub refresh_seconds: Option<u64>,
    /// `None`: nothing is planned, or the first fetch is under way.
    pub next_refresh: Option<String>,
    /// Fetches that failed since the daemon began.
    pub failures: u64,
}

/// All lists; `None` while the daemon starts.
pub fn document(state: &ControlState, with_prefixes: bool) -> Option<AllowlistsDocument> {
    let snapshot = state.running()?.load_full();
    let allowlists = of(state, &snapshot, Timestamp::now(), with_prefixes);
    Some(AllowlistsDocument { generation: snapshot.generation, allowlists })
}

pub(super) fn of(
    state: &ControlState,
    snapshot: &Arc<Snapshot>,
    now: Timestamp,
    with_prefixes: bool,
) -> Vec<AllowlistStatus> {
    let config = &snapshot.config;
    config
        .allowlists
        .iter()
        .enumerate()
        .map(|(id, list)| {
            let v4 = list.prefixes.iter().filter(|prefix| matches!(prefix, IpNet::V4(_))).count();
            AllowlistStatus {
                name: list.name.to_string(),
                prefixes_v4: v4,
                prefixes_v6: list.prefixes.len() - v4,
                entrypoints: users(config, AllowlistId(id)),
                fetched: fetched(list, &state.lists.standing(&list.name).unwrap_or_default(), now),
                prefixes: with_prefixes.then(|| list.prefixes.iter().map(ToString::to_string).collect()),
            }
        })
        .collect()
}

fn users(config: &Config, list: AllowlistId) -> Vec<String> {
    let refers = config.entrypoints.iter().filter(|entrypoint| entrypoint.refers_to(list));
    refers.map(|entrypoint| entrypoint.name.to_string()).collect()
}

fn fetched(list: &Allowlist, standing: &Standing, now: Timestamp) -> Option<FetchedStatus> {
    let fetch = list.fetch.as_ref()?;
    let good = standing.good.as_ref();
    Some(FetchedStatus {
        urls: fetch.source.urls.iter().map(ToString::to_string).collect(),
        in_force: match good {
            Some(_) if standing.from_disk => "kept",
            Some(_) => "fetched",
            None if !fetch.floor.is_empty() => "built-in",
            None => "nothing",
        }
        .to_owned(),
        // A clock that was set back makes a list young, never older than it is.
        age_seconds: good
            .map(|good| u64::try_from(now.duration_since(good.confirmed).as_secs()).unwrap_or(0)),
        etags: good.map(|good| good.parts.iter().map(|part| part.etag.clone()).collect()).unwrap_or_default(),
        last_fetch: standing.last_fetch.map(text),
        last_error: standing.last_error.clone(),
        refresh_seconds: fetch.refresh.map(|every| every.as_secs()),
        next_refresh: standing.next_refresh.map(text),
        failures: standing.failures,
    })
}
