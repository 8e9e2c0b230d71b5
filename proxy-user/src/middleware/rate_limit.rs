//! So many requests in a time, by client, route or header field: the generic cell rate algorithm (GCRA).
//!
//! For each key one number is kept: the moment at which its burst is whole again. It lies in a table of fixed size that all
//! workers share, without a lock. A key has eight places to be in; where all are taken by keys that are still being limited,
//! the one that is least so is forgotten, and begins anew. That, and two requests of a new key in the same instant, are the
//! only ways to get more than the limit; a key is never charged for another's requests. Which keys share places can't be
//! known from outside: they are told apart by a keyed hash.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Halt, Passage};
use crate::config::model::{RateKey, RateLimit};

/// 1 MiB a limiter.
const SLOTS: usize = 1 << 16;
const WAYS: usize = 8;

#[derive(Debug)]
pub struct Limiter {
    settings: RateLimit,
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0: nobody's.
    key: AtomicU64,
    /// When its burst is whole again, in nanoseconds since the process began to limit.
    whole: AtomicU64,
}

// === impl Limiter ===

impl Limiter {
    pub fn new(settings: &RateLimit) -> Self {
        Self { settings: settings.clone(), table: Arc::new(Table::new(SLOTS)) }
    }

    /// The same keys in the same state, under other settings.
    pub fn with(&self, settings: &RateLimit) -> Self {
        Self { settings: settings.clone(), table: self.table.clone() }
    }

    pub fn admit(&self, passage: &Passage<'_>) -> Result<(), Halt> {
        let hasher = &self.table.hasher;
        let key = match &self.settings.by {
            RateKey::Client => hasher.hash_one(household(passage.client)),
            RateKey::Route => hasher.hash_one(&passage.facts.route),
            RateKey::Header(name) => match passage.head.headers.get(name) {
                Some(value) => hasher.hash_one(value.as_bytes()),
                None => hasher.hash_one(household(passage.client)),
            },
        };
        let taken = self.table.take(key, now(), nanos(self.settings.every), self.settings.burst);
        taken.map_err(|wait| Halt::RateLimited { retry_after: Duration::from_nanos(wait) })
    }
}

/// Of IPv6 the /64: a household, or a server, has at least that many addresses to come from.
fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // From 1 on: 0 is a place that was never used.
    nanos(BEGAN.elapsed()).saturating_add(1)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Table ===

impl Table {
    fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| Slot::default()).collect(), hasher: RandomState::new() }
    }

    /// Takes one of what `key` may have. If there is nothing left: how long to wait.
    fn take(&self, key: u64, now: u64, every: u64, burst: u32) -> Result<(), u64> {
        let slot = self.slot(key.max(1), now);
        let most = every.saturating_mul(u64::from(burst) - 1);
        let mut wait = 0;
        let taken = slot.whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
            let whole = whole.max(now);
            wait = (whole - now).saturating_sub(most);
            (wait == 0).then(|| whole.saturating_add(every))
        });
        taken.map(drop).map_err(|_| wait)
    }

    /// The place of `key`; a new one if it has none.
    fn slot(&self, key: u64, now: u64) -> &Slot {
        let sets = self.slots.len() / WAYS;
        // The table is far smaller than u64.
        let first = (key % sets as u64) as usize * WAYS;
        let set = &self.slots[first..first + WAYS];
        if let Some(known) = set.iter().find(|slot| slot.key.load(Ordering::Relaxed) == key) {
            return known;
        }
        // Who may have its whole burst needs no place.
        let least = |slot: &&Slot| slot.whole.load(Ordering::Relaxed).max(now);
        let slot = set.iter().min_by_key(least).unwrap_or(&set[0]);
        slot.whole.store(0, Ordering::Relaxed);
        slot.key.store(key, Ordering::Relaxed);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn passed(table: &Table, key: u64, now: u64, burst: u32) -> usize {
        (0..1000).filter(|_| table.take(key, now, SECOND / 10, burst).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_evenly() {
        let table = Table::new(64);
        let begin = 5 * SECOND;
        assert_eq!(passed(&table, 7, begin, 5), 5);
        assert_eq!(table.take(7, begin, SECOND / 10, 5), Err(SECOND / 10));
        assert_eq!(passed(&table, 7, begin + SECOND / 10 - 1, 5), 0);
        assert_eq!(passed(&table, 7, begin + SECOND / 10, 5), 1);
        assert_eq!(passed(&table, 7, begin + 3 * SECOND / 10, 5), 2);
        assert_eq!(passed(&table, 7, begin + 100 * SECOND, 5), 5, "no more than the burst gathers");
    }

    #[test]
    fn one_key_never_pays_for_another() {
        let table = Table::new(1024);
        assert_eq!(passed(&table, 1, 1, 3), 3);
        for key in 2..500 {
            assert_eq!(passed(&table, key, 1, 3), 3, "{key}");
        }
    }

    #[test]
    fn where_places_run_out_the_least_limited_begins_anew() {
        let table = Table::new(WAYS);
        for key in 1..=8 {
            assert_eq!(passed(&table, key, 1, u32::try_from(key).unwrap()), usize::try_from(key).unwrap());
        }
        assert_eq!(passed(&table, 9, 1, 1), 1);
        assert_eq!(passed(&table, 8, 1, 8), 0, "the most limited is still known");
        assert_eq!(passed(&table, 1, 1, 1), 1, "the least limited was forgotten");
    }

    #[test]
    fn ipv6_is_limited_by_its_64_and_ipv4_by_itself() {
        let of = |text: &str| household(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
