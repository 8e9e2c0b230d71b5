//! The pinned maps: read, filled, and swapped.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::fd::AsFd,
    thread,
};

use aya::{
    maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use proxy_common::{
    admission::MAX_LISTS,
    counters::Counters,
    label::{Label, ListLabel},
    names,
    scope::{MAX_ENTRYPOINTS, ScopeKey, ScopeSlot, ScopeTable, TRIED_SHADOWED},
    shadow::{Shadowed, ShadowedKey, TRIED},
    syn_flood::Flood,
};

use super::{
    KernelFault,
    allowed::{self, Allowed, Directory, Index},
    lookup,
    pins::{self, Pins},
    plan::{Known, Observed, Plan},
    sys::table::{self, Sizes, Table},
};

/// The slot of the running scope.
const RUNNING: u32 = 0;
pub(super) struct Tables {
    counters: PerCpuArray<MapData, Counters>,
    /// What of them was only tried out. `None`: the daemon that made the maps tries nothing out.
    tried: Option<PerCpuArray<MapData, Counters>>,
    would_drop: PerCpuArray<MapData, Counters>,
    shadowed: PerCpuHashMap<MapData, ShadowedKey, Shadowed>,
    entrypoints: Array<MapData, Label>,
    /// `None`: the daemon that made the maps knows nothing of floods.
    floods: Option<Array<MapData, Flood>>,
    lists: Array<MapData, ListLabel>,
    /// Arrays of maps.
    slots: Slots,
    pins: Pins,
}

struct Slots {
    scope: MapData,
    sieves: MapData,
    allow: MapData,
    directory: MapData,
    blocks: MapData,
    hosts: MapData,
    filter: MapData,
    index: MapData,
}

impl Tables {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelFault> {
        let data = |name: &str| data(pins, name);
        let of = |name: &'static str| map(pins, name);
        Ok(Self {
            pins: pins.clone(),
            counters: typed(of(names::GATE_COUNTERS)?)?,
            tried: pins.map(names::GATE_TRIED).exists().then(|| typed(of(names::GATE_TRIED)?)).transpose()?,
            would_drop: typed(of(names::GATE_WOULD_DROP)?)?,
            shadowed: typed(of(names::GATE_SHADOWED)?)?,
            entrypoints: typed(of(names::GATE_ENTRYPOINTS)?)?,
            floods: pins
                .map(names::GATE_FLOODS)
                .exists()
                .then(|| typed(of(names::GATE_FLOODS)?))
                .transpose()?,
            lists: typed(of(names::GATE_LISTS)?)?,
            slots: Slots {
                scope: data(names::GATE_SCOPE)?,
                sieves: data(names::GATE_SIEVES)?,
                allow: data(names::GATE_ALLOW)?,
                directory: data(names::GATE_DIRECTORY)?,
                blocks: data(names::GATE_BLOCKS)?,
                hosts: data(names::GATE_HOSTS)?,
                filter: data(names::GATE_FILTER)?,
                index: data(names::GATE_INDEX)?,
            },
        })
    }

    /// What stands in the kernel, as far as planning needs it. `known` is what this process remembers to have
    /// written.
    pub(super) fn observe(&self, known: &Known) -> Result<Observed, KernelFault> {
        let running = self.running()?;
        let in_use: BTreeSet<u32> = running
            .iter()
            .flat_map(|table| slots(table))
            .flat_map(|slot| slot.policy.admissions().map(u32::from))
            .collect();
        // What nothing uses may have been given back, or filled by somebody else.
        let still = known.iter().filter(|(slot, _)| in_use.contains(slot));
        let known = still.map(|(slot, admission)| (*slot, admission.clone())).collect();
        Ok(Observed {
            entrypoints: self.entrypoint_names()?,
            lists: self.list_names()?.into_iter().map(|list| list.map(|(name, _)| name)).collect(),
            in_use,
            known,
            ..Observed::default()
        })
    }

    /// The running scope's map, to go back to, and the name of its pin: of the two that may be pinned, the one that
    /// is in place.
    pub(super) fn scope(&self) -> Result<Option<(&'static str, Table)>, KernelFault> {
        let failed = |error| KernelFault::system("read the gate's scope", error);
        let Some(running) = table::slot(self.slots.scope.fd().as_fd(), RUNNING).map_err(failed)? else {
            return Ok(None);
        };
        for name in [names::RUNNING_SCOPE, names::INCOMING_SCOPE] {
            let path = self.pins.map(name);
            if path.exists() {
                let table = Table::open(&path).map_err(failed)?;
                if table.id().map_err(failed)? == running {
                    return Ok(Some((name, table)));
                }
            }
        }
        Err(KernelFault::Other {
            doing: "read the gate's scope".into(),
            why: "somebody removed its pin; `weir kernel unload`, and a start, set it right".into(),
        })
    }

    /// Brings to an end what a predecessor began that was killed while it put a scope in place.
    pub(super) fn settle(&mut self) -> Result<(), KernelFault> {
        let incoming = self.pins.map(names::INCOMING_SCOPE);
        match self.scope()? {
            Some((names::INCOMING_SCOPE, _)) => fs::rename(&incoming, self.pins.map(names::RUNNING_SCOPE))
                .map_err(|error| KernelFault::system("name the pin of the gate's scope", error)),
            _ => pins::remove(&incoming),
        }
    }

    /// The running scope.
    pub(super) fn running(&self) -> Result<Option<Box<ScopeTable>>, KernelFault> {
        let Some((_, scope)) = self.scope()? else { return Ok(None) };
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

    /// All CPUs' shares together, without what `weir explain` has added to them.
    pub(super) fn counters(&self, entrypoint: u32) -> Result<Counters, KernelFault> {
        let mut counters = sum(&self.counters, names::GATE_COUNTERS, entrypoint)?;
        if let Some(tried) = &self.tried {
            counters -= sum(tried, names::GATE_TRIED, entrypoint)?;
        }
        Ok(counters)
    }

    /// What each CPU has counted, with what was only tried out.
    pub(super) fn counters_by_cpu(&self, entrypoint: u32) -> Result<Vec<Counters>, KernelFault> {
        let shares = self.counters.get(&entrypoint, 0);
        let shares = shares.map_err(|error| failed("read", names::GATE_COUNTERS, &error))?;
        Ok(shares.iter().copied().collect())
    }

    /// Likewise of what would have been dropped.
    pub(super) fn would_drop(&self, entrypoint: u32) -> Result<Counters, KernelFault> {
        let mut counters = sum(&self.would_drop, names::GATE_WOULD_DROP, entrypoint)?;
        if let Some(tried) = &self.tried {
            counters -= sum(tried, names::GATE_TRIED, TRIED_SHADOWED + entrypoint)?;
        }
        Ok(counters)
    }

    /// Whose packets shadowed entrypoints would have dropped, likewise. Entries may come and go while this reads.
    pub(super) fn shadowed(&self) -> Vec<(ShadowedKey, Shadowed)> {
        let all = |shares: PerCpuValues<Shadowed>| {
            shares.iter().fold(Shadowed::default(), |mut sum, share| {
                sum += *share;
                sum
            })
        };
        let entries = self.shadowed.iter().filter_map(Result::ok).map(|(key, shares)| (key, all(shares)));
        let (tried, mut shadowed): (Vec<_>, Vec<_>) =
            entries.partition(|(key, _)| key.entrypoint & TRIED != 0);
        let tried: HashMap<_, _> = tried.into_iter().collect();
        for (key, tally) in &mut shadowed {
            let tried = tried.get(&ShadowedKey { entrypoint: key.entrypoint | TRIED, ..*key });
            *tally -= tried.copied().unwrap_or_default();
        }
        shadowed.retain(|(_, tally)| tally.packets > 0);
        shadowed
    }

    /// What is known of floods of an entrypoint.
    pub(super) fn flood(&self, entrypoint: u32) -> Result<Flood, KernelFault> {
        let Some(floods) = &self.floods else { return Ok(Flood::default()) };
        floods.get(&entrypoint, 0).map_err(|error| failed("read", names::GATE_FLOODS, &error))
    }

    /// From how many SYNs a second on it is a flood. What is being counted stays, unless that changes.
    fn set_flood(&mut self, entrypoint: u32, from: u64) -> Result<(), KernelFault> {
        if self.flood(entrypoint)?.from == from {
            return Ok(());
        }
        let Some(floods) = &mut self.floods else { return Ok(()) };
        floods
            .set(entrypoint, Flood { from, ..Flood::default() }, 0)
            .map_err(|error| failed("write", names::GATE_FLOODS, &error))
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
        for (slot, from) in &plan.floods {
            self.set_flood(*slot, *from)?;
        }
        for (named, prefixes) in plan.lists.iter().zip(&plan.list_sizes) {
            let label = Label::new(&named.name).unwrap_or(Label::EMPTY);
            let list = ListLabel { label, prefixes: *prefixes as u64 };
            self.lists
                .set(named.slot, list, 0)
                .map_err(|error| failed("write", names::GATE_LISTS, &error))?;
        }
        self.fill_admissions(&plan.fill)
    }

    /// The kernel waits for packets in flight at every change of an array of maps, also of slots that nothing
    /// uses: some ten milliseconds each. So the arrays wait at the same time.
    fn fill_admissions(&mut self, admissions: &Known) -> Result<(), KernelFault> {
        for (slot, admission) in admissions {
            let Allowed { sieve, nodes, directory, index } = allowed::tables(admission);
            let put = |outer: &MapData, table: io::Result<Table>| {
                table
                    .and_then(|table| table::set_slot(outer.fd().as_fd(), *slot, &table))
                    .map_err(|error| KernelFault::system("write an allowlist", error))
            };
            let slots = &self.slots;
            thread::scope(|threads| {
                let mut others = vec![
                    threads.spawn(|| put(&slots.allow, Table::filled(c"gate_allow", &nodes, Sizes::Any))),
                ];
                if let Some(Directory { touched, blocks, hosts }) = &directory {
                    others.push(threads.spawn(move || {
                        put(&slots.directory, Table::filled(c"gate_directory", touched, Sizes::Same))
                    }));
                    others.push(threads.spawn(move || {
                        put(&slots.blocks, Table::filled(c"gate_blocks", blocks, Sizes::Same))
                    }));
                    others.push(
                        threads.spawn(move || {
                            put(&slots.hosts, Table::filled(c"gate_hosts", hosts, Sizes::Any))
                        }),
                    );
                }
                if let Some(Index { filter, buckets }) = &index {
                    others.push(threads.spawn(move || {
                        put(&slots.filter, Table::filled(c"gate_filter", filter, Sizes::Same))
                    }));
                    others.push(
                        threads.spawn(move || {
                            put(&slots.index, Table::filled(c"gate_index", buckets, Sizes::Any))
                        }),
                    );
                }
                let mine = put(&slots.sieves, Table::holding(c"gate_sieve", &*sieve));
                others.into_iter().map(joined).fold(mine, Result::and)
            })?;
        }
        Ok(())
    }

    /// Makes a scope the running one. The kernel returns from this only when no packet is being judged by the
    /// one before: an update of an array of maps from user space waits for that.
    pub(super) fn publish(&mut self, plan: &Plan) -> Result<(), KernelFault> {
        let scope =
            Table::holding(c"gate_scope", &*lookup::scope(plan.generation, &plan.scope, &plan.limits)?);
        self.install(&scope.map_err(|error| KernelFault::system("make the gate's scope", error))?)
    }

    /// Goes back to the scope that [`Self::scope`] gave.
    pub(super) fn restore(&mut self, previous: Option<&Table>) -> Result<(), KernelFault> {
        if let Some(previous) = previous {
            return self.install(previous);
        }
        table::clear_slot(self.slots.scope.fd().as_fd(), RUNNING)
            .map_err(|error| KernelFault::system("empty the gate's scope", error))?;
        pins::remove(&self.pins.map(names::RUNNING_SCOPE))
    }

    /// Pinned before it is in place, and known as the running one only after: whoever is killed in between leaves
    /// both, and [`Self::scope`] tells them apart.
    pub(super) fn install(&mut self, scope: &Table) -> Result<(), KernelFault> {
        let incoming = self.pins.map(names::INCOMING_SCOPE);
        pins::remove(&incoming)?;
        scope
            .pin(&incoming)
            .and_then(|()| table::set_slot(self.slots.scope.fd().as_fd(), RUNNING, scope))
            .and_then(|()| fs::rename(&incoming, self.pins.map(names::RUNNING_SCOPE)))
            .map_err(|error| KernelFault::system("put the gate's scope in place", error))
    }

    /// Gives the memory of admissions back that nothing uses. That it fails costs nothing but memory: the slot
    /// is overwritten when it is next used.
    pub(super) fn release(&self, unused: &BTreeSet<u32>) {
        let Slots { sieves, allow, directory, blocks, hosts, filter, index, .. } = &self.slots;
        let clear = |map: &MapData| {
            for slot in unused {
                if let Err(error) = table::clear_slot(map.fd().as_fd(), *slot) {
                    tracing::debug!(slot, %error, "an unused allowlist stays in memory");
                }
            }
        };
        thread::scope(|threads| {
            for map in [sieves, allow, directory, blocks, hosts, filter, index] {
                threads.spawn(move || clear(map));
            }
        });
    }

    fn reset(&mut self, entrypoint: u32) -> Result<(), KernelFault> {
        let cpus = nr_cpus().map_err(|(_, error)| KernelFault::system("reset the counters", error))?;
        let tried = self.tried.as_mut().into_iter();
        let tried = tried.map(|map| (map, names::GATE_TRIED, vec![entrypoint, TRIED_SHADOWED + entrypoint]));
        let counters = [
            (&mut self.counters, names::GATE_COUNTERS, vec![entrypoint]),
            (&mut self.would_drop, names::GATE_WOULD_DROP, vec![entrypoint]),
        ];
        for (map, name, slots) in counters.into_iter().chain(tried) {
            for slot in slots {
                let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus])
                    .map_err(|error| KernelFault::system("reset the counters", error))?;
                map.set(slot, zeros, 0).map_err(|error| failed("write", name, &error))?;
            }
        }
        self.set_flood(entrypoint, 0)?;
        let keys: Vec<_> = self.shadowed.keys().filter_map(Result::ok).collect();
        for key in keys.into_iter().filter(|key| key.entrypoint & !TRIED == entrypoint) {
            match self.shadowed.remove(&key) {
                // It gave way to another by itself.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("clear", names::GATE_SHADOWED, &error)),
            }
        }
        Ok(())
    }
}

