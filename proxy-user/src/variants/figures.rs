//! What a variant has done: how many requests it answered, how fast, and how many failed. One atomic addition for each
//! request; everything else is worked out when somebody asks.
//!
//! Latencies are counted in buckets that are log-linear: below 16 µs each microsecond has its own, from there on every
//! doubling has 16. A bucket is at most 1/16 of its lower edge wide, so a quantile that is told by a bucket's middle is off by at
//! most 3.2 %. What takes longer than 134 s counts as that.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Each doubling is cut into so many buckets.
const PER_DOUBLING: usize = 16;
const BUCKETS: usize = 24 * PER_DOUBLING;

/// What was counted is noted this often, so that the last minutes can be told from the rest.
pub const NOTE_EVERY: Duration = Duration::from_secs(10);

/// The longest time that is told apart.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Why a request counts as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The answer's status was 500 or more.
    Status,
    /// There was no answer.
    Connection,
}

/// Of one variant, as it counts. Shared by all workers.
#[derive(Debug)]
pub struct Figures {
    answered: Box<[AtomicU64; BUCKETS]>,
    statuses: AtomicU64,
    connections: AtomicU64,
    /// What was counted by then, the oldest first.
    notes: Mutex<VecDeque<(Instant, Counted)>>,
}

/// What was counted, as of one moment or over some time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Answers that were no errors, by the bucket of their latency; what is empty at the end is left out.
    answered: Vec<u64>,
    /// Answers with a status of 500 or more.
    pub statuses: u64,
    /// Requests without an answer.
    pub connections: u64,
}

/// What was counted over some time, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Summary {
    pub requests: u64,
    /// Answers with a status of 500 or more.
    pub errors_5xx: u64,
    /// Requests that got no answer.
    pub errors_connection: u64,
    /// 0 to 1; `None` without requests.
    pub error_ratio: Option<f64>,
    /// To the head of answers that were no errors, in milliseconds, within 3.2 %.
    pub latency_p50_ms: Option<f64>,
    pub latency_p99_ms: Option<f64>,
}

// === impl Figures ===

impl Default for Figures {
    fn default() -> Self {
        Self {
            answered: Box::new([const { AtomicU64::new(0) }; BUCKETS]),
            statuses: AtomicU64::default(),
            connections: AtomicU64::default(),
            notes: Mutex::default(),
        }
    }
}

