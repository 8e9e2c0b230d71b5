//! What the kernel enforces, read from its pins.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use proxy_common::{
    counters::{self, Counters},
    scope::{ScopeKey, TCP, UDP},
    shadow::{PREFIX_V4, PREFIX_V6, ShadowedKey},
    verdict::DropReason,
};
use serde::Serialize;

use super::{
    KernelFault, attach,
    interface::{self, Hook, Tc},
    pins::Pins,
    syn_cookies::{self, FloodStatus},
    sys::{
        clsact::{self, Filter},
        link::{Link, LinkInfo},
        present,
    },
    tables::{self, Tables},
};

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct KernelStatus {
    /// The snapshot that is enforced. `None`: none yet.
    pub generation: Option<u64>,
    pub interfaces: Vec<InterfaceStatus>,
    pub entrypoints: Vec<EntrypointStatus>,
    pub lists: Vec<ListStatus>,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GateInterfaceStatus)]
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OtherProgram {
    pub hook: Hook,
    pub id: u32,
    /// `None`: it has none, or we may not ask.
    pub name: Option<String>,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GateEntrypointStatus)]
pub struct EntrypointStatus {
    pub name: String,
    /// Its slot in the counters, as bpftool shows it.
    pub slot: u32,
    /// What is guarded for it, as `address:port/protocol`. Empty: it was guarded once, and isn't any more.
    pub guards: Vec<String>,
    pub passed: Tally,
    /// SYNs that the gate answered itself, with a cookie: neither passed nor dropped.
    pub challenged: Tally,
    /// What is known of floods of SYNs there. `None`: nobody asks for cookies.
    pub syn_flood: Option<FloodStatus>,
    /// By the names of the reasons; all of them, also those that never occurred.
    #[schema(value_type = BTreeMap<String, Tally>)]
    pub dropped: BTreeMap<&'static str, Tally>,
    /// Nothing is dropped here: what would be is counted below, and passes.
    pub shadow: bool,
    /// What would have been dropped while shadowed, now or earlier; by the names of the reasons.
    #[schema(value_type = BTreeMap<String, Tally>)]
    pub would_drop: BTreeMap<&'static str, Tally>,
    /// SYNs that would have been answered with a cookie while shadowed.
    pub would_challenge: Tally,
    /// From where most of that came, the busiest first.
    pub would_drop_from: Vec<ShadowedSource>,
}

/// A prefix whose packets would have been dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ShadowedSource {
    /// IPv4 by /24, IPv6 by /48.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    pub packets: u64,
    pub bytes: u64,
}

/// So many prefixes are shown of an entrypoint.
pub(super) const SOURCES_SHOWN: usize = 10;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GateListStatus)]
pub struct ListStatus {
    pub name: String,
    /// Its number, as it stands beside each prefix.
    pub id: u32,
    pub prefixes: u64,
}

/// `sources`: so many prefixes are told of a shadowed entrypoint.
pub(super) fn read(pins: &Pins, tables: &Tables, sources: usize) -> Result<KernelStatus, KernelFault> {
    let running = tables.running()?;
    let generation = running.as_ref().map(|table| table.generation);

    let mut interfaces = Vec::new();
    for name in pins.linked()? {
        let path = pins.link(&name);
        let info = Link::open(&path).and_then(|link| link.info());
        let info = info.map_err(|error| KernelFault::system(format!("read {}", path.display()), error))?;
        interfaces.push(linked(name, info));
    }
    let filters = clsact::all(clsact::GATE)
        .map_err(|error| KernelFault::system("read the filters at clsact", error))?;
    interfaces.extend(filters.into_iter().map(|(name, filter)| filtered(name, filter)));

    let shadowed = tables.shadowed();
    let mut entrypoints = Vec::new();
    for (slot, name) in tables.entrypoint_names()?.into_iter().enumerate() {
        let Some(name) = name else { continue };
        let slot = slot as u32;
        let guarded = running.iter().flat_map(|table| tables::slots(table));
        let guarded: Vec<_> =
            guarded.filter(|guarded| u32::from(guarded.policy.entrypoint) == slot).collect();
        let mut guards: Vec<String> = guarded
            .iter()
            .filter(|guarded| !guarded.key.is_whole())
            .map(|guarded| guard(&guarded.key))
            .collect();
        guards.sort_unstable();
        let (counters, would_drop) = (tables.counters(slot)?, tables.would_drop(slot)?);
        let flags = guarded.iter().fold(0, |flags, guarded| flags | guarded.policy.protect);
        entrypoints.push(EntrypointStatus {
            name,
            slot,
            guards,
            passed: counters.passed.into(),
            challenged: counters.challenged.into(),
            syn_flood: syn_cookies::status(&tables.flood(slot)?, flags).filter(|_| !guarded.is_empty()),
            dropped: by_reason(&counters),
            shadow: !guarded.is_empty() && guarded.iter().all(|guarded| guarded.policy.shadow != 0),
            would_drop: by_reason(&would_drop),
            would_challenge: would_drop.challenged.into(),
            would_drop_from: busiest(&shadowed, slot, sources),
        });
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

fn by_reason(counters: &Counters) -> BTreeMap<&'static str, Tally> {
    DropReason::ALL.iter().map(|reason| (reason.name(), (*counters.dropped(*reason)).into())).collect()
}

/// The prefixes that shadowed an entrypoint's slot most.
fn busiest(shadowed: &[(ShadowedKey, counters::Tally)], slot: u32, most: usize) -> Vec<ShadowedSource> {
    let of_slot = shadowed.iter().filter(|(key, _)| key.entrypoint == slot);
    let mut sources: Vec<_> = of_slot
        .map(|(key, tally)| ShadowedSource {
            prefix: prefix(key),
            packets: tally.packets,
            bytes: tally.bytes,
        })
        .collect();
    sources.sort_unstable_by_key(|source| (Reverse(source.packets), source.prefix));
    sources.truncate(most);
    sources
}

fn prefix(key: &ShadowedKey) -> IpNet {
    let (address, length) = match Ipv6Addr::from(key.prefix).to_canonical() {
        v4 @ IpAddr::V4(_) => (v4, PREFIX_V4),
        v6 @ IpAddr::V6(_) => (v6, PREFIX_V6),
    };
    IpNet::new_assert(address, length)
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

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl From<counters::Tally> for Tally {
    fn from(counters::Tally { packets, bytes }: counters::Tally) -> Self {
        Self { packets, bytes }
    }
}
