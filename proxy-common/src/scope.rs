//! What is guarded, and by which policy.
//!
//! A scope is one value: a table of buckets that the kernel reads in place, without a call. User space makes
//! it whole, with a seed for which no bucket overflows, and puts it in the place of the one before; it is never
//! changed.

use crate::limit::SourceLimit;

/// Slots for entrypoints, the reserved one included.
pub const MAX_ENTRYPOINTS: usize = 256;

/// What `weir explain` has added to the counters of dropped packets, and from here on to those of shadowed ones.
pub const TRIED_SHADOWED: u32 = MAX_ENTRYPOINTS as u32;
pub const MAX_TRIED: usize = 2 * MAX_ENTRYPOINTS;

/// Counts what is for a guarded address but can't be said to be for one entrypoint: its port can't be read.
pub const UNATTRIBUTED: u32 = 0;

/// How many prefixes of CDNs are known to the kernel.
pub const MAX_CDN: usize = 65_536;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// How many buckets there are. A power of two, of which [`ScopeTable::bucket`] takes the logarithm.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 10;
/// How many keys share a bucket.
pub const BUCKET_SLOTS: usize = 4;
/// So many keys find their places with a seed that is soon found.
pub const MAX_SCOPE: usize = 1024;

/// Aligned to 8 and made of whole words, so that kernel code writes and compares it in three.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeKey {
    /// IPv4 addresses in their IPv6 form, `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Host order, so that `bpftool` prints the number that people know.
    pub port: u16,
    pub protocol: u16,
    pub reserved: u32,
}

/// What holds for a guarded entrypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Slot in the counters and among the names of entrypoints.
    pub entrypoint: u16,
    /// Not 0: what would be dropped is counted, and passes.
    pub shadow: u8,
    /// What is asked beside the allowlists: flags of [`protect`]. 0 almost always, and then nothing is.
    pub protect: u8,
    /// Slot of the allowlists.
    pub admission: u16,
    /// Slot of those of them that are a CDN's: many visitors share each of its addresses, so what protects from a
    /// single source is not meant for them. [`Policy::NO_CDN`]: none is.
    pub cdn: u16,
}

/// What an entrypoint may be protected by, beside its allowlists.
pub mod protect {
    /// It has no allowlist: everybody comes in, and `admission` is no slot.
    pub const OPEN: u8 = 1;
    /// Somebody is blocked whom its lists let in.
    pub const BLOCKS: u8 = 2;
    /// The packets of each source are limited.
    pub const PACKETS: u8 = 4;
    /// The new connections of each source are limited. Only where the protocol is TCP.
    pub const CONNECTIONS: u8 = 8;
    /// Those limits hold for a CDN's sources too.
    pub const LIMITS_CDN: u8 = 16;
    /// During a flood of SYNs, handshakes have to be proved.
    pub const SYN_COOKIES: u8 = 0x20;
    /// With [`SYN_COOKIES`]: at any time.
    pub const SYN_COOKIES_ALWAYS: u8 = 0x40;
    /// With [`SYN_COOKIES`]: also from a CDN's addresses.
    pub const SYN_COOKIES_OF_CDN: u8 = 0x80;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeSlot {
    pub key: ScopeKey,
    pub policy: Policy,
}

/// Everything that is guarded.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ScopeTable {
    /// The snapshot from which this came.
    pub generation: u64,
    pub seed: u64,
    pub buckets: [[ScopeSlot; BUCKET_SLOTS]; BUCKETS],
    /// By entrypoint: how much each source may send there.
    pub limits: [SourceLimit; MAX_ENTRYPOINTS],
}

const _: () = assert!(size_of::<ScopeKey>() == 24); // 16 + 2 + 2 + 4: nothing hidden
const _: () = assert!(size_of::<Policy>() == 8);
const _: () = assert!(size_of::<ScopeSlot>() == 32); // a bucket is two cache lines
const _: () = assert!(size_of::<ScopeTable>() == 16 + BUCKETS * BUCKET_SLOTS * 32 + MAX_ENTRYPOINTS * 32);

// === impl Policy ===

impl Policy {
    /// In `cdn`: no list is a CDN's.
    pub const NO_CDN: u16 = u16::MAX;

    const NONE: Self = Self { entrypoint: 0, shadow: 0, protect: 0, admission: 0, cdn: Self::NO_CDN };

    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.protect & flag != 0
    }

    /// The slots that it refers to.
    pub fn admissions(&self) -> impl Iterator<Item = u16> + use<> {
        let admission = (!self.has(protect::OPEN)).then_some(self.admission);
        admission.into_iter().chain((self.cdn != Self::NO_CDN).then_some(self.cdn))
    }
}

// === impl ScopeKey ===

impl ScopeKey {
    /// In a slot: nothing is there. No packet asks for it: protocol 0 is never looked up.
    pub const EMPTY: Self = Self { address: [0; 16], port: 0, protocol: 0, reserved: 0 };

    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], protocol: u8, port: u16) -> Self {
        Self { address, port, protocol: protocol as u16, reserved: 0 }
    }

    /// Speaks for the whole address, when the port can't be read.
    #[inline(always)]
    #[must_use]
    pub const fn whole(address: [u8; 16]) -> Self {
        Self { address, port: 0, protocol: u16::MAX, reserved: 0 }
    }

    /// Is there as soon as anything is guarded, for what hides even its address. No packet asks for it otherwise:
    /// no transport protocol has this number.
    pub const ANYTHING: Self = Self { address: [0; 16], port: 1, protocol: u16::MAX, reserved: 0 };

    /// Whether this key stands for more than a port.
    #[inline(always)]
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.protocol == u16::MAX
    }

    /// Whether this key stands for a port.
    #[must_use]
    pub fn is_port(&self) -> bool {
        *self != Self::EMPTY && !self.is_whole()
    }

    #[inline(always)]
    const fn words(&self) -> [u64; 3] {
        // SAFETY: 24 bytes without padding (asserted above), and any bytes are integers.
        unsafe { core::mem::transmute::<Self, [u64; 3]>(*self) }
    }
}

// === impl ScopeTable ===

impl ScopeTable {
    pub const EMPTY: Self = {
        let slot = ScopeSlot { key: ScopeKey::EMPTY, policy: Policy::NONE };
        let (buckets, limits) = ([[slot; BUCKET_SLOTS]; BUCKETS], [SourceLimit::NONE; MAX_ENTRYPOINTS]);
        Self { generation: 0, seed: 0, buckets, limits }
    };

    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: &ScopeKey) -> Option<Policy> {
        let wanted = key.words();
        let bucket = &self.buckets[Self::bucket(key, self.seed)];
        for slot in bucket {
            // One word after the other: the first already differs almost always.
            let [a, b, c] = slot.key.words();
            if c == wanted[2] && b == wanted[1] && a == wanted[0] {
                return Some(slot.policy);
            }
        }
        None
    }

    /// The bucket of a key. Below [`BUCKETS`] by the shift, as the verifier sees.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(key: &ScopeKey, seed: u64) -> usize {
        // Multiplication by odd constants carries every bit upwards, and the topmost bits are taken.
        let [a, b, c] = key.words();
        let mixed = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ b.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ c.wrapping_add(seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
        ((mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKET_BITS)) as usize
    }
}

// SAFETY: `repr(C)`, integers and byte arrays only, sizes asserted above show that nothing is padding, and
// every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ScopeTable {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ScopeKey {}
