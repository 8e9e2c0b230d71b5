//! Where to begin in large trees: for IPv6, whose addresses are too long for a directory.
//!
//! A tree of a million ranges is six nodes high, and the lowest are in no cache. But all that is listed within one
//! /32 (or, of single hosts, within one /64) is mostly in one leaf, so each such *place* of which any address is
//! listed has a [`Start`]: the lowest node that has all there is to know about it. Starts are found by hashing. A /32 of
//! which more is listed than one leaf holds says no more than that its /48s have starts of their own.
//!
//! - A word of the *filter* has three bits set for each place that is hashed to it. Most strangers are known by one
//!   word: two megabytes in all, a quarter of a word for each place.
//! - A place's start is in one of two *buckets*, a cache line each.

use super::tree::{At, Damaged};

/// The words of a filter. Of smaller lists only the first are used.
pub const FILTER_WORDS: usize = 1 << 18;
/// The starts of a bucket.
pub const BUCKET_STARTS: usize = 4;

/// What an index is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A /32, by its first 32 bits.
    Allocation(u32),
    /// A /48 of a /32 of which much is listed, by its first 48 bits.
    Site(u64),
    /// A /64, by its first 64 bits, of which single addresses are listed.
    Network(u64),
}

/// How an index is to be used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub seed: u64,
    /// 0: there is no index.
    pub filter: u32,
    pub buckets: u32,
}

/// Where the search for a place begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    pub prefix: u64,
    /// 0: there is no start here.
    pub kind: u32,
    pub at: At,
}

/// Of one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [Start; BUCKET_STARTS]);

const _: () = assert!(size_of::<Index>() == 16);
const _: () = assert!(size_of::<Start>() == 16);
const _: () = assert!(size_of::<Bucket>() == 64);

/// A place as it is hashed.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    prefix: u64,
    kind: u32,
    hash: u64,
}

// === impl Place ===

impl Place {
    /// How it stands in a [`Start`].
    #[inline(always)]
    #[must_use]
    pub const fn parts(self) -> (u64, u32) {
        match self {
            Self::Allocation(first) => (first as u64, 1),
            Self::Network(upper) => (upper, 2),
            Self::Site(first) => (first, 3),
        }
    }
}

// === impl Index ===

impl Index {
    pub const NONE: Self = Self { seed: 0, filter: 0, buckets: 0 };

    #[inline(always)]
    #[must_use]
    pub const fn hashed(&self, (prefix, kind): (u64, u32)) -> Hashed {
        let mixed = (prefix ^ self.seed).wrapping_add(kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        Hashed { prefix, kind, hash: mixed ^ (mixed >> 29) }
    }

    /// The word of the filter that knows a place.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self, of: Hashed) -> u32 {
        (((of.hash >> 32) * self.filter as u64) >> 32) as u32
    }

    /// The buckets that may have a place's start.
    #[inline(always)]
    #[must_use]
    pub const fn buckets(&self, of: Hashed) -> [u32; 2] {
        let buckets = self.buckets as u64;
        let other = of.hash.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) >> 32;
        [(((of.hash & 0xffff_ffff) * buckets) >> 32) as u32, ((other * buckets) >> 32) as u32]
    }

    /// Where to begin looking for an address in a place. `None`: nothing there is listed.
    #[inline(always)]
    pub fn find<'a>(
        &self,
        place: Place,
        filter: impl Fn(u32) -> Option<&'a u64>,
        buckets: impl Fn(u32) -> Option<&'a Bucket>,
    ) -> Result<Option<At>, Damaged> {
        let hashed = self.hashed(place.parts());
        let bits = hashed.bits();
        if *filter(self.word(hashed)).ok_or(Damaged)? & bits != bits {
            return Ok(None);
        }
        for bucket in self.buckets(hashed) {
            if let Some(at) = buckets(bucket).ok_or(Damaged)?.find(hashed) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

impl Hashed {
    /// What a place sets in its word of the filter.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u64 {
        1 << (self.hash & 63) | 1 << (self.hash >> 6 & 63) | 1 << (self.hash >> 12 & 63)
    }
}

impl Bucket {
    #[inline(always)]
    const fn find(&self, of: Hashed) -> Option<At> {
        let mut slot = 0;
        while slot < BUCKET_STARTS {
            let start = &self.0[slot];
            if start.prefix == of.prefix && start.kind == of.kind {
                return Some(start.at);
            }
            slot += 1;
        }
        None
    }
}

// SAFETY: `repr(C)`, integers only, sizes asserted above show that nothing is padding, and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Bucket {}
