//! Who gets no new work because somebody said so: servers of services, and this host itself.
//!
//! What was said is kept by names, outlives the daemon ([`store`]) and holds until it is undone, also for a server that leaves
//! the configuration and comes back. Workers never ask here: [`Drains::mark`] notes it in each server's health, where a pick
//! looks anyway. That a server drains because its health answers ask for it is noted there too, and is nobody's word to keep.

pub mod store;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::service::Service;

/// That something was drained, and what is known of why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    pub since: Timestamp,
    pub by: By,
    /// The user who said so, if it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Which command it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// `weir drain`
    Operator,
    /// `weir roll`, which undoes it by itself if all goes well.
    Roll,
}

/// A server by its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub service: String,
    /// As logs and `weir status` spell it.
    pub server: String,
}

/// All that is drained by somebody's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainList {
    pub host: Option<Word>,
    pub servers: BTreeMap<Name, Word>,
}

/// The list that holds. One and the same for all snapshots.
#[derive(Debug, Default)]
pub struct Drains {
    list: ArcSwap<DrainList>,
    pub host: HostDrain,
}

/// Whether this host wants no more connections.
#[derive(Debug, Default)]
pub struct HostDrain {
    on: AtomicBool,
    begins: Notify,
}

// === impl By ===

impl By {
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Roll => "roll",
        }
    }
}

// === impl Name ===

impl Name {
    pub fn of(service: &str, server: &str) -> Self {
        Self { service: service.to_owned(), server: server.to_owned() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.server)
    }
}

// === impl Drains ===

impl Drains {
    pub fn list(&self) -> Arc<DrainList> {
        self.list.load_full()
    }

    /// Makes this the list that holds; [`Self::mark`] has the servers of what runs follow.
    pub fn set(&self, list: DrainList) {
        self.host.set(list.host.is_some());
        self.list.store(Arc::new(list));
    }

    /// Notes in these servers what is said of them.
    pub fn mark<'a>(&self, services: impl IntoIterator<Item = &'a Arc<Service>>) {
        let list = self.list();
        for service in services {
            for server in &service.servers {
                let name = Name::of(&service.name, &server.label);
                server.health.drained_by_word(list.servers.contains_key(&name));
            }
        }
    }
}

// === impl HostDrain ===

impl HostDrain {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    fn set(&self, on: bool) {
        self.on.store(on, Ordering::Release);
        if on {
            self.begins.notify_waiters();
        }
    }

    /// A successor takes all connections from here on: those that are here are told to end, as if the host drained.
    pub fn leave(&self) {
        self.set(true);
    }

    /// Resolves as soon as the host drains.
    pub async fn begins(&self) {
        // Registered before the look, so that nothing falls between the two.
        let begins = self.begins.notified();
        if !self.is_on() {
            begins.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn word(why: &str) -> Word {
        Word {
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            by: By::Operator,
            who: None,
            why: Some(why.to_owned()),
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_host_to_drain_is_told_also_if_it_does_already() {
        let drains = Arc::<Drains>::default();
        let waiting = tokio::spawn({
            let drains = drains.clone();
            async move { drains.host.begins().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && !drains.host.is_on());
        drains.set(DrainList { host: Some(word("kernel update")), ..DrainList::default() });
        waiting.await.unwrap();
        drains.host.begins().await;
        drains.set(DrainList::default());
        assert!(!drains.host.is_on());
    }
}
