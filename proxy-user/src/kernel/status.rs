//! What the kernel enforces, read from its pins.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
};

use proxy_common::{
    counters,
    scope::{ScopeKey, TCP, UDP},
    verdict::DropReason,
};
use serde::Serialize;

use super::{
    KernelFault, attach,
    interface::{self, Hook, Tc},
    pins::Pins,
    sys::{
        clsact::{self, Filter},
        link::{Link, LinkInfo},
        present,
    },
    tables::{self, Tables},
};

#[derive(Debug, Clone, Serialize)]
pub struct KernelStatus {
    /// The snapshot that is enforced. `None`: none yet.
    pub generation: Option<u64>,
    pub interfaces: Vec<InterfaceStatus>,
    pub entrypoints: Vec<EntrypointStatus>,
    pub lists: Vec<ListStatus>,
}

#[derive(Debug, Clone, Serialize)]
pub struct InterfaceStatus {
    pub name: String,
    /// `None`: the pin is of no kind that Weir makes.
    pub hook: Option<Hook>,
    /// Why there, in words. Empty where there is nothing to say.
    pub why: String,
    pub program_id: u32,
    /// `None`: the interface that the gate was attached to is gone.
    pub index: Option<u32>,
    /// Other people's programs for the packets that come in there.
    pub others: Vec<OtherProgram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherProgram {
    pub hook: Hook,
    pub id: u32,
    /// `None`: it has none, or we may not ask.
    pub name: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct EntrypointStatus {
    pub name: String,
    /// Its slot in the counters, as bpftool shows it.
    pub slot: u32,
    /// What is guarded for it, as `address:port/protocol`. Empty: it was guarded once, and isn't any more.
    pub guards: Vec<String>,
    pub passed: Tally,
    /// By the names of the reasons; all of them, also those that never occurred.
    pub dropped: BTreeMap<&'static str, Tally>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ListStatus {
    pub name: String,
    /// Its number, as it stands beside each prefix.
    pub id: u32,
    pub prefixes: u64,
}

pub(super) fn read(pins: &Pins, tables: &Tables) -> Result<KernelStatus, KernelFault> {
    let running = tables.running()?;
    let generation = running.as_ref().map(|table| table.generation);

    let mut interfaces = Vec::new();
    for name in pins.linked()? {
        let path = pins.link(&name);
        let info = Link::open(&path).and_then(|link| link.info());
        let info = info.map_err(|error| KernelFault::system(format!("read {}", path.display()), error))?;
        interfaces.push(linked(name, info));
    }
    let filters =
        clsact::all_ours().map_err(|error| KernelFault::system("read the filters at clsact", error))?;
    interfaces.extend(filters.into_iter().map(|(name, filter)| filtered(name, filter)));

    let mut entrypoints = Vec::new();
    for (slot, name) in tables.entrypoint_names()?.into_iter().enumerate() {
        let Some(name) = name else { continue };
        let slot = slot as u32;
        let guarded = running.iter().flat_map(|table| tables::slots(table));
        let mut guards: Vec<String> = guarded
            .filter(|guarded| guarded.policy.entrypoint == slot && !guarded.key.is_whole())
            .map(|guarded| guard(&guarded.key))
            .collect();
        guards.sort_unstable();
        let counters = tables.counters(slot)?;
        let dropped = DropReason::ALL.map(|reason| (reason.name(), Tally::from(*counters.dropped(reason))));
        let (passed, dropped) = (Tally::from(counters.passed), dropped.into_iter().collect());
        entrypoints.push(EntrypointStatus { name, slot, guards, passed, dropped });
    }

    let lists = tables.list_names()?.into_iter().enumerate();
    let lists = lists
        .filter_map(|(id, list)| list.map(|(name, prefixes)| ListStatus { name, id: id as u32, prefixes }))
        .collect();
    Ok(KernelStatus { generation, interfaces, entrypoints, lists })
}

fn linked(name: String, info: LinkInfo) -> InterfaceStatus {
    let index = (info.interface != 0).then_some(info.interface);
    let hook = info.kind.map(Hook::of);
    let why =
        hook.filter(|_| index.is_some()).map(|hook| interface::why(&name, hook, Tc::Tcx)).unwrap_or_default();
    let others = index.map(|index| others(index, info.program_id)).unwrap_or_default();
    InterfaceStatus { name, hook, why, program_id: info.program_id, index, others }
}

fn filtered(name: String, filter: Filter) -> InterfaceStatus {
    let why = interface::why(&name, Hook::Clsact, Tc::Clsact);
    let others = others(filter.interface, filter.program_id);
    let (hook, index) = (Some(Hook::Clsact), Some(filter.interface));
    InterfaceStatus { name, hook, why, program_id: filter.program_id, index, others }
}

/// Programs on an interface besides ours. What can't be asked is left out: older kernels have no tcx.
fn others(index: u32, ours: u32) -> Vec<OtherProgram> {
    let filters = clsact::filters(index).unwrap_or_default();
    let found = [
        (Hook::Xdp, present::xdp(index).unwrap_or_default()),
        (Hook::Tcx, present::tcx(index).unwrap_or_default()),
        (Hook::Clsact, filters.iter().map(|filter| filter.program_id).collect()),
    ];
    let found = found.into_iter().flat_map(|(hook, ids)| ids.into_iter().map(move |id| (hook, id)));
    found
        .filter(|(_, id)| *id != ours)
        .map(|(hook, id)| OtherProgram { hook, id, name: attach::program_name(id) })
        .collect()
}

/// `192.0.2.1:443/tcp`
fn guard(key: &ScopeKey) -> String {
    let address = SocketAddr::new(Ipv6Addr::from(key.address).to_canonical(), key.port);
    match u8::try_from(key.protocol) {
        Ok(TCP) => format!("{address}/tcp"),
        Ok(UDP) => format!("{address}/udp"),
        _ => format!("{address}/{}", key.protocol),
    }
}

impl KernelStatus {
    /// Packets that were dropped for a reason, over all entrypoints.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let of =
            |entrypoint: &EntrypointStatus| entrypoint.dropped.get(reason.name()).map(|tally| tally.packets);
        self.entrypoints.iter().filter_map(of).sum()
    }
}

impl From<counters::Tally> for Tally {
    fn from(counters::Tally { packets, bytes }: counters::Tally) -> Self {
        Self { packets, bytes }
    }
}
