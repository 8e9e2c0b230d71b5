//! `GET /api/v1/kernel`: what the gate enforces and what it counts, as `weir kernel status` reads it from the pins.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{GateStatus, ServerWatchStatus};
use crate::{
    control::state::ControlState,
    kernel::{
        self, KernelStatus,
        memory::{self, Memory},
        status::{EntrypointStatus, InterfaceStatus, ListStatus, Tally},
    },
};

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KernelDocument {
    /// When this was read.
    pub at: String,
    /// What the daemon knows of the gate.
    pub gate: GateStatus,
    /// Whether the kernel tells of servers that don't acknowledge.
    pub server_watch: ServerWatchStatus,
    /// There are pins of the gate, and the daemon may read them: all below is told.
    pub readable: bool,
    /// The snapshot that is enforced. `None`: none yet.
    pub generation: Option<u64>,
    /// Packets of all entrypoints together.
    pub passed: Tally,
    /// Likewise, by the names of the reasons (docs/gate.md).
    #[schema(value_type = BTreeMap<String, Tally>)]
    pub dropped: BTreeMap<&'static str, Tally>,
    /// Where the gate is attached, and by which program.
    pub interfaces: Vec<InterfaceStatus>,
    pub entrypoints: Vec<EntrypointStatus>,
    pub lists: Vec<ListStatus>,
    /// What all that takes.
    pub memory: Option<Memory>,
}

/// `None` while the daemon starts.
pub async fn document(state: &ControlState) -> Option<KernelDocument> {
    let bpffs = state.running()?.load().config.kernel.bpffs.clone();
    // Maps are read by system calls, some hundred of them.
    let read = move || {
        let status = kernel::observe(&bpffs).ok().flatten();
        let memory = memory::read(&bpffs).ok().flatten();
        (status, memory)
    };
    let (status, memory) = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    let readable = status.is_some();
    let none = KernelStatus { generation: None, interfaces: vec![], entrypoints: vec![], lists: vec![] };
    let status = status.unwrap_or(none);
    let mut passed = Tally::default();
    let mut dropped: BTreeMap<&'static str, Tally> = BTreeMap::new();
    for entrypoint in &status.entrypoints {
        passed += entrypoint.passed;
        for (reason, tally) in &entrypoint.dropped {
            *dropped.entry(reason).or_default() += *tally;
        }
    }
    Some(KernelDocument {
        at: super::now(),
        gate: super::gate(state.kernel()),
        server_watch: super::services::watched(state.watched()),
        readable,
        generation: status.generation,
        passed,
        dropped,
        interfaces: status.interfaces,
        entrypoints: status.entrypoints,
        lists: status.lists,
        memory,
    })
}
