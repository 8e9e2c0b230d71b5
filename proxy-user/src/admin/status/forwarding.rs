//! What the kernel carries by port, and what was handed to it, as `weir status` and `weir flows` tell of it.

use serde::{Deserialize, Serialize};

use crate::{
    control::state::ControlState,
    handover::Standing,
    kernel::forward::{
        ServerFigures, ServiceFigures,
        flows::{self, Flows, Wish},
    },
};

/// So many flows are told of unless more are asked for.
pub const MOST: usize = 100;

#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForwardingStatus {
    /// Entrypoints with `protocol = "tcp"` or `"udp"`, with what takes everything that comes in there.
    pub entrypoints: Vec<CarriedEntrypoint>,
    /// Where the program is attached.
    pub interfaces: Vec<String>,
    /// Services that are carried, or were and have flows left.
    pub services: Vec<ServiceFigures>,
    pub servers: Vec<ServerFigures>,
    /// Of connections that came in by name and were handed to the kernel. `None`: no service asks for it, or it can't be had here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<Standing>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CarriedEntrypoint {
    pub entrypoint: String,
    pub protocol: String,
    pub service: String,
    /// Why the kernel doesn't carry it; `None`: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Now.
pub async fn of(state: &ControlState) -> ForwardingStatus {
    let applied = state.forwarding.applied();
    let carried = applied.carried.into_iter().map(|one| CarriedEntrypoint {
        entrypoint: one.entrypoint,
        protocol: one.protocol.to_owned(),
        service: one.service,
        why_not: None,
    });
    let refused = applied.refused.into_iter().map(|one| CarriedEntrypoint {
        entrypoint: one.entrypoint,
        protocol: one.protocol.to_owned(),
        service: one.service,
        why_not: Some(one.why),
    });
    let mut entrypoints: Vec<_> = carried.chain(refused).collect();
    entrypoints.sort_by(|one, other| one.entrypoint.cmp(&other.entrypoint));
    // An entrypoint with addresses of both families is carried once for each.
    entrypoints.dedup_by(|one, other| one.entrypoint == other.entrypoint && one.why_not == other.why_not);
    let (board, keeper) = (state.forwarding.clone(), state.handovers.keeper());
    let asked = move || (board.figures(), keeper.and_then(|keeper| keeper.standing().ok()));
    let (figures, handed_over) = tokio::task::spawn_blocking(asked).await.unwrap_or_default();
    let figures = figures.unwrap_or_default();
    ForwardingStatus {
        entrypoints,
        interfaces: applied.interfaces,
        services: figures.services,
        servers: figures.servers,
        handed_over,
    }
}

/// The flows that are there.
///
/// # Errors
/// In words, when the kernel can't be asked.
pub async fn flows(
    state: &ControlState,
    service: Option<String>,
    most: Option<usize>,
) -> Result<Flows, String> {
    let running = state.running().ok_or_else(|| "starting".to_owned())?.load_full();
    let bpffs = running.config.kernel.bpffs.clone();
    let services = running.config.services.iter().map(|service| service.name.to_string()).collect();
    let wish = Wish { service, most: most.unwrap_or(MOST), services };
    match tokio::task::spawn_blocking(move || flows::observe(&bpffs, &wish)).await {
        Ok(Ok(flows)) => Ok(flows.unwrap_or_default()),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
