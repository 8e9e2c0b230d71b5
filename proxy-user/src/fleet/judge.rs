//! Whether a host answers worse since it took a generation over. Pure: counters and times are arguments.
//!
//! The test is that of the judge of splits: the share of failed requests since then against that of the minute before, believed only when it
//! is surely larger by a margin. Each second is a look, so the chance of a false alarm of a look is small.

use std::collections::VecDeque;

use crate::variants::statistics::{Share, surely_larger};

/// What was counted before is looked at over so many milliseconds.
const BEFORE: i64 = 60_000;

/// The share of failed requests may rise by so much.
const MARGIN: f64 = 0.02;

/// Of a look at a time. A watch of a minute has 60.
const ALPHA: f64 = 1e-4;

/// Counters of requests, as of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    at: i64,
    counted: Share,
}

/// Remembers the last minute, and what it was when the generation came.
#[derive(Debug, Default)]
pub struct Judge {
    readings: VecDeque<Reading>,
    /// Over the minute before the generation that runs, and the counters when it came.
    before: Option<(Share, Share)>,
}

impl Judge {
    /// Notes the counters. To be called every second or so.
    pub fn note(&mut self, counted: Share, now: i64) {
        // Counters begin anew with a daemon; what was before then says nothing.
        if self.readings.back().is_some_and(|last| last.counted.all > counted.all) {
            *self = Self::default();
        }
        while self.readings.front().is_some_and(|first| first.at < now - BEFORE) {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading { at: now, counted });
    }

    /// Another generation runs from now on.
    pub fn taken_over(&mut self) {
        let ends = self.readings.front().zip(self.readings.back());
        self.before = ends.map(|(first, last)| (between(first.counted, last.counted), last.counted));
    }

    /// Why the generation should go, if it should.
    #[must_use]
    pub fn verdict(&self) -> Option<String> {
        let (before, base) = self.before?;
        let since = between(base, self.readings.back()?.counted);
        surely_larger(since, before, MARGIN, ALPHA).then(|| {
            format!(
                "{:.1} % of {} requests failed since, and {:.1} % of {} in the minute before",
                since.ratio() * 100.0,
                since.all,
                before.ratio() * 100.0,
                before.all
            )
        })
    }
}

fn between(first: Share, last: Share) -> Share {
    Share { hits: last.hits.saturating_sub(first.hits), all: last.all.saturating_sub(first.all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts for so many seconds, at so many requests and failures a second.
    fn run(judge: &mut Judge, counted: &mut Share, now: &mut i64, seconds: u64, all: u64, hits: u64) {
        for _ in 0..seconds {
            *now += 1_000;
            *counted = Share { hits: counted.hits + hits, all: counted.all + all };
            judge.note(*counted, *now);
        }
    }

    #[test]
    fn more_failures_than_before_are_told_and_as_many_are_not() {
        let (mut judge, mut counted, mut now) = (Judge::default(), Share { hits: 0, all: 0 }, 0);
        run(&mut judge, &mut counted, &mut now, 60, 100, 1);
        judge.taken_over();
        run(&mut judge, &mut counted, &mut now, 30, 100, 1);
        assert_eq!(judge.verdict(), None, "as bad as before is no fault of the new one");
        run(&mut judge, &mut counted, &mut now, 5, 100, 100);
        let why = judge.verdict().unwrap();
        assert!(why.contains("of 3500 requests failed since, and 1.0 % of 5900"), "{why}");
    }

    #[test]
    fn without_traffic_before_nothing_is_concluded() {
        let (mut judge, mut counted, mut now) = (Judge::default(), Share { hits: 0, all: 0 }, 0);
        run(&mut judge, &mut counted, &mut now, 60, 0, 0);
        judge.taken_over();
        run(&mut judge, &mut counted, &mut now, 60, 100, 100);
        assert_eq!(judge.verdict(), None);
    }

    #[test]
    fn a_few_failures_of_few_requests_are_no_proof() {
        let (mut judge, mut counted, mut now) = (Judge::default(), Share { hits: 0, all: 0 }, 0);
        run(&mut judge, &mut counted, &mut now, 60, 1, 0);
        judge.taken_over();
        run(&mut judge, &mut counted, &mut now, 2, 1, 1);
        assert_eq!(judge.verdict(), None);
    }

    #[test]
    fn counters_that_begin_anew_are_no_failures() {
        let (mut judge, mut counted, mut now) = (Judge::default(), Share { hits: 0, all: 0 }, 0);
        run(&mut judge, &mut counted, &mut now, 60, 100, 0);
        judge.taken_over();
        let mut anew = Share { hits: 0, all: 0 };
        run(&mut judge, &mut anew, &mut now, 5, 100, 100);
        assert_eq!(judge.verdict(), None, "there is nothing to compare with any more");
    }
}
