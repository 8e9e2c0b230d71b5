//! What the kernel tells of connections to servers: that something isn't acknowledged, or that a connection was reset.

/// Servers that can be watched.
pub const MAX_WATCHED: usize = 16_384;

/// The ring that reports wait in, in bytes: a power of two, and whole pages.
pub const RING_BYTES: usize = 64 * 1024;

/// No more than one report of a kind and server in so many nanoseconds: of what is lost, many connections tell.
pub const PAUSE: u64 = 50_000_000;

/// The same for resets. A connection that Weir itself breaks off looks like one that the server reset.
pub const PAUSE_OF_RESETS: u64 = 1_000_000_000;

/// A server's address and port, as connections name their other end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// In the host's order.
    pub port: u16,
    pub reserved: u16,
}

/// When a server was last told of, by the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub unacknowledged: u64,
    pub reset: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub server: ServerKey,
    /// A [`Kind`].
    pub kind: u32,
}

const _: () = assert!(size_of::<ServerKey>() == 16 + 2 + 2);
const _: () = assert!(size_of::<Told>() == 16);
const _: () = assert!(size_of::<Report>() == 20 + 4);

#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment was sent once more, or its time ran out.
    Unacknowledged = 1,
    /// The connection ended without either side having closed it.
    Reset = 2,
}

/// States of a TCP connection, as `linux/tcp_states.h` counts them.
const ESTABLISHED: u32 = 1;
const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;

impl Kind {
    /// What it means when a connection goes from one state to another.
    #[inline(always)]
    #[must_use]
    pub const fn of_change(from: u32, to: u32) -> Option<Self> {
        match (from, to) {
            // Straight to the end, past all that a close would bring.
            (ESTABLISHED | CLOSE_WAIT, CLOSE) => Some(Self::Reset),
            _ => None,
        }
    }

    #[must_use]
    pub const fn of_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Unacknowledged),
            2 => Some(Self::Reset),
            _ => None,
        }
    }
}

impl ServerKey {
    /// `address` is IPv6, or IPv4 mapped to it.
    #[must_use]
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}

// SAFETY: `repr(C)`, integers and bytes only, sizes asserted above show that nothing is padding, and every bit
// pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ServerKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Told {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Report {}

#[cfg(test)]
mod tests {
    use super::{CLOSE, CLOSE_WAIT, ESTABLISHED, Kind};

    #[test]
    fn only_an_end_that_nobody_announced_is_a_reset() {
        const FIN_WAIT: u32 = 4;
        const SYN_SENT: u32 = 2;
        for (from, to, kind) in [
            (ESTABLISHED, CLOSE, Some(Kind::Reset)),
            (CLOSE_WAIT, CLOSE, Some(Kind::Reset)),
            // A connect that failed: whoever connects is told.
            (SYN_SENT, CLOSE, None),
            (FIN_WAIT, CLOSE, None),
            (ESTABLISHED, CLOSE_WAIT, None),
            (SYN_SENT, ESTABLISHED, None),
        ] {
            assert_eq!(Kind::of_change(from, to), kind, "{from} to {to}");
        }
    }
}
