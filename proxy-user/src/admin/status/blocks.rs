//! `GET /api/v1/blocks`: who is blocked, and what that has kept out.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{blocklist::Block, control::state::ControlState, fleet::shared::switch::Switch, kernel};

#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BlocksDocument {
    pub blocks: Vec<BlockStatus>,
    /// Connections that were turned away at accept since the daemon began.
    pub turned_away: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BlockStatus {
    #[serde(flatten)]
    pub block: Block,
    /// Packets that the gate has dropped, counted with the narrowest block of each. `None`: there is no gate.
    pub packets: Option<u64>,
    /// The host of the fleet at which it was switched, if others were told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// `None` while the daemon starts.
pub async fn document(state: &ControlState) -> Option<BlocksDocument> {
    let snapshot = state.running()?.load_full();
    let list = snapshot.blocks.list();
    let bpffs = snapshot.config.kernel.bpffs.clone();
    let hits = match tokio::task::spawn_blocking(move || kernel::blocks::hits(&bpffs)).await {
        Ok(Ok(hits)) => hits,
        // No gate, or no right to look.
        Ok(Err(_)) | Err(_) => BTreeMap::<IpNet, u64>::new(),
    };
    let blocks = list
        .iter()
        .map(|block| BlockStatus {
            packets: hits.get(&block.prefix).copied(),
            from: state.shared.origin(&Switch::from(block).name()),
            block: block.clone(),
        })
        .collect();
    let turned_away =
        snapshot.entrypoints.iter().map(|one| one.counters.blocked.load(Ordering::Relaxed)).sum();
    Some(BlocksDocument { blocks, turned_away })
}
