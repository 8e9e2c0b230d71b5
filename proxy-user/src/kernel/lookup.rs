//! The tables that the kernel reads in place, made whole before it sees them.

use std::collections::BTreeMap;

use proxy_common::limit::SourceLimit;
use proxy_common::scope::{MAX_SCOPE, Policy, ScopeKey, ScopeSlot, ScopeTable};

use super::KernelFault;

/// So many seeds are tried. For as many entries as are allowed, one in a few hundred fits.
const SEEDS: u64 = 100_000;

/// A scope with a seed for which no bucket overflows.
pub(super) fn scope(
    generation: u64,
    entries: &BTreeMap<ScopeKey, Policy>,
    limits: &BTreeMap<u16, SourceLimit>,
) -> Result<Box<ScopeTable>, KernelFault> {
    let fitting = (0..SEEDS).find_map(|seed| with_seed(seed, entries));
    let mut table = fitting.ok_or_else(|| KernelFault::TooMany {
        what: "guarded addresses and ports".into(),
        limit: MAX_SCOPE,
    })?;
    table.generation = generation;
    for (entrypoint, limit) in limits {
        table.limits[usize::from(*entrypoint)] = *limit;
    }
    Ok(table)
}

fn with_seed(seed: u64, entries: &BTreeMap<ScopeKey, Policy>) -> Option<Box<ScopeTable>> {
    let mut table = Box::new(ScopeTable { seed, ..ScopeTable::EMPTY });
    for (key, policy) in entries {
        let bucket = &mut table.buckets[ScopeTable::bucket(key, seed)];
        let slot = bucket.iter_mut().find(|slot| slot.key == ScopeKey::EMPTY)?;
        *slot = ScopeSlot { key: *key, policy: *policy };
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_common::{limit::Bucket, scope::TCP};

    use super::*;

    fn policy(entrypoint: u16) -> Policy {
        Policy { entrypoint, shadow: 0, protect: 0, admission: 0, cdn: Policy::NO_CDN }
    }

    fn key(address: u128, port: u16) -> ScopeKey {
        ScopeKey::new(address.to_be_bytes(), TCP, port)
    }

    #[test]
    fn as_many_entries_as_are_allowed_find_their_places() {
        // Addresses in a row, two entries each: what a host with many addresses has.
        let entries: BTreeMap<ScopeKey, Policy> = (0..MAX_SCOPE as u128 / 2)
            .flat_map(|n| {
                [key(0xffff_0a00_0000 + n, 443), ScopeKey::whole((0xffff_0a00_0000 + n).to_be_bytes())]
            })
            .enumerate()
            .map(|(n, key)| (key, policy(n as u16)))
            .collect();
        let limit = SourceLimit { packets: Bucket::new(1, 1, 1), ..SourceLimit::NONE };
        let limits = BTreeMap::from([(255, limit)]);
        let table = scope(7, &entries, &limits).unwrap();
        assert_eq!(table.generation, 7);
        assert_eq!((table.limits[255], table.limits[254]), (limit, SourceLimit::NONE));
        for (key, policy) in &entries {
            assert_eq!(table.find(key), Some(*policy));
        }
    }

    proptest! {
        #[test]
        fn what_is_in_is_found_and_what_is_not_is_not(
            entries in proptest::collection::btree_map((any::<u128>(), any::<u16>()), any::<u16>(), 0..200),
            stray in (any::<u128>(), any::<u16>()),
        ) {
            let wanted: BTreeMap<ScopeKey, Policy> = entries
                .iter()
                .map(|((address, port), entrypoint)| {
                    (key(*address, *port), policy(*entrypoint))
                })
                .collect();
            let table = scope(1, &wanted, &BTreeMap::new()).unwrap();
            for (key, policy) in &wanted {
                prop_assert_eq!(table.find(key), Some(*policy));
            }
            prop_assert_eq!(table.find(&key(stray.0, stray.1)).is_some(), entries.contains_key(&stray));
        }
    }
}