fn sum(map: &PerCpuArray<MapData, Counters>, name: &str, entrypoint: u32) -> Result<Counters, KernelFault> {
    let shares = map.get(&entrypoint, 0).map_err(|error| failed("read", name, &error))?;
    let mut sum = Counters::default();
    shares.iter().for_each(|share| sum += *share);
    Ok(sum)
}

/// The occupied slots of a scope.
pub(super) fn slots(table: &ScopeTable) -> impl Iterator<Item = &ScopeSlot> {
    table.buckets.iter().flatten().filter(|slot| slot.key != ScopeKey::EMPTY)
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<(), KernelFault>>) -> Result<(), KernelFault> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(super) fn data(pins: &Pins, name: &str) -> Result<MapData, KernelFault> {
    MapData::from_pin(pins.map(name)).map_err(|error| failed("open", name, &error))
}

/// A pinned map, and its name for [`typed`].
pub(super) fn map(pins: &Pins, name: &'static str) -> Result<(Map, &'static str), KernelFault> {
    let map = Map::from_map_data(data(pins, name)?).map_err(|error| failed("open", name, &error));
    map.map(|map| (map, name))
}

pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    (map, name): (Map, &'static str),
) -> Result<T, KernelFault> {
    map.try_into().map_err(|error: MapError| failed("open", name, &error))
}

pub(super) fn failed(doing: &str, name: &str, error: &MapError) -> KernelFault {
    KernelFault::aya(format!("{doing} {name}"), error)
}
