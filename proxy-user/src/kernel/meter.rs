//! What the gate has counted up to one moment, as finely as it counts: what rates are made of.
//!
//! Read anew from the pins each time: a gate that is unloaded, loaded again or has new entrypoints in between is no
//! special case.

use std::{collections::HashMap, path::Path};

use proxy_common::verdict::DropReason;

use super::{KernelFault, KernelStatus, pins::Pins, status, tables::Tables};

#[derive(Debug, Clone)]
pub struct Reading {
    /// With all the prefixes of shadowed entrypoints that the kernel remembers.
    pub status: KernelStatus,
    /// Dropped packets by CPU, of each entrypoint and reason. A CPU's events are a sample of its own share.
    pub dropped_by_cpu: HashMap<(String, &'static str), Vec<u64>>,
}

/// `None` when nothing is pinned.
pub fn read(bpffs: &Path) -> Result<Option<Reading>, KernelFault> {
    let pins = Pins::below(bpffs);
    if !pins.exist()? {
        return Ok(None);
    }
    let tables = Tables::open(&pins)?;
    let status = status::read(&pins, &tables, usize::MAX)?;
    let mut dropped_by_cpu = HashMap::new();
    for entrypoint in &status.entrypoints {
        let shares = tables.counters_by_cpu(entrypoint.slot)?;
        for reason in DropReason::ALL {
            let packets = shares.iter().map(|share| share.dropped(reason).packets).collect();
            dropped_by_cpu.insert((entrypoint.name.clone(), reason.name()), packets);
        }
    }
    Ok(Some(Reading { status, dropped_by_cpu }))
}
