//! Which servers may get work: what probes and live traffic say of each, and what is made of it.
//!
//! A server's health is shared: workers write its liveness clock and read its status with plain atomics; the
//! control side runs one [`watcher`] per server, which alone changes the verdict, by the rules of [`tracker`]. What
//! requests meet may leave a server out for a while ([`ejection`]), or a whole service ([`breaker`]).
//! Health outlives a reload: it belongs to the service's name and the server's address.

pub mod breaker;
pub mod ejection;
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
    suspected: AtomicBool,
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
}

/// The last change of status, for people.
#[derive(Debug, Clone)]
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
            suspected: AtomicBool::new(false),
            wake: Notify::new(),
            changed: Notify::new(),
            last_change: Mutex::new(Change { at: Timestamp::now(), why: "not probed yet".into() }),
            ejection: Ejection::default(),
            probe_took: AtomicU32::new(0),
            kernel_reports: AtomicU32::new(0),
            unacknowledged: AtomicBool::new(false),
        }
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

    /// Whether a suspicion waits to be looked into.
    pub fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Only the server's watcher changes its status.
    pub(crate) fn change(&self, status: Status, silent: bool, why: String) {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) =
            Change { at: Timestamp::now(), why };
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
    fn every_status_survives_its_number() {
        for status in [Status::Starting, Status::Up, Status::Down, Status::Unchecked] {
            assert_eq!(Health::new(status).verdict(), status);
        }
    }
}
