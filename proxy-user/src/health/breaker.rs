//! A service's breaker: when too many of its requests fail or are slow, none are sent for a while. Lock-free on the
//! request path; time and chance are arguments.
//!
//! closed → open (for `open`) → one request on trial → recovering (a share that grows over `recover`) → closed. A trial
//! that fails opens it again, and so does what fails while it recovers. What requests say that were on their way before
//! it opened counts for nothing.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Moment,
    config::model,
    health::{
        Change,
        window::{Counts, Ended, Window},
    },
};

#[derive(Debug)]
pub struct Breaker {
    pub rules: model::Breaker,
    state: Arc<State>,
}

/// What outlives a reload.
#[derive(Debug)]
struct State {
    /// Phase and moment in one.
    phase: AtomicU64,
    window: Window,
    refused: AtomicU64,
    last: Mutex<Option<Change>>,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Closed,
    /// Until then.
    Open(Moment),
    /// Since then one request is on its way.
    Trial(Moment),
    /// Since then.
    Recovering(Moment),
}

/// A [`Phase`] as it is told to another process, but for a closed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    phase: ToldPhase,
    /// Until an open one ends, or since the others began.
    milliseconds: u64,
    last: Option<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToldPhase {
    Open,
    Trial,
    Recovering,
}

/// How a request was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    Normally,
    OnTrial,
}

/// Something to make known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Opened(String),
    Recovering,
    Closed,
}

/// The least share of requests that is let through while it recovers.
const LEAST_SHARE: f64 = 0.1;

const MOMENT: u64 = (1 << 62) - 1;

