//! Who may come in.

/// Slots for unions of lists. A change fills unused slots before it becomes visible, so at most half of them
/// should be in use.
pub const MAX_ADMISSIONS: usize = 128;
/// How many named lists are known to the kernel.
pub const MAX_LISTS: usize = 256;
/// What the programs are verified against; real tries are made as large as their lists.
pub const TEMPLATE_PREFIXES: usize = 1024;

/// The value of a prefix: the list that let it in.
pub type ListId = u32;

/// One bit for each value of an address's first 16 bits: whether any prefix has such addresses. Most strangers
/// are known by this alone; the others, and visitors, are looked up among the prefixes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sieve {
    pub v4: [u64; Sieve::WORDS],
    pub v6: [u64; Sieve::WORDS],
}

const _: () = assert!(size_of::<Sieve>() == 2 * 65_536 / 8);

impl Sieve {
    const WORDS: usize = 65_536 / 64;

    /// Lets nobody through.
    pub const EMPTY: Self = Self { v4: [0; Self::WORDS], v6: [0; Self::WORDS] };

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
}

// SAFETY: `repr(C)`, integers only, no padding (size asserted), every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sieve {}
