//! Whom somebody has blocked: who, until when, and why. Pure but for [`Blocks`], which everybody looks at.
//!
//! The gate holds the same in a trie of its own (`kernel/blocks.rs`), and the check at accept asks here. What outlives the
//! daemon is in [`store`].

pub mod store;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::kernel::blocks::BlockedPrefix;

/// One prefix that is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Block {
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// `None`: for ever.
    pub until: Option<Timestamp>,
    pub why: String,
    /// Also for a CDN's sources.
    pub cdn: bool,
    pub since: Timestamp,
}

/// All that is blocked. Prefixes may lie within each other; each is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocklist(BTreeMap<IpNet, Block>);

/// The blocklist that holds, shared with the workers.
#[derive(Debug, Default)]
pub struct Blocks {
    list: ArcSwap<Blocklist>,
}

// === impl Block ===

impl Block {
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

// === impl Blocklist ===

impl Blocklist {
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a block; gives the one of the same prefix whose place it takes.
    pub fn add(&mut self, block: Block) -> Option<Block> {
        self.0.insert(block.prefix, block)
    }

    pub fn remove(&mut self, prefix: IpNet) -> Option<Block> {
        self.0.remove(&prefix)
    }

    /// Takes out what has ended.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Block> {
        let ended: Vec<_> = self.iter().filter(|block| !block.holds(now)).map(|block| block.prefix).collect();
        ended.into_iter().filter_map(|prefix| self.remove(prefix)).collect()
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.iter().filter_map(|block| block.until).min()
    }

    /// The narrowest block that holds for the source.
    pub fn find(&self, source: IpAddr, is_cdn: bool, now: Timestamp) -> Option<&Block> {
        let source = source.to_canonical();
        let holding = self.iter().filter(|block| block.prefix.contains(&source) && block.holds(now));
        holding.filter(|block| block.cdn || !is_cdn).max_by_key(|block| block.prefix.prefix_len())
    }

    /// As the gate takes it: of each prefix the latest end of all that cover it, since it finds the longest prefix only.
    /// `cdns` are spared wherever they come in, so those within a block are told too. Narrow ones first: who is spared is
    /// known before the block around it. `booted`: nanoseconds since the host was, at `now`.
    pub fn for_the_gate(&self, cdns: &BTreeSet<IpNet>, now: Timestamp, booted: u64) -> Vec<BlockedPrefix> {
        let at = |until: Option<Timestamp>| match until {
            None => u64::MAX,
            Some(until) => {
                let left = until.as_nanosecond() - now.as_nanosecond();
                booted.saturating_add(u64::try_from(left).unwrap_or(0))
            }
        };
        let latest = |prefix: IpNet, cdn: bool| {
            let covering = self.covering(prefix).filter(|block| block.cdn || !cdn);
            covering.map(|block| at(block.until)).max().unwrap_or(0)
        };
        let is_cdns = |prefix: IpNet| !cdns.is_empty() && around(prefix).any(|net| cdns.contains(&net));
        let spared =
            cdns.iter().filter(|cdn| !self.0.contains_key(cdn) && self.covering(**cdn).next().is_some());
        let prefixes = self.0.keys().chain(spared).copied();
        let mut told: Vec<_> = prefixes
            .map(|prefix| BlockedPrefix {
                prefix,
                until: latest(prefix, is_cdns(prefix)),
                until_cdn: latest(prefix, true),
            })
            .collect();
        told.sort_by_key(|block| Reverse(block.prefix.prefix_len()));
        told
    }

    /// The blocks that have all of a prefix.
    fn covering(&self, prefix: IpNet) -> impl Iterator<Item = &Block> {
        around(prefix).filter_map(|net| self.0.get(&net))
    }
}

/// A prefix and all that it lies in.
fn around(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(prefix), IpNet::supernet)
}

impl FromIterator<Block> for Blocklist {
    fn from_iter<T: IntoIterator<Item = Block>>(blocks: T) -> Self {
        Self(blocks.into_iter().map(|block| (block.prefix, block)).collect())
    }
}

// === impl Blocks ===

impl Blocks {
    pub fn set(&self, list: Blocklist) {
        self.list.store(list.into());
    }

    pub fn list(&self) -> Blocklist {
        (**self.list.load()).clone()
    }

