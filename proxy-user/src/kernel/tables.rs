//! The pinned maps: read, filled, and swapped.

use std::os::fd::AsFd;

use aya::{
    maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, lpm_trie::Key},
    util::nr_cpus,
};
use ipnet::IpNet;
use proxy_common::{
    admission::{ListId, MAX_LISTS},
    counters::Counters,
    label::{Label, ListLabel},
    names,
    scope::{MAX_ENTRYPOINTS, ScopeKey, ScopeSlot, ScopeTable},
};

use super::{
    KernelFault, lookup,
    pins::Pins,
    plan::{Admission, Known, Observed, Plan},
    sys::table::{self, Table},
};

type TrieV4 = LpmTrie<MapData, [u8; 4], ListId>;
type TrieV6 = LpmTrie<MapData, [u8; 16], ListId>;

/// The slot of the running scope.
const RUNNING: u32 = 0;
/// Tries are never preallocated; the kernel insists on it.
const BPF_F_NO_PREALLOC: u32 = 1;

pub(super) struct Tables {
    allow_v4: ArrayOfMaps<MapData, TrieV4>,
    allow_v6: ArrayOfMaps<MapData, TrieV6>,
    counters: PerCpuArray<MapData, Counters>,
    entrypoints: Array<MapData, Label>,
    lists: Array<MapData, ListLabel>,
    /// Arrays of maps, the allowlists' once more, as what slots are read, set and emptied through.
    slots: Slots,
}

struct Slots {
    scope: MapData,
    sieves: MapData,
    allow_v4: MapData,
    allow_v6: MapData,
}

impl Tables {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelFault> {
        let data =
            |name: &str| MapData::from_pin(pins.map(name)).map_err(|error| failed("open", name, &error));
        let of = |name: &'static str| {
            let map = data(name)
                .and_then(|data| Map::from_map_data(data).map_err(|error| failed("open", name, &error)));
            map.map(|map| (map, name))
        };
        Ok(Self {
            allow_v4: typed(of(names::GATE_ALLOW_V4)?)?,
            allow_v6: typed(of(names::GATE_ALLOW_V6)?)?,
            counters: typed(of(names::GATE_COUNTERS)?)?,
            entrypoints: typed(of(names::GATE_ENTRYPOINTS)?)?,
            lists: typed(of(names::GATE_LISTS)?)?,
            slots: Slots {
                scope: data(names::GATE_SCOPE)?,
                sieves: data(names::GATE_SIEVES)?,
                allow_v4: data(names::GATE_ALLOW_V4)?,
                allow_v6: data(names::GATE_ALLOW_V6)?,
            },
        })
    }

    /// What stands in the kernel, as far as planning needs it. `known` is what this process remembers to have
    /// written.
    pub(super) fn observe(&self, known: &Known) -> Result<Observed, KernelFault> {
        let running = self.running()?;
        let in_use =
            running.iter().flat_map(|table| slots(table)).map(|slot| slot.policy.admission).collect();
        let known = known.iter().map(|(slot, admission)| (*slot, admission.clone())).collect();
        Ok(Observed {
            entrypoints: self.entrypoint_names()?,
            lists: self.list_names()?.into_iter().map(|list| list.map(|(name, _)| name)).collect(),
            in_use,
            known,
        })
    }

    /// The running scope's map, to go back to.
    pub(super) fn scope(&self) -> Result<Option<Table>, KernelFault> {
        table::slot(self.slots.scope.fd().as_fd(), RUNNING)
            .map_err(|error| KernelFault::system("read the gate's scope", error))
    }

    /// The running scope.
    pub(super) fn running(&self) -> Result<Option<Box<ScopeTable>>, KernelFault> {
        let Some(scope) = self.scope()? else { return Ok(None) };
        scope.read().map(Some).map_err(|error| KernelFault::system("read the gate's scope", error))
    }

    pub(super) fn entrypoint_names(&self) -> Result<Vec<Option<String>>, KernelFault> {
        let name = |slot: u32| {
            let label = self.entrypoints.get(&slot, 0);
            let label = label.map_err(|error| failed("read", names::GATE_ENTRYPOINTS, &error))?;
            Ok((!label.is_empty()).then(|| label.as_str().to_owned()))
        };
        (0..MAX_ENTRYPOINTS as u32).map(name).collect()
    }

    /// Names and sizes, by id.
    pub(super) fn list_names(&self) -> Result<Vec<Option<(String, u64)>>, KernelFault> {
        let name = |id: u32| {
            let list = self.lists.get(&id, 0);
            let list = list.map_err(|error| failed("read", names::GATE_LISTS, &error))?;
            Ok((!list.label.is_empty()).then(|| (list.label.as_str().to_owned(), list.prefixes)))
        };
        (0..MAX_LISTS as u32).map(name).collect()
    }

    /// All CPUs' shares together.
    pub(super) fn counters(&self, entrypoint: u32) -> Result<Counters, KernelFault> {
        let shares = self.counters.get(&entrypoint, 0);
        let shares = shares.map_err(|error| failed("read", names::GATE_COUNTERS, &error))?;
        let mut sum = Counters::default();
        shares.iter().for_each(|share| sum += *share);
        Ok(sum)
    }

    /// Writes all of a plan that no packet sees yet.
    pub(super) fn fill(&mut self, plan: &Plan) -> Result<(), KernelFault> {
        for named in plan.entrypoints.iter().filter(|named| named.fresh) {
            let label = Label::new(&named.name).unwrap_or(Label::EMPTY);
            self.reset(named.slot)?;
            self.entrypoints
                .set(named.slot, label, 0)
                .map_err(|error| failed("write", names::GATE_ENTRYPOINTS, &error))?;
        }
        for (named, prefixes) in plan.lists.iter().zip(&plan.list_sizes) {
            let label = Label::new(&named.name).unwrap_or(Label::EMPTY);
            let list = ListLabel { label, prefixes: *prefixes as u64 };
            self.lists
                .set(named.slot, list, 0)
                .map_err(|error| failed("write", names::GATE_LISTS, &error))?;
        }
        for (slot, admission) in &plan.fill {
            let (v4, v6) = tries(admission)?;
            Table::holding(c"gate_sieve", &*lookup::sieve(admission.keys()))
                .and_then(|sieve| table::set_slot(self.slots.sieves.fd().as_fd(), *slot, &sieve))
                .map_err(|error| KernelFault::system("write an allowlist's sieve", error))?;
            self.allow_v4
                .set(*slot, &v4, 0)
                .map_err(|error| failed("write", names::GATE_ALLOW_V4, &error))?;
            self.allow_v6
                .set(*slot, &v6, 0)
                .map_err(|error| failed("write", names::GATE_ALLOW_V6, &error))?;
        }
        Ok(())
    }

    /// Makes a scope the running one. The kernel returns from this only when no packet is being judged by the
    /// one before: an update of an array of maps from user space waits for that.
    pub(super) fn publish(&mut self, plan: &Plan) -> Result<(), KernelFault> {
        let failed = |error| KernelFault::system("write the gate's scope", error);
        let scope = Table::holding(c"gate_scope", &*lookup::scope(plan.generation, &plan.scope)?);
        table::set_slot(self.slots.scope.fd().as_fd(), RUNNING, &scope.map_err(failed)?).map_err(failed)
    }

    /// Goes back to the scope that [`Self::scope`] gave.
    pub(super) fn restore(&mut self, previous: Option<&Table>) -> Result<(), KernelFault> {
        let scope = self.slots.scope.fd().as_fd();
        match previous {
            Some(table) => table::set_slot(scope, RUNNING, table),
            None => table::clear_slot(scope, RUNNING),
        }
        .map_err(|error| KernelFault::system("go back to the gate's scope before", error))
    }

    /// Gives the memory of admissions back that nothing uses. That it fails costs nothing but memory: the slot
    /// is overwritten when it is next used.
    pub(super) fn release<'a>(&self, slots: impl IntoIterator<Item = &'a u32>) {
        for slot in slots {
            let Slots { sieves, allow_v4, allow_v6, .. } = &self.slots;
            for map in [sieves, allow_v4, allow_v6] {
                if let Err(error) = table::clear_slot(map.fd().as_fd(), *slot) {
                    tracing::debug!(slot, %error, "an unused allowlist stays in memory");
                }
            }
        }
    }

    fn reset(&mut self, entrypoint: u32) -> Result<(), KernelFault> {
        let doing = || "reset the counters".to_owned();
        let cpus = nr_cpus().map_err(|(_, error)| KernelFault::system(doing(), error))?;
        let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus])
            .map_err(|error| KernelFault::system(doing(), error))?;
        self.counters.set(entrypoint, zeros, 0).map_err(|error| failed("write", names::GATE_COUNTERS, &error))
    }
}

