//! How long a service's answers take, counted in the buckets that Prometheus' users expect. Two atomic additions for each
//! answer; quantiles and rates are for those who look. Of answers that are traced, each bucket keeps the latest as an example.
//!
//! A split's variants are counted more finely ([`crate::variants::figures`]), at twenty times the memory: there a judge decides.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
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
    examples: Mutex<[Option<Example>; EDGES.len() + 1]>,
}

/// An answer whose trace a collector has: what somebody who wonders about a bucket can look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    pub trace: u128,
    pub took: Duration,
    pub at: SystemTime,
}

// === impl Waits ===

impl Waits {
    /// `trace`: of a request that is sampled.
    pub fn answered(&self, took: Duration, trace: Option<u128>) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES.partition_point(|edge| *edge < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(trace) = trace
            // Nobody waits for a place among the examples: there will be others.
            && let Ok(mut examples) = self.examples.try_lock()
        {
            examples[bucket] = Some(Example { trace, took, at: SystemTime::now() });
        }
    }

    /// The latest of each bucket, where there is one.
    pub fn examples(&self) -> [Option<Example>; EDGES.len() + 1] {
        *self.examples.lock().unwrap_or_else(PoisonError::into_inner)
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
            waits.answered(Duration::from_micros(micros), None);
        }
        let counts = waits.counts();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 5);
        assert_eq!(waits.sum(), Duration::from_micros(20_001_002));
    }

    #[test]
    fn the_latest_that_was_traced_is_each_buckets_example() {
        let waits = Waits::default();
        for (micros, trace) in [(400, Some(1)), (450, Some(2)), (470, None), (900, Some(3))] {
            waits.answered(Duration::from_micros(micros), trace);
        }
        let traces = waits.examples().map(|example| example.map(|example| example.trace));
        assert_eq!(traces[..3], [Some(2), Some(3), None]);
    }
}