    /// Whether a connection is to be turned away. Nothing is asked while nobody is blocked.
    pub fn refuse(&self, peer: IpAddr, is_cdn: impl FnOnce() -> bool) -> bool {
        let list = self.list.load();
        !list.is_empty() && list.find(peer, is_cdn(), Timestamp::now()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn block(prefix: &str, until: Option<i64>, cdn: bool) -> Block {
        Block { prefix: prefix.parse().unwrap(), until: until.map(at), why: "test".into(), cdn, since: at(0) }
    }

    #[test]
    fn a_source_meets_the_narrowest_block_that_still_holds() {
        let list: Blocklist = [
            block("192.0.2.0/24", Some(100), false),
            block("192.0.2.9/32", Some(50), true),
            block("2001:db8::/32", None, false),
        ]
        .into_iter()
        .collect();
        let found = |source: &str, is_cdn, now| {
            list.find(source.parse().unwrap(), is_cdn, at(now)).map(|block| block.prefix.to_string())
        };
        assert_eq!(found("192.0.2.9", false, 10).as_deref(), Some("192.0.2.9/32"));
        assert_eq!(found("::ffff:192.0.2.9", false, 50).as_deref(), Some("192.0.2.0/24"));
        assert_eq!(found("192.0.2.9", true, 10).as_deref(), Some("192.0.2.9/32"));
        assert_eq!(found("192.0.2.9", true, 50), None, "only the one that asks for it holds for a CDN");
        assert_eq!(found("192.0.2.8", false, 100), None);
        assert_eq!(found("2001:db8::1", false, i64::from(u32::MAX)).as_deref(), Some("2001:db8::/32"));
    }

    #[test]
    fn what_has_ended_goes_and_the_rest_stays() {
        let mut list: Blocklist =
            [block("192.0.2.0/24", Some(100), false), block("192.0.2.9/32", Some(50), false)]
                .into_iter()
                .collect();
        assert_eq!(list.next_end(), Some(at(50)));
        assert_eq!(list.expire(at(50)).len(), 1);
        assert_eq!((list.len(), list.next_end()), (1, Some(at(100))));
    }

    #[test]
    fn a_block_within_another_holds_in_the_gate_as_long_as_either() {
        let list: Blocklist = [
            block("192.0.2.0/24", Some(100), true),
            block("192.0.2.9/32", Some(50), false),
            block("192.0.2.10/32", None, false),
            block("198.51.100.0/24", Some(1), false),
        ]
        .into_iter()
        .collect();
        let got: Vec<_> = list
            .for_the_gate(&BTreeSet::new(), at(10), 7_000_000_000)
            .iter()
            .map(|block| (block.prefix.to_string(), block.until, block.until_cdn))
            .collect();
        let end = 97_000_000_000;
        let wanted = [
            ("192.0.2.9/32", end, end),
            ("192.0.2.10/32", u64::MAX, end),
            ("192.0.2.0/24", end, end),
            ("198.51.100.0/24", 7_000_000_000, 0),
        ];
        assert_eq!(got, wanted.map(|(prefix, until, cdn)| (prefix.to_owned(), until, cdn)));
    }

    #[test]
    fn a_cdns_prefix_within_a_block_is_spared_unless_the_block_is_meant_for_it() {
        let cdns: BTreeSet<IpNet> = ["192.0.2.0/25", "2001:db8:1::/48", "203.0.113.0/24"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        let list: Blocklist = [
            block("192.0.2.0/24", Some(100), false),
            // In the CDN's prefix, and from before it was.
            block("192.0.2.9/32", None, false),
            block("2001:db8::/32", Some(50), true),
        ]
        .into_iter()
        .collect();
        let (far, near) = (107_000_000_000, 57_000_000_000);
        let told: Vec<_> = list
            .for_the_gate(&cdns, at(0), 7_000_000_000)
            .iter()
            .map(|block| (block.prefix.to_string(), block.until, block.until_cdn))
            .collect();
        let wanted = [
            ("2001:db8:1::/48", near, near),
            ("192.0.2.9/32", 0, 0),
            ("2001:db8::/32", near, near),
            ("192.0.2.0/25", 0, 0),
            ("192.0.2.0/24", far, 0),
        ];
        assert_eq!(told, wanted.map(|(prefix, until, cdn)| (prefix.to_owned(), until, cdn)));
    }
}
