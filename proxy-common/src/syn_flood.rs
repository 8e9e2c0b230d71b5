//! SYN floods: how the gate knows one, and what it remembers of them.
//!
//! The gate notices a flood and its end by itself: no daemon has to run. User space says only from how many SYNs on
//! it is one ([`Flood::from`]), and reads the rest.

use crate::limit::SourceKey;

/// How long is counted before counting begins anew, in nanoseconds: [`Flood::from`] is "in a second".
pub const WINDOW: u64 = 1_000_000_000;

/// So long after the last window with that many SYNs handshakes still have to be proved, in nanoseconds.
pub const HOLD: u64 = 10_000_000_000;

/// So long after a listener's queue overflowed the gate still answers in its place, in nanoseconds. The kernel lets
/// a listener take cookies for 120 s after that; a client must have the time to come back with its own.
pub const OVERFLOW_COUNTS_FOR: u64 = 60_000_000_000;

/// Never two writes to [`Listener::overflowed`] within this many nanoseconds: all CPUs share it.
pub const OVERFLOW_NOTED_EVERY: u64 = 1_000_000_000;

/// So many listeners are remembered, by the address that was asked for; those not asked for longest give way.
pub const MAX_LISTENERS: usize = 1024;

/// What is known of floods of one entrypoint, over all CPUs. Times are nanoseconds of the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// From so many SYNs in a second on it is a flood. 0: it never is.
    pub from: u64,
    /// When counting began.
    pub window_began: u64,
    /// SYNs since then.
    pub openings: u64,
    /// When the present flood began, or the last one. 0: there was none yet.
    pub active_since: u64,
    /// Until when handshakes have to be proved. 0: they don't have to.
    pub active_until: u64,
}

/// What is known of the listener behind an address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// When the kernel last noted that its queue was full: nanoseconds of the monotonic clock.
    pub overflowed: u64,
}

/// A step of a handshake that has to be proved, from the gate to the program that does so.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unproved {
    /// Whom it is counted with, and for which entrypoint.
    pub source: SourceKey,
    /// Where the IP header begins in the frame.
    pub network: u16,
    /// Where the TCP header does.
    pub transport: u16,
    /// Not 0: by IPv6.
    pub is_v6: u8,
    /// Not 0: it asks for a connection. 0: it refers to what the other side has sent, and may be a handshake's last step.
    pub opens: u8,
    /// Not 0: what the source sends is limited.
    pub limited: u8,
    pub reserved: u8,
}

const _: () = assert!(size_of::<Unproved>() == 24); // 16 + 2 + 2 + 4: nothing hidden
const _: () = assert!(size_of::<Flood>() == 5 * 8);
const _: () = assert!(size_of::<Listener>() == 8);

// SAFETY: `repr(C)`, `u64` only: no padding, every bit pattern valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flood {}
