//! How the requests of the last seconds ended: ten buckets of atomics, of which the oldest is emptied when its turn comes.
//! Whoever counts while a bucket is emptied may be lost; that is one request of many, and cheaper than a lock.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::Moment;

const BUCKETS: u64 = 10;

#[derive(Debug)]
pub struct Window {
    /// Milliseconds.
    bucket: u64,
    buckets: [Bucket; BUCKETS as usize],
}

#[derive(Debug)]
struct Bucket {
    /// Which stretch of time it is about.
    number: AtomicU64,
    total: AtomicU32,
    network: AtomicU32,
    errors: AtomicU32,
    slow: AtomicU32,
}

/// One request's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Without an answer.
    pub network: bool,
    /// Without an answer, or with one from 500 to 599.
    pub error: bool,
    pub slow: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u32,
    pub network: u32,
    pub errors: u32,
    pub slow: u32,
}

const NEVER: u64 = u64::MAX;

impl Window {
    pub fn new(over: Duration) -> Self {
        let over = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        Self { bucket: (over / BUCKETS).max(1), buckets: std::array::from_fn(|_| Bucket::default()) }
    }

    pub fn count(&self, ended: Ended, now: Moment) {
        let number = now.0 / self.bucket;
        let bucket = &self.buckets[(number % BUCKETS) as usize];
        let seen = bucket.number.load(Ordering::Acquire);
        if seen != number
            && bucket.number.compare_exchange(seen, number, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            bucket.empty();
        }
        bucket.total.fetch_add(1, Ordering::Relaxed);
        for (is, counter) in
            [(ended.network, &bucket.network), (ended.error, &bucket.errors), (ended.slow, &bucket.slow)]
        {
            if is {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn counts(&self, now: Moment) -> Counts {
        let number = now.0 / self.bucket;
        let mut counts = Counts::default();
        for bucket in &self.buckets {
            let of = bucket.number.load(Ordering::Acquire);
            if of <= number && number - of < BUCKETS {
                counts.total += bucket.total.load(Ordering::Relaxed);
                counts.network += bucket.network.load(Ordering::Relaxed);
                counts.errors += bucket.errors.load(Ordering::Relaxed);
                counts.slow += bucket.slow.load(Ordering::Relaxed);
            }
        }
        counts
    }

    pub fn forget(&self) {
        self.buckets.iter().for_each(|bucket| bucket.number.store(NEVER, Ordering::Release));
    }
}

impl Default for Bucket {
    fn default() -> Self {
        let zero = || AtomicU32::new(0);
        Self { number: AtomicU64::new(NEVER), total: zero(), network: zero(), errors: zero(), slow: zero() }
    }
}

impl Bucket {
    fn empty(&self) {
        for counter in [&self.total, &self.network, &self.errors, &self.slow] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OVER: Duration = Duration::from_secs(1);
    const BAD: Ended = Ended { network: true, error: true, slow: false };

    #[test]
    fn what_is_too_long_ago_does_not_count() {
        let window = Window::new(OVER);
        window.count(BAD, Moment(0));
        window.count(Ended::default(), Moment(950));
        assert_eq!(window.counts(Moment(999)), Counts { total: 2, network: 1, errors: 1, slow: 0 });
        assert_eq!(window.counts(Moment(1000)), Counts { total: 1, ..Counts::default() });
        assert_eq!(window.counts(Moment(5000)), Counts::default());
        window.forget();
        assert_eq!(window.counts(Moment(999)), Counts::default());
    }

    proptest! {
        /// All of the last nine tenths is counted, and nothing older than the whole.
        #[test]
        fn it_counts_what_is_within(mut times in prop::collection::vec(0_u64..5000, 1..100)) {
            let window = Window::new(OVER);
            times.sort_unstable();
            for time in &times {
                window.count(BAD, Moment(*time));
            }
            let now = *times.last().unwrap();
            let within = |span: u64| times.iter().filter(|time| now - **time < span).count() as u32;
            let counts = window.counts(Moment(now));
            prop_assert!(counts.total >= within(900) && counts.total <= within(1000));
            prop_assert_eq!(counts.total, counts.errors);
        }
    }
}
