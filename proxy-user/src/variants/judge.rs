//! The judge of a split: moves requests to a new variant step by step, and takes them all back when the new one is surely
//! worse than the old one. A state machine without I/O: time and what was counted are arguments.
//!
//! During a step it looks ten times, and once more at its end; each look makes three tests, each by [`statistics`]:
//!
//! - *errors*: is the new one's error ratio above the old one's by more than the margin?
//! - *median* and *99th percentile*: let t be the time that this share of the old one's answers doesn't exceed. Is the share of
//!   the new one's answers that take longer than t and its margin larger than the share of the old one's that take longer
//!   than t? (A control percentile test, after Mathisen, "A method of testing the hypothesis that two samples are from the same
//!   population", 1943.)
//!
//! All tests of all steps share the chance of a false alarm among them (Bonferroni): over a whole run it is at most
//! 1 − confidence. What it waits for never depends on how the tests went, so waiting adds nothing to it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    figures::Counted,
    statistics::{Share, surely_larger},
};

/// Looks in the course of a step; its end is one more.
const LOOKS: u32 = 10;

/// Errors, median, 99th percentile.
const TESTS: u32 = 3;

/// A percentile is only tested where so many answers are beyond it.
const BEYOND: u64 = 10;

/// What the judge is to do. Percentages in hundredths of a percent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The new variant.
    pub variant: String,
    /// The old one.
    pub against: String,
    /// Which percentage of the requests the new one gets: rising, the first below 100.
    pub steps: Vec<u32>,
    pub every: Duration,
    pub margin_errors: u32,
    pub margin_latency: u32,
    pub confidence: u32,
    /// Of each variant, in each step.
    pub min_samples: u64,
}

/// A run of the judge, as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    pub plan: Plan,
    pub state: State,
    step: usize,
    step_began: Timestamp,
    /// What the old one did in the last step in which it had a share.
    reference: Option<Counted>,
    /// What had been counted of the new and of the old one when the step began. Counters begin anew with the daemon.
    #[serde(skip)]
    base: Option<(Counted, Counted)>,
    #[serde(skip)]
    looks: u32,
    #[serde(skip)]
    waits: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// All steps are done.
    Finished {
        at: Timestamp,
    },
    /// The new variant was worse.
    WentBack {
        at: Timestamp,
        why: String,
    },
    /// A person must decide, or has.
    Stopped {
        at: Timestamp,
        why: String,
    },
}

/// What is to be done after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stay,
    /// The new variant gets this percentage.
    Shift(u32),
    /// The new variant gets nothing any more.
    GoBack,
    /// All steps are done: the weights stay.
    Finish,
}

// === impl Judge ===

