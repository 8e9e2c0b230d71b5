//! A server's health as one process tells it to the next, which has another clock: moments become spans of time.

use std::sync::{PoisonError, atomic::Ordering};

use serde::{Deserialize, Serialize};

use super::{Change, Health, Probes, Status, ejection};
use crate::clock::Moment;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// `None`: nobody has said yet.
    pub up: Option<bool>,
    pub last_change: Change,
    /// Since a byte last came from it; `None`: none ever did.
    #[serde(default)]
    pub heard_ms: Option<u64>,
    #[serde(default)]
    pub usable_ms: u64,
    #[serde(default)]
    pub asks_to_drain: Option<Change>,
    #[serde(default)]
    pub probes_ended: u64,
    #[serde(default)]
    pub probes_good: u32,
    #[serde(default)]
    pub falls: u32,
    #[serde(default)]
    pub ejection: Option<ejection::Told>,
}

impl Health {
    /// What a successor has to know.
    pub fn told(&self, now: Moment) -> Known {
        let Probes { ended, good } = self.probes();
        let heard = Some(self.last_byte()).filter(|heard| heard.0 > 0);
        Known {
            up: match self.verdict() {
                Status::Up => Some(true),
                Status::Down => Some(false),
                Status::Starting | Status::Unchecked | Status::Ejected => None,
            },
            last_change: self.last_change(),
            heard_ms: heard.map(|heard| now.since(heard)),
            usable_ms: now.since(self.usable_since()),
            asks_to_drain: self.asks_to_drain(),
            probes_ended: ended,
            probes_good: good,
            falls: self.falls(),
            ejection: self.ejection.told(now),
        }
    }

    /// Goes on with what a predecessor knew, before anybody else looks at it. A server that has a check now and had none before (or
    /// the other way round) is as new.
    pub fn resume(&self, known: Known, now: Moment) {
        let ago = |milliseconds: u64| now.0.saturating_sub(milliseconds);
        if let (Status::Starting, Some(up)) = (self.verdict(), known.up) {
            let verdict = if up { Status::Up } else { Status::Down };
            self.verdict.store(verdict as u8, Ordering::Release);
            *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) = known.last_change;
            *self.probes.lock().unwrap_or_else(PoisonError::into_inner) =
                Probes { ended: known.probes_ended, good: known.probes_good };
            self.asked_to_drain(known.asks_to_drain.map(|asks| asks.why));
        }
        if let Some(heard) = known.heard_ms {
            self.last_byte.store(ago(heard), Ordering::Relaxed);
        }
        self.usable_since.store(ago(known.usable_ms), Ordering::Relaxed);
        self.falls.store(known.falls, Ordering::Relaxed);
        if let Some(ejection) = known.ejection {
            self.ejection.resume(ejection, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn handed(from: &Health, to: &Health, now: Moment, then: Moment) {
        let text = serde_json::to_string(&from.told(now)).unwrap();
        to.resume(serde_json::from_str(&text).unwrap(), then);
    }

    #[test]
    fn a_server_is_what_it_was_by_another_clock() {
        let before = Health::new(Status::Starting);
        before.change(Status::Down, false, "refused".into());
        before.change(Status::Up, false, "an answer".into());
        before.change(Status::Down, true, "it hung".into());
        before.heard(Moment(5_000));
        before.probed(true);
        assert!(before.asked_to_drain(Some("X-Drain".into())));
        let after = Health::new(Status::Starting);
        handed(&before, &after, Moment(5_200), Moment(300));
        assert_eq!((after.verdict(), after.last_byte()), (Status::Down, Moment(100)));
        assert_eq!((after.probes(), after.last_change().why), (before.probes(), "it hung".to_owned()));
        assert_eq!(after.falls(), 1, "who was never up does not fall");
        assert!(after.is_draining());
        assert_eq!(after.asks_to_drain().map(|asks| asks.why).as_deref(), Some("X-Drain"));
        // From before this process began.
        handed(&before, &after, Moment(9_000), Moment(10));
        assert_eq!(after.last_byte(), Moment(0));
    }

    #[test]
    fn who_was_not_probed_yet_or_has_no_check_any_more_is_as_new() {
        for (before, after) in [(Status::Starting, Status::Starting), (Status::Up, Status::Unchecked)] {
            let health = Health::new(after);
            handed(&Health::new(before), &health, Moment(1), Moment(1));
            assert_eq!(health.verdict(), after);
        }
    }

    #[test]
    fn an_older_release_that_knew_less_is_understood() {
        let change = Change { at: Timestamp::UNIX_EPOCH, why: "an answer".into() };
        let text = serde_json::json!({ "up": true, "last_change": change, "mood": "good" }).to_string();
        let health = Health::new(Status::Starting);
        health.resume(serde_json::from_str(&text).unwrap(), Moment(7));
        assert_eq!((health.verdict(), health.last_change()), (Status::Up, change));
    }
}
