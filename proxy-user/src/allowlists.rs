//! Allowlists that keep themselves current: fetched, doubted, put into force, kept on disk.
//!
//! ```text
//!   schedule ─► fetch ─► format ─► judge ─► control side applies, as a reload does ─► store
//!                 │         │         │                      │
//!                 ╰─────────┴─────────┴── anything wrong ────┴──► the last good list stays in force
//! ```
//!
//! [`format`], [`judge`] and [`schedule`] are pure. [`keeper`] runs one task for each list that is in use; they live on
//! the control side, and know nothing of workers or the kernel. What may be asked about the lists is on the [`Board`].

pub mod fetch;
pub mod format;
pub mod judge;
pub mod keeper;
pub mod schedule;
pub mod store;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::config::model::{Allowlist, ListSource};
use judge::Diff;

/// A list as it was fetched, whole and believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    pub source: ListSource,
    /// One for each URL of the source, in that order.
    pub parts: Vec<Part>,
    /// When the source last said that this is the list.
    pub confirmed: Timestamp,
}

/// What one URL brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub etag: Option<String>,
    pub prefixes: Vec<IpNet>,
}

/// What came of a fetch that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The source has no other list than the one in force.
    Unchanged,
    Changed(Diff),
}

/// A request to fetch now.
#[derive(Debug)]
pub struct Ask {
    /// Take a list that has shrunken more than its limit allows.
    pub accept_shrunken: bool,
    pub answer: oneshot::Sender<Result<Outcome, String>>,
}

/// What is known about the lists that are fetched: written by the control side, read by the admin API.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<Arc<str>, Standing>>);

/// How things stand with one list.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub good: Option<Arc<Good>>,
    /// Whether `good` comes from the disk, and no fetch has confirmed it since the daemon began.
    pub from_disk: bool,
    pub last_fetch: Option<Timestamp>,
    /// Why the last fetch failed. `None`: it didn't, or there was none.
    pub last_error: Option<String>,
    pub next_refresh: Option<Timestamp>,
    /// Fetches that failed since the daemon began.
    pub failures: u64,
    asks: Option<mpsc::Sender<Ask>>,
}

/// Why a list can't be fetched now.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing fetches it: it has no source, or no entrypoint uses it.
    NotFetched,
    /// The configuration changed under the fetch, or the daemon ends.
    Gone,
}

/// Who is on `list` when `good` was fetched last.
pub fn in_force(list: &Allowlist, good: Option<&Good>) -> Vec<IpNet> {
    let floor = list.fetch.as_ref().map_or(&[][..], |fetch| &fetch.floor);
    let fetched: Vec<IpNet> = good.map_or_else(|| floor.to_vec(), Good::prefixes);
    let mut seen = HashSet::new();
    let mut prefixes: Vec<IpNet> = list.written.iter().copied().chain(fetched).collect();
    prefixes.retain(|prefix| seen.insert(*prefix));
    prefixes
}

// === impl Good ===

impl Good {
    /// All parts together, sorted, each once.
    pub fn prefixes(&self) -> Vec<IpNet> {
        let all: BTreeSet<IpNet> = self.parts.iter().flat_map(|part| part.prefixes.iter().copied()).collect();
        all.into_iter().collect()
    }
}

// === impl Board ===

impl Board {
    pub fn standing(&self, list: &str) -> Option<Standing> {
        self.lock().get(list).cloned()
    }

    pub fn good(&self, list: &str) -> Option<Arc<Good>> {
        self.lock().get(list)?.good.clone()
    }

    /// The names of the lists that something fetches.
    pub fn fetched(&self) -> Vec<Arc<str>> {
        let board = self.lock();
        let mut names: Vec<_> = board
            .iter()
            .filter(|(_, standing)| standing.asks.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }

    /// Fetches a list now, whatever its schedule says.
    ///
    /// # Errors
    /// When it is not one that is fetched.
    pub async fn ask(&self, list: &str, accept_shrunken: bool) -> Result<Result<Outcome, String>, NoAnswer> {
        let asks = self.lock().get(list).and_then(|standing| standing.asks.clone());
        let asks = asks.ok_or(NoAnswer::NotFetched)?;
        let (answer, answered) = oneshot::channel();
        asks.send(Ask { accept_shrunken, answer }).await.map_err(|_| NoAnswer::Gone)?;
        answered.await.map_err(|_| NoAnswer::Gone)
    }

    /// `good` is in force from now on.
    pub fn took(&self, list: &Arc<str>, good: Arc<Good>) {
        let mut board = self.lock();
        let standing = board.entry(list.clone()).or_default();
        standing.good = Some(good);
        standing.from_disk = false;
    }

    fn found_on_disk(&self, list: &Arc<str>, good: Good) {
        let mut board = self.lock();
        let standing = board.entry(list.clone()).or_default();
        standing.good = Some(Arc::new(good));
        standing.from_disk = true;
    }

    fn attempted(&self, list: &Arc<str>, at: Timestamp, error: Option<String>, next: Option<Timestamp>) {
        let mut board = self.lock();
        let standing = board.entry(list.clone()).or_default();
        standing.last_fetch = Some(at);
        standing.failures += u64::from(error.is_some());
        standing.last_error = error;
        standing.next_refresh = next;
    }

    fn fetched_by(&self, list: &Arc<str>, asks: mpsc::Sender<Ask>) {
        self.lock().entry(list.clone()).or_default().asks = Some(asks);
    }

    /// Nothing fetches the list any more. What it brought stays known: a later configuration may have it again.
    fn not_fetched(&self, list: &str) {
        if let Some(standing) = self.lock().get_mut(list) {
            standing.asks = None;
            standing.next_refresh = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
