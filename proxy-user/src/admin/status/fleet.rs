//! `GET /api/v1/fleet`: this host's part in its fleet, and what the store knows of all.
//!
//! The store is asked when this is, and at most once a second: it is asked by every dashboard that is open.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::{
    admin::problem::Problem,
    config::model::{Config, ProviderSource},
    control::state::ControlState,
    fleet::{report::Standing, survey::FleetDocument},
    snapshot::Snapshot,
    store::address::StoreAddress,
};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FleetStatus {
    /// What this host is called.
    pub host: String,
    /// The provider whose store it is.
    pub provider: String,
    /// The endpoint that it is connected to.
    pub endpoint: Option<String>,
    /// Why it isn't connected.
    pub away: Option<String>,
    /// The generation that is current, as far as this host knows.
    pub known: Option<u64>,
    #[serde(flatten)]
    pub standing: Standing,
    /// All hosts; `None`: the store can't be asked.
    pub fleet: Option<FleetDocument>,
    /// Why not.
    pub why: Option<String>,
}

/// An answer may be so old.
const FRESH: Duration = Duration::from_secs(1);

type Asked = Result<FleetDocument, String>;

static LATEST: Mutex<Option<(Instant, StoreAddress, Asked)>> = Mutex::const_new(None);

/// # Errors
/// When this host is in no fleet.
pub async fn document(state: &ControlState, snapshot: &Snapshot) -> Result<FleetStatus, Problem> {
    let Some((host, provider, address)) = place(&snapshot.config) else {
        let why = "this host is in no fleet: `[fleet] store` names its store (docs/fleet.md)";
        return Err(Problem::new(StatusCode::NOT_FOUND, why));
    };
    let seen = state.member.seen().unwrap_or_default();
    let asked = all(address).await;
    let (endpoint, away) = match seen.store {
        Some(Ok(endpoint)) => (Some(endpoint), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    Ok(FleetStatus {
        host,
        provider,
        endpoint,
        away,
        known: seen.current.map(|current| current.generation),
        standing: seen.standing,
        why: asked.as_ref().err().cloned(),
        fleet: asked.ok(),
    })
}

/// The host's name, the provider's, and where its store is.
fn place(config: &Config) -> Option<(String, String, &StoreAddress)> {
    let fleet = config.fleet.as_ref()?;
    let provider = config.providers.iter().find(|provider| provider.name == fleet.store)?;
    match &provider.source {
        ProviderSource::Etcd(etcd) => Some((fleet.host.to_string(), fleet.store.to_string(), &etcd.address)),
        _ => None,
    }
}

async fn all(address: &StoreAddress) -> Asked {
    let mut latest = LATEST.lock().await;
    if let Some((at, of, known)) = &*latest
        && at.elapsed() < FRESH
        && of == address
    {
        return known.clone();
    }
    let asked = ask(address).await;
    *latest = Some((Instant::now(), address.clone(), asked.clone()));
    asked
}

#[cfg(feature = "etcd")]
async fn ask(address: &StoreAddress) -> Asked {
    use crate::{fleet::survey, store::etcd::Session};
    let session = Session::open(address, fastrand::usize(..1024)).await.map_err(|fault| fault.to_string())?;
    survey::read(&session).await.map_err(|fault| fault.to_string())
}

#[cfg(not(feature = "etcd"))]
async fn ask(_: &StoreAddress) -> Asked {
    Err("this weir was built without etcd".to_owned())
}
