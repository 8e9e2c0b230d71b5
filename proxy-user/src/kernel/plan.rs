//! What has to change in the tables, worked out without touching anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_common::{
    admission::{MAX_ADMISSIONS, MAX_LISTS},
    label::Label,
    limit::{self, Bucket},
    scope::{MAX_ENTRYPOINTS, MAX_SCOPE, Policy, ScopeKey, TCP, UNATTRIBUTED, protect},
};

use super::{KernelFault, NamedList, addresses::GuardedAddresses, blocks::Blocks, syn_cookies};
use crate::{
    admission::PrefixSet,
    config::model::{Rate, SourceLimit},
};

/// The name of the slot that counts what can't be said to be for one entrypoint.
pub(super) const UNATTRIBUTED_NAME: &str = "(no port)";

/// What an entrypoint's lists let in together: a million prefixes, perhaps, so it is shared.
pub(super) type Admission = Arc<PrefixSet>;

/// Which admission is known to stand in which slot.
pub(super) type Known = BTreeMap<u32, Admission>;

/// What stands in the kernel.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// By slot.
    pub entrypoints: Vec<Option<String>>,
    /// By id.
    pub lists: Vec<Option<String>>,
    /// Admission slots that the running scope uses.
    pub in_use: BTreeSet<u32>,
    /// Of those in use, the ones whose contents this process wrote itself.
    pub known: Known,
    /// Handshakes can't be proved here.
    pub no_syn_cookies: bool,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub entrypoints: Vec<Named>,
    pub lists: Vec<Named>,
    /// How many prefixes each of `lists` has.
    pub list_sizes: Vec<usize>,
    /// Into slots that nothing uses.
    pub fill: Known,
    pub scope: BTreeMap<ScopeKey, Policy>,
    /// By entrypoint slot.
    pub limits: BTreeMap<u16, limit::SourceLimit>,
    /// By entrypoint slot: from how many SYNs a second on it is a flood.
    pub floods: BTreeMap<u32, u64>,
    pub generation: u64,
    /// Slots that nothing uses once `scope` is in place.
    pub free: BTreeSet<u32>,
    /// What is known after that.
    pub known: Known,
}

/// A name in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub name: String,
    pub slot: u32,
    /// It isn't there yet.
    pub fresh: bool,
}

/// Plans the step from what is observed to what is wanted.
pub(super) fn tables(
    generation: u64,
    guarded: &[GuardedAddresses],
    blocks: Blocks,
    observed: &Observed,
) -> Result<Plan, KernelFault> {
    // 1. Slots for names: a name keeps its slot, and its counters, for as long as it is wanted.
    let names = std::iter::once(UNATTRIBUTED_NAME).chain(guarded.iter().map(|entry| &*entry.entrypoint));
    let entrypoints = slots("guarded entrypoints", names, &observed.entrypoints, 0, MAX_ENTRYPOINTS)?;
    let named_lists = distinct_lists(guarded);
    let names = named_lists.iter().map(|list| &*list.name);
    // Id 0 stays unused, so that an empty value is never mistaken for a list.
    let lists = slots("allowlists", names, &observed.lists, 1, MAX_LISTS)?;

    // 2. Admissions: what is there and the same stays, the rest goes to slots that nothing uses.
    let mut plan = Plan::default();
    let mut taken = observed.in_use.clone();
    let mut scope = BTreeMap::new();
    let mut meant = Vec::new();
    for entry in guarded {
        let mut slot = |lists: &[&NamedList]| slot_for(union(lists), &mut plan, observed, &mut taken);
        let is_open = entry.lists.is_empty();
        let admission = if is_open { 0 } else { slot(&entry.lists.iter().collect::<Vec<_>>())? };
        let cdns: Vec<_> = entry.lists.iter().filter(|list| list.cdn).collect();
        let cdn = if cdns.is_empty() { Policy::NO_CDN } else { slot(&cdns)? };

        // 3. The scope: the ports, and what is asked there beside the lists.
        let entrypoint = slot_named(&entrypoints, &entry.entrypoint) as u16;
        let shadow = u8::from(entry.shadow);
        let whole = Policy { entrypoint: UNATTRIBUTED as u16, shadow, protect: 0, admission, cdn };
        let mut policy = Policy { entrypoint, ..whole };
        if is_open {
            policy.protect |= protect::OPEN;
        }
        // A CDN is spared, and where nobody else comes in there is nothing to count.
        let is_cdn = cdn != Policy::NO_CDN && cdn == admission;
        if let Some(limit) = entry.limit.filter(|limit| limit.cdn || !is_cdn) {
            policy.protect |= asked(&limit);
            plan.limits.insert(entrypoint, buckets(&limit));
        }
        blocks.mark(&mut policy);
        plan.floods.insert(entrypoint.into(), syn_cookies::threshold(entry.syn_cookies));
        for protocol in entry.protocols.iter().map(|protocol| protocol.number()) {
            let mut policy = policy;
            if protocol != TCP {
                policy.protect &= !protect::CONNECTIONS;
            } else if !observed.no_syn_cookies {
                policy.protect |= syn_cookies::flags(entry.syn_cookies);
            }
            for address in &entry.named {
                scope.insert(ScopeKey::new(octets(address), protocol, address.port()), policy);
            }
            for address in &entry.meant {
                meant.push((ScopeKey::new(octets(address), protocol, address.port()), policy));
            }
        }

        // 4. And the address itself, for what hides its port. That passes only if no entrypoint with lists is in
        //    earnest; of one without there is nothing to hide.
        if is_open {
            continue;
        }
        let addresses =
            entry.named.iter().chain(&entry.meant).map(|address| ScopeKey::whole(octets(address)));
        for key in addresses.chain([ScopeKey::ANYTHING]) {
            scope.entry(key).and_modify(|known| known.shadow &= whole.shadow).or_insert(whole);
        }
    }
    for (key, policy) in meant {
        scope.entry(key).or_insert(policy);
    }
    if scope.len() > MAX_SCOPE {
        return Err(KernelFault::TooMany { what: "guarded addresses and ports".into(), limit: MAX_SCOPE });
    }

    plan.free = observed.in_use.iter().copied().filter(|slot| !plan.known.contains_key(slot)).collect();
    plan.list_sizes = named_lists.iter().map(|list| list.prefixes.len()).collect();
    Ok(Plan { entrypoints, lists, scope, generation, ..plan })
}

