//! What a change of headers does to checksums: the Internet checksum is a sum, so it can be mended without the rest of the
//! packet (RFC 1624). Words are taken as they lie in memory, since the sum of swapped bytes is the swapped sum.

/// A ones' complement sum of changes.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    #[inline(always)]
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    #[inline(always)]
    #[must_use]
    pub const fn with(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    #[inline(always)]
    #[must_use]
    pub const fn without(self, word: u32) -> Self {
        Self(self.0 + !word as u64)
    }

    /// As the kernel's helpers want it.
    #[inline(always)]
    #[must_use]
    pub const fn difference(self) -> u32 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The checksum that stood for what was there before, mended.
    #[inline(always)]
    #[must_use]
    pub const fn mend(self, checksum: u16) -> u16 {
        let sum = self.difference() as u64 + !checksum as u64;
        let once = (sum & 0xffff) + (sum >> 16);
        let twice = (once & 0xffff) + (once >> 16);
        !(((twice & 0xffff) + (twice >> 16)) as u16)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    fn checksum(words: &[u32]) -> u16 {
        let sum =
            words.iter().fold(0_u64, |sum, word| sum + u64::from(word & 0xffff) + u64::from(word >> 16));
        let once = (sum & 0xffff) + (sum >> 16);
        !(((once & 0xffff) + (once >> 16)) as u16)
    }

    proptest! {
        #[test]
        fn a_mended_checksum_is_that_of_the_changed_words(
            before in proptest::collection::vec(any::<u32>(), 4),
            after in proptest::collection::vec(any::<u32>(), 4),
            // Never all zero, like any header.
            rest in 1_u32..,
        ) {
            let whole = |words: &[u32]| checksum(&[words, &[rest]].concat());
            let with = after.iter().fold(Sum::none(), |sum, word| sum.with(*word));
            let sum = before.iter().fold(with, |sum, word| sum.without(*word));
            prop_assert_eq!(sum.mend(whole(&before)), whole(&after));
        }
    }
}
