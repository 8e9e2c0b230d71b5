//! Checksums that follow a change without looking at what stays (RFC 1624).
//!
//! All is one's complement arithmetic over words as they lie in memory, where it doesn't matter which half of a word a
//! number stands in, nor in which order machines have bytes.

/// What a change adds to the sum over a packet. The kernel's helpers take it as it is (`__wsum`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference(u32);

impl Difference {
    pub const NONE: Self = Self(0);

    /// Of one word that becomes another.
    #[inline(always)]
    #[must_use]
    pub const fn word(old: u32, new: u32) -> Self {
        Self::sum(!old as u64 + new as u64)
    }

    #[inline(always)]
    #[must_use]
    pub const fn words<const N: usize>(old: &[u32; N], new: &[u32; N]) -> Self {
        let mut sum = 0_u64;
        let mut at = 0;
        while at < N {
            sum += !old[at] as u64 + new[at] as u64;
            at += 1;
        }
        Self::sum(sum)
    }

    /// Of a sum of so few words that it hasn't overflown.
    #[inline(always)]
    #[must_use]
    pub const fn sum(sum: u64) -> Self {
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        Self(((sum & 0xffff_ffff) + (sum >> 32)) as u32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self::sum(self.0 as u64 + other.0 as u64)
    }

    #[inline(always)]
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(!self.0)
    }

    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The checksum that follows from this one.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u64 + self.0 as u64)
    }
}

/// The sum in sixteen bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests;
