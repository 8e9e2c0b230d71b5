//! How long a service's answers take, counted in the buckets that Prometheus' users expect. Two atomic additions for each
//! answer; quantiles and rates are for those who look.
//!
//! A split's variants are counted more finely ([`crate::variants::figures`]), at twenty times the memory: there a judge decides.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The buckets' upper edges, in microseconds: from a page out of a cache next door to one that people give up on.
pub const EDGES: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Up to the head of the answer that the client got, from the moment in which its request was the service's.
#[derive(Debug, Default)]
pub struct Waits {
    /// One for each edge, and one for what takes longer.
    buckets: [AtomicU64; EDGES.len() + 1],
    micros: AtomicU64,
}

// === impl Waits ===

impl Waits {
    pub fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES.partition_point(|edge| *edge < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Its buckets, and the sum in microseconds.
    pub fn each(&self) -> (&[AtomicU64], &AtomicU64) {
        (&self.buckets, &self.micros)
    }

    /// How many answers are in each bucket, those of no other.
    pub fn counts(&self) -> [u64; EDGES.len() + 1] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed))
    }

    /// All waits together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bucket_below_it() {
        let waits = Waits::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            waits.answered(Duration::from_micros(micros));
        }
        let counts = waits.counts();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
        assert_eq!(waits.sum(), Duration::from_micros(20_001_002));
    }
}
