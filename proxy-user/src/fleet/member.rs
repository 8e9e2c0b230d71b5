//! This daemon as a host of a fleet: where the provider of documents, which speaks to the store, and the control side, which
//! knows what became of them, find each other. One for the whole process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::report::{Figures, Standing};
use crate::{
    config::model::Config, control::state::ControlState, health::Status, kernel, store::layout::Current,
};

/// What became of a generation.
pub type Outcome = (u64, Result<(), String>);

/// How many hosts there are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hosts {
    pub there: usize,
    /// They were there once.
    pub gone: usize,
}

/// What of a host ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// All: nobody serves there any more.
    Host,
    /// One process: another one speaks for the host from now on.
    Process,
}

/// How a host stands with its store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The endpoint, or why there is none.
    pub store: Option<Result<String, String>>,
    pub current: Option<Current>,
    /// It was asked, and nothing is current there.
    pub nothing: bool,
    pub standing: Standing,
    /// How many there are.
    pub hosts: Option<Hosts>,
}

/// Whether this daemon speaks for its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Voice {
    #[default]
    Speaks,
    /// Another daemon of this host is about to take over, or to fail at it: until then nothing is said and nothing is kept.
    StandsStill,
    /// It ends, or another one speaks for the host.
    Leaves(Ends),
}

#[derive(Debug, Default)]
pub struct Member {
    state: OnceLock<Weak<ControlState>>,
    /// It is no daemon: somebody wants to see what the store means for this host.
    only_looks: bool,
    /// By provider.
    outcomes: Mutex<HashMap<Arc<str>, watch::Sender<Option<Outcome>>>>,
    /// How it stands with its fleet's store.
    seen: Mutex<Option<Seen>>,
    drops: Arc<Mutex<Drops>>,
    voice: watch::Sender<Voice>,
}

/// Packets that the gate dropped.
#[derive(Debug, Default)]
struct Drops {
    counted: u64,
    /// When that was asked for last.
    asked: Option<Instant>,
}

/// How old that figure may be: to count is to open the kernel's maps.
const DROPS: Duration = Duration::from_secs(10);

impl Member {
    /// One that says nothing to the store, and leaves on disk what a daemon keeps there.
    #[must_use]
    pub fn onlooker() -> Self {
        Self { only_looks: true, ..Self::default() }
    }

    pub fn only_looks(&self) -> bool {
        self.only_looks
    }

    /// From now on it has figures. Only the first call counts.
    pub fn runs(&self, state: &Arc<ControlState>) {
        let _ = self.state.set(Arc::downgrade(state));
    }

    /// Whether it may tell the store of this host, and keep what is known: it runs, and no other daemon does.
    pub fn speaks(&self) -> bool {
        let runs = || self.state.get().and_then(Weak::upgrade).is_some_and(|state| state.running().is_some());
        *self.voice.borrow() == Voice::Speaks && runs()
    }

    /// Another daemon of this host may be about to take over.
    pub fn stand_still(&self, still: bool) {
        self.voice.send_replace(if still { Voice::StandsStill } else { Voice::Speaks });
    }

    /// From now on this daemon doesn't speak for the host.
    pub fn leave(&self, ends: Ends) {
        self.voice.send_replace(Voice::Leaves(ends));
    }

    /// Resolves when it doesn't any more.
    pub fn left(&self) -> impl Future<Output = Ends> + Send + use<> {
        let mut voice = self.voice.subscribe();
        async move {
            loop {
                if let Voice::Leaves(ends) = *voice.borrow_and_update() {
                    return ends;
                }
                if voice.changed().await.is_err() {
                    // The member outlives every provider.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Tells the provider of this name what became of what it gave last.
    pub fn tell(&self, provider: &Arc<str>, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        // Replaced also where nobody listens yet.
        outcomes.entry(provider.clone()).or_default().send_replace(Some(outcome));
    }

    /// What becomes of what the provider of this name gives from now on.
    pub fn listen(&self, provider: &Arc<str>) -> watch::Receiver<Option<Outcome>> {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = outcomes.entry(provider.clone()).or_default();
        sender.send_replace(None);
        sender.subscribe()
    }

    pub fn see(&self, seen: &Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.clone());
    }

    /// `None`: it is in no fleet, or has only begun.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it is now; nothing is known before it runs.
    pub fn figures(&self) -> Figures {
        let Some(state) = self.state.get().and_then(Weak::upgrade) else { return Figures::default() };
        let Some(running) = state.running() else { return Figures::default() };
        let snapshot = running.load_full();
        let drops = self.drops(&snapshot.config);
        let sum = |of: fn(&crate::snapshot::EntrypointCounters) -> u64| {
            snapshot.entrypoints.iter().map(|entrypoint| of(&entrypoint.counters)).sum()
        };
        let servers = snapshot.services.iter().flat_map(|service| &service.servers);
        let down = servers.clone().filter(|server| server.health.status() == Status::Down).count();
        Figures {
            ready: crate::admin::ready::document(&state).ready,
            draining: state.is_draining(),
            requests: sum(|counters| counters.requests.load(Ordering::Relaxed)),
            failed: sum(|counters| counters.failed.load(Ordering::Relaxed)),
            drops,
            servers: servers.count(),
            servers_down: down,
        }
    }

    /// As they were counted last. To count is to open the kernel's maps, which nobody waits for.
    fn drops(&self, config: &Config) -> u64 {
        let mut known = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if known.asked.is_none_or(|asked| asked.elapsed() >= DROPS) {
            known.asked = Some(Instant::now());
            let (bpffs, drops) = (config.kernel.bpffs.clone(), self.drops.clone());
            tokio::task::spawn_blocking(move || {
                // No gate, or no right to look: nothing is dropped that is known of.
                let status = kernel::observe(&bpffs).ok().flatten();
                let of = |entrypoint: &kernel::status::EntrypointStatus| -> u64 {
                    entrypoint.dropped.values().map(|tally| tally.packets).sum()
                };
                let counted = status.iter().flat_map(|status| &status.entrypoints).map(of).sum();
                drops.lock().unwrap_or_else(PoisonError::into_inner).counted = counted;
            });
        }
        known.counted
    }
}
