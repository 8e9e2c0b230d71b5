//! How many retries a service allows at a time: a share of its requests under way (a fifth, unless it is written), and at
//! least three. When many servers fail at once, retries must not become an attack on those that are left.

use std::sync::atomic::{AtomicU32, Ordering};

const AT_LEAST: u32 = 3;

#[derive(Debug, Default)]
pub struct Budget {
    active: AtomicU32,
    retrying: AtomicU32,
}

/// A request under way; it counts until it is dropped.
#[derive(Debug)]
pub struct Active<'a>(&'a Budget);

/// A retry under way; it counts until it is dropped.
#[derive(Debug)]
pub struct Retrying<'a>(&'a Budget);

impl Budget {
    pub fn enter(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self)
    }

    /// A permit to try once more, or none when too many do so already: `percent` of the requests under way.
    pub fn retry(&self, percent: u32) -> Option<Retrying<'_>> {
        let share = u64::from(self.active.load(Ordering::Relaxed)) * u64::from(percent) / 100;
        let allowed = match percent {
            0 => 0,
            _ => u32::try_from(share).unwrap_or(u32::MAX).max(AT_LEAST),
        };
        self.retrying
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |retrying| {
                (retrying < allowed).then_some(retrying + 1)
            })
            .ok()
            .map(|_| Retrying(self))
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_are_always_allowed_and_no_more_when_little_is_under_way() {
        let budget = Budget::default();
        let _active: Vec<_> = (0..10).map(|_| budget.enter()).collect();
        let retries: Vec<_> = (0..5).map_while(|_| budget.retry(20)).collect();
        assert_eq!(retries.len(), 3);
    }

    #[test]
    fn a_fifth_of_what_is_under_way_may_be_retried() {
        let budget = Budget::default();
        let active: Vec<_> = (0..100).map(|_| budget.enter()).collect();
        let retries: Vec<_> = (0..100).map_while(|_| budget.retry(20)).collect();
        assert_eq!(retries.len(), 20);
        assert!(budget.retry(0).is_none() && budget.retry(50).is_some());
        drop((active, retries));
        assert!(budget.retry(20).is_some());
    }
}
