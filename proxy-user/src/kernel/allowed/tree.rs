//! Search trees, made of ranges.

use proxy_common::admission::tree::{Key, LEVELS, Node, Tree, Whole};

/// The ends of ranges that are in order and don't touch.
pub(super) struct Keys<K> {
    /// Two for each range, but for one that begins with the smallest address or ends with the largest.
    pub keys: Vec<K>,
    inverted: u32,
}

/// How many keys there are up to the end of each leaf.
pub(super) type Leaves = Vec<usize>;

impl<K: Bound> Keys<K> {
    pub fn of(ranges: impl Iterator<Item = (K, K)>) -> Self {
        let mut inverted = 0;
        let mut keys: Vec<K> = Vec::new();
        for (first, last) in ranges {
            match first.before() {
                Some(before) => keys.push(before),
                None => inverted = 1,
            }
            keys.push(last);
        }
        if inverted == 1 && keys == [K::MAX] {
            keys.clear();
        }
        Self { keys, inverted }
    }

    /// All full but the last.
    pub fn full_leaves(&self) -> Leaves {
        (0..self.keys.len())
            .step_by(K::PER_NODE)
            .map(|from| self.keys.len().min(from + K::PER_NODE))
            .collect()
    }

    /// Keys of one group stay together in one leaf if they fit in one. So that every leaf has an even number of keys,
    /// a pair belongs to the group of its second. Where that would make too many leaves they are full.
    pub fn grouped_leaves<G: PartialEq>(&self, group: impl Fn(K) -> G) -> Leaves {
        let pairs = self.keys.len().div_ceil(2);
        let group_of = |pair: usize| group(self.keys[(pair * 2 + 1).min(self.keys.len() - 1)]);
        let per_leaf = K::PER_NODE / 2;
        let mut leaves = Vec::with_capacity(pairs / per_leaf + 1);
        let (mut leaf, mut from) = (0, 0);
        while from < pairs {
            let this = group_of(from);
            // A larger group fits nowhere, and where it ends need not be known.
            let furthest = pairs.min(from + per_leaf + 1);
            let to = (from + 1..furthest).find(|pair| group_of(*pair) != this).unwrap_or(furthest);
            let taken = to - leaf;
            if taken > per_leaf && to - from <= per_leaf && from > leaf {
                leaves.push(from * 2);
                leaf = from;
            }
            while to - leaf >= per_leaf {
                leaf += per_leaf;
                leaves.push(self.keys.len().min(leaf * 2));
            }
            from = to;
        }
        if leaves.last().copied().unwrap_or(0) < self.keys.len() {
            leaves.push(self.keys.len());
        }
        if levels::<K>(leaves.len()) > LEVELS { self.full_leaves() } else { leaves }
    }

    /// The tree, whose nodes are added to the others.
    pub fn tree(&self, leaves: &[usize], nodes: &mut Vec<Node>) -> Tree {
        // 1. Leaves, and nodes above them until one is enough; the lowest level first. Of each node the largest key
        //    below it goes up.
        let begin = |leaf: usize| if leaf == 0 { 0 } else { leaves[leaf - 1] };
        let of_leaf = |leaf: usize| &self.keys[begin(leaf)..leaves[leaf]];
        let mut levels: Vec<Vec<Node>> = Vec::new();
        let mut largest: Vec<K> = Vec::new();
        if !leaves.is_empty() {
            levels.push((0..leaves.len()).map(|leaf| node(of_leaf(leaf))).collect());
            largest = leaves.iter().map(|end| self.keys[end - 1]).collect();
        }
        while largest.len() > 1 {
            let groups = largest.chunks(K::PER_NODE + 1);
            levels.push(groups.clone().map(|keys| node(&keys[..keys.len() - 1])).collect());
            largest = groups.filter_map(|keys| keys.last().copied()).collect();
        }

        // 2. The root first.
        assert!(
            levels.len() <= LEVELS,
            "more ranges than fit in a tree, which validation doesn't let through"
        );
        let mut tree = Tree { levels: levels.len() as u32, inverted: self.inverted, first: [0; LEVELS] };
        for (first, level) in tree.first.iter_mut().zip(levels.into_iter().rev()) {
            *first = nodes.len() as u32;
            nodes.extend(level);
        }
        tree
    }
}

/// How high a tree of so many leaves is.
fn levels<K: Key>(leaves: usize) -> usize {
    let up = |nodes: &usize| (*nodes > 1).then(|| nodes.div_ceil(K::PER_NODE + 1));
    std::iter::successors(Some(leaves), up).count()
}

fn node<K: Bound>(keys: &[K]) -> Node {
    let mut node = Node([u64::MAX; 16]);
    for (place, key) in keys.iter().enumerate() {
        key.put(&mut node, place);
    }
    node
}

/// A key as it is put into a node.
pub(super) trait Bound: Key {
    const MAX: Self;
    /// `None`: it is the smallest.
    fn before(self) -> Option<Self>;
    fn put(self, node: &mut Node, place: usize);
}

impl Bound for u32 {
    const MAX: Self = Self::MAX;

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn put(self, node: &mut Node, place: usize) {
        node.as_halves_mut()[place] = self;
    }
}

impl Bound for u64 {
    const MAX: Self = Self::MAX;

    fn before(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn put(self, node: &mut Node, place: usize) {
        node.0[place] = self;
    }
}

impl Bound for Whole {
    const MAX: Self = Self(u64::MAX, u64::MAX);

    fn before(self) -> Option<Self> {
        match self {
            Self(0, 0) => None,
            Self(upper, 0) => Some(Self(upper - 1, u64::MAX)),
            Self(upper, lower) => Some(Self(upper, lower - 1)),
        }
    }

    fn put(self, node: &mut Node, place: usize) {
        node.0[place * 2] = self.0;
        node.0[place * 2 + 1] = self.1;
    }
}
