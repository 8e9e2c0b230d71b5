//! Whom shadowed entrypoints would have dropped, by source prefix.

use crate::counters::Tally;

/// So many prefixes are remembered; those that were heard of longest ago give way.
pub const MAX_SHADOWED: usize = 4_096;

/// IPv4 sources are counted by this many bits of their address: nothing longer is routed on the internet.
pub const PREFIX_V4: u8 = 24;
/// IPv6 sources are counted by this many bits: what one site usually gets. Whoever has a whole /48 to send from is
/// still one line, and can't push the others out.
pub const PREFIX_V6: u8 = 48;

/// Set in [`ShadowedKey::entrypoint`]: not what the entrypoint would have dropped, but how much of that was only
/// tried out by `weir explain`.
pub const TRIED: u32 = 1 << 31;

/// Of whom, and at which entrypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShadowedKey {
    /// The first address of the prefix; IPv4 addresses in their IPv6 form, `::ffff:a.b.c.d`.
    pub prefix: [u8; 16],
    /// Slot in the counters and among the names of entrypoints, perhaps with [`TRIED`].
    pub entrypoint: u32,
}

const _: () = assert!(size_of::<ShadowedKey>() == 20 && align_of::<ShadowedKey>() == 4); // 16 + 4: nothing hidden

/// What would have been dropped of a prefix, one CPU's share.
pub type Shadowed = Tally;

// SAFETY: `repr(C)`, bytes and an integer right after them: the assertion above shows no padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ShadowedKey {}
// SAFETY: `repr(C)`, two `u64`: no padding, every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Tally {}
