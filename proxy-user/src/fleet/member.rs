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

/// How a host stands with its store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The endpoint, or why there is none.
    pub store: Option<Result<String, String>>,
    pub current: Option<Current>,
    /// It was asked, and nothing is current there.
    pub nothing: bool,
    pub standing: Standing,
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
    /// Packets that the gate dropped, and when they were counted.
    drops: Mutex<Option<(Instant, u64)>>,
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
    pub async fn figures(&self) -> Figures {
        let Some(state) = self.state.get().and_then(Weak::upgrade) else { return Figures::default() };
        let Some(running) = state.running() else { return Figures::default() };
        let snapshot = running.load_full();
        let drops = self.drops(&snapshot.config).await;
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

    async fn drops(&self, config: &Config) -> u64 {
        let known = *self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, drops)) = known.filter(|(at, _)| at.elapsed() < DROPS) {
            return drops;
        }
        let bpffs = config.kernel.bpffs.clone();
        let observed = tokio::task::spawn_blocking(move || kernel::observe(&bpffs)).await;
        // No gate, or no right to look: nothing is dropped that is known of.
        let status = observed.ok().and_then(Result::ok).flatten();
        let of = |entrypoint: &kernel::status::EntrypointStatus| -> u64 {
            entrypoint.dropped.values().map(|tally| tally.packets).sum()
        };
        let drops = status.iter().flat_map(|status| &status.entrypoints).map(of).sum();
        *self.drops.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), drops));
        drops
    }
}
