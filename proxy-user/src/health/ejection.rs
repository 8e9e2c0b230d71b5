//! A server that fails request after request is left out for a while, with or without probes. Lock-free for those who
//! only report; time is an argument.
//!
//! - `after` failures in a row eject it, for `first`; each time after for twice as long, up to `longest`.
//! - Then it is on trial: one failure ejects it again, one success makes it a server like the others.
//! - What requests say that were on their way to it while it was out counts for nothing.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{clock::Moment, config::model::Eject, health::Change};

/// A server's record.
#[derive(Debug, Default)]
pub struct Ejection {
    in_a_row: AtomicU32,
    /// When the present or last one ends. 0: there was none.
    until: AtomicU64,
    /// How many there were, one close behind the other.
    times: AtomicU32,
    /// Since its return it has not answered yet.
    on_trial: AtomicBool,
    last: Mutex<Option<Change>>,
}

/// An [`Ejection`] as it is told to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    in_a_row: u32,
    left_ms: Option<u64>,
    times: u32,
    on_trial: bool,
    last: Option<Change>,
}

/// A service's rules, and who may eject just now.
#[derive(Debug)]
pub struct Ejector {
    pub rules: Eject,
    /// Held while one server is ejected: two workers must not take the last two servers out at a time.
    turn: Mutex<()>,
}

// === impl Ejector ===

impl Ejector {
    pub fn new(rules: Eject) -> Self {
        Self { rules, turn: Mutex::default() }
    }

    /// Ejects a server that failed often enough, unless too many would be `out` then of `all`; how many are is asked in
    /// turn. Says for how long, in milliseconds.
    pub fn eject(
        &self,
        server: &Ejection,
        now: Moment,
        all: usize,
        out: impl FnOnce() -> usize,
        why: impl FnOnce() -> String,
    ) -> Option<u64> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may just have done it.
        if server.is_out(now) || (out() + 1) * 100 > usize::from(self.rules.most) * all {
            return None;
        }
        Some(server.eject(&self.rules, now, why()))
    }
}

// === impl Ejection ===

