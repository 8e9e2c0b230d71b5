//! What is counted of connections that are carried. Plain atomics, which outlive reloads with what they belong to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// Of a server.
#[derive(Debug, Default)]
pub struct Carrying {
    /// Connections that it took.
    pub connections: AtomicU64,
    /// Attempts to reach it that failed.
    pub failures: AtomicU64,
    pub active: AtomicU32,
    pub to_server: AtomicU64,
    pub to_client: AtomicU64,
}

/// A connection that is open now, until dropped.
#[derive(Debug)]
pub struct Open(Arc<Carrying>);

impl Open {
    pub fn begin(of: &Arc<Carrying>) -> Self {
        of.connections.fetch_add(1, Ordering::Relaxed);
        of.active.fetch_add(1, Ordering::Relaxed);
        Self(of.clone())
    }

    pub fn counters(&self) -> &Carrying {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection came to no route, or got no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    NotTls,
    Malformed,
    TooLong,
    /// The client left before its hello was whole.
    Closed,
    /// Its hello did not come in time.
    Late,
    /// It has no name, or one that no route takes.
    NoRoute,
}

/// Of an entrypoint.
#[derive(Debug, Default)]
pub struct Hellos([AtomicU64; Lost::ALL.len()]);

impl Lost {
    pub const ALL: [Self; 6] =
        [Self::NotTls, Self::Malformed, Self::TooLong, Self::Closed, Self::Late, Self::NoRoute];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Closed => "closed",
            Self::Late => "late",
            Self::NoRoute => "no_route",
        }
    }
}

impl Hellos {
    pub fn count(&self, why: Lost) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, by name.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        Lost::ALL.into_iter().map(Lost::name).zip(&self.0)
    }

    /// Those that occurred.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        Lost::ALL
            .into_iter()
            .map(|why| (why.name().to_owned(), self.0[why as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
