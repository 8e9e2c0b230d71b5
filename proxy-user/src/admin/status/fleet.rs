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
    fleet::{now, report::Standing, survey::FleetDocument},
    snapshot::Snapshot,
    store::{address::StoreAddress, layout::Halted},
};

/// This host in its fleet, as far as it knows without asking anybody.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemberStatus {
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
    /// The generation that is meant for this host.
    #[serde(default)]
    pub wanted: Option<u64>,
    #[serde(flatten)]
    pub standing: Standing,
    /// The last that was taken back, by any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halted>,
    /// How many hosts there are, and how many were there once; as of the last half minute.
    #[serde(default)]
    pub hosts: Option<usize>,
    #[serde(default)]
    pub hosts_gone: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FleetStatus {
    #[serde(flatten)]
    pub member: MemberStatus,
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
    let Some((member, (_, _, address))) = member(state, snapshot).zip(place(&snapshot.config)) else {
        let why = "this host is in no fleet: `[fleet] store` names its store (docs/fleet.md)";
        return Err(Problem::new(StatusCode::NOT_FOUND, why));
    };
    let asked = all(address).await;
    Ok(FleetStatus { member, why: asked.as_ref().err().cloned(), fleet: asked.ok() })
}

/// `None`: this host is in no fleet.
pub fn member(state: &ControlState, snapshot: &Snapshot) -> Option<MemberStatus> {
    let (host, provider, _) = place(&snapshot.config)?;
    let seen = state.member.seen().unwrap_or_default();
    let (endpoint, away) = match seen.store {
        Some(Ok(endpoint)) => (Some(endpoint), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    Some(MemberStatus {
        endpoint,
        away,
        known: seen.current.as_ref().map(|current| current.generation),
        wanted: seen.current.as_ref().map(|current| current.wanted(&host, now())),
        standing: seen.standing,
        halted: seen.current.and_then(|current| current.halted),
        hosts: seen.hosts.map(|hosts| hosts.there),
        hosts_gone: seen.hosts.map(|hosts| hosts.gone),
        host,
        provider,
    })
}

impl MemberStatus {
    /// In a line, in the words of `weir fleet status`.
    pub fn line(&self) -> String {
        let should = self.wanted.filter(|wanted| Some(*wanted) != self.standing.generation);
        let should = should.map(|wanted| format!(", SHOULD {wanted}")).unwrap_or_default();
        let runs = match self.standing.generation {
            Some(generation) => format!("generation {generation}"),
            None => "no generation".to_owned(),
        };
        let hosts = match self.hosts {
            Some(1) => "; 1 host".to_owned(),
            Some(there) => format!("; {there} hosts"),
            None => String::new(),
        };
        let gone = match self.hosts_gone {
            Some(gone @ 1..) => format!(", {gone} GONE"),
            _ => String::new(),
        };
        let store = match (&self.away, &self.endpoint) {
            (Some(why), _) => format!("; STORE AWAY, what ran runs on: {why}"),
            (None, Some(endpoint)) => format!("; store at {endpoint}"),
            (None, None) => "; the store was not asked yet".to_owned(),
        };
        format!("fleet: {} runs {runs}{should}{hosts}{gone}{store}", self.host)
    }

    /// Whether somebody should look at it.
    pub fn is_odd(&self) -> bool {
        let wanted = self.wanted.is_some_and(|wanted| Some(wanted) != self.standing.generation);
        wanted || self.away.is_some() || self.hosts_gone.is_some_and(|gone| gone > 0)
    }
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
