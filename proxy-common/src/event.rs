//! Sampled drops: what the gate tells of a packet that it dropped, or would have dropped, while somebody watches.

use crate::verdict::DropReason;

/// How many bytes of a packet an event carries: its headers, up to the port, whatever usually stands before it.
pub const HEAD: usize = 128;

/// The ring that events wait in, in bytes: a power of two, and whole pages.
pub const RING_BYTES: usize = 256 * 1024;

/// How much each CPU may tell, however much it drops: so many events in each window of so many nanoseconds.
pub const EVENTS_PER_WINDOW: u32 = 100;
pub const WINDOW: u64 = 100_000_000;

/// So long after its last sign of life a watcher is taken for dead, in nanoseconds. It gives one each second.
pub const WATCHED_FOR: u64 = 3_000_000_000;

/// One dropped packet, or one that would have been.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DropEvent {
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
    /// The index of the interface that it arrived on.
    pub interface: u32,
    /// Slot in the counters and among the names of entrypoints.
    pub entrypoint: u32,
    /// A [`DropReason`].
    pub reason: u32,
    /// The packet's, Ethernet header included.
    pub length: u32,
    /// How much of `head` is the packet's.
    pub captured: u32,
    /// The CPU that judged it, whose budget this event is of. What it counts for is that CPU's share of the counters.
    pub cpu: u16,
    /// Not 0: it passed, because its entrypoint is shadowed.
    pub shadow: u16,
    /// The packet's first bytes, Ethernet header included.
    pub head: [u8; HEAD],
}

/// Whether anybody watches: until when, by the monotonic clock. 0: nobody does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    pub until: u64,
}

/// What one CPU has told of late.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// When the window began.
    pub since: u64,
    /// Events in it.
    pub told: u32,
    pub reserved: u32,
}

const _: () = assert!(size_of::<DropEvent>() == 8 + 6 * 4 + HEAD);
const _: () = assert!(size_of::<Watched>() == 8);
const _: () = assert!(size_of::<Budget>() == 16);

// === impl DropEvent ===

impl DropEvent {
    /// `None`: a reason of another version's.
    #[must_use]
    pub fn reason(&self) -> Option<DropReason> {
        DropReason::of_number(self.reason)
    }

    /// What there is of the packet.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        &self.head[..(self.captured as usize).min(HEAD)]
    }
}

// === impl Budget ===

impl Budget {
    /// Whether one more event may be told at `now`; if so, it is counted.
    #[inline(always)]
    #[must_use]
    pub const fn spend(&mut self, now: u64) -> bool {
        if now.wrapping_sub(self.since) >= WINDOW {
            self.since = now;
            self.told = 0;
        }
        let spent = self.told < EVENTS_PER_WINDOW;
        if spent {
            self.told += 1;
        }
        spent
    }
}

// SAFETY: `repr(C)`, integers and bytes only, sizes asserted above show that nothing is padding, and every bit
// pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for DropEvent {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Watched {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Budget {}

#[cfg(test)]
mod tests {
    use super::{Budget, EVENTS_PER_WINDOW, WINDOW};

    #[test]
    fn a_flood_is_told_no_faster_than_the_budget_allows() {
        let mut budget = Budget::default();
        // Ten seconds of a packet every microsecond.
        let told = (0..10_000_000_u64).filter(|packet| budget.spend(WINDOW + packet * 1_000)).count();
        assert_eq!(told as u64, 10_000_000_000 / WINDOW * u64::from(EVENTS_PER_WINDOW));
    }

    #[test]
    fn a_trickle_is_told_whole() {
        let mut budget = Budget::default();
        assert!((0..1_000_u64).all(|packet| budget.spend(WINDOW + packet * 10_000_000)));
    }
}
