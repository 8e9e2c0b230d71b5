//! What is guarded, and by which policy.

/// Slots for entrypoints, the reserved one included.
pub const MAX_ENTRYPOINTS: usize = 256;
/// The most (address, protocol, port) entries that a scope holds.
pub const MAX_SCOPE: usize = 8192;

/// Counts what is for a guarded address but can't be said to be for one entrypoint: its port can't be read.
pub const UNATTRIBUTED: u32 = 0;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Port 0 in a key: the entry speaks for the whole address (and protocol), when the port can't be read.
pub const ANY_PORT: u16 = 0;
/// Protocol 0 in a key: the entry speaks for the whole address, when not even the protocol can be read.
pub const ANY_PROTOCOL: u8 = 0;

/// Aligned to 8 and made of whole words, so that kernel code writes it in a few stores.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeKey {
    /// IPv4 addresses in their IPv6 form, `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Host order, so that `bpftool` prints the number that people know.
    pub port: u16,
    pub protocol: u16,
    pub reserved: u32,
}

const _: () = assert!(size_of::<ScopeKey>() == 24); // 16 + 2 + 2 + 4: nothing hidden

impl ScopeKey {
    /// Never looked up by the kernel (no protocol has this number): its policy carries the number of the
    /// generation, also when nothing is guarded.
    pub const GENERATION: Self = Self { address: [0; 16], port: 0, protocol: u16::MAX, reserved: 0 };

    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], protocol: u8, port: u16) -> Self {
        Self { address, port, protocol: protocol as u16, reserved: 0 }
    }
}

/// What holds for a guarded entrypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Slot in the counters and among the names of entrypoints.
    pub entrypoint: u32,
    /// Slot of the allowlists.
    pub admission: u32,
    /// The snapshot from which this came.
    pub generation: u64,
}

const _: () = assert!(size_of::<Policy>() == 16);

// SAFETY: `repr(C)`, integers and byte arrays only, sizes asserted above show that nothing is padding, and
// every bit pattern is a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ScopeKey {}
// SAFETY: as for `ScopeKey`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Policy {}
