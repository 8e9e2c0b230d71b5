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

/// Aligned to 8 so that kernel code writes it in three words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScopeKey {
    /// IPv4 addresses in their IPv6 form, `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Host order, so that `bpftool` prints the number that people know.
    pub port: u16,
    pub protocol: u8,
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<ScopeKey>() == 24); // 16 + 2 + 1 + 5: nothing hidden

impl ScopeKey {
    /// Never looked up by the kernel (255 is no protocol): its policy carries the number of the generation,
    /// also when nothing is guarded.
    pub const GENERATION: Self = Self::new([0; 16], 255, 0);

    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], protocol: u8, port: u16) -> Self {
        Self { address, port, protocol, reserved: [0; 5] }
    }

    #[inline(always)]
    #[must_use]
    pub const fn v4(address: [u8; 4], protocol: u8, port: u16) -> Self {
        let [a, b, c, d] = address;
        Self::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], protocol, port)
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