impl Figures {
    /// An answer that is no error, and how long its head took.
    pub fn answered(&self, took: Duration) {
        self.answered[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self, how: Failure) {
        let counter = match how {
            Failure::Status => &self.statuses,
            Failure::Connection => &self.connections,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The buckets of answers, and the counters of both failures.
    pub fn each(&self) -> (&[AtomicU64], [&AtomicU64; 2]) {
        (&*self.answered, [&self.statuses, &self.connections])
    }

    /// Everything that was ever counted.
    pub fn counted(&self) -> Counted {
        let mut answered: Vec<u64> =
            self.answered.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        answered.truncate(answered.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        Counted {
            answered,
            statuses: self.statuses.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    /// Notes what was counted up to now. To be called every [`NOTE_EVERY`].
    pub fn note(&self, now: Instant) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        while notes.front().is_some_and(|(at, _)| now.duration_since(*at) > LONGEST + NOTE_EVERY) {
            notes.pop_front();
        }
        notes.push_back((now, self.counted()));
    }

    /// What was counted within the last `span`, to the nearest note before it: up to [`NOTE_EVERY`] longer, or, soon after the
    /// start, all of it.
    pub fn within(&self, span: Duration, now: Instant) -> Counted {
        let all = self.counted();
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // Soon after the start: the first note, which holds what a daemon before has counted.
        let before = notes.iter().rev().find(|(at, _)| now.duration_since(*at) >= span);
        match before.or_else(|| notes.front()) {
            Some((_, before)) => all.since(before),
            None => all,
        }
    }
}

// === impl Counted ===

impl Counted {
    /// From latencies and errors, for simulations.
    #[cfg(test)]
    pub fn of(latencies: impl IntoIterator<Item = Duration>, errors: u64) -> Self {
        let figures = Figures::default();
        latencies.into_iter().for_each(|took| figures.answered(took));
        Self { statuses: errors, ..figures.counted() }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let known = before.answered.iter().copied().chain(std::iter::repeat(0));
        Self {
            answered: self
                .answered
                .iter()
                .zip(known)
                .map(|(now, before)| now.saturating_sub(before))
                .collect(),
            statuses: self.statuses.saturating_sub(before.statuses),
            connections: self.connections.saturating_sub(before.connections),
        }
    }

    pub fn answers(&self) -> u64 {
        self.answered.iter().sum()
    }

    pub fn errors(&self) -> u64 {
        self.statuses + self.connections
    }

    pub fn requests(&self) -> u64 {
        self.answers() + self.errors()
    }

    /// The bucket in which the latency stands that a share `q` of all answers doesn't exceed.
    fn quantile_bucket(&self, q: f64) -> Option<usize> {
        let answers = self.answers();
        let wanted = ((answers as f64 * q).ceil() as u64).clamp(1, answers.max(1));
        let mut seen = 0;
        self.answered.iter().position(|count| {
            seen += count;
            seen >= wanted
        })
    }

    /// The latency that a share `q` of all answers doesn't exceed, within 3.2 %.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let bucket = self.quantile_bucket(q)?;
        Some(Duration::from_micros(u64::midpoint(lower_edge(bucket), lower_edge(bucket + 1))))
    }

    /// The latency that a share `q` of all answers doesn't exceed, rounded up to a bucket's edge; and how many answers took
    /// longer.
    pub fn at_most(&self, q: f64) -> Option<(Duration, u64)> {
        let bucket = self.quantile_bucket(q)?;
        let slower = self.answered[bucket + 1..].iter().sum();
        Some((Duration::from_micros(lower_edge(bucket + 1)), slower))
    }

    /// How many answers surely took that long or longer.
    pub fn slower_than(&self, limit: Duration) -> u64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let buckets = self.answered.iter().enumerate().skip_while(|(bucket, _)| lower_edge(*bucket) < limit);
        buckets.map(|(_, count)| count).sum()
    }

    pub fn summary(&self) -> Summary {
        let (requests, errors) = (self.requests(), self.errors());
        let milliseconds = |q| self.quantile(q).map(|latency| latency.as_secs_f64() * 1000.0);
        Summary {
            requests,
            errors_5xx: self.statuses,
            errors_connection: self.connections,
            error_ratio: (requests > 0).then(|| errors as f64 / requests as f64),
            latency_p50_ms: milliseconds(0.5),
            latency_p99_ms: milliseconds(0.99),
        }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let Some(doublings) = micros.checked_ilog2().filter(|log| *log >= 4) else { return micros as usize };
    let part = (micros >> (doublings - 4)) as usize % PER_DOUBLING;
    ((doublings as usize - 3) * PER_DOUBLING + part).min(BUCKETS - 1)
}

/// The least number of microseconds that belongs to the bucket.
fn lower_edge(bucket: usize) -> u64 {
    if bucket < PER_DOUBLING {
        return bucket as u64;
    }
    ((PER_DOUBLING + bucket % PER_DOUBLING) as u64) << (bucket / PER_DOUBLING - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_has_a_bucket_that_holds_it_and_is_narrow() {
        for micros in (0..5_000).chain((0..27).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + 1])) {
            let bucket = bucket(Duration::from_micros(micros));
            let (low, high) = (lower_edge(bucket), lower_edge(bucket + 1));
            assert!(low <= micros && micros < high, "{micros} in {low}..{high}");
            assert!(high - low <= (low / 16).max(1), "{low}..{high} is too wide");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_their_precision() {
        let counted = Counted::of((1..=1000).map(Duration::from_millis), 0);
        for (q, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = counted.quantile(q).unwrap().as_secs_f64() * 1000.0;
            assert!((found / expected - 1.0).abs() < 0.033, "{q}: {found} instead of {expected}");
        }
        let (edge, slower) = counted.at_most(0.99).unwrap();
        assert!(edge >= Duration::from_millis(990) && slower <= 10);
        assert_eq!(slower, counted.slower_than(edge));
        assert_eq!(Counted::default().quantile(0.5), None);
    }

    #[test]
    fn the_last_minute_is_told_from_the_rest() {
        let (figures, began) = (Figures::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for second in 0..400 {
            if second % 10 == 0 {
                figures.note(at(second));
            }
            figures.answered(Duration::from_millis(5));
            if second >= 390 {
                figures.failed(Failure::Status);
            }
        }
        let minute = figures.within(Duration::from_secs(60), at(400)).summary();
        assert_eq!((minute.requests, minute.errors_5xx), (60 + 10, 10));
        assert_eq!(figures.within(Duration::from_secs(300), at(400)).requests(), 310);
        assert_eq!(figures.counted().requests(), 410);
        assert!(figures.notes.lock().unwrap().len() <= 33, "old notes go");
    }
}
