//! What the kernel looks sources up in, made whole before it sees it. Pure.

use proxy_common::admission::{
    DIRECTORY_FROM, INDEX_FROM, Sieve,
    directory::{BLOCKS, Block, Hosts, Touched},
    tree::{Node, Whole},
};

use self::tree::Keys;
use crate::admission::PrefixSet;

mod index;
mod tree;

pub(super) use self::index::Index;

/// The tables of one set of allowlists. There is always a node, and a host in a directory: the kernel has no
/// empty arrays.
pub(super) struct Allowed {
    pub sieve: Box<Sieve>,
    pub nodes: Vec<Node>,
    /// For many IPv4 ranges.
    pub directory: Option<Directory>,
    /// For many IPv6 ranges.
    pub index: Option<Index>,
}

pub(super) struct Directory {
    pub touched: Vec<Touched>,
    pub blocks: Vec<Block>,
    pub hosts: Vec<Hosts>,
}

pub(super) fn tables(set: &PrefixSet) -> Allowed {
    let (v4, v6) = (set.ranges_v4(), set.ranges_v6());
    with(set, v4.len() >= DIRECTORY_FROM, v6.len() >= INDEX_FROM)
}

/// Whether there is to be a directory and an index is for [`tables`] to say, and for tests to say otherwise.
fn with(set: &PrefixSet, has_directory: bool, has_index: bool) -> Allowed {
    let mut sieve = sieve(set);
    let mut nodes = Vec::new();
    let directory = has_directory.then(|| directory(set.ranges_v4()));
    if directory.is_some() {
        sieve.directory = 1;
    } else {
        let keys = Keys::of(set.ranges_v4().iter().copied());
        sieve.tree_v4 = keys.tree(&keys.full_leaves(), &mut nodes);
    }
    let (networks, hosts) = by_networks(set.ranges_v6());
    let index = if has_index { index::build(&networks, &hosts, &mut sieve, &mut nodes) } else { None };
    if index.is_none() {
        let keys = Keys::of(networks.into_iter());
        sieve.tree_v6 = keys.tree(&keys.full_leaves(), &mut nodes);
        let keys = Keys::of(hosts.into_iter());
        sieve.tree_v6_hosts = keys.tree(&keys.full_leaves(), &mut nodes);
    }
    if nodes.is_empty() {
        nodes.push(Node([u64::MAX; 16]));
    }
    Allowed { sieve, nodes, directory, index }
}

/// What first 16 bits listed addresses have.
fn sieve(set: &PrefixSet) -> Box<Sieve> {
    let mut sieve = Box::new(Sieve::EMPTY);
    for &(first, last) in set.ranges_v4() {
        mark(&mut sieve.v4, (first >> 16) as usize, (last >> 16) as usize);
    }
    for &(first, last) in set.ranges_v6() {
        mark(&mut sieve.v6, (first >> 112) as usize, (last >> 112) as usize);
    }
    sieve
}

fn mark(words: &mut [u64; Sieve::WORDS], first: usize, last: usize) {
    for value in first..=last {
        words[value >> 6] |= 1 << (value & 63);
    }
}

/// What of the ranges is whole /64s, by their first 64 bits; and the rest.
#[expect(clippy::type_complexity, reason = "two lists of ranges")]
fn by_networks(ranges: &[(u128, u128)]) -> (Vec<(u64, u64)>, Vec<(Whole, Whole)>) {
    let network = |address: u128| (address >> 64) as u64;
    let whole = |address: u128| Whole(network(address), address as u64);
    let (mut networks, mut hosts) = (Vec::new(), Vec::new());
    for &(first, last) in ranges {
        let begins_inside = first as u64 != 0;
        let ends_inside = last as u64 != u64::MAX;
        let (mut from, mut to) = (u128::from(network(first)), u128::from(network(last)));
        if from == to && (begins_inside || ends_inside) {
            hosts.push((whole(first), whole(last)));
            continue;
        }
        if begins_inside {
            hosts.push((whole(first), Whole(network(first), u64::MAX)));
            from += 1;
        }
        if ends_inside {
            hosts.push((Whole(network(last), 0), whole(last)));
            to -= 1;
        }
        if from <= to {
            networks.push((from as u64, to as u64));
        }
    }
    (networks, hosts)
}

/// Of ranges that are in order and don't touch.
fn directory(ranges: &[(u32, u32)]) -> Directory {
    let mut blocks = vec![Block::default(); BLOCKS];
    let mut hosts: Vec<(u32, Hosts)> = Vec::new();
    for &(first, last) in ranges {
        let (mut from, mut to) = (u64::from(first >> 8), u64::from(last >> 8));
        // 1. The /24s at its ends, if they aren't whole.
        let begins_inside = first & 0xff != 0;
        let ends_inside = last & 0xff != 0xff;
        if from == to && (begins_inside || ends_inside) {
            add_hosts(&mut hosts, first, last);
            continue;
        }
        if begins_inside {
            add_hosts(&mut hosts, first, first | 0xff);
            from += 1;
        }
        if ends_inside {
            add_hosts(&mut hosts, last & !0xff, last);
            to -= 1;
        }
        // 2. Those between them, up to 64 at a time.
        while from <= to {
            let end = to.min(from | 63);
            blocks[(from >> 6) as usize].whole |= ones(from & 63, end & 63);
            from = end + 1;
        }
    }
    // 3. Those in part: they are in order, as the ranges are.
    let mut touched: Vec<Touched> = blocks.iter().map(|block| block.whole).collect();
    for (network, _) in &hosts {
        touched[(network >> 6) as usize] |= 1 << (network & 63);
    }
    let mut before = 0;
    for (block, touched) in blocks.iter_mut().zip(&touched) {
        block.first = before;
        before += u64::from((touched & !block.whole).count_ones());
    }
    let mut hosts: Vec<Hosts> = hosts.into_iter().map(|(_, hosts)| hosts).collect();
    if hosts.is_empty() {
        hosts.push(Hosts::default());
    }
    Directory { touched, blocks, hosts }
}

/// Of one /24.
fn add_hosts(hosts: &mut Vec<(u32, Hosts)>, first: u32, last: u32) {
    let network = first >> 8;
    if hosts.last().is_none_or(|(other, _)| *other != network) {
        hosts.push((network, Hosts::default()));
    }
    let Some((_, Hosts(words))) = hosts.last_mut() else { return };
    let (first, last) = (u64::from(first & 0xff), u64::from(last & 0xff));
    for (word, start) in words.iter_mut().zip([0, 64, 128, 192]) {
        if first < start + 64 && last >= start {
            *word |= ones(first.max(start) - start, last.min(start + 63) - start);
        }
    }
}

/// Bits from one to another, both included.
const fn ones(from: u64, to: u64) -> u64 {
    u64::MAX >> (63 - (to - from)) << from
}

#[cfg(test)]
mod tests;
