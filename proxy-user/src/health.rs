//! Which servers may get work: what probes and live traffic say of each, and what is made of it.
//!
//! A server's health is shared: workers write its liveness clock and read its status with plain atomics; the
//! control side runs one [`watcher`] per server, which alone changes the verdict, by the rules of [`tracker`]. What
//! requests meet may leave a server out for a while ([`ejection`]), or a whole service ([`breaker`]).
//! Health outlives a reload: it belongs to the service's name and the server's address.

pub mod breaker;
pub mod ejection;
pub mod handed;
pub mod probe;
pub mod tracker;
pub mod watcher;
pub mod window;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{clock::Moment, health::ejection::Ejection};

/// Who was heard within so many milliseconds needs no probe to be known as alive. Shorter than the shortest time (200 ms)
/// after which the kernel sends a segment again.
const JUST_NOW: u64 = 150;

/// May a server get work?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not probed yet: no work until the first probe has spoken.
    Starting,
    Up,
    Down,
    /// The service has no health check: always given work, and only the request itself finds out.
    Unchecked,
    /// Requests fail there one after the other: left out for a while, whatever probes say. Never a verdict of theirs.
    Ejected,
}

impl Status {
    pub fn usable(self) -> bool {
        matches!(self, Self::Up | Self::Unchecked)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Ejected => "ejected",
        }
    }
}

/// What is known of one server.
#[derive(Debug)]
pub struct Health {
    verdict: AtomicU8,
    /// The liveness clock: when a byte last came from the server, by traffic or by probe.
    last_byte: AtomicU64,
    /// Counts the times that the server fell silent and was taken out for it. A request that waits for an answer
    /// since an earlier count is waiting in vain.
    silences: AtomicU32,
    /// How often it was up and went down.
    falls: AtomicU32,
    suspected: AtomicBool,
    /// Who wants it to get no new work: [`BY_WORD`], [`BY_ITSELF`].
    drained: AtomicU8,
    /// When it last became one that gets work.
    usable_since: AtomicU64,
    probes: Mutex<Probes>,
    wake: Notify,
    changed: Notify,
    last_change: Mutex<Change>,
    pub ejection: Ejection,
    /// How long the last probe that brought an answer took, in microseconds, and one more. 0: there was none.
    probe_took: AtomicU32,
    /// How often the kernel has told that the server doesn't acknowledge what is sent to it, or breaks connections off.
    kernel_reports: AtomicU32,
    /// The kernel's is one of the suspicions that stand.
    unacknowledged: AtomicBool,
    /// Since when it asks to be drained, and how.
    asks_to_drain: Mutex<Option<Change>>,
}

/// An operator has said so: see `drain.rs`.
const BY_WORD: u8 = 1;

/// Its health answers ask for it.
const BY_ITSELF: u8 = 2;

/// How its probes went, for those who wait until it is well *again*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probes {
    /// All that have ended.
    pub ended: u64,
    /// The last so many in a row went well.
    pub good: u32,
}

/// The last change of status, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub at: Timestamp,
    pub why: String,
}

// === impl Health ===

impl Health {
    pub fn new(status: Status) -> Self {
        Self {
            verdict: AtomicU8::new(status as u8),
            last_byte: AtomicU64::new(0),
            silences: AtomicU32::new(0),
            falls: AtomicU32::new(0),
            suspected: AtomicBool::new(false),
            drained: AtomicU8::new(0),
            usable_since: AtomicU64::new(0),
            probes: Mutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
            last_change: Mutex::new(Change { at: Timestamp::now(), why: "not probed yet".into() }),
            ejection: Ejection::default(),
            probe_took: AtomicU32::new(0),
            kernel_reports: AtomicU32::new(0),
            unacknowledged: AtomicBool::new(false),
            asks_to_drain: Mutex::default(),
        }
    }

    /// Whether new requests may go there.
    pub fn takes_work(&self) -> bool {
        self.status().usable() && !self.is_draining()
    }

