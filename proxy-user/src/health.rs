//! Which servers may get work: what probes and live traffic say of each, and what is made of it.
//!
//! A server's health is shared: workers write its liveness clock and read its status with plain atomics; the
//! control side runs one [`watcher`] per server, which alone changes the status, by the rules of [`tracker`].
//! Health outlives a reload: it belongs to the service's name and the server's address.

pub mod probe;
pub mod tracker;
pub mod watcher;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock::Moment;

/// May a server get work?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not probed yet: no work until the first probe has spoken.
    Starting,
    Up,
    Down,
    /// The service has no health check: always given work, and only the request itself finds out.
    Unchecked,
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
        }
    }
}

/// What is known of one server.
#[derive(Debug)]
pub struct Health {
    status: AtomicU8,
    /// The liveness clock: when a byte last came from the server, by traffic or by probe.
    last_byte: AtomicU64,
    /// Counts the times that the server fell silent and was taken out for it. A request that waits for an answer
    /// since an earlier count is waiting in vain.
    silences: AtomicU32,
    suspected: AtomicBool,
    /// When it last became one that gets work.
    usable_since: AtomicU64,
    wake: Notify,
    changed: Notify,
    last_change: Mutex<Change>,
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
            status: AtomicU8::new(status as u8),
            last_byte: AtomicU64::new(0),
            silences: AtomicU32::new(0),
            suspected: AtomicBool::new(false),
            usable_since: AtomicU64::new(0),
            wake: Notify::new(),
            changed: Notify::new(),
            last_change: Mutex::new(Change { at: Timestamp::now(), why: "not probed yet".into() }),
        }
    }

    /// When it last became one that gets work: it came up, or its drain was undone. A server that had work from the start has
    /// had it since the clock began.
    pub fn usable_since(&self) -> Moment {
        Moment(self.usable_since.load(Ordering::Relaxed))
    }

    pub fn status(&self) -> Status {
        match self.status.load(Ordering::Relaxed) {
            0 => Status::Starting,
            1 => Status::Up,
            2 => Status::Down,
            _ => Status::Unchecked,
        }
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

    /// Whether a suspicion waits to be looked into.
    pub fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Only the server's watcher changes its status.
    pub(crate) fn change(&self, status: Status, silent: bool, why: String) {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) =
            Change { at: Timestamp::now(), why };
        if status.usable() && !self.status().usable() {
            self.usable_since.store(Moment::now().0, Ordering::Relaxed);
        }
        self.status.store(status as u8, Ordering::Release);
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
    fn every_status_survives_its_number() {
        for status in [Status::Starting, Status::Up, Status::Down, Status::Unchecked] {
            assert_eq!(Health::new(status).status(), status);
        }
    }
}
