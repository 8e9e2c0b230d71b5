//! Whom somebody has blocked, and until when.
//!
//! One trie by source prefix, for all entrypoints. Only the longest prefix that has a source is found, so user space
//! writes into each the latest end of all blocks that cover it.

/// So many blocks can be held.
pub const MAX_BLOCKS: usize = 16_384;

/// Bits that an IPv4 prefix has more in its IPv6 form, `::ffff:a.b.c.d`, in which it stands in the trie.
pub const MAPPED: u32 = 96;

/// In `until`: it never ends by itself.
pub const FOREVER: u64 = u64::MAX;

/// What holds for the sources of a prefix. Times are nanoseconds since the host was booted, suspended time included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    pub until: u64,
    /// Likewise for sources that are a CDN's, where that was asked for. 0: it wasn't.
    pub until_cdn: u64,
    /// Of these sources, dropped or, at shadowed entrypoints, let pass.
    pub packets: u64,
}

const _: () = assert!(size_of::<Blocked>() == 24);

// === impl Blocked ===

impl Blocked {
    #[inline(always)]
    #[must_use]
    pub const fn holds(&self, is_cdn: bool, now: u64) -> bool {
        now < if is_cdn { self.until_cdn } else { self.until }
    }
}

// SAFETY: `repr(C)`, `u64` only: no padding, every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Blocked {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_until_its_end_and_for_a_cdn_only_where_that_was_asked_for() {
        let block = Blocked { until: 10, until_cdn: 0, packets: 0 };
        assert!(block.holds(false, 9) && !block.holds(false, 10) && !block.holds(true, 0));
        let all = Blocked { until: FOREVER, until_cdn: 5, packets: 0 };
        assert!(all.holds(false, u64::MAX - 1) && all.holds(true, 4) && !all.holds(true, 5));
    }
}