    /// Whether it gets no new work, however well it is.
    pub fn is_draining(&self) -> bool {
        self.drained.load(Ordering::Acquire) != 0
    }

    /// When it last became one that gets work: it came up, or its drain was undone. A server that had work from the start has
    /// had it since the clock began.
    pub fn usable_since(&self) -> Moment {
        Moment(self.usable_since.load(Ordering::Relaxed))
    }

    /// An operator has said that it gets no new work, or that it does again.
    pub fn drained_by_word(&self, drained: bool) {
        self.drained_by(BY_WORD, drained);
    }

    fn drained_by(&self, whom: u8, drained: bool) {
        let before = if drained {
            self.drained.fetch_or(whom, Ordering::AcqRel)
        } else {
            // Whoever reads that it is usable shall not think that it has long been.
            if self.drained.load(Ordering::Acquire) == whom && self.status().usable() {
                self.usable_since.store(Moment::now().0, Ordering::Relaxed);
            }
            self.drained.fetch_and(!whom, Ordering::AcqRel)
        };
        if (before & whom != 0) != drained {
            self.changed.notify_waiters();
        }
    }

    /// Since when it asks to be drained, and how; `None`: it doesn't.
    pub fn asks_to_drain(&self) -> Option<Change> {
        self.asks_to_drain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A probe's answer asked for a drain, with these words, or didn't. Says whether that is news.
    pub(crate) fn asked_to_drain(&self, why: Option<String>) -> bool {
        let mut asks = self.asks_to_drain.lock().unwrap_or_else(PoisonError::into_inner);
        let news = asks.is_some() != why.is_some();
        if news {
            self.drained_by(BY_ITSELF, why.is_some());
            *asks = why.map(|why| Change { at: Timestamp::now(), why });
        }
        news
    }

    /// How its probes went so far.
    pub fn probes(&self) -> Probes {
        *self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe has ended, well or not.
    pub(crate) fn probed(&self, well: bool) {
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes.ended += 1;
        probes.good = if well { probes.good.saturating_add(1) } else { 0 };
    }

    /// What becomes of the server now.
    pub fn status(&self) -> Status {
        self.status_at(Moment::recent())
    }

    pub fn status_at(&self, now: Moment) -> Status {
        match self.verdict() {
            verdict if verdict.usable() && self.ejection.is_out(now) => Status::Ejected,
            verdict => verdict,
        }
    }

    /// What probes have made of it.
    pub fn verdict(&self) -> Status {
        match self.verdict.load(Ordering::Relaxed) {
            0 => Status::Starting,
            1 => Status::Up,
            2 => Status::Down,
            _ => Status::Unchecked,
        }
    }

    /// How long the last probe took that brought an answer.
    pub fn probe_took(&self) -> Option<Duration> {
        let took = self.probe_took.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(took.into()))
    }

    pub fn kernel_reports(&self) -> u32 {
        self.kernel_reports.load(Ordering::Relaxed)
    }

    pub fn last_change(&self) -> Change {
        self.last_change.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A byte came from the server.
    pub fn heard(&self, now: Moment) {
        // Mostly somebody else heard it in the same millisecond, and looking is cheaper than writing.
        if self.last_byte.load(Ordering::Relaxed) < now.0 {
            self.last_byte.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    pub fn last_byte(&self) -> Moment {
        Moment(self.last_byte.load(Ordering::Relaxed))
    }

    pub fn silences(&self) -> u32 {
        self.silences.load(Ordering::Acquire)
    }

    /// Live traffic met something odd (a refused or reset connection, a long wait): look at once.
    /// Many suspicions at a time make one probe.
    pub fn suspect(&self) {
        if !self.suspected.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// The kernel has met something odd on a connection to the server: what was sent is not acknowledged, or the
    /// connection was reset. On a way that loses packets that is daily life: a server that was heard just now is there.
    pub fn suspect_by_kernel(&self, unacknowledged: bool, now: Moment) {
        self.kernel_reports.fetch_add(1, Ordering::Relaxed);
        if now.since(self.last_byte()) < JUST_NOW {
            return;
        }
        if unacknowledged {
            self.unacknowledged.store(true, Ordering::Relaxed);
        }
        self.suspect();
    }

    /// How often it was up and went down.
    pub fn falls(&self) -> u32 {
        self.falls.load(Ordering::Relaxed)
    }

    /// Whether a suspicion waits to be looked into.
    pub fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Only the server's watcher changes its status.
    pub(crate) fn change(&self, status: Status, silent: bool, why: String) {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) =
            Change { at: Timestamp::now(), why };
        if status.usable() && !self.verdict().usable() && !self.is_draining() {
            self.usable_since.store(Moment::now().0, Ordering::Relaxed);
        }
        if status == Status::Down && self.verdict() == Status::Up {
            self.falls.fetch_add(1, Ordering::Relaxed);
        }
        self.verdict.store(status as u8, Ordering::Release);
        if silent {
            self.silences.fetch_add(1, Ordering::AcqRel);
        }
        self.changed.notify_waiters();
    }

    /// Waits for a status that is `wanted`, and returns it.
    pub async fn until(&self, wanted: impl Fn(Status) -> bool) -> Status {
        loop {
            // Registered before the look, so that no change falls between the two.
            let changed = self.changed.notified();
            let status = self.status();
            if wanted(status) {
                return status;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_liveness_clock_never_goes_back() {
        let health = Health::new(Status::Up);
        health.heard(Moment(20));
        health.heard(Moment(10));
        assert_eq!(health.last_byte(), Moment(20));
    }

    #[test]
    fn what_the_kernel_tells_of_a_server_that_was_heard_just_now_is_no_suspicion() {
        let health = Health::new(Status::Up);
        health.heard(Moment(1000));
        health.suspect_by_kernel(true, Moment(1100));
        assert_eq!((health.is_suspected(), health.kernel_reports()), (false, 1));
        health.suspect_by_kernel(true, Moment(1200));
        assert_eq!((health.is_suspected(), health.kernel_reports()), (true, 2));
    }

    #[test]
    fn a_drained_server_gets_no_work_until_all_who_wanted_it_have_let_go() {
        let health = Health::new(Status::Up);
        assert!(health.takes_work());
        health.drained_by_word(true);
        assert!(health.asked_to_drain(Some("404".into())));
        assert!(!health.asked_to_drain(Some("404".into())), "that is no news");
        health.drained_by_word(false);
        assert!(health.is_draining() && !health.takes_work());
        assert!(health.asked_to_drain(None));
        assert!(health.takes_work() && health.asks_to_drain().is_none());
    }

    #[test]
    fn a_server_is_usable_since_it_came_up_or_its_drain_was_undone() {
        let health = Health::new(Status::Starting);
        health.drained_by_word(true);
        health.change(Status::Up, false, "up".into());
        assert_eq!(health.usable_since(), Moment(0), "drained, it is not");
        let before = Moment::now();
        health.drained_by_word(false);
        let undrained = health.usable_since();
        assert!(undrained >= before);
        health.drained_by_word(false);
        assert_eq!(health.usable_since(), undrained, "that has changed nothing");
        health.change(Status::Down, false, "down".into());
        assert_eq!(health.usable_since(), undrained);
        health.change(Status::Up, false, "up".into());
        assert!(health.usable_since() >= undrained);
    }

    #[test]
    fn probes_are_counted_and_good_ones_only_in_a_row() {
        let health = Health::new(Status::Up);
        for (well, ended, good) in [(true, 1, 1), (true, 2, 2), (false, 3, 0), (true, 4, 1)] {
            health.probed(well);
            assert_eq!(health.probes(), Probes { ended, good });
        }
    }

    #[test]
    fn every_status_survives_its_number() {
        for status in [Status::Starting, Status::Up, Status::Down, Status::Unchecked] {
            assert_eq!(Health::new(status).verdict(), status);
        }
    }
}
