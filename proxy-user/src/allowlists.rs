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

use crate::{
    config::model::{Allowlist, Config, ListSource},
    control::guard::Session,
};
use judge::Diff;
use store::Store;

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

/// What an operator says to a fetch, where a schedule says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Take a list that has shrunken more than its limit allows.
    pub accept_shrunken: bool,
    /// Take a list that locks somebody out.
    pub force: bool,
    /// Where the operator sits.
    pub operator: Option<Session>,
}

/// A request to fetch now.
#[derive(Debug)]
pub struct Ask {
    pub terms: Terms,
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
    /// Whether the disk was asked for a last good list.
    looked: bool,
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

    /// Puts into a configuration that is about to be judged or to run what is known of its lists: from fetches, else from
    /// the disk. A list that comes from another source than it used to keeps its last good members until the first fetch.
    pub fn fill(&self, config: &mut Config) {
        let store = Store::within(&config.state.dir);
        for list in config.allowlists.iter_mut().filter(|list| list.fetch.is_some()) {
            if self.never_looked(&list.name) {
                self.look_on_disk(&store, &list.name);
            }
            list.prefixes = in_force(list, self.good(&list.name).as_deref());
        }
    }

    /// From here on only fetches change the list; and a damaged file is complained of once.
    fn never_looked(&self, list: &Arc<str>) -> bool {
        let mut board = self.lock();
        !std::mem::replace(&mut board.entry(list.clone()).or_default().looked, true)
    }

    fn look_on_disk(&self, store: &Store, list: &Arc<str>) {
        match store.load(list) {
            Ok(Some(good)) => self.found_on_disk(list, good),
            Ok(None) => {}
            Err(fault) => {
                tracing::warn!(
                    "allowlist `{list}`: the last good list is not used: {fault}; it is fetched anew, remove the file \
                     if this stays"
                );
            }
        }
    }

    /// Fetches a list now, whatever its schedule says.
    ///
    /// # Errors
    /// When it is not one that is fetched.
    pub async fn ask(&self, list: &str, terms: Terms) -> Result<Result<Outcome, String>, NoAnswer> {
        let asks = self.lock().get(list).and_then(|standing| standing.asks.clone());
        let asks = asks.ok_or(NoAnswer::NotFetched)?;
        let (answer, answered) = oneshot::channel();
        asks.send(Ask { terms, answer }).await.map_err(|_| NoAnswer::Gone)?;
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

    /// A task fetches the list from now on. What went wrong before it was another one's trouble.
    fn fetched_by(&self, list: &Arc<str>, asks: mpsc::Sender<Ask>) {
        let mut board = self.lock();
        let standing = board.entry(list.clone()).or_default();
        standing.asks = Some(asks);
        standing.last_error = None;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::model::Fetch, tls::certificates::ServerAuthorities};

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn source() -> ListSource {
        ListSource { urls: vec![http::Uri::from_static("https://a.example/")], json: Vec::new() }
    }

    fn list(written: &[&str], floor: &[&str]) -> Allowlist {
        let fetch = Fetch {
            source: source(),
            refresh: None,
            timeout: Duration::from_secs(1),
            shrink_limit: 50,
            authorities: ServerAuthorities::System,
            floor: nets(floor),
        };
        Allowlist {
            name: "l".into(),
            prefixes: Vec::new(),
            written: nets(written),
            fetch: Some(fetch),
            cdn: false,
        }
    }

    fn good(prefixes: &[&str]) -> Good {
        let part = Part { etag: None, prefixes: nets(prefixes) };
        Good { source: source(), parts: vec![part], confirmed: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn what_is_written_stays_and_the_floor_gives_way_to_what_is_fetched() {
        let list = list(&["192.0.2.7/32", "10.0.0.0/8"], &["198.18.0.0/15", "10.0.0.0/8"]);
        assert_eq!(in_force(&list, None), nets(&["192.0.2.7/32", "10.0.0.0/8", "198.18.0.0/15"]));
        let fetched = good(&["203.0.113.0/24", "192.0.2.7/32"]);
        assert_eq!(in_force(&list, Some(&fetched)), nets(&["192.0.2.7/32", "10.0.0.0/8", "203.0.113.0/24"]));
    }

    #[tokio::test]
    async fn a_list_that_nothing_fetches_cannot_be_refreshed() {
        let board = Board::default();
        assert_eq!(board.ask("l", Terms::default()).await, Err(NoAnswer::NotFetched));
        let (asks, asked) = mpsc::channel(1);
        board.fetched_by(&"l".into(), asks);
        assert_eq!(board.fetched(), ["l".into()]);
        drop(asked);
        assert_eq!(board.ask("l", Terms::default()).await, Err(NoAnswer::Gone));
        board.not_fetched("l");
        assert_eq!(board.ask("l", Terms::default()).await, Err(NoAnswer::NotFetched));
    }

    #[test]
    fn a_list_from_the_disk_is_known_as_such_until_a_fetch_confirms_it() {
        let (board, name) = (Board::default(), Arc::from("l"));
        board.found_on_disk(&name, good(&["192.0.2.0/24"]));
        assert!(board.standing("l").is_some_and(|standing| standing.from_disk));
        board.took(&name, Arc::new(good(&["192.0.2.0/24"])));
        assert!(board.standing("l").is_some_and(|standing| !standing.from_disk));
        board.attempted(&name, Timestamp::UNIX_EPOCH, Some("no".to_owned()), None);
        let standing = board.standing("l").unwrap_or_default();
        assert_eq!((standing.failures, standing.last_error.as_deref()), (1, Some("no")));
        assert!(standing.good.is_some(), "a failure takes nothing away");
    }
}
