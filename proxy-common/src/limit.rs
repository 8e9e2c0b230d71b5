//! How much a single source may send to an entrypoint, and what the kernel keeps of each source for it.
//!
//! A token bucket, kept as the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A): of a
//! source one time is kept, the *theoretical arrival time*, at which the next packet would be due if all came evenly. A
//! packet that comes no earlier than the tolerance before it conforms, and moves it on by one interval. What a bucket
//! with a fill level and a time would say, in half the space and with one addition.

/// So many sources are remembered; those that were heard of longest ago give way, and begin anew when they come again.
pub const MAX_SOURCES: usize = 65_536;

/// Sources of IPv6 are told apart by so many bits: whoever has an address has the rest of its /64 too. IPv4 sources are
/// told apart by all of theirs.
pub const PREFIX_V6: u8 = 64;

/// Whose bucket it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// The first half of an IPv6 address; or four zeros and an IPv4 address.
    pub address: [u8; 8],
    /// 4 or 6.
    pub version: u16,
    /// Slot in the counters and among the names of entrypoints.
    pub entrypoint: u16,
    pub reserved: u32,
}

/// The theoretical arrival times of a source's next packet and next connection, in nanoseconds of the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub packets: u64,
    pub connections: u64,
}

/// A rate and a burst, in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// From one to the next at the rate. 0: there is no limit.
    pub interval: u64,
    /// How much earlier than due one may come: an interval less than the burst takes.
    pub tolerance: u64,
}

/// What holds for each source of an entrypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceLimit {
    pub packets: Bucket,
    pub connections: Bucket,
}

/// What a bucket says of one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is too much.
    Over,
    /// It conforms, and nothing was owed: the next is due then.
    Begin(u64),
    /// It conforms: the next is due so much later.
    Add(u64),
}

const _: () = assert!(size_of::<SourceKey>() == 16); // 8 + 2 + 2 + 4: nothing hidden
const _: () = assert!(size_of::<Spent>() == 16);
const _: () = assert!(size_of::<SourceLimit>() == 32);

// === impl SourceKey ===

impl SourceKey {
    /// An address as words that hold its bytes in their order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32, entrypoint: u16) -> Self {
        Self { address: bytes([0, address]), version: 4, entrypoint, reserved: 0 }
    }

    /// The first two words of an address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(upper: [u32; 2], entrypoint: u16) -> Self {
        Self { address: bytes(upper), version: 6, entrypoint, reserved: 0 }
    }
}

#[inline(always)]
const fn bytes(words: [u32; 2]) -> [u8; 8] {
    // SAFETY: two words are eight bytes, and any bytes are bytes.
    unsafe { core::mem::transmute::<[u32; 2], [u8; 8]>(words) }
}

// === impl SourceLimit ===

impl SourceLimit {
    pub const NONE: Self = Self { packets: Bucket::NONE, connections: Bucket::NONE };
}

// === impl Bucket ===

impl Bucket {
    pub const NONE: Self = Self { interval: 0, tolerance: 0 };

    /// So many in each so many nanoseconds, and `burst` of them at once: all at least 1.
    #[must_use]
    pub const fn new(count: u64, nanoseconds: u64, burst: u64) -> Self {
        // Rounded to the nearest, and never to none at all.
        let interval = match nanoseconds.saturating_add(count / 2) / count {
            0 => 1,
            interval => interval,
        };
        Self { interval, tolerance: interval.saturating_mul(burst - 1) }
    }

    /// Asks for one at `now`, when the next was due at `due`.
    #[inline(always)]
    #[must_use]
    pub const fn take(&self, due: u64, now: u64) -> Take {
        if due <= now {
            Take::Begin(now.saturating_add(self.interval))
        } else if due - now <= self.tolerance {
            Take::Add(self.interval)
        } else {
            Take::Over
        }
    }
}

// SAFETY: `repr(C)`, bytes and integers only, sizes asserted above show that nothing is padding, and every bit pattern
// is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SourceKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Spent {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Takes one, as the kernel does.
    fn take(bucket: Bucket, due: &mut u64, now: u64) -> bool {
        match bucket.take(*due, now) {
            Take::Over => return false,
            Take::Begin(next) => *due = next,
            Take::Add(more) => *due += more,
        }
        true
    }

    #[test]
    fn a_burst_passes_at_once_and_then_only_the_rate() {
        let bucket = Bucket::new(50, SECOND, 100);
        let mut due = 0;
        let start = 1_000 * SECOND;
        assert_eq!((0..1_000).filter(|_| take(bucket, &mut due, start)).count(), 100);
        // A second of 1,000 attempts, evenly.
        let passed = (1..=1_000).filter(|n| take(bucket, &mut due, start + n * SECOND / 1_000)).count();
        assert_eq!(passed, 50);
        // Two idle seconds fill it again, and a year fills it no further.
        for pause in [2 * SECOND, 365 * 86_400 * SECOND] {
            let again = start + SECOND + pause;
            let mut due = due;
            assert_eq!((0..1_000).filter(|_| take(bucket, &mut due, again)).count(), 100);
        }
    }

    #[test]
    fn a_burst_of_one_is_the_bare_rate() {
        let bucket = Bucket::new(1, 60 * SECOND, 1);
        let mut due = 0;
        let passed = (0..600).filter(|second| take(bucket, &mut due, SECOND + second * SECOND)).count();
        assert_eq!(passed, 10);
    }

    #[test]
    fn nothing_overflows_at_the_ends() {
        let slow = Bucket::new(1, 60 * SECOND, 10_000_000);
        assert_eq!(slow.take(u64::MAX, 0), Take::Over);
        assert_eq!(slow.take(0, u64::MAX), Take::Begin(u64::MAX));
        assert_eq!(Bucket::new(u64::MAX, 1, 1).interval, 1);
    }

    proptest! {
        /// A bucket of tokens in floating point, written the textbook way.
        #[test]
        fn it_passes_what_a_bucket_of_tokens_passes(
            rate in 1_u64..100_000,
            burst in 1_u64..1_000,
            gaps in proptest::collection::vec(0_u64..40_000_000, 1..400),
        ) {
            let bucket = Bucket::new(rate, SECOND, burst);
            let (mut due, mut now, mut tokens) = (0, SECOND, burst as f64);
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap;
                tokens = (tokens + gap as f64 / bucket.interval as f64).min(burst as f64);
                // Where a token is whole by a hair more or less, both are right.
                let close = (tokens - 1.0).abs() < 1e-6;
                let took = take(bucket, &mut due, now);
                prop_assert!(close || took == (tokens >= 1.0), "{tokens} tokens, {took}, after {passed:?}");
                if took {
                    tokens -= 1.0;
                }
                passed.push(took);
            }
        }

        #[test]
        fn no_stretch_of_time_passes_more_than_its_rate_and_a_burst(
            rate in 1_u64..10_000,
            burst in 1_u64..100,
            gaps in proptest::collection::vec(0_u64..2_000_000, 1..600),
        ) {
            let bucket = Bucket::new(rate, SECOND, burst);
            let (mut due, mut now) = (0, SECOND);
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap;
                if take(bucket, &mut due, now) {
                    passed.push(now);
                }
            }
            for (first, at) in passed.iter().enumerate() {
                let span = passed[passed.len() - 1] - at;
                prop_assert!((passed.len() - first) as u64 <= burst + span / bucket.interval + 1);
            }
        }
    }
}
