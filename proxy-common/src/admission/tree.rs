//! Ranges of addresses as a static search tree.
//!
//! Of each range `first..=last` the tree holds two keys, `first - 1` and `last`, in order. An address is inside
//! a range when the number of keys below it is odd. The keys stand in leaves; a node above holds, for each of
//! its children but the last, the largest key below that child. All nodes are full but the last of each level,
//! so a child is found by arithmetic, and every leaf but the last has an even number of keys: whether the count
//! is odd is seen in one leaf.
//!
//! Comparisons are done without branches. Half of them would be mispredicted, and the verifier would follow
//! each way through every node.

/// An array's element: 32, 16 or 8 keys.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub [u64; 16]);

/// Where a tree is among the nodes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// 0: without any key.
    pub levels: u32,
    /// 1: the smallest address is listed.
    pub inverted: u32,
    /// The first node of each level, beginning with the root's.
    pub first: [u32; LEVELS],
}

/// Where in a tree a search begins: at a node that all keys are below that matter for what is asked.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At(u32);

/// Enough for four million ranges of hosts.
pub const LEVELS: usize = 7;

const _: () = assert!(size_of::<Node>() == 128);

/// What keys are made of, and how many of them a node has.
pub trait Key: Copy + Ord {
    /// An even number.
    const PER_NODE: usize;
    /// How many keys of the node are below `self`. Unused places hold the largest key, which is below none.
    fn above(self, node: &Node) -> u32;
}

/// A node is missing: the tables are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl Tree {
    pub const EMPTY: Self = Self { levels: 0, inverted: 0, first: [0; LEVELS] };

    /// Whether no address is in it.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.levels | self.inverted == 0
    }

    /// Whether the address is in one of the ranges.
    #[inline(always)]
    pub fn holds<'a, K: Key>(
        &self,
        address: K,
        nodes: impl Fn(u32) -> Option<&'a Node>,
    ) -> Result<bool, Damaged> {
        self.holds_below(At::ROOT, address, nodes)
    }

    /// The same for an address of which it is known where to begin.
    #[inline(always)]
    pub fn holds_below<'a, K: Key>(
        &self,
        at: At,
        address: K,
        nodes: impl Fn(u32) -> Option<&'a Node>,
    ) -> Result<bool, Damaged> {
        if at == At::WHOLE {
            return Ok(true);
        }
        if self.levels == 0 {
            return Ok(self.inverted != 0);
        }
        let (from, mut child) = (at.level(), at.child());
        let mut level = 0;
        while level < LEVELS {
            if level < from {
                level += 1;
                continue;
            }
            let node = nodes(self.first[level].wrapping_add(child)).ok_or(Damaged)?;
            let below = address.above(node);
            level += 1;
            if level as u32 == self.levels {
                return Ok((below ^ self.inverted) & 1 != 0);
            }
            child = child.wrapping_mul(K::PER_NODE as u32 + 1).wrapping_add(below);
        }
        Err(Damaged)
    }
}

impl At {
    pub const ROOT: Self = Self(0);
    /// Everything there is listed.
    pub const WHOLE: Self = Self(u32::MAX);
    /// At no node: smaller places say more.
    pub const DEEPER: Self = Self(u32::MAX - 1);

    /// A node by its level, the root's being 0, and its place there. `None`: there are no such large trees.
    #[must_use]
    pub const fn node(level: usize, place: usize) -> Option<Self> {
        if level < LEVELS && place <= Self::PLACE as usize {
            Some(Self((level as u32) << Self::PLACE.count_ones() | place as u32))
        } else {
            None
        }
    }

    const PLACE: u32 = (1 << 29) - 1;

    #[inline(always)]
    #[must_use]
    pub const fn level(self) -> usize {
        (self.0 >> Self::PLACE.count_ones()) as usize
    }

    #[inline(always)]
    const fn child(self) -> u32 {
        self.0 & Self::PLACE
    }
}

impl Node {
    #[must_use]
    pub const fn as_halves_mut(&mut self) -> &mut [u32; 32] {
        // SAFETY: as large, less aligned, and any bytes are integers, also what is written.
        unsafe { &mut *(&raw mut *self).cast() }
    }

    #[inline(always)]
    const fn as_pairs(&self) -> &[[u64; 2]; 8] {
        // SAFETY: as large, as aligned, and any bytes are integers.
        unsafe { &*(&raw const *self).cast() }
    }

    #[inline(always)]
    const fn as_halves(&self) -> &[u32; 32] {
        // SAFETY: as large, less aligned, and any bytes are integers.
        unsafe { &*(&raw const *self).cast() }
    }
}

// === impl Key ===

impl Key for u32 {
    const PER_NODE: usize = 32;

    #[inline(always)]
    fn above(self, node: &Node) -> u32 {
        // Of numbers so small the difference itself shows it.
        let below = |key: u32| (u64::from(key).wrapping_sub(u64::from(self)) >> 63) as usize;
        // SAFETY: one bit is 0 or 1.
        unsafe { count(node.as_halves(), [16, 8, 4, 2, 1], below) }
    }
}

impl Key for u64 {
    const PER_NODE: usize = 16;

    #[inline(always)]
    fn above(self, node: &Node) -> u32 {
        // SAFETY: one bit is 0 or 1.
        unsafe { count(&node.0, [8, 4, 2, 1], |key| below(key, self)) }
    }
}

/// The upper half and the lower half, because the kernel has no integers of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole(pub u64, pub u64);

impl Key for Whole {
    const PER_NODE: usize = 8;

    #[inline(always)]
    fn above(self, node: &Node) -> u32 {
        let below = |[upper, lower]: [u64; 2]| {
            let differs = upper ^ self.0;
            let equal = (1 ^ ((differs | differs.wrapping_neg()) >> 63)) as usize;
            below(upper, self.0) | (equal & below(lower, self.1))
        };
        // SAFETY: single bits, also when they are combined.
        unsafe { count(node.as_pairs(), [4, 2, 1], below) }
    }
}

/// How many of a node's keys are below, where `below` says 1 for a key that is and 0 for one that isn't, and never 1
/// again behind a 0. `steps` halve the node down to 1.
///
/// The place is kept as an address, to which each step is added. As an index it would be put together with bitwise
/// ors, of which Linux 6.1 forgets all bounds, and refuses the program.
///
/// # Safety
/// `below` must return 0 or 1.
#[inline(always)]
unsafe fn count<K: Copy, const KEYS: usize, const STEPS: usize>(
    keys: &[K; KEYS],
    steps: [usize; STEPS],
    below: impl Fn(K) -> usize,
) -> u32 {
    const { assert!(KEYS == 1 << STEPS) };
    let mut at = keys.as_ptr();
    let mut count = 0;
    for step in steps {
        // SAFETY: the steps taken before are different halvings of the node, all larger than this one; together
        // with this one they stay below its length.
        let passed = step * below(unsafe { *at.add(step - 1) });
        // SAFETY: as above.
        at = unsafe { at.add(passed) };
        count += passed;
    }
    // All but one are told apart by now; the last is left.
    // SAFETY: all steps together are one less than the node's length.
    (count + below(unsafe { *at })) as u32
}

/// 1 if `key` is below `address`, else 0: the borrow of their difference.
#[inline(always)]
const fn below(key: u64, address: u64) -> usize {
    ((!key & address | !(key ^ address) & key.wrapping_sub(address)) >> 63) as usize
}

// SAFETY: `repr(C)`, integers only, every bit pattern valid, no padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Node {}
