//! Milliseconds since the process began: one number that fits an atomic, for the clocks that workers and the
//! control side share.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The moment of the last tick of any worker.
static TICKED: AtomicU64 = AtomicU64::new(0);

/// A moment, in milliseconds since the process began. Never goes backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Self {
        Self::of(Instant::now())
    }

    /// The same moment as `instant`, which must not be from before the process began.
    pub fn of(instant: Instant) -> Self {
        Self(u64::try_from(instant.saturating_duration_since(*BEGAN).as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment of the last tick: as precise as limits of seconds need it, and free.
    pub fn recent() -> Self {
        Self(TICKED.load(Ordering::Relaxed))
    }

    /// A worker ticks.
    pub fn tick() -> Self {
        let now = Self::now();
        TICKED.fetch_max(now.0, Ordering::Relaxed);
        now
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `earlier` to this moment; 0 when it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
