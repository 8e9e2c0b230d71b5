//! The index of large IPv6 sets: which places there are, where the search for each begins, and the hash tables that
//! say so.

use proxy_common::admission::{
    Sieve,
    index::{self as wire, BUCKET_STARTS, Bucket, FILTER_WORDS, Place, Start},
    tree::{At, Node, Tree, Whole},
};

use super::tree::{Bound, Keys};

/// A range of more whole /32s isn't written as places: one prefix could be millions of them. Where ranges are so large
/// that there would be many places for each, the smaller limits hold.
const WIDE: [u64; 3] = [64, 8, 1];
/// A /32 of which much is listed is divided into /48s if these are not many more than the ranges.
const SITES_PER_RANGE: u64 = 2;
/// A quarter of the places in buckets stay free, so that every start soon finds one.
const STARTS_PER_BUCKET: usize = BUCKET_STARTS * 3 / 4;
/// So often starts make room for each other. Where they still go round, another seed is tried.
const MOVES: usize = 500;
const SEEDS: u64 = 8;

/// As the kernel reads it.
pub(in crate::kernel) struct Index {
    pub filter: Vec<u64>,
    pub buckets: Vec<Bucket>,
}

/// Makes trees and an index of them. `None`, and nothing done: these can't be indexed.
pub(super) fn build(
    networks: &[(u64, u64)],
    hosts: &[(Whole, Whole)],
    sieve: &mut Sieve,
    nodes: &mut Vec<Node>,
) -> Option<Index> {
    let before = nodes.len();
    let built = try_build(networks, hosts, sieve, nodes);
    if built.is_none() {
        nodes.truncate(before);
    }
    built
}

fn try_build(
    networks: &[(u64, u64)],
    hosts: &[(Whole, Whole)],
    sieve: &mut Sieve,
    nodes: &mut Vec<Node>,
) -> Option<Index> {
    // 1. Networks, by /32s.
    let keys = Keys::of(networks.iter().copied());
    let leaves = keys.grouped_leaves(|key| key >> 32);
    let tree_v6 = keys.tree(&leaves, nodes);
    let Parts { parts, wide } = parts(networks, 32, wide(networks));
    let mut cursor = Cursor::new(&keys.keys, &leaves, &tree_v6);
    let mut of_sites = Cursor::new(&keys.keys, &leaves, &tree_v6);
    let mut starts: Vec<Start> = Vec::with_capacity(parts.len());
    for Part { prefix, whole } in parts {
        let place = Place::Allocation(prefix as u32);
        let (first, last) = (prefix << 32, prefix << 32 | u64::from(u32::MAX));
        let at = if whole { At::WHOLE } else { cursor.at(first, last)? };
        if whole || at.level() + 1 == tree_v6.levels as usize {
            starts.push(start(place, at));
            continue;
        }
        match sites(networks, first, last) {
            Some(sites) => {
                starts.push(start(place, At::DEEPER));
                for Part { prefix, whole } in sites {
                    let (first, last) = (prefix << 16, prefix << 16 | u64::from(u16::MAX));
                    let at = if whole { At::WHOLE } else { of_sites.at(first, last)? };
                    starts.push(start(Place::Site(prefix), at));
                }
            }
            None => starts.push(start(place, at)),
        }
    }

    // 2. Hosts, by /64s.
    let keys = Keys::of(hosts.iter().copied());
    let leaves = keys.grouped_leaves(|Whole(upper, _)| upper);
    let tree_v6_hosts = keys.tree(&leaves, nodes);
    let mut cursor = Cursor::new(&keys.keys, &leaves, &tree_v6_hosts);
    for of_one in hosts.chunk_by(|one, other| one.0.0 == other.0.0) {
        let upper = of_one[0].0.0;
        let at = cursor.at(Whole(upper, 0), Whole(upper, u64::MAX))?;
        starts.push(start(Place::Network(upper), at));
    }

    // 3. The hash tables.
    let (index_v6, index) = (0..SEEDS).find_map(|seed| hashed(seed, &starts))?;
    let keys = Keys::of(wide.into_iter());
    let tree_v6_wide = keys.tree(&keys.full_leaves(), nodes);
    sieve.tree_v6 = tree_v6;
    sieve.tree_v6_hosts = tree_v6_hosts;
    sieve.tree_v6_wide = tree_v6_wide;
    sieve.index_v6 = index_v6;
    Some(index)
}

fn start(place: Place, at: At) -> Start {
    let (prefix, kind) = place.parts();
    Start { prefix, kind, at }
}

/// From how many whole /32s on a range is too wide for places.
fn wide(networks: &[(u64, u64)]) -> u64 {
    let places = |wide: u64| -> u64 {
        let spans = networks.iter().map(|(first, last)| (last >> 32) - (first >> 32) + 1);
        spans.filter(|span| *span <= wide + 2).sum()
    };
    let [.., least] = WIDE;
    WIDE.into_iter().find(|wide| places(*wide) <= networks.len() as u64 * 2).unwrap_or(least)
}

