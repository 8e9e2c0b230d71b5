//! IPv4, by the first 24 bits.

/// For 64 neighbouring /24s, of which any address is listed. These alone answer for most strangers, and are kept
/// by themselves, so that they stay in the caches: two megabytes.
pub type Touched = u64;

/// 64 neighbouring /24s.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Of which /24s all addresses are listed. Of the others that are touched, some are.
    pub whole: u64,
    /// Where the first of those in part stands among all that are listed in part; the others follow it.
    pub first: u64,
}

/// By the first 18 bits of an address.
pub const BLOCKS: usize = 1 << 18;

/// A /24 that is listed in part: a bit for each of its addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub [u64; 4]);

const _: () = assert!(size_of::<Block>() == 16);
const _: () = assert!(size_of::<Hosts>() == 32);

/// What a block says of an address in a /24 that is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Yes,
    /// The hosts at this place say it.
    Partly(u32),
}

/// The block that an address belongs to.
#[inline(always)]
#[must_use]
pub const fn block(address: u32) -> u32 {
    address >> 14
}

#[inline(always)]
#[must_use]
pub const fn touches(touched: Touched, address: u32) -> bool {
    touched >> (address >> 8 & 63) & 1 != 0
}

impl Block {
    #[inline(always)]
    #[must_use]
    pub const fn lists(&self, touched: Touched, address: u32) -> Listed {
        let place = address >> 8 & 63;
        if self.whole >> place & 1 != 0 {
            return Listed::Yes;
        }
        let before = touched & !self.whole & ((1 << place) - 1);
        Listed::Partly(self.first as u32 + ones(before))
    }
}

impl Hosts {
    #[inline(always)]
    #[must_use]
    pub const fn list(&self, address: u32) -> bool {
        self.0[(address >> 6 & 3) as usize] >> (address & 63) & 1 != 0
    }
}

/// How many bits are set. The kernel's machine has no instruction for it.
#[inline(always)]
const fn ones(bits: u64) -> u32 {
    let pairs = bits - (bits >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

// SAFETY: `repr(C)`, `u64`s only, so nothing is padding and every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Block {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Hosts {}
