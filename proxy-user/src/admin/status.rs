//! What `weir status` and `GET /api/v1/status` tell: one document, made fresh for each question.

pub mod allowlists;
pub mod blocks;
pub mod carried;
pub mod certificates;
pub mod configuration;
pub mod drains;
pub mod drops;
pub mod fleet;
pub mod flows;
pub mod forwarding;
pub mod kernel;
pub mod logs;
pub mod maintenance;
pub mod overview;
pub mod providers;
pub mod routes;
pub mod servers;
pub mod services;
pub mod splits;

pub use services::{ServerStatus, ServerWatchStatus, ServiceStatus};

use std::{collections::BTreeMap, sync::atomic::Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    admin::status::{
        allowlists::AllowlistStatus, certificates::CertificateStatus, drains::DrainStatus,
        splits::SplitStatus,
    },
    clock::Moment,
    config::model::SynCookiesMode,
    control::{
        install,
        kernel_side::State,
        state::{ControlState, Source},
    },
    fleet::shared::board::SharedStatus,
    handoff::lineage::Told,
    kernel::{self as gate_pins, KernelStatus},
    privileges::PrivilegeReport,
    snapshot::{Entrypoint, Snapshot},
};

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusDocument {
    pub version: String,
    pub started: String,
    /// Of the process.
    #[serde(default)]
    pub pid: u32,
    /// Daemons that this one has taken over from, whose connections have not ended yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predecessors: Vec<PredecessorStatus>,
    pub draining: bool,
    /// Somebody has said that this host gets no more traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_drain: Option<DrainStatus>,
    /// Counts up with each configuration that was taken over.
    pub generation: u64,
    pub configuration: ConfigurationStatus,
    /// Where further configuration comes from, in the order in which it counts.
    #[serde(default)]
    pub providers: Vec<providers::ProviderStatus>,
    /// What this host and the others of its fleet tell each other, beside the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedStatus>,
    /// `None`: this host is in no fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<fleet::MemberStatus>,
    pub gate: GateStatus,
    /// As whom the daemon runs, and what it may do.
    #[serde(default)]
    pub privileges: PrivilegeReport,
    /// How many connections each worker has.
    #[serde(default)]
    pub workers: Vec<usize>,
    #[serde(default)]
    pub server_watch: ServerWatchStatus,
    pub entrypoints: Vec<EntrypointStatus>,
    pub services: Vec<ServiceStatus>,
    /// What the kernel carries by port.
    #[serde(default)]
    pub forwarding: forwarding::ForwardingStatus,
    /// How requests are shared out between services.
    #[serde(default)]
    pub splits: Vec<SplitStatus>,
    /// Pages in the servers' place: what holds now, and what is to come.
    #[serde(default)]
    pub maintenance: Vec<maintenance::MaintenanceStatus>,
    pub allowlists: Vec<AllowlistStatus>,
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// What should not stay as it is: certificates that are about to expire, servers that are not verified.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Lines of all access logs that were dropped because their place could not keep up.
    pub access_log_dropped: u64,
    #[serde(default)]
    pub access_logs: Vec<logs::AccessLogStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<logs::TracingStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_push: Option<logs::PushStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PredecessorStatus {
    pub version: String,
    pub connections: usize,
    /// Until it ends, whatever is still open.
    pub seconds_left: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
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

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TrialStatus {
    /// The file that was applied, as the operator called it.
    pub name: String,
    pub seconds_left: f64,
    /// Why it could not be taken back, when its time was over.
    pub failed: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
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

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GateInterface {
    pub name: String,
    pub hook: String,
    pub why: String,
}

/// The answer to `GET /api/v1/entrypoints`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntrypointsDocument {
    pub generation: u64,
    /// When this was read.
    pub at: String,
    pub entrypoints: Vec<EntrypointStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EntrypointStatus {
    pub name: String,
    pub bind: Vec<String>,
    /// Names of allowlists; empty: open to everybody.
    pub allow: Vec<String>,
    pub tls: bool,
    pub accepted: u64,
    pub not_listed: u64,
    /// Connections of blocked sources that were turned away at accept. What the gate drops never comes that far.
    #[serde(default)]
    pub blocked: u64,
    /// Only while it is shadowed: what would be dropped and turned away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
    /// Only during a flood of SYNs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_flood: Option<SynFlood>,
    pub handshake_failures: u64,
    pub requests: u64,
    /// Open connections.
    #[serde(default)]
    pub connections: u32,
    /// Clients that broke a rule or a limit, by its name (docs/http.md), and requests that a middleware answered
    /// (docs/middleware.md).
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Requests that a page answered, by its reason (docs/pages.md).
    #[serde(default)]
    pub pages: BTreeMap<String, u64>,
    /// Connections that came to no route that carries them, or told no name, and datagrams that the daemon did not carry on, by
    /// reason (docs/passthrough.md).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_carried: BTreeMap<String, u64>,
}

/// A flood of SYNs that the gate answers with cookies.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SynFlood {
    pub seconds: f64,
    /// SYNs answered with a cookie since the gate counts, in this flood and in others.
    pub challenged: u64,
}

/// What a shadowed entrypoint lets pass.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShadowStatus {
    /// Connections that would have been turned away at accept.
    pub would_turn_away: u64,
    /// Packets that the gate would have dropped, by reason. Empty where the gate isn't in the kernel.
    pub would_drop: BTreeMap<String, u64>,
    /// Where most of them came from, the busiest first.
    pub would_drop_from: Vec<ShadowSource>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShadowSource {
    /// IPv4 by /24, IPv6 by /48.
    pub prefix: String,
    pub packets: u64,
    pub bytes: u64,
}

/// The entrypoints alone; `None` while the daemon starts.
pub async fn of_entrypoints(state: &ControlState) -> Option<EntrypointsDocument> {
    let snapshot = state.running()?.load_full();
    let counted = counted(&snapshot, &state.kernel()).await;
    let entrypoints = entrypoints(&snapshot, counted.as_ref());
    Some(EntrypointsDocument { generation: snapshot.generation, at: now(), entrypoints })
}

/// The status now; `None` while the daemon starts.
pub async fn of(state: &ControlState) -> Option<StatusDocument> {
    let snapshot = state.running()?.load_full();
    let counted = counted(&snapshot, &state.kernel()).await;
    Some(StatusDocument {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: text(state.started),
        pid: std::process::id(),
        predecessors: state
            .lineage
            .told()
            .into_iter()
            .map(|Told { version, connections, seconds_left }| PredecessorStatus {
                version,
                connections,
                seconds_left,
            })
            .collect(),
        draining: state.is_draining(),
        host_drain: drains::of_host(&snapshot),
        generation: snapshot.generation,
        configuration: configuration(state),
        shared: state.shared.status(),
        gate: gate(state.kernel()),
        privileges: state.privileges.report(),
        providers: providers::of(state, &snapshot),
        fleet: fleet::member(state, &snapshot),
        workers: state.loads(),
        server_watch: services::watched(state.watched()),
        entrypoints: entrypoints(&snapshot, counted.as_ref()),
        services: services::with_origins(services::of(&snapshot, Moment::now()), &state.shared),
        forwarding: forwarding::of(state).await,
        splits: splits::all(&snapshot, &state.shared, std::time::Instant::now()),
        maintenance: maintenance::document(&state.maintenance, &state.shared).maintenance,
        allowlists: allowlists::of(state, &snapshot, Timestamp::now(), false),
        certificates: certificates::of(&snapshot),
        warnings: certificates::warnings(&snapshot)
            .into_iter()
            .chain(logs::warnings(&snapshot))
            .chain(logs::push_warning(state, &snapshot))
            .collect(),
        access_log_dropped: snapshot.access_logs.outputs.iter().map(|log| log.sink.dropped()).sum(),
        access_logs: logs::of(&snapshot),
        tracing: logs::tracing(&snapshot),
        metrics_push: logs::pushed(state, &snapshot),
    })
}

fn configuration(state: &ControlState) -> ConfigurationStatus {
    let reload = state.last_reload();
    ConfigurationStatus {
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
    }
}

fn now() -> String {
    text(Timestamp::now())
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

/// What the gate counted, at entrypoints of which more is told than the daemon knows itself. The kernel isn't asked where
/// there are none.
async fn counted(snapshot: &Snapshot, gate: &State) -> Option<KernelStatus> {
    let shadowed = snapshot.entrypoints.iter().any(|entrypoint| entrypoint.admission.shadow);
    let guarded = snapshot.config.entrypoints.iter().filter(|one| !one.allow.is_empty());
    let may_be_flooded = matches!(gate, State::On(_))
        && guarded.into_iter().any(|one| one.syn_cookies.mode != SynCookiesMode::Off);
    if !shadowed && !may_be_flooded {
        return None;
    }
    let bpffs = snapshot.config.kernel.bpffs.clone();
    match tokio::task::spawn_blocking(move || gate_pins::observe(&bpffs)).await {
        Ok(Ok(status)) => status,
        // No gate, or no right to look: what was turned away at accept is known all the same.
        Ok(Err(_)) | Err(_) => None,
    }
}

fn syn_flood(entrypoint: &Entrypoint, kernel: Option<&KernelStatus>) -> Option<SynFlood> {
    let known = kernel?.entrypoints.iter().find(|known| *known.name == *entrypoint.name)?;
    let flood = known.syn_flood.filter(|flood| flood.active && !flood.off)?;
    let seconds = flood.began_seconds_ago.unwrap_or_default();
    Some(SynFlood { seconds, challenged: known.challenged.packets })
}

fn shadow(entrypoint: &Entrypoint, kernel: Option<&KernelStatus>) -> ShadowStatus {
    let would_turn_away = entrypoint.counters.would_turn_away.load(Ordering::Relaxed);
    let known =
        kernel.and_then(|kernel| kernel.entrypoints.iter().find(|known| *known.name == *entrypoint.name));
    let Some(known) = known else { return ShadowStatus { would_turn_away, ..ShadowStatus::default() } };
    let reasons = known.would_drop.iter().map(|(reason, tally)| ((*reason).to_owned(), tally.packets));
    let from = known.would_drop_from.iter().map(|from| ShadowSource {
        prefix: from.prefix.to_string(),
        packets: from.packets,
        bytes: from.bytes,
    });
    ShadowStatus { would_turn_away, would_drop: reasons.collect(), would_drop_from: from.collect() }
}

fn entrypoints(snapshot: &Snapshot, kernel: Option<&KernelStatus>) -> Vec<EntrypointStatus> {
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
            blocked: entrypoint.counters.blocked.load(Ordering::Relaxed),
            shadow: entrypoint.admission.shadow.then(|| shadow(entrypoint, kernel)),
            syn_flood: syn_flood(entrypoint, kernel),
            handshake_failures: entrypoint.counters.handshake_failures.load(Ordering::Relaxed),
            requests: entrypoint.counters.requests.load(Ordering::Relaxed),
            connections: entrypoint.crowd.size(),
            refused: {
                let mut refused = entrypoint.counters.faults.met();
                refused.extend(entrypoint.counters.halts.counted());
                refused
            },
            pages: entrypoint.counters.pages.counted(),
            not_carried: entrypoint.counters.not_carried(),
        })
        .collect()
}
