//! Blocks in the kernel: the trie that the gate asks, and the flag that has it asked.
//!
//! The flag stands in the policies of the running scope, so that nobody pays for an empty trie. Entries are there before
//! the flag is, and go after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};
use ipnet::IpNet;
use proxy_common::{
    blocked::{Blocked, MAPPED, MAX_BLOCKS},
    names,
    scope::{Policy, ScopeTable, protect},
};

use super::{
    Kernel, KernelFault,
    pins::Pins,
    sys::table::Table,
    tables::{failed, typed},
};

/// Until when a prefix is blocked, in nanoseconds since the host was booted: after all blocks that cover it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockedPrefix {
    pub prefix: IpNet,
    pub until: u64,
    /// Of a CDN's sources. 0: they are spared.
    pub until_cdn: u64,
}

/// Who is blocked, as far as the scope has to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Blocks {
    any: bool,
    any_cdn: bool,
}

/// The trie.
struct Trie(LpmTrie<MapData, [u8; 16], Blocked>);

impl Kernel {
    /// Makes these the prefixes that are blocked, and no others. What was counted of those that stay is kept.
    pub fn block(&mut self, wanted: &[BlockedPrefix]) -> Result<(), KernelFault> {
        if wanted.len() > MAX_BLOCKS {
            return Err(KernelFault::TooMany { what: "blocks".into(), limit: MAX_BLOCKS });
        }
        let mut trie = Trie::open(&self.pins)?;
        let there = trie.entries();
        for block in wanted {
            let key = key(block.prefix);
            let packets = there.get(&key).map_or(0, |known| known.packets);
            let value = Blocked { until: block.until, until_cdn: block.until_cdn, packets };
            if there.get(&key) != Some(&value) {
                trie.insert(key, value)?;
            }
        }
        let blocks = Blocks::of(wanted);
        self.tables.set_blocks(blocks)?;
        self.blocks = blocks;
        let wanted: BTreeSet<_> = wanted.iter().map(|block| key(block.prefix)).collect();
        for gone in there.keys().filter(|known| !wanted.contains(known)) {
            trie.remove(*gone)?;
        }
        Ok(())
    }
}

/// How many packets each block has kept out, from the pins alone.
pub fn hits(bpffs: &Path) -> Result<BTreeMap<IpNet, u64>, KernelFault> {
    let pins = Pins::below(bpffs);
    if !pins.exist()? || !pins.map(names::GATE_BLOCKED).exists() {
        return Ok(BTreeMap::new());
    }
    let entries = Trie::open(&pins)?.entries();
    Ok(entries.into_iter().filter_map(|(key, block)| Some((prefix(key)?, block.packets))).collect())
}

// === impl Blocks ===

impl Blocks {
    fn of(wanted: &[BlockedPrefix]) -> Self {
        Self { any: !wanted.is_empty(), any_cdn: wanted.iter().any(|block| block.until_cdn > 0) }
    }

    /// Has a policy's sources looked up among the blocked ones, if any of them may be there.
    pub(super) fn mark(self, policy: &mut Policy) {
        // Nobody gets in there who isn't a CDN's.
        let only_cdn = policy.cdn != Policy::NO_CDN && policy.cdn == policy.admission;
        if self.any_cdn || (self.any && !only_cdn) {
            policy.protect |= protect::BLOCKS;
        } else {
            policy.protect &= !protect::BLOCKS;
        }
    }

    /// Likewise in all of a scope. Says whether anything was other.
    pub(super) fn mark_all(self, scope: &mut ScopeTable) -> bool {
        let mut changed = false;
        for slot in scope.buckets.iter_mut().flatten().filter(|slot| slot.key.is_port()) {
            let before = slot.policy;
            self.mark(&mut slot.policy);
            changed |= slot.policy != before;
        }
        changed
    }
}

// === impl Trie ===

/// Length and address, in IPv6 form.
pub(super) type PrefixKey = (u32, [u8; 16]);

impl Trie {
    fn open(pins: &Pins) -> Result<Self, KernelFault> {
        typed(super::tables::map(pins, names::GATE_BLOCKED)?).map(Self)
    }

    fn entries(&self) -> BTreeMap<PrefixKey, Blocked> {
        let entries = self.0.iter().filter_map(Result::ok);
        entries.map(|(key, block)| ((key.prefix_len(), key.data()), block)).collect()
    }

    fn insert(&mut self, (length, address): PrefixKey, block: Blocked) -> Result<(), KernelFault> {
        let inserted = self.0.insert(&Key::new(length, address), block, 0);
        inserted.map_err(|error| failed("write", names::GATE_BLOCKED, &error))
    }

    fn remove(&mut self, (length, address): PrefixKey) -> Result<(), KernelFault> {
        let removed = self.0.remove(&Key::new(length, address));
        removed.map_err(|error| failed("write", names::GATE_BLOCKED, &error))
    }
}

pub(super) fn key(prefix: IpNet) -> PrefixKey {
    match prefix {
        IpNet::V4(v4) => (u32::from(v4.prefix_len()) + MAPPED, v4.network().to_ipv6_mapped().octets()),
        IpNet::V6(v6) => (u32::from(v6.prefix_len()), v6.network().octets()),
    }
}

fn prefix((length, address): PrefixKey) -> Option<IpNet> {
    match IpAddr::from(address) {
        IpAddr::V6(v6) if length >= MAPPED && v6.to_ipv4_mapped().is_some() => {
            IpNet::new(v6.to_canonical(), u8::try_from(length - MAPPED).ok()?).ok()
        }
        address => IpNet::new(address, u8::try_from(length).ok()?).ok(),
    }
}

impl super::tables::Tables {
    /// Puts the running scope once more in place, if it has to ask for other blocks than it does.
    fn set_blocks(&mut self, blocks: Blocks) -> Result<(), KernelFault> {
        let Some(mut scope) = self.running()? else { return Ok(()) };
        if !blocks.mark_all(&mut scope) {
            return Ok(());
        }
        let made = Table::holding(c"gate_scope", &*scope);
        self.install(&made.map_err(|error| KernelFault::system("make the gate's scope", error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_comes_back_from_its_key() {
        for text in ["192.0.2.0/24", "0.0.0.0/0", "203.0.113.9/32", "::/0", "2001:db8::/48", "::1/128"] {
            let net: IpNet = text.parse().unwrap();
            assert_eq!(prefix(key(net)), Some(net));
        }
    }

    #[test]
    fn only_who_could_meet_a_block_is_asked() {
        let policy = |admission, cdn| Policy { entrypoint: 1, shadow: 0, protect: 0, admission, cdn };
        let (office, mixed, cdn) = (policy(1, Policy::NO_CDN), policy(2, 3), policy(3, 3));
        let net = "192.0.2.0/24".parse().unwrap();
        let block = |until_cdn| BlockedPrefix { prefix: net, until: 9, until_cdn };
        for (blocks, wanted) in [
            (Vec::new(), [false, false, false]),
            (vec![block(0)], [true, true, false]),
            (vec![block(0), block(9)], [true, true, true]),
        ] {
            let asked = [office, mixed, cdn].map(|mut policy| {
                // Also where it was other before.
                policy.protect ^= protect::BLOCKS | protect::PACKETS;
                Blocks::of(&blocks).mark(&mut policy);
                assert!(policy.has(protect::PACKETS));
                policy.has(protect::BLOCKS)
            });
            assert_eq!(asked, wanted, "{blocks:?}");
        }
    }
}