// === impl Phase ===

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::Trial(_) => "trial",
            Self::Recovering(_) => "recovering",
        }
    }

    fn word(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open(until) => 1 << 62 | until.0 & MOMENT,
            Self::Trial(since) => 2 << 62 | since.0 & MOMENT,
            Self::Recovering(since) => 3 << 62 | since.0 & MOMENT,
        }
    }

    fn of(word: u64) -> Self {
        let moment = Moment(word & MOMENT);
        match word >> 62 {
            0 => Self::Closed,
            1 => Self::Open(moment),
            2 => Self::Trial(moment),
            _ => Self::Recovering(moment),
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// A breaker by `rules`, in the state of `before`, if there is one.
    pub fn new(rules: model::Breaker, before: Option<&Self>) -> Self {
        let state = match before {
            Some(before) if before.rules.over == rules.over => before.state.clone(),
            before => Arc::new(State {
                phase: AtomicU64::new(before.map_or(Phase::Closed, Self::phase).word()),
                window: Window::new(rules.over),
                refused: AtomicU64::new(before.map_or(0, Self::refused)),
                last: Mutex::new(before.and_then(Self::last)),
            }),
        };
        Self { rules, state }
    }

    pub fn phase(&self) -> Phase {
        Phase::of(self.state.phase.load(Ordering::Acquire))
    }

    /// Whether a request would be refused for sure.
    pub fn is_open(&self, now: Moment) -> bool {
        matches!(self.phase(), Phase::Open(until) if now < until)
    }

    /// Requests that it has refused.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// What [`Self::refused`] reads.
    pub fn refused_counter(&self) -> &AtomicU64 {
        &self.state.refused
    }

    /// When and why it last opened.
    pub fn last(&self) -> Option<Change> {
        self.state.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For a successor of this process, whose moments are others. `None`: it is closed.
    pub fn told(&self, now: Moment) -> Option<Told> {
        let (phase, milliseconds) = match self.phase() {
            Phase::Closed => return None,
            Phase::Open(until) => (ToldPhase::Open, until.since(now)),
            Phase::Trial(since) => (ToldPhase::Trial, now.since(since)),
            Phase::Recovering(since) => (ToldPhase::Recovering, now.since(since)),
        };
        Some(Told { phase, milliseconds, last: self.last() })
    }

    /// Goes on as a predecessor has told.
    pub fn resume(&self, told: Told, now: Moment) {
        let since = Moment(now.0.saturating_sub(told.milliseconds));
        let phase = match told.phase {
            ToldPhase::Open => Phase::Open(Moment(now.0.saturating_add(told.milliseconds))),
            ToldPhase::Trial => Phase::Trial(since),
            ToldPhase::Recovering => Phase::Recovering(since),
        };
        self.state.phase.store(phase.word(), Ordering::Release);
        *self.state.last.lock().unwrap_or_else(PoisonError::into_inner) = told.last;
    }

    /// Whether a request may go to the service; `None`: it may not. `chance` is evenly from 0 to 1.
    pub fn admit(&self, now: Moment, chance: impl FnOnce() -> f64) -> (Option<Admitted>, Option<Turn>) {
        let phase = self.phase();
        let admitted = match phase {
            Phase::Closed => return (Some(Admitted::Normally), None),
            Phase::Open(until) => now >= until,
            // Whoever was on trial may never tell.
            Phase::Trial(since) => now.since(since) >= millis(self.rules.open),
            Phase::Recovering(since) => {
                let share = now.since(since) as f64 / millis(self.rules.recover).max(1) as f64;
                if share >= 1.0 {
                    let turn = self.go(phase, Phase::Closed).then_some(Turn::Closed);
                    return (Some(Admitted::Normally), turn);
                }
                if chance() < share.max(LEAST_SHARE) {
                    return (Some(Admitted::Normally), None);
                }
                false
            }
        };
        if admitted && self.go(phase, Phase::Trial(now)) {
            return (Some(Admitted::OnTrial), None);
        }
        self.state.refused.fetch_add(1, Ordering::Relaxed);
        (None, None)
    }

    /// A request that was let through has ended; `None`: by no fault of the service, and without saying anything of it.
    pub fn ended(&self, admitted: Admitted, ended: Option<Ended>, now: Moment) -> Option<Turn> {
        let phase = self.phase();
        match (phase, admitted, ended) {
            // Somebody else has to try.
            (Phase::Trial(_), Admitted::OnTrial, None) => {
                self.go(phase, Phase::Open(now));
                None
            }
            (Phase::Trial(_), Admitted::OnTrial, Some(ended)) if self.is_bad(ended) => {
                self.open(phase, now, "the request on trial failed too".to_owned())
            }
            (Phase::Trial(_), Admitted::OnTrial, Some(_)) => {
                self.state.window.forget();
                if self.rules.recover.is_zero() {
                    return self.go(phase, Phase::Closed).then_some(Turn::Closed);
                }
                self.go(phase, Phase::Recovering(now)).then_some(Turn::Recovering)
            }
            (Phase::Closed | Phase::Recovering(_), _, Some(ended)) => {
                self.state.window.count(ended, now);
                // Only what is bad can make too much of it.
                if !self.is_bad(ended) {
                    return None;
                }
                let why = self.too_much(self.state.window.counts(now))?;
                self.open(phase, now, why)
            }
            (Phase::Closed | Phase::Recovering(_), _, None)
            | (Phase::Open(_), _, _)
            | (Phase::Trial(_), Admitted::Normally, _) => None,
        }
    }

    /// Whether an answer took too long.
    pub fn is_slow(&self, took: std::time::Duration) -> bool {
        self.rules.latency.is_some_and(|slow| took > slow.limit)
    }

    fn is_bad(&self, ended: Ended) -> bool {
        ended.network || (ended.error && self.rules.errors.is_some()) || ended.slow
    }

    fn too_much(&self, counts: Counts) -> Option<String> {
        let Counts { total, network, errors, slow } = counts;
        if total < self.rules.at_least {
            return None;
        }
        let reaches = |count: u32, share: u8| u64::from(count) * 100 >= u64::from(share) * u64::from(total);
        let over = self.rules.over;
        if self.rules.network.is_some_and(|share| reaches(network, share)) {
            return Some(format!("{network} of {total} requests got no answer within {over:?}"));
        }
        if self.rules.errors.is_some_and(|share| reaches(errors, share)) {
            return Some(format!("{errors} of {total} requests failed within {over:?}"));
        }
        let limit = self.rules.latency?;
        // The quantile is above the limit when more than the rest is.
        let most = u64::from(100 - limit.quantile) * u64::from(total);
        (u64::from(slow) * 100 > most)
            .then(|| format!("{slow} of {total} requests took longer than {:?} within {over:?}", limit.limit))
    }

    fn open(&self, from: Phase, now: Moment, why: String) -> Option<Turn> {
        if !self.go(from, Phase::Open(now.after(self.rules.open))) {
            return None;
        }
        self.state.window.forget();
        let change = Change { at: Timestamp::now(), why: why.clone() };
        *self.state.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
        Some(Turn::Opened(why))
    }

    /// Only one of those who see the same phase goes on from it.
    fn go(&self, from: Phase, to: Phase) -> bool {
        let phase = &self.state.phase;
        phase.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