/// The /48s of a /32 of which any address is listed. `None`: these are so many more than the ranges that one of those
/// must be large, and they would only take memory.
fn sites(networks: &[(u64, u64)], first: u64, last: u64) -> Option<Vec<Part>> {
    let from = networks.partition_point(|range| range.1 < first);
    let to = networks.partition_point(|range| range.0 <= last);
    let within: Vec<_> =
        networks[from..to].iter().map(|range| (range.0.max(first), range.1.min(last))).collect();
    let spanned: u64 = within.iter().map(|(first, last)| (last >> 16) - (first >> 16) + 1).sum();
    (spanned <= within.len() as u64 * SITES_PER_RANGE).then(|| parts(&within, 16, u64::MAX).parts)
}

/// What has so many bits less than a /64, and of which any address is listed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Part {
    prefix: u64,
    /// All of it is listed.
    whole: bool,
}

#[derive(Default)]
struct Parts {
    /// In order, each once.
    parts: Vec<Part>,
    /// Ranges of so many whole ones that they aren't among the parts.
    wide: Vec<(u32, u32)>,
}

fn parts(ranges: &[(u64, u64)], bits: u32, wide: u64) -> Parts {
    let mut of = Parts::default();
    let inside = (1 << bits) - 1;
    for &(first, last) in ranges {
        let (mut from, mut to) = (first >> bits, last >> bits);
        let begins_inside = first & inside != 0;
        let ends_inside = last & inside != inside;
        if from == to && (begins_inside || ends_inside) {
            of.add_part(from);
            continue;
        }
        if begins_inside {
            of.add_part(from);
            from += 1;
        }
        // Not below zero: a range that ends inside of the first part begins there too.
        if ends_inside {
            to -= 1;
        }
        if from <= to {
            if to - from >= wide {
                of.wide.push((from as u32, to as u32));
            } else {
                of.parts.extend((from..=to).map(|prefix| Part { prefix, whole: true }));
            }
        }
        if ends_inside {
            of.add_part(to + 1);
        }
    }
    of
}

impl Parts {
    fn add_part(&mut self, prefix: u64) {
        let part = Part { prefix, whole: false };
        if self.parts.last() != Some(&part) {
            self.parts.push(part);
        }
    }
}

/// Goes through a tree's keys, and says where the search for each place begins.
struct Cursor<'a, K> {
    keys: &'a [K],
    leaves: &'a [usize],
    levels: usize,
    below_first: usize,
    below_last: usize,
    leaf: usize,
}

impl<'a, K: Bound> Cursor<'a, K> {
    fn new(keys: &'a [K], leaves: &'a [usize], tree: &Tree) -> Self {
        Self { keys, leaves, levels: tree.levels as usize, below_first: 0, below_last: 0, leaf: 0 }
    }

    /// The lowest node below which are all keys that tell the addresses of a place apart, and of those before them
    /// an even number. Places are asked for in order. `None`: the tree is too large for it to be written.
    fn at(&mut self, first: K, last: K) -> Option<At> {
        let below = |from: usize, address: K| {
            from + self.keys[from..].iter().take_while(|key| **key < address).count()
        };
        self.below_first = below(self.below_first, first);
        self.below_last = below(self.below_last.max(self.below_first), last);
        while self.leaf + 1 < self.leaves.len() && self.leaves[self.leaf] <= self.below_first {
            self.leaf += 1;
        }
        let (mut from, mut to) = (self.leaf, self.leaf);
        while self.leaves[to] < self.below_last {
            to += 1;
        }
        let mut level = self.levels - 1;
        while from != to {
            (from, to) = (from / (K::PER_NODE + 1), to / (K::PER_NODE + 1));
            level -= 1;
        }
        At::node(level, from)
    }
}

/// `None`: with this seed there is no place for all of them.
fn hashed(seed: u64, starts: &[Start]) -> Option<(wire::Index, Index)> {
    let buckets = starts.len() / STARTS_PER_BUCKET + 1;
    let words = (starts.len() / 4).clamp(64, FILTER_WORDS);
    let of = wire::Index { seed, filter: words as u32, buckets: u32::try_from(buckets).ok()? };
    let mut index = Index { filter: vec![0; FILTER_WORDS], buckets: vec![Bucket::default(); buckets] };
    let mut turn = 0;
    for start in starts {
        let hash = of.hashed((start.prefix, start.kind));
        index.filter[of.word(hash) as usize] |= hash.bits();
        index.place(&of, *start, &mut turn)?;
    }
    Some((of, index))
}

impl Index {
    /// Puts a start into one of its buckets. Where both are full, another makes room and goes to its other one.
    fn place(&mut self, of: &wire::Index, mut start: Start, turn: &mut usize) -> Option<()> {
        let mut came_from = None;
        for _ in 0..MOVES {
            let both = of.buckets(of.hashed((start.prefix, start.kind))).map(|bucket| bucket as usize);
            for bucket in both {
                if let Some(free) = self.buckets[bucket].0.iter_mut().find(|other| other.kind == 0) {
                    *free = start;
                    return Some(());
                }
            }
            let [one, other] = both;
            let bucket = if came_from == Some(one) { other } else { one };
            *turn = (*turn + 1) % BUCKET_STARTS;
            std::mem::swap(&mut self.buckets[bucket].0[*turn], &mut start);
            came_from = Some(bucket);
        }
        None
    }
}
