//! Whose sources are a CDN's, for the gate to spare: the members of all CDN lists in one trie, which is asked where an
//! entrypoint allows others too. One call for the verifier, where a second search among lists would be more than Linux 6.1
//! follows.
//!
//! New members are there before the scope that needs them, and old ones go after it: who is on both is spared throughout.

use std::collections::BTreeSet;

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use proxy_common::{names, scope::MAX_CDN};

use super::{
    Guarded, KernelFault,
    blocks::{PrefixKey, key},
    pins::Pins,
    tables::{failed, map, typed},
};

pub(super) struct Members {
    trie: LpmTrie<MapData, [u8; 16], u64>,
    wanted: BTreeSet<PrefixKey>,
}

impl Members {
    /// Adds who is missing.
    pub(super) fn add(pins: &Pins, guarded: &[Guarded]) -> Result<Self, KernelFault> {
        let lists = guarded.iter().flat_map(|entry| &entry.lists).filter(|list| list.cdn);
        let wanted: BTreeSet<_> = lists.flat_map(|list| &*list.prefixes).map(|prefix| key(*prefix)).collect();
        if wanted.len() > MAX_CDN {
            return Err(KernelFault::TooMany { what: "prefixes of CDNs' lists".into(), limit: MAX_CDN });
        }
        let mut members = Self { trie: typed(map(pins, names::GATE_CDN)?)?, wanted };
        let there = members.there();
        for (length, address) in members.wanted.difference(&there) {
            let added = members.trie.insert(&Key::new(*length, *address), 1, 0);
            added.map_err(|error| failed("write", names::GATE_CDN, &error))?;
        }
        Ok(members)
    }

    /// Takes out who isn't wanted any more. Whoever stays behind is only spared.
    pub(super) fn forget_others(mut self) {
        for (length, address) in self.there().difference(&self.wanted) {
            if let Err(error) = self.trie.remove(&Key::new(*length, *address)) {
                tracing::debug!(%error, "a prefix that is no CDN's any more stays in memory");
            }
        }
    }

    fn there(&self) -> BTreeSet<PrefixKey> {
        self.trie.keys().filter_map(Result::ok).map(|key| (key.prefix_len(), key.data())).collect()
    }
}
