//! What the gate's maps take of the kernel's memory: a million prefixes are not free.

use std::{io, os::fd::AsFd, path::Path};

use proxy_common::{admission::MAX_ADMISSIONS, names};
use serde::Serialize;

use super::{
    KernelFault,
    pins::Pins,
    sys::table::{self, Table},
};

/// In bytes, as the kernel reckons them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Memory {
    /// All that has a pin: counters, sources, blocks; the lists are not in it.
    pub maps: u64,
    /// The lists of all entrypoints. `None`: they have no pins, and only CAP_SYS_ADMIN may look for them.
    pub lists: Option<u64>,
}

/// The arrays that hold what lists are made into.
const LISTS: [&str; 7] = [
    names::GATE_SIEVES,
    names::GATE_ALLOW,
    names::GATE_DIRECTORY,
    names::GATE_BLOCKS,
    names::GATE_HOSTS,
    names::GATE_FILTER,
    names::GATE_INDEX,
];

/// `None` when nothing is pinned.
pub fn read(bpffs: &Path) -> Result<Option<Memory>, KernelFault> {
    let pins = Pins::below(bpffs);
    if !pins.exist()? {
        return Ok(None);
    }
    let failed = |error| KernelFault::system("ask how much memory the gate takes", error);
    let mut maps = 0;
    for name in names::GATE_MAPS.into_iter().chain([names::RUNNING_SCOPE]) {
        let path = pins.map(name);
        if path.exists() {
            maps += Table::open(&path).and_then(|map| map.memory()).map_err(failed)?;
        }
    }
    let lists = match lists(&pins) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(failed(error)),
    };
    Ok(Some(Memory { maps, lists }))
}

fn lists(pins: &Pins) -> io::Result<u64> {
    let mut bytes = 0;
    for name in LISTS {
        let outer = Table::open(&pins.map(name))?;
        for slot in 0..MAX_ADMISSIONS as u32 {
            let Some(number) = table::slot(outer.as_fd(), slot)? else { continue };
            match Table::of_number(number) {
                Ok(inner) => bytes += inner.memory()?,
                // It was replaced meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}