impl Judge {
    pub fn new(plan: Plan, now: Timestamp) -> Self {
        Self {
            plan,
            state: State::Running,
            step: 0,
            step_began: now,
            reference: None,
            base: None,
            looks: 0,
            waits: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// The percentage that the new variant should have now.
    pub fn share(&self) -> u32 {
        self.plan.steps.get(self.step).copied().unwrap_or_default()
    }

    /// The daemon has started anew, and its counters with it: the step begins again.
    pub fn resume(&mut self, now: Timestamp) {
        self.begin_step(self.step, now);
    }

    pub fn stop(&mut self, why: &str, now: Timestamp) {
        self.state = State::Stopped { at: now, why: why.to_owned() };
    }

    /// When to look next, from `now` on.
    pub fn next_look(&self, now: Timestamp) -> Duration {
        let (pace, since) = (self.pace(), self.since(now));
        let rest = since.as_nanos() % pace.as_nanos().max(1);
        pace.saturating_sub(Duration::from_nanos(u64::try_from(rest).unwrap_or_default()))
    }

    /// Looks at what was counted of the new and of the old variant since the daemon runs.
    pub fn look(&mut self, now: Timestamp, new: &Counted, old: &Counted) -> Decision {
        if !self.is_running() {
            return Decision::Stay;
        }
        if now < self.step_began {
            // The clock was set back.
            self.step_began = now;
        }
        let (base_new, base_old) = self.base.get_or_insert_with(|| (new.clone(), old.clone()));
        let (new, old) = (new.since(base_new), old.since(base_old));
        let since = self.since(now);
        let due = u32::try_from(since.as_nanos() / self.pace().as_nanos().max(1)).unwrap_or(u32::MAX);
        let at_end = since >= self.plan.every;
        if !at_end && due <= self.looks {
            return Decision::Stay;
        }
        self.looks = due.min(LOOKS);
        // With all requests at the new one, the old one is what it was in the step before.
        let reference = if self.share() < 100 { Some(old.clone()) } else { self.reference.clone() };
        let Some(reference) = reference else {
            self.stop("nothing is known of the old variant, to judge the new one by", now);
            return Decision::Stay;
        };
        if let Some(lacking) = self.lacking(&new, &reference) {
            self.waits = at_end.then_some(lacking);
            return Decision::Stay;
        }
        self.waits = None;
        if let Some(why) = self.worse(&new, &reference) {
            self.state = State::WentBack { at: now, why };
            return Decision::GoBack;
        }
        if !at_end {
            return Decision::Stay;
        }
        if new.errors() * 2 >= new.requests() {
            let (variant, against) = (&self.plan.variant, &self.plan.against);
            let why =
                format!("half of the requests to `{variant}` fail, and no fewer of those to `{against}`");
            self.stop(&why, now);
            return Decision::Stay;
        }
        self.reference = Some(reference);
        if self.step + 1 == self.plan.steps.len() {
            self.state = State::Finished { at: now };
            return Decision::Finish;
        }
        self.begin_step(self.step + 1, now);
        Decision::Shift(self.share())
    }

    /// Where it is, for people.
    pub fn told(&self, now: Timestamp) -> String {
        let (variant, steps) = (&self.plan.variant, self.plan.steps.len());
        match &self.state {
            State::Running => {
                let step = format!("step {} of {steps}: {} % for `{variant}`", self.step + 1, self.share());
                match &self.waits {
                    Some(lacking) => format!("{step}, waits: {lacking}"),
                    None => {
                        let left = self.plan.every.saturating_sub(self.since(now)).as_secs();
                        format!("{step}, {left} s to go")
                    }
                }
            }
            State::Finished { at } => {
                format!("finished at {at:.0}: all requests of the last step stay with `{variant}`")
            }
            State::WentBack { at, why } => format!("WENT BACK at {at:.0}: {why}"),
            State::Stopped { at, why } => format!("stopped at {at:.0}: {why}"),
        }
    }

    fn begin_step(&mut self, step: usize, now: Timestamp) {
        (self.step, self.step_began) = (step, now);
        (self.base, self.looks, self.waits) = (None, 0, None);
    }

    fn since(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.step_began).max(SignedDuration::ZERO)).unwrap_or_default()
    }

    fn pace(&self) -> Duration {
        self.plan.every / LOOKS
    }

    /// What keeps it from judging.
    fn lacking(&self, new: &Counted, old: &Counted) -> Option<String> {
        let least = self.plan.min_samples;
        if new.requests() >= least && old.requests() >= least {
            return None;
        }
        let (variant, against) = (&self.plan.variant, &self.plan.against);
        let (new, old) = (new.requests(), old.requests());
        Some(format!("{new} requests to `{variant}` and {old} to `{against}`, of {least} each"))
    }

    /// Why the new one is surely worse.
    fn worse(&self, new: &Counted, old: &Counted) -> Option<String> {
        let share = |hundredths: u32| f64::from(hundredths) / 10_000.0;
        let tests = f64::from(TESTS * (LOOKS + 1)) * self.plan.steps.len() as f64;
        let alpha = (1.0 - share(self.plan.confidence)) / tests;
        let (variant, against) = (&self.plan.variant, &self.plan.against);
        let errors = |counted: &Counted| Share { hits: counted.errors(), all: counted.requests() };
        let margin = share(self.plan.margin_errors);
        if surely_larger(errors(new), errors(old), margin, alpha) {
            return Some(format!(
                "{:.2} % of {} requests to `{variant}` failed, of {} to `{against}` {:.2} %",
                errors(new).ratio() * 100.0,
                new.requests(),
                old.requests(),
                errors(old).ratio() * 100.0,
            ));
        }
        for (q, name) in [(0.5, "median"), (0.99, "99th percentile")] {
            let beyond = |counted: &Counted| (counted.answers() as f64 * (1.0 - q)) as u64;
            let Some((limit, slower)) = old.at_most(q).filter(|_| beyond(new).min(beyond(old)) >= BEYOND)
            else {
                continue;
            };
            let with_margin = limit.mul_f64(1.0 + share(self.plan.margin_latency));
            let theirs = Share { hits: new.slower_than(with_margin), all: new.answers() };
            // One more, since t is an answer's own time: so many others are beyond the k-th of n, on average.
            let ours = Share { hits: slower + 1, all: old.answers() + 1 };
            if surely_larger(theirs, ours, 0.0, alpha) {
                let milliseconds =
                    |counted: &Counted| counted.quantile(q).unwrap_or_default().as_secs_f64() * 1000.0;
                return Some(format!(
                    "the {name} of `{variant}` is {:.1} ms, that of `{against}` {:.1} ms ({} and {} answers)",
                    milliseconds(new),
                    milliseconds(old),
                    new.answers(),
                    old.answers(),
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
