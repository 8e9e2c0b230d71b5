//! Who may come in: what the kernel looks sources up in.
//!
//! Each set of allowlists is a handful of tables in a slot of its own, made whole by user space and never
//! changed: a new set goes into another slot. What is in them is membership only. Which list and which prefix
//! let a source in is for user space to say, which has the lists.
//!
//! - [`Sieve`]: a bit for each beginning of an address. Most strangers are known by it alone.
//! - [`tree`]: the ends of the listed ranges, sorted, in nodes of two cache lines. As large as the lists are;
//!   a lookup from the top reads one node for Cloudflare's ranges and six for a million IPv6 prefixes.
//! - [`index`]: for many IPv6 prefixes, at which node of the trees to begin. A stranger is mostly known by one cache
//!   line; of who is listed, two or three are read and a leaf.
//! - [`directory`]: for many IPv4 prefixes, two bits for each /24 of the whole address space, and 256 bits for
//!   each /24 of which a part is listed. Six megabytes at least; a lookup reads one cache line or two.

pub mod directory;
pub mod index;
pub mod tree;

use index::{Bucket, Index, Place};
use tree::{At, Damaged, Node, Tree, Whole};

/// Slots for unions of lists. A change fills unused slots before it becomes visible, so at most half of them
/// should be in use.
pub const MAX_ADMISSIONS: usize = 128;
/// How many named lists are known to the kernel.
pub const MAX_LISTS: usize = 256;
/// From so many ranges on, IPv4 is looked up in a directory.
pub const DIRECTORY_FROM: usize = 1000;
/// From so many on, IPv6 is looked up with an index.
pub const INDEX_FROM: usize = 1000;

/// The beginning of a lookup.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sieve {
    /// All of IPv4, unless `directory`.
    pub tree_v4: Tree,
    /// Of IPv6, what is listed by whole /64s, by the first 64 bits.
    pub tree_v6: Tree,
    /// Of IPv6, the rest, by all bits.
    pub tree_v6_hosts: Tree,
    /// With an index: of IPv6, what is listed by more /32s than it has places for, by the first 32 bits.
    pub tree_v6_wide: Tree,
    /// Not 0: IPv4 is looked up in a directory, without the sieve.
    pub directory: u32,
    pub reserved: u32,
    /// Of many IPv6 ranges.
    pub index_v6: Index,
    /// One bit for each value of an address's first 16 bits: whether any listed address has it.
    pub v4: [u64; Sieve::WORDS],
    pub v6: [u64; Sieve::WORDS],
}

const _: () =
    assert!(size_of::<Sieve>() == 4 * size_of::<Tree>() + 2 * 4 + size_of::<Index>() + 2 * 65_536 / 8);

impl Sieve {
    pub const WORDS: usize = 65_536 / 64;

    /// Lets nobody through.
    pub const EMPTY: Self = Self {
        tree_v4: Tree::EMPTY,
        tree_v6: Tree::EMPTY,
        tree_v6_hosts: Tree::EMPTY,
        tree_v6_wide: Tree::EMPTY,
        directory: 0,
        reserved: 0,
        index_v6: Index::NONE,
        v4: [0; Self::WORDS],
        v6: [0; Self::WORDS],
    };

    #[inline(always)]
    #[must_use]
    pub const fn may_list_v4(&self, first: u16) -> bool {
        self.v4[(first >> 6) as usize] >> (first & 63) & 1 != 0
    }

    #[inline(always)]
    #[must_use]
    pub const fn may_list_v6(&self, first: u16) -> bool {
        self.v6[(first >> 6) as usize] >> (first & 63) & 1 != 0
    }

    /// Whether an IPv6 address is listed, given as its two halves.
    #[inline(always)]
    pub fn lists_v6<'a>(
        &self,
        [upper, lower]: [u64; 2],
        nodes: impl Fn(u32) -> Option<&'a Node>,
        filter: impl Fn(u32) -> Option<&'a u64>,
        buckets: impl Fn(u32) -> Option<&'a Bucket>,
    ) -> Result<bool, Damaged> {
        let indexed = self.index_v6.filter != 0;
        let has_hosts = !self.tree_v6_hosts.is_empty();
        let first = (upper >> 32) as u32;
        // 1. Where the trees are to be looked at, if at all.
        let mut at = Some(At::ROOT);
        if indexed {
            if !self.tree_v6_wide.is_empty() && self.tree_v6_wide.holds(first, &nodes)? {
                return Ok(true);
            }
            at = self.index_v6.find(Place::Allocation(first), &filter, &buckets)?;
            if at == Some(At::DEEPER) {
                at = self.index_v6.find(Place::Site(upper >> 16), &filter, &buckets)?;
            }
        } else if !self.may_list_v6((upper >> 48) as u16) {
            return Ok(false);
        }
        // 2. Whole networks.
        let listed = match at {
            Some(at) => self.tree_v6.holds_below(at, upper, &nodes)?,
            None => false,
        };
        if listed || !has_hosts {
            return Ok(listed);
        }
        // 3. Hosts.
        if indexed {
            at = self.index_v6.find(Place::Network(upper), &filter, &buckets)?;
        }
        match at {
            Some(at) => self.tree_v6_hosts.holds_below(at, Whole(upper, lower), &nodes),
            None => Ok(false),
        }
    }
}

// SAFETY: `repr(C)`, integers only, no padding (size asserted), every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sieve {}

/// Stands for a list in what user space and the kernel tell each other.
pub type ListId = u32;

/// The kernel doesn't know which list it was.
pub const SOME_LIST: ListId = 0;