/// The occupied slots of a scope.
pub(super) fn slots(table: &ScopeTable) -> impl Iterator<Item = &ScopeSlot> {
    table.buckets.iter().flatten().filter(|slot| slot.key != ScopeKey::EMPTY)
}

/// Both tries of an admission; a family without prefixes gets an empty one, which lists nobody.
fn tries(admission: &Admission) -> Result<(TrieV4, TrieV6), KernelFault> {
    let v4_size = admission.keys().filter(|prefix| matches!(prefix, IpNet::V4(_))).count();
    let v6_size = admission.len() - v4_size;
    let failed = |error: MapError| failed("fill", "an allowlist", &error);
    let mut v4 = TrieV4::create(v4_size.max(1) as u32, BPF_F_NO_PREALLOC).map_err(failed)?;
    let mut v6 = TrieV6::create(v6_size.max(1) as u32, BPF_F_NO_PREALLOC).map_err(failed)?;
    for (prefix, list) in admission {
        let length = u32::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(prefix) => v4.insert(&Key::new(length, prefix.network().octets()), list, 0),
            IpNet::V6(prefix) => v6.insert(&Key::new(length, prefix.network().octets()), list, 0),
        }
        .map_err(failed)?;
    }
    Ok((v4, v6))
}

fn typed<T: TryFrom<Map, Error = MapError>>((map, name): (Map, &'static str)) -> Result<T, KernelFault> {
    map.try_into().map_err(|error: MapError| failed("open", name, &error))
}

fn failed(doing: &str, name: &str, error: &MapError) -> KernelFault {
    KernelFault::aya(format!("{doing} {name}"), error)
}
