//! What `weir status` and `GET /api/v1/status` tell: one document, made fresh for each question.

pub mod allowlists;

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    admin::status::allowlists::AllowlistStatus,
    control::{
        install,
        kernel_side::State,
        state::{ControlState, Source},
    },
    snapshot::Snapshot,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusDocument {
    pub version: String,
    pub started: String,
    pub draining: bool,
    /// Counts up with each configuration that was taken over.
    pub generation: u64,
    pub configuration: ConfigurationStatus,
    pub gate: GateStatus,
    pub entrypoints: Vec<EntrypointStatus>,
    pub services: Vec<ServiceStatus>,
    pub allowlists: Vec<AllowlistStatus>,
    /// Lines of the access log that were dropped because the disk could not keep up.
    pub access_log_dropped: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigurationStatus {
    /// `None`: the embedded default.
    pub path: Option<String>,
    /// The file that `weir apply` replaces, with its whole path; `None` where there is no one file.
    #[serde(default)]
    pub place: Option<String>,
    pub last_reload: String,
    pub last_reload_ok: bool,
    /// Why the last configuration was refused.
    pub last_reload_error: Option<String>,
    /// A configuration that goes again unless it is confirmed.
    #[serde(default)]
    pub trial: Option<TrialStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrialStatus {
    /// The file that was applied, as the operator called it.
    pub name: String,
    pub seconds_left: f64,
    /// Why it could not be taken back, when its time was over.
    pub failed: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum GateStatus {
    /// Nothing was asked of the kernel.
    NotWanted,
    /// Allowlists are enforced at accept only.
    Unavailable { why: String },
    On {
        interfaces: Vec<GateInterface>,
        /// Interfaces that are gone, and guarded again when they are back.
        #[serde(default)]
        absent: Vec<String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GateInterface {
    pub name: String,
    pub hook: String,
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntrypointStatus {
    pub name: String,
    pub bind: Vec<String>,
    /// Names of allowlists; empty: open to everybody.
    pub allow: Vec<String>,
    pub tls: bool,
    pub accepted: u64,
    pub not_listed: u64,
    pub handshake_failures: u64,
    pub requests: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub requests: u64,
    pub retries: u64,
    pub pages: u64,
    pub servers: Vec<ServerStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerStatus {
    pub address: String,
    /// `starting`, `up`, `down` or `unchecked`.
    pub status: String,
    pub since: String,
    pub why: String,
    pub requests: u64,
    pub failures: u64,
}

/// The status now; `None` while the daemon starts.
pub fn of(state: &ControlState) -> Option<StatusDocument> {
    let snapshot = state.running()?.load_full();
    let reload = state.last_reload();
    Some(StatusDocument {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: text(state.started),
        draining: state.is_draining(),
        generation: snapshot.generation,
        configuration: ConfigurationStatus {
            path: match &state.source {
                Source::Embedded => None,
                Source::Path(path) => Some(path.display().to_string()),
            },
            place: install::place(&state.source).ok().map(|place| place.display().to_string()),
            last_reload: text(reload.at),
            last_reload_ok: reload.outcome.is_ok(),
            last_reload_error: reload.outcome.err(),
            trial: state.on_trial().map(|trial| TrialStatus {
                name: trial.name,
                seconds_left: trial.over.saturating_duration_since(Instant::now()).as_secs_f64(),
                failed: trial.failed,
            }),
        },
        gate: gate(state.kernel()),
        entrypoints: entrypoints(&snapshot),
        services: services(&snapshot),
        allowlists: allowlists::of(state, &snapshot, Timestamp::now(), false),
        access_log_dropped: snapshot.access_log.as_ref().map_or(0, |log| log.dropped()),
    })
}

/// RFC 3339, to the millisecond.
fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn gate(state: State) -> GateStatus {
    match state {
        State::NotWanted => GateStatus::NotWanted,
        State::Unavailable { why } => GateStatus::Unavailable { why },
        State::On(applied) => GateStatus::On {
            absent: applied.absent,
            interfaces: applied
                .interfaces
                .into_iter()
                .map(|interface| GateInterface {
                    hook: interface.hook.name().to_owned(),
                    name: interface.name,
                    why: interface.why,
                })
                .collect(),
        },
    }
}

fn entrypoints(snapshot: &Snapshot) -> Vec<EntrypointStatus> {
    let written = &snapshot.config.entrypoints;
    let lists = &snapshot.config.allowlists;
    snapshot
        .entrypoints
        .iter()
        .zip(written)
        .map(|(entrypoint, written)| EntrypointStatus {
            name: entrypoint.name.to_string(),
            bind: entrypoint.bind.iter().map(ToString::to_string).collect(),
            allow: written.allow.iter().map(|list| lists[list.0].name.to_string()).collect(),
            tls: entrypoint.tls.is_some(),
            accepted: entrypoint.counters.accepted.load(Ordering::Relaxed),
            not_listed: entrypoint.counters.not_listed.load(Ordering::Relaxed),
            handshake_failures: entrypoint.counters.handshake_failures.load(Ordering::Relaxed),
            requests: entrypoint.counters.requests.load(Ordering::Relaxed),
        })
        .collect()
}

fn services(snapshot: &Snapshot) -> Vec<ServiceStatus> {
    snapshot
        .services
        .iter()
        .map(|service| ServiceStatus {
            name: service.name.to_string(),
            requests: service.counters.requests.load(Ordering::Relaxed),
            retries: service.counters.retries.load(Ordering::Relaxed),
            pages: service.counters.pages.load(Ordering::Relaxed),
            servers: service
                .servers
                .iter()
                .map(|server| {
                    let change = server.health.last_change();
                    ServerStatus {
                        address: server.addr.to_string(),
                        status: server.health.status().name().to_owned(),
                        since: text(change.at),
                        why: change.why,
                        requests: server.counters.requests.load(Ordering::Relaxed),
                        failures: server.counters.failures.load(Ordering::Relaxed),
                    }
                })
                .collect(),
        })
        .collect()
}