impl Ejection {
    pub fn is_out(&self, now: Moment) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now.0 < until
    }

    /// The end of the present ejection, in milliseconds from now.
    pub fn left(&self, now: Moment) -> Option<u64> {
        let until = self.until.load(Ordering::Relaxed);
        until.checked_sub(now.0).filter(|left| *left > 0)
    }

    /// The last ejection, for people.
    pub fn last(&self) -> Option<Change> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request was answered. Whether the server has come through its trial by that.
    pub fn succeeded(&self, now: Moment) -> bool {
        // Mostly there is nothing to forget, and looking is cheaper than writing.
        if self.in_a_row.load(Ordering::Relaxed) == 0 && !self.on_trial.load(Ordering::Relaxed) {
            return false;
        }
        if self.is_out(now) {
            return false;
        }
        self.in_a_row.store(0, Ordering::Relaxed);
        self.on_trial.swap(false, Ordering::Relaxed)
    }

    /// A request failed. Whether that is enough to eject the server.
    pub fn failed(&self, rules: &Eject, now: Moment) -> bool {
        if self.is_out(now) {
            return false;
        }
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        in_a_row >= rules.after || self.on_trial.load(Ordering::Relaxed)
    }

    /// For a successor of this process, whose moments are others. `None`: there is nothing to tell.
    pub fn told(&self, now: Moment) -> Option<Told> {
        let in_a_row = self.in_a_row.load(Ordering::Relaxed);
        let times = self.times.load(Ordering::Relaxed);
        (in_a_row > 0 || times > 0).then(|| Told {
            in_a_row,
            left_ms: self.left(now),
            times,
            on_trial: self.on_trial.load(Ordering::Relaxed),
            last: self.last(),
        })
    }

    /// Goes on as a predecessor has told.
    pub fn resume(&self, told: Told, now: Moment) {
        self.in_a_row.store(told.in_a_row, Ordering::Relaxed);
        self.times.store(told.times, Ordering::Relaxed);
        self.on_trial.store(told.on_trial, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = told.last;
        if told.times > 0 {
            let until = now.0.saturating_add(told.left_ms.unwrap_or_default());
            self.until.store(until.max(1), Ordering::Relaxed);
        }
    }

    fn eject(&self, rules: &Eject, now: Moment, why: String) -> u64 {
        let longest = millis(rules.longest);
        let before = self.until.load(Ordering::Relaxed);
        let long_ago = before != 0 && now.since(Moment(before)) >= longest;
        let times = if long_ago { 0 } else { self.times.load(Ordering::Relaxed) };
        let length = millis(rules.first).saturating_mul(1 << times.min(30)).min(longest);
        self.times.store(times.saturating_add(1), Ordering::Relaxed);
        self.in_a_row.store(0, Ordering::Relaxed);
        self.on_trial.store(true, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Change { at: Timestamp::now(), why });
        self.until.store(now.0.saturating_add(length).max(1), Ordering::Relaxed);
        length
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rules(after: u32, most: u8) -> Eject {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(10));
        Eject { after, first, longest, most, status: Vec::new() }
    }

    fn fail(ejector: &Ejector, server: &Ejection, now: u64) -> Option<u64> {
        let now = Moment(now);
        server
            .failed(&ejector.rules, now)
            .then(|| ejector.eject(server, now, 2, || 0, || "refused".into()))
            .flatten()
    }

    #[test]
    fn only_failures_in_a_row_eject() {
        let (ejector, server) = (Ejector::new(rules(3, 50)), Ejection::default());
        assert_eq!((fail(&ejector, &server, 1), fail(&ejector, &server, 2)), (None, None));
        server.succeeded(Moment(3));
        assert_eq!((fail(&ejector, &server, 4), fail(&ejector, &server, 5)), (None, None));
        assert_eq!(fail(&ejector, &server, 6), Some(1000));
        assert!(server.is_out(Moment(1005)) && !server.is_out(Moment(1006)));
        assert_eq!(server.left(Moment(6)), Some(1000));
        assert_eq!(server.last().unwrap().why, "refused");
    }

    #[test]
    fn who_fails_its_trial_is_out_for_longer_up_to_a_limit() {
        let (ejector, server) = (Ejector::new(rules(3, 50)), Ejection::default());
        let mut now = 1;
        for _ in 0..2 {
            fail(&ejector, &server, now);
        }
        for length in [1000, 2000, 4000, 8000, 10_000, 10_000] {
            assert_eq!(fail(&ejector, &server, now), Some(length));
            now += length;
        }
    }

    #[test]
    fn who_stands_its_trial_is_a_server_like_others_and_remembered_for_a_while() {
        let (ejector, server) = (Ejector::new(rules(2, 50)), Ejection::default());
        fail(&ejector, &server, 1);
        assert_eq!(fail(&ejector, &server, 1), Some(1000));
        assert!(!server.succeeded(Moment(500)), "it was asked before it was ejected");
        assert!(server.succeeded(Moment(1500)), "it has come through");
        assert!(!server.succeeded(Moment(1501)));
        assert_eq!(fail(&ejector, &server, 1600), None);
        assert_eq!(fail(&ejector, &server, 1601), Some(2000), "soon after");
        server.succeeded(Moment(4000));
        fail(&ejector, &server, 14_000);
        assert_eq!(fail(&ejector, &server, 14_000), Some(1000), "long after");
    }

    #[test]
    fn no_more_than_a_share_is_out() {
        for (most, all, out, ejected) in
            [(50, 1, 0, false), (100, 1, 0, true), (50, 2, 0, true), (50, 2, 1, false), (34, 3, 1, false)]
        {
            let (ejector, server) = (Ejector::new(rules(1, most)), Ejection::default());
            let length = ejector.eject(&server, Moment(1), all, || out, String::new);
            assert_eq!(length.is_some(), ejected, "{out} of {all} out, at most {most} %");
        }
    }

    proptest! {
        /// However requests end, nobody is out for longer than the longest time, nor ejected while out.
        #[test]
        fn every_ejection_ends(events in prop::collection::vec((any::<bool>(), 0_u64..3000), 1..200)) {
            let (ejector, server) = (Ejector::new(rules(3, 50)), Ejection::default());
            let mut now = 1;
            for (good, later) in events {
                now += later;
                let was_out = server.is_out(Moment(now));
                if good {
                    server.succeeded(Moment(now));
                } else if let Some(length) = fail(&ejector, &server, now) {
                    prop_assert!(!was_out && (1000..=10_000).contains(&length));
                }
                prop_assert!(!server.is_out(Moment(now + 10_000)));
            }
        }
    }
}