/// Entries that name a port.
pub(super) fn guarded_entries(scope: &BTreeMap<ScopeKey, Policy>) -> usize {
    scope.keys().filter(|key| !key.is_whole()).count()
}

/// Gives each name a slot: the one it has, else an empty one, else that of a name that isn't wanted any more.
fn slots<'a>(
    what: &str,
    wanted: impl Iterator<Item = &'a str>,
    observed: &[Option<String>],
    first: u32,
    limit: usize,
) -> Result<Vec<Named>, KernelFault> {
    let wanted: Vec<&str> = wanted.collect();
    if let Some(name) = wanted.iter().find(|name| Label::new(name).is_none()) {
        return Err(KernelFault::NameTooLong { name: (*name).to_owned(), limit: Label::SIZE - 1 });
    }
    let holder = |slot: u32| observed.get(slot as usize).and_then(Option::as_deref);
    let range = first..limit as u32;
    let mut taken: BTreeSet<u32> =
        range.clone().filter(|slot| holder(*slot).is_some_and(|name| wanted.contains(&name))).collect();
    let mut named: Vec<Named> = Vec::with_capacity(wanted.len());
    for name in wanted {
        if named.iter().any(|known| known.name == name) {
            continue;
        }
        let (slot, fresh) = match range.clone().find(|slot| holder(*slot) == Some(name)) {
            Some(slot) => (slot, false),
            None => {
                let mut spare = range.clone().filter(|slot| !taken.contains(slot));
                let empty = spare.clone().find(|slot| holder(*slot).is_none());
                let slot = empty.or_else(|| spare.next());
                (slot.ok_or_else(|| KernelFault::TooMany { what: what.into(), limit: limit - 1 })?, true)
            }
        };
        taken.insert(slot);
        named.push(Named { name: name.to_owned(), slot, fresh });
    }
    Ok(named)
}

fn slot_named(named: &[Named], name: &str) -> u32 {
    named.iter().find(|named| named.name == name).map_or(UNATTRIBUTED, |named| named.slot)
}

fn slot_of(known: &Known, admission: &Admission) -> Option<u32> {
    known.iter().find(|(_, other)| *other == admission).map(|(slot, _)| *slot)
}

fn distinct_lists(guarded: &[GuardedAddresses]) -> Vec<&NamedList> {
    let mut lists: Vec<&NamedList> = Vec::new();
    for list in guarded.iter().flat_map(|entry| &entry.lists) {
        if !lists.iter().any(|known| known.name == list.name) {
            lists.push(list);
        }
    }
    lists
}

/// The slot of an admission: the one that it has, else one that nothing uses, which is to be filled with it.
fn slot_for(
    admission: Admission,
    plan: &mut Plan,
    observed: &Observed,
    taken: &mut BTreeSet<u32>,
) -> Result<u16, KernelFault> {
    let slot = match slot_of(&plan.known, &admission).or_else(|| slot_of(&observed.known, &admission)) {
        Some(slot) => slot,
        None => {
            let free = (0..MAX_ADMISSIONS as u32).find(|slot| !taken.contains(slot));
            let slot = free.ok_or_else(|| KernelFault::TooMany {
                what: "the different sets of allowlists of guarded entrypoints, old and new,".into(),
                limit: MAX_ADMISSIONS,
            })?;
            plan.fill.insert(slot, admission.clone());
            slot
        }
    };
    taken.insert(slot);
    plan.known.insert(slot, admission);
    Ok(slot as u16)
}

/// What of its sources' packets is counted.
fn asked(limit: &SourceLimit) -> u8 {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    flag(limit.packets.is_some(), protect::PACKETS)
        | flag(limit.connections.is_some(), protect::CONNECTIONS)
        | flag(limit.cdn, protect::LIMITS_CDN)
}

fn buckets(limit: &SourceLimit) -> limit::SourceLimit {
    let bucket = |rate: Rate| Bucket::new(rate.count.into(), rate.per.as_nanos() as u64, rate.burst.into());
    limit::SourceLimit {
        packets: limit.packets.map_or(Bucket::NONE, bucket),
        connections: limit.connections.map_or(Bucket::NONE, bucket),
    }
}

fn union(lists: &[&NamedList]) -> Admission {
    Arc::new(PrefixSet::new(lists.iter().flat_map(|list| &*list.prefixes)))
}

fn octets(address: &SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests;
