//! What people see of it: who has switched what, and how much was told and heard. Written by the control side.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ledger::Ledger;

#[derive(Debug, Default)]
pub struct Board {
    ledger: ArcSwap<Ledger>,
    standing: Mutex<Option<Standing>>,
    pub counts: Counts,
}

/// Since the daemon began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Switches of this host's that were written, and of others' that were taken up.
    pub told: AtomicU64,
    pub taken: AtomicU64,
    /// Switches of others that could not be taken up.
    pub refused: AtomicU64,
    /// Values in the store that can't be understood.
    pub passed_over: AtomicU64,
    /// Servers that were told of as failing, and servers that were probed since others told of them.
    pub hints_told: AtomicU64,
    pub hints_taken: AtomicU64,
}

/// How it is with the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why it is away. `None`: it is there.
    pub away: Option<String>,
    /// Why this host may not write there.
    pub forbidden: Option<String>,
    /// Whether keys are shared, or why not: a sentence for people.
    pub keys: String,
}

/// What this host and the others of its fleet tell each other beside the configuration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SharedStatus {
    /// Why nothing is heard from the others and told to them. `None`: the store is there.
    pub away: Option<String>,
    /// Switches that the others don't know yet.
    pub unsaid: usize,
    /// Whether the keys of sticky cookies and session tickets are the fleet's, or why not.
    pub keys: String,
    /// Switches of this host's that the others were told of.
    pub switches_told: u64,
    /// Switches of others that were taken up here.
    pub switches_taken: u64,
    /// Switches of others that could not be taken up here.
    pub switches_refused: u64,
    /// Servers that this host told of as failing.
    pub hints_told: u64,
    /// Servers that were probed at once since another host told that they fail.
    pub hints_taken: u64,
    /// Values in the store that can't be understood.
    pub passed_over: u64,
}

// === impl Board ===

impl Board {
    pub fn show(&self, ledger: &Ledger) {
        self.ledger.store(Arc::new(ledger.clone()));
    }

    /// `None`: this host is in no fleet.
    pub fn stand(&self, standing: Option<Standing>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The host at which something was switched that is on. `None`: here, for this host alone.
    pub fn origin(&self, name: &str) -> Option<String> {
        self.ledger.load().origin(name).map(str::to_owned)
    }

    /// `None`: this host is in no fleet.
    pub fn status(&self) -> Option<SharedStatus> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(SharedStatus {
            away: standing.away.or(standing.forbidden),
            unsaid: self.ledger.load().unsaid(),
            keys: standing.keys,
            switches_told: count(&self.counts.told),
            switches_taken: count(&self.counts.taken),
            switches_refused: count(&self.counts.refused),
            hints_told: count(&self.counts.hints_told),
            hints_taken: count(&self.counts.hints_taken),
            passed_over: count(&self.counts.passed_over),
        })
    }
}

// === impl Counts ===

impl Counts {
    pub fn add(counter: &AtomicU64, so_many: usize) {
        counter.fetch_add(so_many as u64, Ordering::Relaxed);
    }
}
